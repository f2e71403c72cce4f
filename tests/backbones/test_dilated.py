"""DilatedNetwork: the classification network's weights, 1/8 of the size, all parameters used."""

import pytest
import torch
from torch import nn
from torchvision import models

from fewshot.backbones import DilatedNetwork
from fewshot.backbones.dilated import dilated_vgg
from fewshot.errors import FewshotError


@pytest.mark.parametrize(("model", "channels", "size"), [("resnet50", 2048, 5), ("vgg16", 512, 4)])
def test_the_maps_have_an_eighth_of_the_size(model: str, channels: int, size: int) -> None:
    network = DilatedNetwork(1, 33, model)
    assert network.map_shape == (channels, size, size)
    maps = network.maps(torch.rand(2, 1, 33, 33))
    assert maps.shape == (2, channels, size, size)
    assert network(torch.rand(2, 1, 33, 33)).shape == (2, network.out_features)
    torch.autograd.backward(maps.square().sum())
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.training


def test_the_weights_are_the_classification_networks() -> None:
    torch.manual_seed(0)
    dilated = DilatedNetwork(3, 16, "resnet50")
    torch.manual_seed(0)
    original = models.resnet50()
    ours = list(dilated.parameters())
    assert all(torch.equal(p, q) for p, q in zip(ours, original.parameters(), strict=False))
    assert len(ours) == len(list(original.parameters())) - 2  # the classifier's


def test_vgg_keeps_its_first_stages_and_ends_linear() -> None:
    layers = list(models.vgg16().features)
    dilated = dilated_vgg(layers)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(dilated[:23](images), nn.Sequential(*layers[:23])(images))
    assert [layer.dilation for layer in dilated if isinstance(layer, nn.Conv2d)][-4:] == [
        (1, 1),
        *[(2, 2)] * 3,
    ]
    assert isinstance(dilated[-1], nn.Conv2d)


def test_what_does_not_dilate_is_refused() -> None:
    with pytest.raises(
        FewshotError, match=r"resnet18 does not dilate .*; choose resnet50 or larger, or vgg16"
    ):
        DilatedNetwork(3, 32, "resnet18")
    with pytest.raises(FewshotError, match=r"mobilenet_v2 does not dilate"):
        DilatedNetwork(3, 32, "mobilenet_v2")
    with pytest.raises(FewshotError, match="no classification network 'resnet5'"):
        DilatedNetwork(3, 32, "resnet5")
    with pytest.raises(FewshotError, match="in_channels is 4"):
        DilatedNetwork(4, 32)
    with pytest.raises(FewshotError, match="use 8 px or more"):
        DilatedNetwork(3, 4)
