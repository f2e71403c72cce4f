from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import Conv4
from fewshot.errors import FewshotError


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("arguments", "features"),
    [
        ({"image_size": 28}, 8 * 1 * 1),
        ({"image_size": 84}, 8 * 5 * 5),
        ({"image_size": 16}, 8 * 1 * 1),
        ({"image_size": 28, "downsample": "stride"}, 8 * 2 * 2),
        ({"image_size": 84, "downsample": "stride"}, 8 * 6 * 6),
        ({"image_size": 84, "output": "mean"}, 8),
        ({"image_size": 28, "downsample": "stride", "output": "mean"}, 8),
        ({"image_size": 20, "norm": "group"}, 8),
        ({"image_size": 20, "norm": "none"}, 8),
    ],
)
def test_the_features_are_as_many_as_stated(arguments: dict[str, Any], features: int) -> None:
    network = Conv4(3, width=8, **arguments)
    size = arguments["image_size"]
    assert network.out_features == features
    assert network(torch.rand(2, 3, size, size)).shape == (2, features)


@pytest.mark.parametrize("downsample", ["pool", "stride"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("output", ["flatten", "mean"])
def test_the_features_are_those_of_the_definition(downsample: Any, norm: Any, output: Any) -> None:
    # convolution, normalisation, ReLU and then pooling, in one-line operations; value and gradient
    network = Conv4(2, 36, 8, downsample, output, norm).double()
    x = torch.rand(4, 2, 36, 36, dtype=torch.float64, requires_grad=True)
    maps: Tensor = x
    for block in network.blocks:
        assert isinstance(block, nn.Sequential)
        layers = list(block)
        weight, bias = layers[0].weight, layers[0].bias
        assert (bias is None) == (norm != "none")
        assert isinstance(weight, Tensor)
        maps = F.conv2d(maps, weight, bias, stride=2 if downsample == "stride" else 1, padding=1)  # type: ignore[arg-type]
        if norm == "batch":
            mean = maps.mean((0, 2, 3), keepdim=True)
            maps = (maps - mean) / (
                (maps - mean).square().mean((0, 2, 3), keepdim=True) + 1e-5
            ).sqrt()
        elif norm == "group":  # 8 groups of 1 channel
            mean = maps.mean((2, 3), keepdim=True)
            maps = (maps - mean) / ((maps - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        maps = maps.relu()
        if downsample == "pool":
            maps = F.max_pool2d(maps, 2)
    expected = maps.mean((2, 3)) if output == "mean" else maps.flatten(1)
    features = network(x)
    torch.testing.assert_close(features, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(expected)
    inputs = [x, *(p for name, p in network.named_parameters() if name.endswith(".0.weight"))]
    gradients = [
        torch.autograd.grad((f * direction).sum(), inputs, retain_graph=True)
        for f in (features, expected)
    ]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


def test_the_memory_format_of_the_images_does_not_matter() -> None:
    network, x = Conv4(3, 32, width=8), torch.rand(4, 3, 32, 32)
    one, two = network(x), network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(one, two)
    # channel by channel
    assert one[0, :4].tolist() == network(x)[0].view(8, 2, 2).flatten()[:4].tolist()
    expected = network.blocks(x).contiguous().flatten(1)
    torch.testing.assert_close(one, expected)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "image_size is 0; set image_size >= 1"),
        (1, "image_size 1 leaves nothing; use 16 px or more"),
        (15, "image_size 15 leaves nothing; use 16 px or more"),
    ],
)
def test_images_that_pooling_leaves_nothing_of_are_an_error(size: int, message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        Conv4(1, size)
    if size == 15:
        assert Conv4(1, size, width=8, downsample="stride").out_features == 8


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (2, 3, 28, 20), (2, 28, 28)])
def test_other_images_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        FewshotError,
        match=r"built for images \(3, 28, 28\), the benchmark gives .*; set in_channels",
    ):
        Conv4(3, 28, width=8)(torch.rand(shape))


def test_a_dict_is_an_error() -> None:
    with pytest.raises(FewshotError, match="the benchmark gives a dict"):
        Conv4(3, 28, width=8)({"tokens": torch.zeros(2, 3)})


@pytest.mark.parametrize(
    ("width", "norm", "message"),
    [
        (0, "batch", "width is 0; set width >= 1"),
        (12, "group", "width is 12; for norm group set it to a multiple of 8"),
    ],
)
def test_a_wrong_width_is_an_error(width: int, norm: Any, message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        Conv4(3, 28, width=width, norm=norm)
