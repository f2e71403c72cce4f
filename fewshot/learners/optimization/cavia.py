"""CAVIA: fast context adaptation (Zintgraf et al., arXiv:1810.03642)."""

from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.inner_loop import Weights
from fewshot.errors import FewshotError
from fewshot.learners.optimization.maml import MAML
from fewshot.learners.optimization.network import check_shapes


class Context(nn.Module):
    """The context phi (size,): zero where a task begins; each episode brings its own.

    A forward hook of one layer.
    """

    phi: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("phi", torch.zeros(size), persistent=False)


class Concatenation(Context):
    """Lets the context enter a linear layer as further inputs.

    A layer on x and phi side by side is [V W] [x; phi] + b = (V x + b) + W phi: the layer as it is,
    and a learned linear map of the context added to its output. W begins as torch initialises a
    layer of that many inputs.
    """

    def __init__(self, size: int, layer: nn.Linear) -> None:
        super().__init__(size)
        bound = (layer.in_features + size) ** -0.5
        self.weight = nn.Parameter(torch.empty(layer.out_features, size).uniform_(-bound, bound))

    def forward(self, layer: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
        """Outputs (..., out) with W phi added."""
        return outputs + F.linear(self.phi, self.weight)


class FiLM(Context):
    """Scales and shifts the channels of a layer's output: gamma * h + beta with [gamma.

    Beta] = W phi + b.

    b begins as gamma = 1 and beta = 0, so that the network is at first what it is without context.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__(size)
        self.channels, self.linear = channels, nn.Linear(size, 2 * channels)
        with torch.no_grad():
            self.linear.bias.copy_(torch.arange(2 * channels) < channels)

    def forward(self, layer: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
        """Outputs (n, C, ...), scaled and shifted.

        Raises:
            FewshotError: the layer gives something else.
        """
        if not isinstance(outputs, Tensor) or outputs.shape[1:2] != (self.channels,):
            raise FewshotError(
                f"film_after names a {type(layer).__name__} whose output is not (n,"
                f" {self.channels}, ...); name a module that gives the channels of the layer"
                " before it"
            )
        shape = (1, -1) + (1,) * (outputs.dim() - 2)
        gamma, beta = self.linear(self.phi).view(2, -1)
        scaled: Tensor = gamma.view(shape) * outputs + beta.view(shape)
        return scaled


class CAVIA(MAML):
    """CAVIA: the inner loop adapts a few context values alone, the outer loop all weights.

    Paper: arXiv:1810.03642.

    The context is zero at the start of every task. It enters the network as further inputs of its
    first layer, which must be linear, or scales and shifts the channels of one layer (FiLM).
    Classification and regression. The inner rate applies to the mean support loss, as in the
    paper's code.

    Args:
        backbone: the network from inputs to features.
        num_context: values of the context (the paper: 5 for sinusoids, 100 for images).
        film_after: the module of the backbone whose output (n, C, ...) the context scales and
            shifts, behind its normalisation, which would undo it: ``blocks.2.2`` of Conv4 is the
            paper's place. None: the place that the backbone names (`Backbone.film_after`); where it
            names none, the context is concatenated to the input of its first layer.
        inner_lr: learning rate of the inner loop, on the mean support loss (the paper: 1.0).
        **kwargs: arguments of `MAML`, without `adapt`.
    """

    aliases: ClassVar[tuple[str, ...]] = ("CAML",)
    fixed_arguments = ("adapt",)
    context: Context

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        num_context: Count = 5,
        film_after: str | None = None,
        inner_lr: Positive = 1.0,
        **kwargs: Any,
    ) -> None:
        # no learned parameter adapts
        super().__init__(backbone, inner_lr=inner_lr, adapt=(), **kwargs)
        check_shapes(self.network, type(self).__name__)
        if film_after is None:
            film_after = getattr(self.backbone, "film_after", None)
        if film_after is None:
            self.enters, layer = first_linear(self.backbone)
            self.context = Concatenation(num_context, layer)
        else:
            self.enters = film_after
            self.context = FiLM(num_context, channels_after(self.backbone, film_after))
        self.network.add_module("context", self.context)  # where the inner loop swaps phi
        self.adapted_names, self.head_only = ("context.phi",), False

    def initial_weights(self) -> Weights:
        """The context of a task that nothing is known of: zero."""
        return {"context.phi": self.context.phi}

    def within(self) -> AbstractContextManager[Any]:
        """Inside, the context enters the network."""
        return self.backbone.get_submodule(self.enters).register_forward_hook(self.context)


def first_linear(backbone: nn.Module) -> tuple[str, nn.Linear]:
    """The backbone's first layer with parameters, by name.

    Raises:
        FewshotError: it is not linear, or there is none.
    """
    layers = (
        (n, m)
        for n, m in backbone.named_modules()
        if next(m.parameters(recurse=False), None) is not None
    )
    name, layer = next(layers, ("", backbone))
    if not isinstance(layer, nn.Linear):
        raise FewshotError(
            "CAVIA concatenates the context to the input of a linear layer, but"
            f" {type(backbone).__name__} begins with {name or 'no layer'} ({type(layer).__name__});"
            " set film_after to one of its modules"
        )
    return name, layer


def channels_after(backbone: nn.Module, name: str) -> int:
    """The output channels of module `name`, from the last layer with parameters up to its end.

    Raises:
        FewshotError: there is no such module, no layer before it, or a normalisation that undoes
            FiLM behind it.
    """
    modules = dict(backbone.named_modules())
    names = list(modules)
    inside = [
        place for place, other in enumerate(names) if other == name or other.startswith(name + ".")
    ]
    if not name or not inside:
        leaves = ", ".join(
            n for n, module in modules.items() if next(module.children(), None) is None
        )
        raise FewshotError(
            f"film_after is {name!r}, but the modules of the backbone are {leaves}; name one of"
            " them"
        )
    end = inside[-1] + 1
    parent, behind = modules[name.rpartition(".")[0]], next(iter(names[end:]), "")
    in_sequence = isinstance(parent, nn.Sequential) and modules[behind] in parent.children()
    normalisation = internal("torch.nn.modules.batchnorm._NormBase")
    if in_sequence and isinstance(modules[behind], normalisation):
        raise FewshotError(
            f"film_after is {name}, but {behind} ({type(modules[behind]).__name__}) behind it"
            f" undoes any scale and shift of channels; set film_after to {behind} or later"
        )
    sizes = [
        len(p) for other in names[:end] for p in modules[other].parameters(recurse=False) if p.dim()
    ]
    if not sizes:
        raise FewshotError(
            f"film_after is {name}, but no layer with parameters comes before it; name a later one"
        )
    return sizes[-1]
