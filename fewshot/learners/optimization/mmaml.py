"""Multimodal MAML (Vuorio et al., arXiv:1910.13616)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.optimization.maml import MAML
from fewshot.learners.optimization.network import check_shapes
from fewshot.tasks import Regression


class Modulation(nn.Module):
    """A layer's scale and shift, of which each episode brings its own. A forward hook.

    Args:
        width: outputs of the layer.
    """

    values: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(2 * width), persistent=False)

    def forward(self, layer: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
        """Outputs (..., width), scaled and shifted."""
        scale, shift = self.values.view(2, -1)
        scaled: Tensor = outputs * (1 + scale) + shift
        return scaled


class TaskEncoder(nn.Module):
    """A bidirectional LSTM over the examples of a support; its last state in each direction.

    In plain operations, which ``torch.vmap`` maps over episodes, unlike torch's own.

    Args:
        size: values of an example.
        width: of each direction.
        layers: on one another.
    """

    def __init__(self, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, width, layers, bidirectional=True)

    def forward(self, examples: Tensor) -> Tensor:
        """The encoding (2 * width,) of examples (S, size)."""
        for layer in range(self.lstm.num_layers):
            forwards = self._states(examples, f"l{layer}")
            backwards = self._states(examples.flip(0), f"l{layer}_reverse").flip(0)
            examples = torch.cat([forwards, backwards], 1)
        return torch.cat([forwards[-1], backwards[0]])

    def _states(self, examples: Tensor, suffix: str) -> Tensor:
        """The states (S, width) of one direction of a layer, in the order of its examples."""
        read, keep, bias, more = (
            getattr(self.lstm, f"{name}_{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        inputs = examples @ read.T + (bias + more)
        state = memory = inputs.new_zeros(keep.shape[1])
        states = []
        for row in inputs.unbind(0):
            let_in, forget, new, let_out = (row + keep @ state).chunk(4)
            memory = forget.sigmoid() * memory + let_in.sigmoid() * new.tanh()
            state = let_out.sigmoid() * memory.tanh()
            states.append(state)
        return torch.stack(states)


class MMAML(MAML):
    """MMAML: an encoding of the support modulates the network, which then adapts by MAML.

    For tasks of several kinds, each of which asks for another initialisation. Regression.
    Paper: arXiv:1910.13616.

    A bidirectional LSTM reads the support's inputs and targets in their order; linear layers make
    a scale and a shift of every hidden layer of its last states: h (1 + gamma) + beta, before the
    ReLU (FiLM). The inner loop adapts the modulated network and leaves the modulation alone; the
    outer loop trains all.

    Args:
        backbone: the network from inputs to features, with linear layers.
        inner_lr: learning rate of the inner loop, on the mean support loss (the authors' code:
            0.001).
        inner_steps: gradient steps of the inner loop in training (the authors' code: 5).
        encoding: width of the LSTM, in each direction (the authors' code: 40).
        encoder_layers: its layers (the authors' code: 2).
        inner_gradient_clip: largest norm of an inner step's gradient (the authors' code: 10).
        **kwargs: arguments of `MAML`, without `adapt`.

    Raises:
        FewshotError: the task is no regression, or the backbone has no linear layer.
    """

    fixed_arguments = ("adapt",)
    takes = Regression
    mixes_features = False  # the encoder reads inputs
    judges_nota = False  # values, no classes

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: Positive = 0.001,
        inner_steps: Count = 5,
        encoding: Count = 40,
        encoder_layers: Count = 2,
        inner_gradient_clip: Positive | None = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            inner_gradient_clip=inner_gradient_clip,
            adapt="all",
            **kwargs,
        )
        check_shapes(self.network, type(self).__name__)
        layers = {n: m for n, m in self.backbone.named_modules() if isinstance(m, nn.Linear)}
        if not layers:
            raise FewshotError(
                "MMAML scales and shifts linear layers, of which"
                f" {type(self.backbone).__name__} has none; choose MLP, or MAML"
            )
        self.modulated = tuple(layers)
        first = next(iter(layers.values())).in_features
        outputs = self.task.output_size
        self.encoder = TaskEncoder(first + outputs, encoding, encoder_layers)
        widths = [layer.out_features for layer in layers.values()]
        self.generators = nn.ModuleList(nn.Linear(2 * encoding, 2 * width) for width in widths)
        # where the inner loop swaps the modulation of its episode
        self.modulations = [Modulation(width) for width in widths]
        self.network.add_module("film", nn.ModuleList(self.modulations))

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Descent from the learned initialisation, beside the modulation of this support."""
        fixed = self.modulation(support)
        for weights in self.descend(
            support, self.initial_weights(), steps, self.inner_lr, self.first_order, fixed
        ):
            yield {**weights, **fixed}

    def within(self) -> AbstractContextManager[Any]:
        """Inside, the layers of the backbone are modulated."""
        hooks = ExitStack()
        for name, modulation in zip(self.modulated, self.modulations, strict=True):
            layer = self.backbone.get_submodule(name)
            hooks.enter_context(layer.register_forward_hook(modulation))
        return hooks

    def modulation(self, support: Examples) -> Weights:
        """The scale and shift of each layer, by its name in the network."""
        assert isinstance(support.inputs, Tensor)
        task = self.encoder(torch.cat([support.inputs.flatten(1), support.targets], 1))
        return {f"film.{i}.values": layer(task) for i, layer in enumerate(self.generators)}
