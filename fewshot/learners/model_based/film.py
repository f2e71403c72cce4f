"""A network fitted to a task by scaling and shifting channels: FiLM (arXiv:1709.07871)."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from fewshot.backbones.base import checked_features
from fewshot.engine.own_checkpoints import call_with
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError, check_choice
from fewshot.learners.model_based.process import perceptron

Film = dict[str, Tensor]
"""Scales and shifts in the place of a network's own, by the names of its parameters."""

FilmIn: TypeAlias = Literal["all", "blocks"]

SHORTCUTS = ("downsample", "shortcut")
"""What residual blocks call the module beside their main path, torchvision's and ours."""

# of the numbers that modulations are multiplied by, at first (arXiv:1906.07697)
REGULARISER_DEVIATION = 0.001


class Norm(NamedTuple):
    """A batch normalisation with scale and shift, by its name in the network, and its channels."""

    name: str
    channels: int


def modulated_norms(network: nn.Module, where: FilmIn = "all") -> list[Norm]:
    """The batch normalisations of a network that FiLM scales and shifts.

    Args:
        network: the backbone.
        where: `all` of them, or those on the main path of residual `blocks`: neither the stem's nor
            a shortcut's.

    Raises:
        FewshotError: there is none.
    """
    check_choice("film_in", where, get_args(FilmIn))
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    norms = [
        Norm(n, m.num_features)
        for n, m in network.named_modules()
        if isinstance(m, kinds) and m.affine
    ]
    if not norms:
        raise FewshotError(
            f"{type(network).__name__} has no batch normalisation to scale and shift; choose a"
            " backbone with it, such as TorchvisionBackbone (resnet18), ResNet12 or Conv4"
        )
    return norms if where == "all" else _inside_blocks(network, norms)


def _inside_blocks(network: nn.Module, norms: list[Norm]) -> list[Norm]:
    """Those of `norms` that lie on the main path of a block with a shortcut.

    Blocks are told by what they call their shortcut, which some have for None.
    """
    blocks, shortcuts = [], []
    for name, module in network.named_modules():
        for shortcut in set(SHORTCUTS) & {*vars(module), *dict(module.named_children())}:
            prefix = f"{name}." if name else ""
            blocks.append(prefix)
            shortcuts.append(f"{prefix}{shortcut}.")
    inside = [
        norm
        for norm in norms
        if norm.name.startswith(tuple(blocks)) and not norm.name.startswith(tuple(shortcuts))
    ]
    if not inside:
        raise FewshotError(
            f"{type(network).__name__} has no residual blocks with batch normalisation; set"
            " film_in: all, or choose a backbone with them, such as TorchvisionBackbone (resnet18)"
        )
    return inside


class FilmGenerator(nn.Module):
    """Generates the scale 1 + gamma and shift beta of all batch norm channels from a task.

    For each normalisation a perceptron of three layers gives both. They are multiplied by learned
    numbers that start near zero, so that the network starts as it was pre-trained, and whose
    squares are penalised. In the authors' code the scale and the shift have residual perceptrons of
    their own, behind a first layer that a stage's normalisations share.

    Args:
        norms: the normalisations.
        task_features: length of what a task is encoded to.
    """

    def __init__(self, norms: list[Norm], task_features: int) -> None:
        super().__init__()
        self.norms = norms
        self.perceptrons = nn.ModuleList(perceptron([task_features, c, c, 2 * c]) for _, c in norms)
        self.regularisers = nn.ParameterList(
            REGULARISER_DEVIATION * torch.randn(2 * c) for _, c in norms
        )

    def forward(self, task: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Gamma and beta (C,) of each normalisation by name, for a task (task_features,)."""
        parts = zip(self.norms, self.perceptrons, self.regularisers, strict=True)
        return {norm.name: tuple((module(task) * size).chunk(2)) for norm, module, size in parts}

    def penalty(self) -> Tensor:
        """The sum of the squared multipliers."""
        return torch.stack([size.square().sum() for size in self.regularisers]).sum()


def modulate(network: nn.Module, modulations: dict[str, tuple[Tensor, Tensor]]) -> Film:
    """The scales and shifts that make ``(1 + gamma) * norm(x) + beta`` of each ``norm(x)``."""
    parameters = dict(network.named_parameters())
    film: Film = {}
    for name, (gamma, beta) in modulations.items():
        scale, shift = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        film[f"{name}.weight"] = (1 + gamma) * scale
        film[f"{name}.bias"] = (1 + gamma) * shift + beta
    return film


def features_under(network: nn.Module, film: Film, inputs: Inputs) -> Tensor:
    """Features (n, D) of inputs (n, ...) by the network with other scales and shifts."""
    return checked_features(call_with(network, film, inputs), network, inputs)
