"""PANet against a reference written out pixel by pixel from the paper, in float64."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from slopes import assert_slope
from torch import Tensor, nn

from fewshot.backbones import MLP, Colours, Conv4
from fewshot.episodes.types import Episode, Examples, stack
from fewshot.errors import FewshotError
from fewshot.learners import PANet
from fewshot.learners.metric.panet import alignment_loss, prototypes, similarity
from fewshot.tasks.masks import IGNORED, cell_weights

SIZE = 12


def example(way: int, shot: int, queries: int, seed: int = 0) -> Episode:
    """An episode as benchmarks give it: a support has its own class, background, ignored pixels."""
    generator = torch.Generator().manual_seed(seed)

    def masks(number: int) -> Tensor:
        return torch.randint(0, number + 1, (queries * way, SIZE, SIZE), generator=generator)

    own = torch.arange(1, way + 1).repeat_interleave(shot)[:, None, None]
    chance = torch.rand(way * shot, SIZE, SIZE, generator=generator)
    support = torch.where(chance < 0.4, own, torch.where(chance < 0.9, 0, IGNORED))
    images = [
        torch.rand(n, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
        for n in (way * shot, way * queries)
    ]
    return Episode(Examples(images[0], support), Examples(images[1], masks(way)))


def learner(way: int, **kwargs: Any) -> PANet:
    torch.manual_seed(0)
    network = Conv4(3, SIZE, 8, pooled_blocks=1, norm="none")
    return PANet(network, task={"kind": "segmentation", "way": way}, **kwargs).double()


def reference_prototypes(features: Tensor, masks: Tensor, way: int) -> Tensor:
    """Upsample the features, then average them over the pixels of each mask, image by image."""
    large = F.interpolate(features, masks.shape[-2:], mode="bilinear", align_corners=False)
    found = []
    for label in range(way + 1):
        means = [
            torch.stack(
                [one[:, i, j] for i, j in product(range(SIZE), repeat=2) if mask[i, j] == label]
            ).mean(0)
            for one, mask in zip(large, masks, strict=True)
            if (mask == label).any()
        ]
        found.append(torch.stack(means).mean(0))
    return torch.stack(found)


def reference_logits(means: Tensor, features: Tensor) -> Tensor:
    columns = [
        20 * F.cosine_similarity(features, mean[None, :, None, None], dim=1) for mean in means
    ]
    return torch.stack(columns, 1)


def reference_alignment(
    query: Tensor, logits: Tensor, support: Tensor, masks: Tensor, way: int, shot: int
) -> Tensor:
    predicted = logits.argmax(1)

    def mean(label: int) -> Tensor:
        return query.permute(0, 2, 3, 1)[predicted == label].mean(0)

    total = torch.zeros((), dtype=torch.float64)
    for label in range(1, way + 1):
        if not (predicted == label).any():
            continue
        for image in range((label - 1) * shot, label * shot):
            two = reference_logits(torch.stack([mean(0), mean(label)]), support[image : image + 1])
            large = F.interpolate(two, (SIZE, SIZE), mode="bilinear", align_corners=False)
            own = torch.where(masks[image] == label, 1, torch.where(masks[image] == 0, 0, IGNORED))
            total = total + F.cross_entropy(large, own[None], ignore_index=IGNORED) / (way * shot)
    return total


@pytest.mark.parametrize(("way", "shot"), [(1, 1), (1, 3), (2, 2)])
def test_predictions_and_loss_are_the_papers(way: int, shot: int) -> None:
    one = example(way, shot, 2)
    model = learner(way, alignment=0.7)
    assert isinstance(one.query.inputs, Tensor)
    support, query = model.embed(one.support.inputs), model.embed(one.query.inputs)
    means = reference_prototypes(support, one.support.targets, way)
    small = reference_logits(means, query)
    large = F.interpolate(small, (SIZE, SIZE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model.adapt(one.support), means)
    torch.testing.assert_close(model.predict(means, one.query.inputs), large)
    (outcome,) = model.run(stack([one]), training=True)
    loss = F.cross_entropy(large, one.query.targets)
    loss = loss + 0.7 * reference_alignment(query, small, support, one.support.targets, way, shot)
    torch.testing.assert_close(outcome.loss, loss[None])
    (evaluated,) = model.run(stack([one]), training=False)
    torch.testing.assert_close(evaluated.loss[0], F.cross_entropy(large, one.query.targets))


def test_cell_weights_are_the_adjoint_of_bilinear_upsampling() -> None:
    features, masks = (
        torch.randn(2, 3, 4, 5, dtype=torch.float64),
        torch.rand(2, 9, 13, dtype=torch.float64),
    )
    large = F.interpolate(features, (9, 13), mode="bilinear", align_corners=False)
    weights = cell_weights(masks, (4, 5))
    expected = torch.einsum("schw,shw->sc", large, masks)
    torch.testing.assert_close(torch.einsum("schw,shw->sc", features, weights), expected)
    torch.testing.assert_close(weights.sum((1, 2)), masks.sum((1, 2)))


def test_the_gradient_is_that_of_finite_differences() -> None:
    one = stack([example(2, 1, 1)])
    model = learner(2, alignment=0.0)  # which pixels are predicted as what jumps

    def loss() -> Tensor:
        (outcome,) = model.run(one, training=True)
        return outcome.loss.sum()

    assert_slope(loss, list(model.parameters()), 1e-6)


def test_a_meta_batch_is_its_episodes() -> None:
    episodes = [example(2, 2, 1, seed) for seed in range(3)]
    model = learner(2)
    (together,) = model.run(stack(episodes), training=True)
    for i, one in enumerate(episodes):
        (alone,) = model.run(stack([one]), training=True)
        torch.testing.assert_close(together.loss[i], alone.loss[0])
        assert {n: v[i] for n, v in together.metrics.items()} == {
            n: v[0] for n, v in alone.metrics.items()
        }


def test_permuting_the_support_changes_nothing_and_permuting_classes_permutes_logits() -> None:
    one, model = example(3, 2, 1), learner(3)
    assert isinstance(one.support.inputs, Tensor)
    logits = model.predict(model.adapt(one.support), one.query.inputs)
    order = torch.randperm(6)
    shuffled = Examples(one.support.inputs[order], one.support.targets[order])
    torch.testing.assert_close(model.predict(model.adapt(shuffled), one.query.inputs), logits)
    swap = torch.tensor([0, 3, 1, 2])
    table = torch.full((256,), IGNORED)
    table[:4] = swap
    renamed = Examples(one.support.inputs, table[one.support.targets])
    torch.testing.assert_close(
        model.predict(model.adapt(renamed), one.query.inputs)[:, swap], logits
    )


def test_a_class_that_is_nowhere_makes_no_number_infinite() -> None:
    features, masks = torch.randn(2, 3, 4, 4), torch.zeros(2, 8, 8, dtype=torch.int64)
    means = prototypes(features, masks, 2)
    assert torch.equal(means[1:], torch.zeros(2, 3))
    logits = similarity(means, features, 20.0)
    assert logits.isfinite().all()
    assert alignment_loss(features, logits.neg().abs().neg(), features, masks, 20.0).isfinite()


def test_each_pixel_goes_to_the_nearest_colour() -> None:
    image = torch.zeros(1, 3, 4, 4)
    image[:, 0, :, 2:] = 1  # right half red, left half black
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    mask[:, :, 2:] = 1
    model = PANet(Colours(3, 4), task={"kind": "segmentation", "way": 1})
    turned = image.transpose(-1, -2)
    predicted = model.predict(model.adapt(Examples(image, mask)), turned).argmax(1)
    assert torch.equal(predicted, mask.transpose(-1, -2))


def test_what_does_not_fit_is_refused() -> None:
    task = {"kind": "segmentation", "way": 1}
    with pytest.raises(
        FewshotError,
        match="PANet is made for segmentation, but the benchmark's task is classification",
    ):
        PANet(Conv4(3), task={"kind": "classification", "way": 5})
    with pytest.raises(FewshotError, match="needs feature maps, but MLP has features alone"):
        PANet(MLP(4), task=task)
    with pytest.raises(FewshotError, match="set scale > 0"):
        PANet(Conv4(3), scale=0.0, task=task)
    with pytest.raises(FewshotError, match="alignment >= 0"):
        PANet(Conv4(3), alignment=-1.0, task=task)


def test_it_trains_what_it_is_built_on() -> None:
    model: nn.Module = learner(1)
    # a learner
    (outcome,) = model.run(stack([example(1, 1, 1)]), training=True)  # type: ignore[operator]
    torch.autograd.backward(outcome.loss.sum())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
