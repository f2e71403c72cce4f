"""Segmentation by MAML's family: feature maps and a 1x1 convolution, maths as in classification."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from slopes import assert_slope
from torch import Tensor, nn
from torch.func import functional_call

from fewshot.backbones import MLP, Conv4
from fewshot.episodes.types import Episode, Examples, episode, stack
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, BOIL, CAVIA, FOMAML, IMAML, MAML, MAMLPlusPlus, MetaSGD, Reptile
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.tasks.masks import IGNORED, pixel_loss

SIZE, TASK = 8, {"kind": "segmentation", "way": 2}
FAMILY = (MAML, FOMAML, ANIL, BOIL, MetaSGD, MAMLPlusPlus, Reptile, IMAML)


def meta_batch(episodes: int = 2, seed: int = 0) -> Episode:
    generator = torch.Generator().manual_seed(seed)

    def part(number: int) -> Examples:
        masks = torch.randint(0, 3, (number, SIZE, SIZE), generator=generator)
        masks[torch.rand(masks.shape, generator=generator) < 0.1] = IGNORED
        return Examples(
            torch.rand(number, 3, SIZE, SIZE, generator=generator, dtype=torch.float64), masks
        )

    return stack([Episode(part(4), part(3)) for _ in range(episodes)])


def build(cls: type[OptimizationLearner] = MAML, **kwargs: Any) -> OptimizationLearner:
    torch.manual_seed(0)
    network = Conv4(3, SIZE, 4, pooled_blocks=1)
    return cls(network, task=TASK, inner_steps=2, **kwargs).double()


def by_hand(learner: OptimizationLearner, one: Episode, rate: float) -> Tensor:
    """The query loss of two gradient steps on the pixels' mean loss, in plain autograd."""
    # modules
    network = nn.Sequential(learner.backbone.blocks, learner.head)  # type: ignore[arg-type]
    weights: dict[str, Tensor] = dict(network.named_parameters())

    def loss(weights: dict[str, Tensor], part: Examples) -> Tensor:
        logits = F.interpolate(
            functional_call(network, weights, (part.inputs,)), SIZE, mode="bilinear"
        )
        return F.cross_entropy(logits, part.targets, ignore_index=IGNORED)

    for _ in range(2):
        gradients = torch.autograd.grad(
            loss(weights, one.support), list(weights.values()), create_graph=True
        )
        weights = {n: w - rate * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
    return loss(weights, one.query)


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_maml_is_what_is_written_out_with_its_gradient(how: Any) -> None:
    learner, batch = build(inner_lr=0.2, episode_parallel=how), meta_batch()
    parameters = [*learner.backbone.parameters(), *learner.head.parameters()]
    losses = torch.cat([outcome.loss for outcome in learner.run(batch, training=True)])
    expected = torch.stack([by_hand(learner, episode(batch, i), 0.2) for i in range(2)])
    torch.testing.assert_close(losses, expected)
    found = torch.autograd.grad(losses.sum(), parameters)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), parameters))


def test_the_meta_gradient_is_that_of_finite_differences() -> None:
    learner, batch = build(inner_lr=0.2), meta_batch(1)

    def loss() -> Tensor:
        return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).sum()

    assert_slope(loss, list(learner.parameters()), 1e-6)


@pytest.mark.parametrize("cls", FAMILY)
def test_the_whole_family_segments(cls: type[OptimizationLearner]) -> None:
    learner, batch = build(cls, eval_curve="all"), meta_batch()
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum())
    assert all(p.grad is not None for p in learner.head.parameters())
    found = learner.evaluate(batch)
    assert found.outputs.shape == (2, 3, 3, 4, 4)
    assert {
        "union_1",
        "intersection_foreground_step0",
        "union_background_step2",
    } <= found.metrics.keys()
    one = episode(batch, 0)
    logits = learner.predict(learner.adapt(one.support), one.query.inputs)
    assert logits.shape == (3, 3, SIZE, SIZE)
    torch.testing.assert_close(pixel_loss(logits, one.query.targets), found.loss[0])


def test_cavia_scales_feature_maps() -> None:
    network = Conv4(3, SIZE, 4, pooled_blocks=1)
    learner = CAVIA(network, task=TASK, film_after="blocks.2.2", num_context=3).double()
    assert learner.evaluate(meta_batch()).outputs.shape == (2, 3, 3, 4, 4)


def test_the_results_have_a_curve_of_miou() -> None:
    learner, batch = build(eval_curve="all"), meta_batch()
    outcome = learner.evaluate(batch)
    found = learner.task.estimates(
        {
            "loss": outcome.loss,
            **outcome.metrics,
            **learner.task.marks(batch.query, outcome.outputs),
        }
    )
    assert {"miou", "miou_step0", "miou_step2", "fb_iou_step1", "iou_0", "iou_1"} <= found.keys()
    assert found["miou"] == found["miou_step2"]


def test_networks_without_maps_and_heads_of_another_size_are_refused() -> None:
    with pytest.raises(
        FewshotError, match="MAML labels pixels and needs feature maps, but MLP has features alone"
    ):
        MAML(MLP(4), task=TASK)
    learner = build(head=nn.Conv2d(4, 2, 1))
    with pytest.raises(FewshotError, match="the head Conv2d gives 2 outputs, but the task needs 3"):
        learner.evaluate(meta_batch())


def test_a_head_of_ones_own_reads_the_maps() -> None:
    learner = build(
        head=nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    )
    assert learner.evaluate(meta_batch()).outputs.shape == (2, 3, 3, 4, 4)
