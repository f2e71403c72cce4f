"""IoU pooled over episodes, and the pixels' loss, against values by hand or by torchmetrics."""

import math
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import fake_camvid
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from fewshot.datamodules import CamVidDataModule
from fewshot.episodes.types import Episode, Examples, episode, stack
from fewshot.errors import FewshotError
from fewshot.tasks import Segmentation, make_task
from fewshot.tasks.estimates import estimate
from fewshot.tasks.masks import IGNORED, Iou, at_size, overlaps, pixel_loss, pooled


def random_masks(
    seed: int, episodes: int, way: int, classes: int
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Logits and masks of some episodes, and which classes the labels stand for."""
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(2, way + 1, 5, 7, generator=generator) for _ in range(episodes)]
    masks = [torch.randint(0, way + 1, (2, 5, 7), generator=generator) for _ in range(episodes)]
    for mask in masks:
        mask[torch.rand(mask.shape, generator=generator) < 0.2] = IGNORED
    marks = torch.stack(
        [torch.randperm(classes, generator=generator)[:way] for _ in range(episodes)]
    )
    return logits, masks, marks


def table(
    task: Segmentation, logits: list[Tensor], masks: list[Tensor], marks: Tensor
) -> dict[str, Tensor]:
    """The columns that a learner's evaluation collects."""
    rows = [task.metrics(one, mask) for one, mask in zip(logits, masks, strict=True)]
    columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    images = torch.zeros(len(masks), 1)
    return columns | task.marks(Examples(images, torch.stack(masks), marks), torch.stack(logits))


def written_out(
    logits: list[Tensor], masks: list[Tensor], marks: Tensor, classes: int
) -> tuple[float, float, dict[int, float]]:
    """MIoU, FB-IoU and class IoUs, pixel by pixel summed over episodes (as HSNet and PANet)."""
    inter: dict[Any, int] = {}
    union: dict[Any, int] = {}
    for one, mask, mark in zip(logits, masks, marks.tolist(), strict=True):
        for true, given_ in zip(
            mask.flatten().tolist(), one.argmax(1).flatten().tolist(), strict=True
        ):
            if true == IGNORED:
                continue
            names = {0: "none", **{label: mark[label - 1] for label in range(1, len(mark) + 1)}}
            for key, a, b in [
                *((name, names[true] == name, names[given_] == name) for name in range(classes)),
                ("fg", true > 0, given_ > 0),
                ("bg", true == 0, given_ == 0),
            ]:
                inter[key] = inter.get(key, 0) + (a and b)
                union[key] = union.get(key, 0) + (a or b)
    ious = {name: inter[name] / union[name] for name in range(classes) if union[name]}
    return (
        float(np.mean(list(ious.values()))),
        (inter["fg"] / union["fg"] + inter["bg"] / union["bg"]) / 2,
        ious,
    )


@pytest.mark.parametrize("way", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_miou_and_fb_iou_are_the_written_out_sums_over_all_episodes(seed: int, way: int) -> None:
    logits, masks, marks = random_masks(seed, 6, way, 5)
    task = Segmentation(way, tuple("abcde"))
    found = task.estimates(table(task, logits, masks, marks))
    miou, fb_iou, ious = written_out(logits, masks, marks, 5)
    assert found["miou"].mean == pytest.approx(miou, abs=1e-12)
    assert found["fb_iou"].mean == pytest.approx(fb_iou, abs=1e-12)
    named = {name: value.mean for name, value in found.items() if name.startswith("iou_")}
    assert named == pytest.approx(
        {f"iou_{'abcde'[place]}": iou for place, iou in ious.items()}, abs=1e-12
    )


def panets(
    logits: list[Tensor], masks: list[Tensor], marks: Tensor, classes: int
) -> tuple[float, float]:
    """PANet's mIoU and binary IoU as its paper's code defines them, written out.

    True and false positives and false negatives of each class, 0 for the background, are summed
    over images that have the class; binary IoU takes the sum over classes for the foreground.
    """
    sums = np.zeros((classes + 1, 3))
    for one, mask, mark in zip(logits, masks, marks.tolist(), strict=True):
        for given_, true in zip(one.argmax(1), mask, strict=True):
            for j, label in enumerate([0, *(place + 1 for place in mark)]):
                counted = (given_ == j) & (true != IGNORED)
                predicted = {tuple(p) for p in counted.nonzero().tolist()}
                there = {tuple(p) for p in (true == j).nonzero().tolist()}
                if there:
                    counts = predicted & there, predicted - there, there - predicted
                    sums[label] += [len(pixels) for pixels in counts]
    with np.errstate(invalid="ignore"):
        ious = sums[1:, 0] / sums[1:].sum(1)
    binary = [row[0] / row.sum() for row in (sums[0], sums[1:].sum(0))]
    return float(np.nanmean(ious)), float(np.mean(binary))


@pytest.mark.parametrize("way", [1, 2, 3])
def test_panets_definition_is_that_of_its_code(way: int) -> None:
    logits, masks, marks = random_masks(0, 6, way, 5)
    for mask in masks[:4]:  # images without one of the labels, and one without background
        mask[0][mask[0] == way] = 0
        mask[1][mask[1] == 0] = way
    task = Segmentation(way, tuple("abcde"), iou="panet")
    found = task.estimates(table(task, logits, masks, marks))
    expected = panets(logits, masks, marks, 5)
    assert (found["miou"].mean, found["fb_iou"].mean) == pytest.approx(expected, abs=1e-12)
    ours = Segmentation(way, tuple("abcde"))
    everywhere = ours.estimates(table(ours, logits, masks, marks))
    # what is counted besides are false positives alone
    assert everywhere["miou"].mean < found["miou"].mean
    one = torch.func.vmap(task.metrics)(torch.stack(logits), torch.stack(masks))
    assert {name: values[0].item() for name, values in one.items()} == task.metrics(
        logits[0], masks[0]
    )


def test_where_false_positives_count_is_an_option_of_the_benchmark(tmp_path: Path) -> None:
    root = str(fake_camvid(tmp_path))
    plain, panet = (CamVidDataModule(root, 16, iou=iou) for iou in get_args(Iou))
    assert "iou" not in plain.task.keys() | plain.protocol().keys(), "as results before have none"
    assert panet.task["iou"] == panet.protocol()["iou"] == "panet"
    task = make_task(panet.task)
    assert isinstance(task, Segmentation)
    assert task.iou == "panet"
    for make in (partial(CamVidDataModule, root), Segmentation):
        with pytest.raises(FewshotError, match="iou is 'Panet'; did you mean 'panet'"):
            make(iou="Panet")  # type: ignore[arg-type]


def test_the_accumulation_is_no_mean_of_episodes() -> None:
    # a large object found whole, and a small one not at all
    large, small = (
        torch.ones(1, 10, 10, dtype=torch.int64),
        torch.zeros(1, 10, 10, dtype=torch.int64),
    )
    small[0, 0, 0] = 1
    logits = [
        F.one_hot(mask, 2).permute(0, 3, 1, 2).float() for mask in (large, torch.zeros_like(small))
    ]
    task = Segmentation(1)
    columns = table(task, logits, [large, small], torch.zeros(2, 1, dtype=torch.int64))
    assert task.estimates(columns)["miou"].mean == pytest.approx(100 / 101)
    by_episode = columns["intersection_1"] / columns["union_1"]
    assert by_episode.mean() == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_one_episode_agrees_with_torchmetrics(seed: int) -> None:
    (logits,), (mask,), marks = random_masks(seed, 1, 2, 2)
    task = Segmentation(2)
    found = task.estimates(table(task, [logits], [mask], marks))
    expected = multiclass_jaccard_index(
        logits.argmax(1), mask, 3, average="none", ignore_index=IGNORED
    )[1:]
    assert [found[f"iou_{place}"].mean for place in marks[0].tolist()] == pytest.approx(
        expected.tolist()
    )
    assert math.isnan(found["miou"].ci95)


def test_ignored_pixels_count_nowhere() -> None:
    (logits,), (mask,), _ = random_masks(0, 1, 2, 2)
    other = torch.where(mask[:, None] == IGNORED, logits.flip(1), logits)
    assert not torch.equal(other.argmax(1), logits.argmax(1))
    assert overlaps(other, mask) == overlaps(logits, mask)
    assert pixel_loss(other, mask) == pixel_loss(logits, mask)


def test_the_loss_is_the_mean_over_counted_pixels() -> None:
    (logits,), (mask,), _ = random_masks(1, 1, 2, 2)
    expected = F.cross_entropy(logits.double(), mask, ignore_index=IGNORED)
    torch.testing.assert_close(pixel_loss(logits.double(), mask), expected)
    assert pixel_loss(logits, torch.full_like(mask, IGNORED)) == 0


def test_small_logits_are_brought_to_the_masks_size() -> None:
    logits, mask = torch.randn(2, 3, 4, 5), torch.zeros(2, 8, 11, dtype=torch.int64)
    large = F.interpolate(logits, (8, 11), mode="bilinear", align_corners=False)
    torch.testing.assert_close(at_size(logits, mask), large)
    assert overlaps(logits, mask) == overlaps(large, mask)
    assert at_size(large, mask) is large


def test_vmap_gives_the_same_counts_and_losses() -> None:
    logits, masks, _ = random_masks(2, 4, 2, 3)
    together = torch.func.vmap(overlaps)(torch.stack(logits), torch.stack(masks))
    losses = torch.func.vmap(pixel_loss)(torch.stack(logits), torch.stack(masks))
    for i, (one, mask) in enumerate(zip(logits, masks, strict=True)):
        assert {name: values[i].item() for name, values in together.items()} == overlaps(one, mask)
        torch.testing.assert_close(losses[i], pixel_loss(one, mask))


def test_the_interval_is_that_of_the_ratio_of_sums() -> None:
    # of one class, the bootstrap tends to the delta method's interval of a ratio of means
    rng = np.random.default_rng(0)
    unions = rng.integers(50, 100, 400).astype(float)
    intersections = np.minimum(unions, (rng.uniform(0.3, 0.9, 400) * unions).round())
    found = pooled(torch.tensor(intersections)[:, None], torch.tensor(unions)[:, None])
    ratio = intersections.sum() / unions.sum()
    deviation = (intersections - ratio * unions).std(ddof=1) / unions.mean() / math.sqrt(400)
    assert found.mean == pytest.approx(ratio)
    # unequal unions: some thousandths from 1.96 of equal ones
    assert found.ci95 == pytest.approx(1.966 * deviation, rel=0.002)
    weighted = estimate(torch.tensor(intersections / unions), torch.tensor(unions))
    assert found == pytest.approx(weighted, rel=1e-12)


def test_a_class_of_one_or_two_episodes_has_no_interval() -> None:
    unions = torch.tensor([[5.0, 0.0, 5.0], [5.0, 0.0, 5.0], [5.0, 5.0, 0.0]])
    for column in (1, 2):
        assert math.isnan(pooled(unions[:, [column]] / 2, unions[:, [column]]).ci95)
        assert math.isnan(pooled(unions / 2, unions).ci95)
    assert pooled(unions[:, :1], unions[:, :1]) == (1, 0)


@pytest.mark.parametrize(("classes", "each"), [(1, 3), (1, 30), (3, 3), (5, 4), (4, 10)])
def test_the_interval_of_few_episodes_holds_the_truth(classes: int, each: int) -> None:
    # episodes of one class each, whose IoUs are normal; the classes' spreads differ
    rng, held = np.random.default_rng(0), []
    unions = np.zeros((classes * each, classes))
    for label in range(classes):
        unions[label * each : (label + 1) * each, label] = 100
    for _ in range(1000):
        ious = 0.5 + rng.normal(size=unions.shape) * np.linspace(0.05, 0.1, classes)
        found = pooled(torch.tensor(ious * unions), torch.tensor(unions))
        held.append(abs(found.mean - 0.5) <= found.ci95)
    assert 0.929 <= np.mean(held) <= 0.985  # three deviations of the share below 0.95


def test_the_interval_of_labels_that_share_episodes_holds_the_truth() -> None:
    # as foreground and background do: their errors are of one cause, and do not cancel
    rng, held = np.random.default_rng(0), []
    unions = torch.full((5, 2), 100.0)
    for _ in range(1000):
        ious = torch.tensor(0.5 + 0.1 * rng.normal(size=(5, 1))).expand(5, 2)
        found = pooled(ious * unions, unions)
        held.append(abs(found.mean - 0.5) <= found.ci95)
    assert 0.929 <= np.mean(held) <= 0.971


def test_classes_of_no_episode_are_left_out_of_mean_and_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    unions = torch.randint(50, 100, (6, 3), generator=generator).double()
    intersections = unions * torch.rand(6, 3, dtype=torch.float64, generator=generator)
    unions[:, 1] = intersections[:, 1] = 0
    assert pooled(intersections, unions) == pooled(intersections[:, [0, 2]], unions[:, [0, 2]])
    assert math.isnan(pooled(unions[:, [1]], unions[:, [1]]).mean)


@given(st.integers(0, 2**31), st.integers(1, 3))
def test_intersections_lie_in_unions_and_foreground_and_background_share_the_image(
    seed: int, way: int
) -> None:
    (logits,), (mask,), _ = random_masks(seed, 1, way, way)
    found = overlaps(logits, mask)
    for name in ("background", "foreground", *map(str, range(1, way + 1))):
        assert 0 <= found[f"intersection_{name}"] <= found[f"union_{name}"] <= mask.numel()
    # a pixel is in one intersection, or in both unions
    counted = (mask != IGNORED).sum()
    assert found["intersection_background"] + found["union_foreground"] == counted
    assert found["intersection_foreground"] + found["union_background"] == counted


def test_labels_of_episodes_that_do_not_say_their_classes_stand_for_themselves() -> None:
    task = Segmentation(2)
    marks = task.marks(
        Examples(torch.zeros(3, 1), torch.zeros(3, 4, 5, 5)), torch.zeros(3, 4, 3, 5, 5)
    )
    assert {name: values.tolist() for name, values in marks.items()} == {
        "class_1": [0, 0, 0],
        "class_2": [1, 1, 1],
    }


def test_marks_travel_with_the_episodes() -> None:
    one = Episode(
        Examples(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2)),
        Examples(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), torch.tensor([7])),
    )
    batch = stack([one, one])
    assert batch.query.marks.tolist() == [[7], [7]]  # type: ignore[union-attr]  # it has them
    assert episode(batch, 1).query.marks.tolist() == [7]  # type: ignore[union-attr]


def test_the_task_is_made_from_plain_facts() -> None:
    task = make_task({"kind": "segmentation", "way": 2, "classes": ["a", "b", "c"]})
    assert isinstance(task, Segmentation)
    assert (task.output_size, task.monitor) == (3, ("miou", "max"))
    with pytest.raises(FewshotError, match=r"way is 0.*set way >= 1"):
        make_task({"kind": "segmentation", "way": 0})
