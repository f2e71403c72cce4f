"""Meta-dropout (Lee et al., arXiv:1905.12914): learned noise perturbs what is adapted to."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Loss, Weights
from fewshot.engine.mixing import unmixed
from fewshot.engine.own_checkpoints import surrounded
from fewshot.engine.randomness import content_seed, standard_normal
from fewshot.episodes.types import Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.optimization.meta_mix import MixesQueries
from fewshot.learners.optimization.network import check_shapes
from fewshot.tasks import Classification, Regression

SPREAD = 0.02  # of the generators' first weights, as in the authors' code


class Draw(NamedTuple):
    """Which noise perturbs: a seed () and a number, perhaps with the inputs that it perturbs."""

    seed: Tensor
    number: int
    inputs: Any = None


class LearnedNoise(nn.Module):
    """The generators of a network's noise: of each layer as of the head.

    A layer's output is multiplied by softplus(alpha + e), where alpha is what the layer's own
    generator, of its kind, makes of its input, and e is standard normal. The head's output is
    increased by softplus(s) e, with one s an example. Where nothing is drawn e is 0.

    Args:
        backbone: whose convolutions and linear layers are perturbed.
        head: from features to outputs.
        features: D.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, features: int) -> None:
        super().__init__()
        layers = [m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        # not submodules: they are the network's
        object.__setattr__(self, "layers", [*layers, head])
        self.generators = nn.ModuleList(map(_generator, layers))
        self.generators.append(_generator(nn.Linear(features, 1)))
        self.draw: Draw | None = None

    def hooks(self) -> AbstractContextManager[Any]:
        """Inside, the layers' outputs are scaled, and perturbed where noise is drawn."""
        stack = ExitStack()
        layers = cast(list[nn.Module], self.layers)
        for place, (layer, generator) in enumerate(zip(layers, self.generators, strict=True)):
            stack.enter_context(layer.register_forward_hook(self._hook(place, generator)))
        return stack

    def _hook(self, place: int, generator: nn.Module) -> Callable[..., Tensor]:
        last = place == len(self.generators) - 1

        def hook(layer: nn.Module, args: tuple[Any, ...], outputs: Tensor) -> Tensor:
            if last:
                if self.draw is None:
                    return outputs
                return outputs + F.softplus(generator(args[0])) * self._normal(place, outputs)
            alpha = generator(args[0])
            if self.draw is not None:
                alpha = alpha + self._normal(place, alpha)
            return outputs * F.softplus(alpha)

        return hook

    def _normal(self, place: int, like: Tensor) -> Tensor:
        assert self.draw is not None
        return standard_normal(
            self.draw.seed, self.draw.number * len(self.generators) + place, like
        )

    @contextmanager
    def drawn(self, draw: Draw) -> Iterator[None]:
        """Inside, noise is drawn."""

        def again(function: Callable[..., Any], *args: Any) -> Any:
            with self.drawn(draw):
                return function(*args)

        before, self.draw = self.draw, draw._replace(inputs=None)
        try:
            with surrounded(again):
                yield
        finally:
            self.draw = before


def _generator(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """A layer of the same kind and sizes that makes next to nothing of its input."""
    made = copy.deepcopy(layer)
    made.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
    nn.init.normal_(made.weight, std=SPREAD)
    return made.requires_grad_()


class PerturbsFeatures(MixesQueries):
    """A learner whose inner loop may adapt to examples that learned noise perturbs.

    Meta-dropout (arXiv:1905.12914): the output of each convolution and linear layer of the backbone
    is multiplied by softplus(alpha + e), e standard normal, and the head's output has learned noise
    added. What makes alpha of a layer's input is learned by the outer loop alone. Queries have
    e = 0. What is drawn is a function of the support and of the inner step.

    Args:
        backbone: the network from inputs to features.
        meta_dropout: let the inner loop adapt to examples that learned noise perturbs
            (meta-dropout, arXiv:1905.12914), at each layer of the backbone and after the head.
        meta_dropout_samples: draws of noise over which an inner step's loss is a mean, at
            validation, test and use (the authors' code: 30); training takes one.
        **kwargs: arguments of `MixesQueries`.

    Raises:
        FewshotError: the learner, or its task, takes no such noise.
    """

    takes_noise: ClassVar[bool] = False
    """Whether the class itself, no subclass of it, is made for meta-dropout."""
    noise: LearnedNoise | None

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        meta_dropout: bool = False,
        meta_dropout_samples: Count = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if meta_dropout and not vars(type(self)).get("takes_noise"):
            raise FewshotError(
                f"meta_dropout is for MAML, BOIL, MetaSGD and TAML, not for"
                f" {type(self).__name__}; choose one of these, or leave meta_dropout out"
            )
        if meta_dropout and not isinstance(self.task, Classification | Regression):
            raise FewshotError(
                "meta_dropout is for classification and regression, but the benchmark's task is"
                f" {self.task.kind}; leave meta_dropout out"
            )
        if meta_dropout_samples > 1 and not meta_dropout:
            raise FewshotError(
                f"meta_dropout_samples is {meta_dropout_samples}, but nothing is drawn; set"
                " meta_dropout: true, or leave it out"
            )
        self.noise = None
        self.meta_dropout, self.meta_dropout_samples = meta_dropout, meta_dropout_samples

    def make_noise(self, compiled: object) -> None:
        """Make what is learned of the noise, once there is a network.

        Raises:
            FewshotError: the head alone adapts, or the loop is to be compiled.
        """
        if not self.meta_dropout:
            return
        if compiled:
            raise FewshotError(
                "meta_dropout draws by integers that wrap around at 64 bits, which the compiler"
                " does not take; set compile: false"
            )
        name = type(self).__name__
        check_shapes(self.network, f"{name} with meta_dropout")
        if self.head_only:
            raise FewshotError(
                f"meta_dropout perturbs layers that adapt, but {name} adapts the head alone; leave"
                " meta_dropout out, or set adapt: all"
            )
        self.noise = LearnedNoise(self.backbone, self.head, self.features)
        self.network.add_module("noise", self.noise)

    def within(self) -> AbstractContextManager[Any]:
        """Inside, the layers of the network are scaled and perturbed."""
        return super().within() if self.noise is None else self.noise.hooks()

    def forward_with(self, weights: Weights, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of embedded inputs, perturbed where a draw comes with them."""
        if not isinstance(inputs, Draw):
            return super().forward_with(weights, inputs)
        assert self.noise is not None
        with self.noise.drawn(inputs):
            return super().forward_with(weights, inputs.inputs)

    def support_losses(
        self, support: Examples, fixed: Weights | None = None
    ) -> Callable[[int, Weights], Loss]:
        """The mean loss of each inner step on its examples, over draws of the noise."""
        if self.noise is None:
            return super().support_losses(support, fixed)
        seed = content_seed(unmixed(support).inputs)
        samples = 1 if self.backbone.training else self.meta_dropout_samples
        perturbed = super().support_losses

        def loss_of(step: int, weights: Weights) -> Loss:
            draws = [Draw(seed, step * samples + i, support.inputs) for i in range(samples)]
            losses = [
                perturbed(support._replace(inputs=cast(Inputs, draw)), fixed)(step, weights)
                for draw in draws
            ]
            return lambda fast: torch.stack([loss(fast) for loss in losses]).mean()

        return loss_of
