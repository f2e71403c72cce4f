"""Networks in channels last make no map in the other layout, whatever images they are given."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewshot import Conv4, ResNet12
from fewshot.backbones import Backbone
from fewshot.backbones.channels_last import channels_last


def maps_of_layers(network: Backbone, weights: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """What each normalisation layer is given."""
    maps: list[Tensor] = []
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: maps.append(given[0])) for layer in layers
    ]
    functional_call(network, weights, images)
    for hook in hooks:
        hook.remove()
    assert len(maps) == len(layers)
    return maps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("adapted", [False, True], ids=["as made", "adapted"])
@pytest.mark.parametrize("cls", [Conv4, ResNet12])
def test_all_maps_lie_channels_last(
    cls: type[Conv4] | type[ResNet12], adapted: bool, channels: int
) -> None:
    network: Backbone = (
        Conv4(channels, 32, width=8)
        if cls is Conv4
        else ResNet12(channels, 32, widths=[8, 8, 8, 8])
    )
    weights: dict[str, Tensor] = dict(network.named_parameters())
    images = torch.rand(2, channels, 32, 32)
    if adapted:  # gradients have strides of their own
        gradients = torch.autograd.grad(network(images).sum(), list(weights.values()))
        weights = {
            name: w - 0.1 * g for (name, w), g in zip(weights.items(), gradients, strict=True)
        }
    for maps in maps_of_layers(network, weights, images):
        assert maps.is_contiguous(memory_format=torch.channels_last)
        assert not maps.is_contiguous()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_images_stay_the_same(memory_format: torch.memory_format, channels: int) -> None:
    images = torch.rand(2, channels, 4, 6).contiguous(memory_format=memory_format)
    same = channels_last(images)
    assert torch.equal(same, images)
    assert same.stride() == (24 * channels, 1, 6 * channels, channels)
    copied = channels == 3 and memory_format == torch.contiguous_format
    assert (same.data_ptr() != images.data_ptr()) == copied
