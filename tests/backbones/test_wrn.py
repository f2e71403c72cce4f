"""The wide residual network against its definition and the paper's counts."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from slopes import assert_slope
from torch import Tensor, nn

from fewshot.backbones import WRN28_10
from fewshot.engine.modes import How
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import MAML


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def count(**arguments: int) -> int:
    with torch.device("meta"):
        network = WRN28_10(3, 32, **arguments)
    return sum(p.numel() for p in network.parameters()) + 10 * network.out_features + 10


def test_it_has_the_size_of_the_paper() -> None:
    # the table of CIFAR-10 results, in millions, with the linear layer to 10 classes
    assert count() == 36_479_194
    assert round(count() / 1e6, 1) == 36.5
    for depth, width, millions in (
        (40, 4, 8.9),
        (16, 8, 11.0),
        (22, 8, 17.2),
        (28, 12, 52.5),
        (40, 1, 0.6),
    ):
        assert count(depth=depth, width=width) / 1e6 == pytest.approx(millions, abs=0.06)


def test_it_has_the_layers_of_the_paper() -> None:
    with torch.device("meta"):
        network = WRN28_10(3)
    assert network.out_features == 640
    kernels = [m.kernel_size[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert (kernels.count(3), kernels.count(1), len(kernels)) == (25, 3, 28)


def norm_relu(maps: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Batch normalisation by the batch's own statistics and ReLU, written out."""
    centred = maps - maps.mean((0, 2, 3), keepdim=True)
    normal = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    scale, shift = (weights[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
    return (normal * scale + shift).clamp(min=0)


@pytest.mark.parametrize("size", [16, 21])
def test_the_features_are_those_of_the_definition(size: int) -> None:
    network = WRN28_10(2, size, depth=16, width=1).double()
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:  # scales and shifts that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    w = dict(network.named_parameters())
    x = torch.rand(4, 2, size, size, dtype=torch.float64, requires_grad=True)
    maps = F.conv2d(x, w["first.weight"], padding=1)
    for block in range(6):
        stride = 2 if block in (2, 4) else 1  # the first of the second and third group
        active = norm_relu(maps, w, f"blocks.{block}.norm1")
        inside = F.conv2d(
            active, w[f"blocks.{block}.convolution1.weight"], stride=stride, padding=1
        )
        inside = norm_relu(inside, w, f"blocks.{block}.norm2")
        # 16 filters all through the first group: with k = 1 its input passes as it is
        beside = (
            maps
            if block % 2 or block == 0
            else F.conv2d(active, w[f"blocks.{block}.shortcut.weight"], stride=2)
        )
        maps = beside + F.conv2d(inside, w[f"blocks.{block}.convolution2.weight"], padding=1)
    expected = norm_relu(maps, w, "norm").mean((2, 3))
    features = network(x)
    assert features.shape == (4, network.out_features) == (4, 64)
    torch.testing.assert_close(features, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((f * direction).sum(), [x, *w.values()]) for f in (features, expected)
    ]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)


def test_dropout_acts_between_the_convolutions_in_training_only() -> None:
    network = WRN28_10(1, 8, depth=10, width=2, dropout=0.5)
    plain = WRN28_10(1, 8, depth=10, width=2)
    plain.load_state_dict(network.state_dict())
    x = torch.rand(6, 1, 8, 8)
    assert torch.equal(network.eval()(x), plain.eval()(x))
    seen: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.train()(x)
    # what goes into the second convolution of a block is half dropped, beside the half that the
    # ReLU leaves out
    zeros = [(maps == 0).double().mean().item() for maps in seen]
    assert zeros[2] == pytest.approx(0.75, abs=0.08)
    assert zeros[1] == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_it_adapts_by_second_order_maml(how: How) -> None:
    network = WRN28_10(1, 8, depth=10, width=1)
    learner = MAML(
        network, task={"kind": "classification", "way": 2}, inner_steps=2, episode_parallel=how
    ).double()

    def examples(a_class: int) -> Examples:
        labels = torch.arange(2).repeat_interleave(a_class).expand(3, -1)
        return Examples(torch.rand(3, 2 * a_class, 1, 8, 8, dtype=torch.float64), labels)

    batch = Episode(examples(1), examples(2))
    parameters = [p for p in learner.parameters() if p.requires_grad]

    def loss() -> Tensor:
        return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).mean()

    assert_slope(loss, parameters, 1e-7)


@pytest.mark.parametrize("depth", [4, 12, 27])
def test_a_depth_that_makes_no_groups_is_an_error(depth: int) -> None:
    with pytest.raises(FewshotError, match=rf"depth is {depth}; set it to 6 n \+ 4"):
        WRN28_10(3, depth=depth)


def test_other_arguments_out_of_range_are_errors() -> None:
    with pytest.raises(FewshotError, match="width is 0; set width >= 1"):
        WRN28_10(3, width=0)
    with pytest.raises(FewshotError, match=r"dropout is 1\.0"):
        WRN28_10(3, dropout=1.0)


def test_other_images_are_an_error() -> None:
    with pytest.raises(
        FewshotError,
        match=r"WRN28_10 was built for images \(3, 8, 8\), the benchmark gives \(1, 8, 8",
    ):
        WRN28_10(3, 8, depth=10, width=1)(torch.rand(2, 1, 8, 8))
