"""Adapters: small weights beside those of a network, which stay as they are.

They hang on the layers as hooks. So a network keeps its classes, and its weights their names.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fewshot.arguments import Count, Positive
from fewshot.engine.own_checkpoints import run_with
from fewshot.errors import FewshotError
from fewshot.hyperparameters import RemembersArguments


class Adapters(RemembersArguments, ABC):
    """Which layers of a network get an adapter, and what it is."""

    layers = ""
    """The layers that have one, in words."""
    maps_features = False
    """Whether a linear map of the features belongs to them."""

    @abstractmethod
    def beside(self, layer: nn.Module) -> nn.Module | None:
        """The adapter of a layer; None where it gets none.

        It is called as a forward hook is: ``adapter(layer, inputs, outputs)`` gives new outputs.
        One with a method `changed` gives new weights of the layer by name instead.
        """

    def of(self, network: nn.Module, features: int) -> "AdapterWeights":
        """The adapters of a network of so many features.

        Raises:
            FewshotError: it has no layer for them, or one without a shape.
        """
        return AdapterWeights(self, network, features)


class LoRA(Adapters):
    """LoRA: a product of two thin matrices beside each linear and attention layer (2106.09685).

    W x + scale * B A x. A begins as linear layers do, B at zero: at first nothing changes.

    Args:
        rank: columns of B.
        scale: what the product is multiplied by, the paper's alpha / rank.
    """

    layers = "linear and attention layers"

    def __init__(self, rank: Count = 4, scale: Positive = 1.0) -> None:
        self.rank, self.scale = rank, scale

    def beside(self, layer: nn.Module) -> nn.Module | None:
        """Two matrices for a linear layer, two for each of an attention's projections."""
        if isinstance(layer, nn.MultiheadAttention):
            return LowRankAttention(layer, self.rank, self.scale)
        if isinstance(layer, nn.Linear):
            return LowRank(layer.out_features, layer.in_features, self.rank, self.scale)
        return None


class TSA(Adapters):
    """TSA: a 1x1 convolution beside each 3x3 one, and a map of the features (arXiv:2107.00358).

    Convolutions begin at 1e-4 times the identity, the linear map before the classifier at the
    identity. The authors' recipe for an episode is `FineTune` with ``head: prototypes``,
    ``descent: adadelta``, 40 `steps`, an `lr` of 0.1 and a `head_lr` of 1.0, which is the map's.
    """

    layers = "3x3 convolutions"
    maps_features = True

    def beside(self, layer: nn.Module) -> nn.Module | None:
        """A 1x1 convolution for a 3x3 one."""
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            return Pointwise(layer)
        return None


class LowRank(nn.Module):
    """The product of two thin matrices, added to what a linear layer gives.

    Args:
        outputs: of the layer.
        inputs: of the layer.
        rank: between the two.
        scale: what the product is multiplied by.
    """

    def __init__(self, outputs: int, inputs: int, rank: int, scale: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = scale
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, layer: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> Tensor:
        """Outputs (..., outputs) of a layer that was given ``inputs[0]`` (..., inputs)."""
        return outputs + F.linear(F.linear(inputs[0], self.down), self.scale * self.up)

    def product(self) -> Tensor:
        """What is added to the layer's weight (outputs, inputs)."""
        return self.scale * self.up @ self.down


class LowRankAttention(nn.Module):
    """Two thin matrices for each projection of torch's attention, which calls no layer for them.

    Args:
        layer: the attention.
        rank: of each product.
        scale: what they are multiplied by.
    """

    def __init__(self, layer: nn.MultiheadAttention, rank: int, scale: float) -> None:
        super().__init__()
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        found = {name: getattr(layer, name) for name in names}
        found["out_proj.weight"] = layer.out_proj.weight
        self.names, self.products = [], nn.ModuleList()
        for name, weight in found.items():
            if weight is None:
                continue
            # query, key and value lie in one weight, and get a product each
            for _ in range(3 if name == "in_proj_weight" else 1):
                self.names.append(name)
                outputs = len(weight) // (3 if name == "in_proj_weight" else 1)
                self.products.append(LowRank(outputs, weight.shape[1], rank, scale))

    def changed(self, layer: nn.Module) -> dict[str, Tensor]:
        """The weights of the attention, by name, with what is added to them."""
        added: dict[str, list[Tensor]] = {}
        for name, product in zip(self.names, self.products, strict=True):
            added.setdefault(name, []).append(product.product())  # type: ignore[operator]
        return {name: layer.get_parameter(name) + torch.cat(parts) for name, parts in added.items()}


class Pointwise(nn.Module):
    """A 1x1 convolution, added to what a 3x3 one gives.

    Args:
        layer: the 3x3 convolution, whose groups, stride and places it has.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        groups = layer.groups
        outputs, inputs = layer.out_channels // groups, layer.in_channels // groups
        kernel = 1e-4 * torch.eye(outputs, inputs).repeat(groups, 1)
        self.weight = nn.Parameter(kernel[..., None, None])

    def forward(self, layer: nn.Conv2d, inputs: tuple[Tensor], outputs: Tensor) -> Tensor:
        """Outputs (n, out, h, w) of a layer that was given ``inputs[0]`` (n, in, H, W)."""
        # each value belongs to the middle of its 3x3 window
        if isinstance(layer.padding, str):
            down, right = (
                (0, 0) if layer.padding == "same" else (-layer.dilation[0], -layer.dilation[1])
            )
        else:
            down, right = (p - d for p, d in zip(layer.padding, layer.dilation, strict=True))
        maps = inputs[0]
        if down or right:
            maps = F.pad(maps, (right, right, down, down))
        return outputs + F.conv2d(maps, self.weight, None, layer.stride, groups=layer.groups)


class AdapterWeights(nn.Module):
    """The adapters of one network.

    Args:
        adapters: of which kind.
        network: whose layers they are for; it is not changed until they are `attached`.
        features: of the network.

    Raises:
        FewshotError: it has no layer for them, or one without a shape.
    """

    def __init__(self, adapters: Adapters, network: nn.Module, features: int) -> None:
        super().__init__()
        kind, name = type(adapters).__name__, type(network).__name__
        if any(isinstance(p, UninitializedParameter) for p in network.parameters()):
            raise FewshotError(
                f"{kind} must know the shapes of all weights, but a layer of {name} has none before"
                " it is run; run the network on an example before"
            )
        self.places, inside = list[str](), tuple[nn.Module, ...]()
        self.beside = nn.ModuleList()
        for place, layer in network.named_modules():
            if any(layer is other for other in inside):  # torch's attention runs it by itself
                continue
            if (adapter := adapters.beside(layer)) is not None:
                self.places.append(place)
                self.beside.append(adapter)
                inside += tuple(layer.children())
        if not self.places:
            raise FewshotError(
                f"{kind} adapts {adapters.layers}, of which {name} has none; choose"
                f" {'TSA' if isinstance(adapters, LoRA) else 'LoRA'}, or leave adapters out"
            )
        self.map = nn.Parameter(torch.eye(features)) if adapters.maps_features else None

    def mapped(self, features: Tensor) -> Tensor:
        """Features (n, D), or maps of them (n, D, h, w), under the linear map."""
        if self.map is None:
            return features
        if features.dim() == 4:
            return F.conv2d(features, self.map[..., None, None])
        return F.linear(features, self.map)

    def attach(self, network: nn.Module) -> list[Callable[[], None]]:
        """Hang the adapters on their layers; gives what takes each of them off again."""
        taken_off = list[Callable[[], None]]()
        for place, adapter in zip(self.places, self.beside, strict=True):
            layer = network.get_submodule(place)
            if hasattr(adapter, "changed"):
                layer.forward = partial(_with_changed, layer, adapter)
                taken_off.append(partial(delattr, layer, "forward"))
            else:
                taken_off.append(layer.register_forward_hook(adapter).remove)
        return taken_off

    @contextmanager
    def attached(self, network: nn.Module) -> Iterator[None]:
        """Inside, the adapters hang on the network's layers."""
        with ExitStack() as stack:
            for take_off in self.attach(network):
                stack.callback(take_off)
            yield


class WithAdapters(nn.Module):
    """A network of features under adapters that hang on it only while it is run.

    Args:
        network: from inputs to features.
        adapters: its own.
    """

    def __init__(self, network: nn.Module, adapters: AdapterWeights) -> None:
        super().__init__()
        self.network, self.adapters = network, adapters

    def forward(self, inputs: Any) -> Tensor:
        """Features (n, D) of inputs (n, ...)."""
        with self.adapters.attached(self.network):
            return self.adapters.mapped(self.network(inputs))


def _with_changed(layer: nn.Module, adapter: Any, *args: Any, **kwargs: Any) -> Any:
    """What a layer gives with the weights that its adapter has changed."""
    forward = partial(type(layer).forward, layer, *args, **kwargs)
    return run_with(layer, adapter.changed(layer), forward)
