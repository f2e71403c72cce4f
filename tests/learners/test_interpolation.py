"""MLTI's mixtures against a loop over pixels, and where they may not be made."""

from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot.backbones import Conv4
from fewshot.datamodules import GlyphsDataModule
from fewshot.episodes.types import Episode, Examples, MetaBatch
from fewshot.errors import FewshotError
from fewshot.learners import PrototypicalNetwork, SimpleShot
from fewshot.learners.interpolation import ADDRESS, mixed

WAY, SHOT, QUERIES, SIDE = 3, 2, 4, 7
TASK = {"kind": "classification", "way": WAY}


def examples(number: int, each: int) -> Examples:
    """Images in which every pixel is another number; the classes in any order."""
    labels = [torch.arange(WAY).repeat(each)[torch.randperm(WAY * each)] for _ in range(number)]
    images = torch.randn(number, WAY * each, 2, SIDE, SIDE + 1, dtype=torch.float64)
    return Examples(images, torch.stack(labels))


def batch(number: int = 4) -> MetaBatch:
    torch.manual_seed(0)
    return MetaBatch(
        [Episode(examples(number, SHOT), examples(number, QUERIES))], torch.arange(number) + 50
    )


def generators(batch: MetaBatch, seed: int = 3) -> list[np.random.Generator]:
    assert batch.numbers is not None
    return [np.random.default_rng([seed, n, ADDRESS]) for n in batch.numbers.tolist()]


def members(targets: Tensor, label: int) -> list[int]:
    return [i for i, other in enumerate(targets.tolist()) if other == label]


def written_out(whole: MetaBatch, seed: int) -> list[list[Tensor]]:
    """The images of support and query, pixel by pixel."""
    result: list[list[Tensor]] = [[], []]
    episodes = whole.stacked
    for i, rng in enumerate(generators(whole, seed)):
        other = rng.random() < 0.75
        partner = (i + 1) % whole.size if other else i
        order = rng.permutation(WAY)
        cut = np.sqrt(1 - rng.beta(2, 2))
        middle = int(rng.integers(SIDE)), int(rng.integers(SIDE + 1))
        halves = int(SIDE * cut) // 2, int((SIDE + 1) * cut) // 2
        for place, part in enumerate(episodes):
            assert isinstance(part.inputs, Tensor)
            images = part.inputs[i].clone()
            for label in range(WAY):
                pairs = zip(
                    members(part.targets[i], label),
                    members(part.targets[partner], order[label]),
                    strict=True,
                )
                for mine, its in pairs:
                    for y in range(SIDE):
                        for x in range(SIDE + 1):
                            inside = (
                                middle[0] - halves[0] <= y < middle[0] + halves[0]
                                and middle[1] - halves[1] <= x < middle[1] + halves[1]
                            )
                            if inside:
                                images[mine, :, y, x] = part.inputs[partner, its, :, y, x]
            result[place].append(images)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_mixtures_are_those_of_the_loop(seed: int) -> None:
    whole = batch()
    before = whole.stacked.query.inputs.clone()  # type: ignore[union-attr]
    found = mixed(whole, generators(whole, seed)).stacked
    expected = written_out(whole, seed)
    for part, old, images in zip(found, whole.stacked, expected, strict=True):
        assert torch.equal(part.inputs, torch.stack(images))  # type: ignore[arg-type]
        assert torch.equal(part.targets, old.targets)
    assert not torch.equal(found.query.inputs, before)  # type: ignore[arg-type]
    assert torch.equal(whole.stacked.query.inputs, before)  # type: ignore[arg-type]


class Recording(PrototypicalNetwork):
    """Keeps what it trains and validates on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: dict[bool, list[Tensor]] = {True: [], False: []}

    def run(self, episodes: Episode, training: bool) -> Any:
        self.seen[training].append(episodes.query.inputs.clone())  # type: ignore[union-attr]
        yield from super().run(episodes, training)


def trained(mlti: bool, seed: int = 0) -> Recording:
    data = GlyphsDataModule(
        way=3, queries=2, meta_batch_size=2, train_episodes=4, val_episodes=2, test_episodes=2
    )
    torch.manual_seed(seed)
    learner = Recording(
        backbone=Conv4(in_channels=1, image_size=28, width=2), task=data.task, mlti=mlti
    )
    L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(learner, data)
    return learner


def test_training_alone_is_mixed_by_the_seed_and_the_number() -> None:
    without, once, again, other = (trained(*a) for a in ((False,), (True,), (True,), (True, 1)))
    seen = (run.seen[True] for run in (without, once, again, other))
    for plain, one, two, three in zip(*seen, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, plain)
        assert not torch.equal(one, three)
    assert len(once.seen[True]) == 2
    assert all(map(torch.equal, without.seen[False], once.seen[False]))
    # the second meta-batch by itself, as a resumed run has it
    images = without.seen[True][1]
    data = GlyphsDataModule(way=3, queries=2, meta_batch_size=2, train_episodes=4)
    data.setup("fit")
    second = list(data.train_dataloader())[1]
    ready = data.on_after_batch_transfer(second, 0)
    assert torch.equal(ready.stacked.query.inputs, images)
    alone = once.as_batch(ready).stacked.query.inputs
    assert torch.equal(alone, once.seen[True][1])


def refused(whole: MetaBatch) -> str:
    with pytest.raises(FewshotError, match="mlti") as caught:
        mixed(whole, [np.random.default_rng(0) for _ in range(whole.size)])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_mixed_is_refused_in_one_line() -> None:
    whole = batch()
    (support, query) = whole.stacked
    assert "way and shot" in refused(MetaBatch([*batch(1).parts, *batch(1).parts]))
    texts = Examples({"tokens": torch.zeros(4, 6, 3)}, support.targets)
    assert "images" in refused(MetaBatch([Episode(texts, query)]))
    features = Examples(torch.zeros(4, 6, 3), support.targets)
    assert "images" in refused(MetaBatch([Episode(features, query)]))
    masks = Examples(support.inputs, torch.zeros(4, 6, 7, 8, dtype=torch.int64))
    assert "images" in refused(MetaBatch([Episode(masks, query)]))
    unequal = support._replace(targets=torch.tensor([[0, 0, 0, 1, 2, 2]] * 4))
    assert "the support set" in refused(MetaBatch([Episode(unequal, query)]))
    none = query._replace(targets=query.targets.clone())
    none.targets[:, 0] = WAY
    assert "the query set" in refused(MetaBatch([Episode(support, none)]))


def test_a_learner_without_training_refuses_it() -> None:
    backbone = Conv4(in_channels=1, image_size=28, width=2)
    with pytest.raises(FewshotError, match=r"SimpleShot trains on no episodes.*leave mlti out"):
        SimpleShot(backbone=backbone, task=TASK, mlti=True)
