"""ResNet-12 against its definition, and DropBlock's statistics."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import ResNet12
from fewshot.backbones.resnet12 import DropBlock
from fewshot.engine.modes import How
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import MAML

WIDTHS = (3, 4, 5, 6)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def normalised(maps: Tensor, layer: nn.Module) -> Tensor:
    """Batch normalisation by the batch's own statistics, written out."""
    assert isinstance(layer, nn.BatchNorm2d)
    centred = maps - maps.mean((0, 2, 3), keepdim=True)
    normal = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    return normal * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


def weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is None
    return layer.weight


@pytest.mark.parametrize("size", [32, 21])
def test_the_features_are_those_of_the_definition(size: int) -> None:
    # as the paper draws it: add the shortcut, rectify, pool; value and gradient
    network = ResNet12(2, size, WIDTHS, drop_block=0).double()
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:  # scales and shifts that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    x = torch.rand(4, 2, size, size, dtype=torch.float64, requires_grad=True)
    maps: Tensor = x
    for block in network.blocks:
        inside, beside = list(block.convolutions), list(block.shortcut)  # type: ignore[arg-type]
        straight = normalised(F.conv2d(maps, weight(beside[0])), beside[1])
        for i in (0, 3, 6):
            maps = normalised(F.conv2d(maps, weight(inside[i]), padding=1), inside[i + 1])
            if i < 6:
                maps = torch.where(maps > 0, maps, 0.1 * maps)
        maps = maps + straight
        maps = F.max_pool2d(torch.where(maps > 0, maps, 0.1 * maps), 2)
    expected = maps.mean((2, 3))
    features = network(x)
    torch.testing.assert_close(features, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(expected)
    inputs = [x, *network.parameters()]
    gradients = [torch.autograd.grad((f * direction).sum(), inputs) for f in (features, expected)]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)


def test_it_has_the_layers_and_the_size_of_the_paper() -> None:
    network = ResNet12(3)
    assert network.out_features == 640
    assert (
        sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in network.modules()) == 12
    )
    channels = (3, 64, 160, 320, 640)
    expected = sum(10 * i * o + 18 * o * o + 8 * o for i, o in pairwise(channels))
    assert sum(p.numel() for p in network.parameters()) == expected == 12424320
    rates = [m.rate for m in network.modules() if isinstance(m, DropBlock)]
    assert rates == [0, 0, 0.1, 0.1]
    assert list(ResNet12(3, drop_block=0).state_dict()) == list(network.state_dict())


def test_the_memory_format_of_the_images_does_not_matter() -> None:
    network, x = ResNet12(3, 32, WIDTHS, drop_block=0), torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(network(x), network(x.to(memory_format=torch.channels_last)))


# ---------------------------------------------------------------- DropBlock


def expected_share(rate: float, block: int, side: int) -> float:
    """The share of a map that squares with the paper's gamma cover, overlaps counted once."""
    places = side - block + 1
    gamma = rate * side**2 / (block**2 * places**2)
    covering = [sum(0 <= i - j < block for j in range(places)) for i in range(side)]
    return sum(1 - (1 - gamma) ** (a * b) for a in covering for b in covering) / side**2


@pytest.mark.parametrize(
    ("rate", "block", "side"), [(0.1, 5, 10), (0.1, 5, 5), (0.3, 3, 9), (0.1, 5, 3), (0.2, 1, 4)]
)
def test_drop_block_drops_the_stated_share_and_keeps_the_mean(
    rate: float, block: int, side: int
) -> None:
    maps = torch.rand(100, 640, side, side) + 0.5
    dropped = DropBlock(rate, block)(maps)
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(expected_share(rate, min(block, side), side), abs=0.005)
    assert share == pytest.approx(rate, rel=0.15)  # overlaps are what is missing
    assert dropped.mean().item() == pytest.approx(maps.mean().item(), rel=0.005)
    scale = (dropped / maps)[dropped != 0]
    torch.testing.assert_close(scale, torch.full_like(scale, 1 / (1 - share)), rtol=1e-4, atol=1e-4)


def test_drop_block_drops_whole_squares_within_the_map() -> None:
    dropped = DropBlock(0.05, 3)(torch.ones(40, 30, 8, 8)) == 0
    # every dropped element lies in a square of 3x3 that is dropped as a whole
    squares = -F.max_pool2d(-dropped.float(), 3, stride=1)
    covered = F.max_pool2d(F.pad(squares, [2, 2, 2, 2]), 3, stride=1)
    assert torch.equal(covered, dropped.float())
    assert 0 < dropped.float().mean() < 0.1
    alone = dropped.sum((2, 3))
    assert set(alone[alone > 0].unique().tolist()) >= {9}
    assert alone[alone > 0].min() == 9, "also at the margins"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_drop_block_counts_in_half_precision_too(dtype: torch.dtype) -> None:
    dropped = DropBlock(0.1, 5)(torch.ones(50, 640, 10, 10, dtype=dtype))
    assert dropped.dtype == dtype
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(expected_share(0.1, 5, 10), abs=0.005)
    assert dropped.double().mean().item() == pytest.approx(1, rel=0.01)


def test_drop_block_is_for_training_alone() -> None:
    maps = torch.rand(4, 8, 10, 10)
    assert torch.equal(DropBlock(0.5).eval()(maps), maps)
    assert torch.equal(DropBlock(0.0)(maps), maps)
    network, x = ResNet12(1, 32, WIDTHS, drop_block=0.5), torch.rand(4, 1, 32, 32)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_a_map_that_is_dropped_whole_is_zero() -> None:
    maps = torch.ones(1, 1, 5, 5, requires_grad=True)
    dropped = DropBlock(1 - 1e-9)(maps)
    torch.autograd.backward(dropped.sum())
    assert dropped.tolist() == torch.zeros(1, 1, 5, 5).tolist()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_episodes_drop_squares_of_their_own(parallel: How) -> None:
    network = ResNet12(1, 16, WIDTHS, drop_block=0.3)
    learner = MAML(network, task={"kind": "classification", "way": 2}, episode_parallel=parallel)
    one = Examples(
        torch.rand(4, 1, 16, 16).expand(6, -1, -1, -1, -1), torch.tensor([0, 0, 1, 1]).expand(6, -1)
    )
    batch = Episode(one, one)

    def losses(training: bool) -> Tensor:
        return torch.cat(
            [outcome.loss.detach() for outcome in learner.run(batch, training=training)]
        )

    assert len(set(losses(True).tolist())) == 6, (
        "the same episode six times, each with its own squares"
    )
    learner.eval()
    assert len(set(losses(False).tolist())) == 1
    learner.train()
    torch.autograd.backward(
        torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).sum()
    )
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 15}, "image_size 15 leaves nothing; use 16 px or more"),
        ({"widths": (4, 4, 4)}, r"widths are \[4, 4, 4\]; give four, such as"),
        ({"widths": (4, 4, 0, 4)}, r"widths\[2\] is 0; set widths\[2\] >= 1"),
        ({"drop_block": 1.0}, r"drop_block is 1.0; set drop_block in \[0, 1\)"),
        ({"drop_block": -0.1}, r"drop_block is -0.1; set drop_block in"),
    ],
)
def test_bad_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        ResNet12(**{"in_channels": 1, "image_size": 32, "widths": WIDTHS, **arguments})


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (2, 28, 28)])
def test_other_images_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        FewshotError,
        match=r"ResNet12 was built for images \(3, 28, 28\), the benchmark gives .*; set",
    ):
        ResNet12(3, 28, WIDTHS)(torch.rand(shape))


def test_a_dict_is_an_error() -> None:
    with pytest.raises(FewshotError, match="the benchmark gives a dict"):
        ResNet12(3, 28, WIDTHS)({"tokens": torch.zeros(2, 3)})
