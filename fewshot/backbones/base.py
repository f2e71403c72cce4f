"""The backbone contract: inputs -> features, and constructor arguments a checkpoint can hold."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewshot.engine.compiling.torch_internals import internal
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError
from fewshot.hyperparameters import RemembersArguments


class Backbone(RemembersArguments, nn.Module, ABC):
    """A network from inputs (n, ...) to features (n, out_features).

    Its constructor's arguments must be plain values (numbers, strings, lists, dicts), so that a
    checkpoint can hold them and rebuild the network by itself.
    """

    out_features: int

    pretrained: bool = False
    """Whether its weights were trained before it was made, by whoever published them."""
    film_after: str | None = None
    """The module behind which learners scale and shift channels, where nobody names another."""
    begins_at: Sequence[str] = ()
    """Arguments that say where its weights begin, and nothing of what a checkpoint continues."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of `inputs` (n, ...)."""


def map_shape(network: nn.Module) -> tuple[int, int, int] | None:
    """(C, H, W) of what the method `maps` of `network` gives.

    None where a network has features alone.

    A backbone on images has both: ``maps(inputs)``, its last feature maps (n, C, H, W), and their
    shape `map_shape`.
    """
    shape = getattr(network, "map_shape", None)
    return shape if isinstance(shape, tuple) and hasattr(network, "maps") else None


def needed_map_shape(network: nn.Module, learner: str) -> tuple[int, int, int]:
    """(C, H, W) of the feature maps of `network`, for a `learner` that cannot do without.

    Raises:
        FewshotError: it has features alone.
    """
    if (shape := map_shape(network)) is None:
        raise FewshotError(
            f"{learner} labels pixels and needs feature maps, but {type(network).__name__} has"
            " features alone; choose Conv4, ResNet12 or DilatedNetwork, or give your network a"
            " method maps and an attribute map_shape"
        )
    return shape


def maps_of(network: nn.Module, inputs: Inputs) -> Tensor:
    """The last feature maps (n, C, H, W) of inputs (n, ...), for networks with a `map_shape`.

    Raises:
        FewshotError: the network gives something else.
    """
    maps = network.maps(inputs)  # type: ignore[operator]  # `map_shape` has found it
    shape = network.map_shape
    assert isinstance(shape, tuple)
    remedy = f"have its method maps give maps of its map_shape {shape} for each input"
    with internal("torch._C.DisableTorchFunction")():
        return _checked(maps, network, inputs, (_count(inputs), *shape), remedy)


def features_of(network: nn.Module, inputs: Inputs, axes: int = 1) -> Tensor:
    """Features (n, D) of inputs (n, ...), D the network's `out_features`.

    Args:
        network: a backbone, which may be the user's own.
        inputs: what it takes.
        axes: how many axes of `inputs` stand before those of one input; the features have them too.

    Raises:
        FewshotError: the network gives something else; it is named, with the shape.
    """
    return checked_features(network(inputs), network, inputs, axes)


def checked_features(features: object, network: nn.Module, inputs: Inputs, axes: int = 1) -> Tensor:
    """What `network` has made of `inputs`, checked as in `features_of`."""
    size = network.out_features
    assert isinstance(size, int)  # `MetaLearner` has seen to it
    remedy = f"have its forward give {size} floats, its out_features, for each input"
    with internal("torch._C.DisableTorchFunction")():
        leading = (_count(inputs),) if isinstance(inputs, dict) else inputs.shape[:axes]
        return _checked(features, network, inputs, (*leading, size), remedy)


def _count(inputs: Inputs) -> int:
    # no `len`, which makes a constant of the number where a network is exported
    return (next(iter(inputs.values())) if isinstance(inputs, dict) else inputs).shape[0]


def _checked(
    outputs: object, network: nn.Module, inputs: Inputs, shape: tuple[int, ...], remedy: str
) -> Tensor:
    """What a network has given, if it is a tensor of floats of that shape."""
    name = type(network).__name__
    if not isinstance(outputs, Tensor):
        told = "None" if outputs is None else f"a {type(outputs).__name__}"
        raise FewshotError(f"backbone {name} gives {told}, not one tensor {shape}; {remedy}")
    if outputs.shape != shape:
        raise FewshotError(f"backbone {name} gives {tuple(outputs.shape)}, not {shape}; {remedy}")
    if not outputs.is_floating_point() or (
        outputs.dtype == torch.float64 and not _in_double(network, inputs)
    ):
        raise FewshotError(
            f"backbone {name} gives {outputs.dtype} of shape {shape}, which fits no other weights;"
            " have its forward give its inputs' or its weights' type of floats"
        )
    return outputs


def _in_double(network: nn.Module, inputs: Inputs) -> bool:
    """Whether double precision comes of what a network is or is given, not of a slip in it."""
    given = inputs.values() if isinstance(inputs, dict) else (inputs,)
    tensors = (*given, *network.parameters(), *network.buffers())
    return any(tensor.dtype == torch.float64 for tensor in tensors)


def checked_images(inputs: Inputs, in_channels: int, image_size: int, network: str) -> Tensor:
    """Inputs as they are, checked to be images (n, C, H, W).

    Raises:
        FewshotError: `network` was built for other images, or the inputs are a dict, or whole
            numbers.
    """
    expected = (in_channels, image_size, image_size)
    if not isinstance(inputs, Tensor) or tuple(inputs.shape[1:]) != expected:
        shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else "a dict"
        raise FewshotError(
            f"{network} was built for images {expected}, the benchmark gives {shape};"
            " set in_channels and image_size of the backbone to the benchmark's"
        )
    return _floats(inputs, network)


def flattened(inputs: Inputs, in_features: int, network: str) -> Tensor:
    """Inputs (n, ...) as vectors (n, in_features).

    Raises:
        FewshotError: `network` was built for another number of values, or the inputs are a dict, or
            whole numbers.
    """
    if not isinstance(inputs, Tensor) or inputs[0].numel() != in_features:
        size = inputs[0].numel() if isinstance(inputs, Tensor) else "a dict"
        raise FewshotError(
            f"{network} was built for in_features {in_features}, the benchmark gives {size};"
            " set in_features of the backbone to the benchmark's"
        )
    return _floats(inputs, network).flatten(1)


def _floats(inputs: Tensor, network: str) -> Tensor:
    if not inputs.dtype.is_floating_point:
        raise FewshotError(
            f"{network} reads floats, and its inputs are {inputs.dtype}, as `stream` and datasets"
            " hold images; give it a batch of a loader that has gone through the DataModule's"
            " on_after_batch_transfer, or inputs / 255"
        )
    return inputs


def check_dropout(rate: float) -> None:
    """Check that `rate` is a share below 1.

    Raises:
        FewshotError: it is not.
    """
    if not 0 <= rate < 1:
        raise FewshotError(f"dropout is {rate}; it must be in [0, 1)")


def dropout_layer(rate: float) -> nn.Module:
    """Dropout at `rate`.

    Nothing at 0, because `torch.vmap` refuses ``nn.Dropout(0.0)`` as if it were random.

    Raises:
        FewshotError: the rate is no share below 1.
    """
    check_dropout(rate)
    return nn.Dropout(rate) if rate else nn.Identity()
