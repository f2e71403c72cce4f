"""Turned images and mixes of two classes as further training classes, against plain look-ups."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_learner import TinyImages

import fewshot
from fewshot import FewshotError, GlyphsDataModule, OmniglotDataModule, RainbowMNISTDataModule
from fewshot.datasets.omniglot import _class_dataset
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.new_classes import MixedClassTasks, TurnedImages, with_turned_classes
from fewshot.episodes.types import Episode


def inputs(episode: Episode) -> list[torch.Tensor]:
    parts = [episode.support.inputs, episode.query.inputs]
    assert all(isinstance(part, torch.Tensor) for part in parts)
    return parts  # type: ignore[return-value]


def trainer(folder: Path) -> fewshot.Trainer:
    return fewshot.Trainer(
        max_epochs=1,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        limit_train_batches=2,
    )


def test_turned_classes_are_those_of_omniglot() -> None:
    """Omniglot's own, which turn the pixels by numpy and hold them all."""
    drawings = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 28), np.uint8)
    names = [f"half/Greek/character{i}" for i in range(3)]
    expected = _class_dataset(drawings, names, 4)
    upright = _class_dataset(drawings, names, 1)
    upright = ClassDataset(
        upright.inputs, upright.counts, tuple(n.removesuffix("/rot000") for n in upright.classes)
    )
    found = with_turned_classes(upright)
    assert found.classes == expected.classes
    assert np.array_equal(found.counts, expected.counts)
    assert isinstance(found.inputs, TurnedImages)
    assert isinstance(expected.inputs, torch.Tensor)
    assert len(found.inputs) == 240
    rows = np.random.default_rng(1).permutation(240)
    assert torch.equal(found.inputs.take(rows), expected.inputs[torch.from_numpy(rows)])
    # of images that are read when they are asked for, and of some classes
    twice = with_turned_classes(ClassDataset(found.inputs, found.counts, found.classes))
    some = twice.select([5, 40])
    images = [expected.inputs[20:40].rot90(1, (-2, -1)), expected.inputs[200:220]]
    assert isinstance(some.inputs, TurnedImages)
    assert torch.equal(some.inputs.take(np.arange(40)), torch.cat(images))


def test_every_image_benchmark_turns_its_training_classes_alone() -> None:
    plain, turned = TinyImages(queries=3), TinyImages(queries=3, rotation_classes=True)
    assert len(turned.datasets["train"].classes) == 24
    assert turned.train_classes == 24
    assert turned.task == plain.task
    for stage in ("val", "test"):
        pairs = zip(inputs(plain.stream(stage)[1]), inputs(turned.stream(stage)[1]), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    more = TinyImages(queries=3, train_way=20, rotation_classes=True)  # of 6 classes
    assert inputs(more.stream("train")[0])[0].shape == (20, 1, 4, 4)
    assert turned.protocol()["rotation_classes"] is True
    assert "rotation_classes" not in plain.protocol()


def test_a_mixed_class_is_the_mean_of_two() -> None:
    """Each class has its own value, so that a mean tells the two classes apart from all others."""
    values = torch.tensor([1, 4, 16, 64, 255])
    images = values.repeat_interleave(6).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    data = ClassDataset(images.contiguous(), np.full(5, 6), tuple("abcde"))
    tasks = MixedClassTasks(data, 4, 2, 3, 0.5)
    means = {(a, b): (a + b + 1) // 2 for a, b in product(values.tolist(), repeat=2)}
    plain, mixed = 0, 0
    for seed in range(200):
        support, query = inputs(tasks.draw(np.random.default_rng(seed)))
        names = tasks.class_names(np.random.default_rng(seed))
        assert len(set(names)) == 4
        shown = torch.cat([support.view(4, 2, 4), query.view(4, 3, 4)], 1).flatten(1)
        assert (shown == shown[:, :1]).all()  # one class
        for name, value in zip(names, shown[:, 0].tolist(), strict=True):
            of = [int(values["abcde".index(one)]) for one in name.split(" + ")]
            assert value == means[of[0], of[-1]]
            plain, mixed = plain + (len(of) == 1), mixed + (len(of) == 2)
    assert abs(mixed / (plain + mixed) - 0.5) < 0.06  # four deviations of 800 coins
    assert len(tasks.class_names(np.random.default_rng(0))) == 4


def test_no_image_of_a_mix_is_in_two() -> None:
    """Against the sums of all pairs: powers of two tell each image by its bits."""
    rows = torch.arange(12)
    data = ClassDataset(
        (2 ** (rows % 6)).to(torch.uint8).view(-1, 1, 1, 1) * 2, np.full(2, 6), ("a", "b")
    )
    tasks = MixedClassTasks(data, 2, 2, 4, 0.99)  # the one pair, and a class
    for seed in range(10):
        pairs = tasks.choose_pairs(np.random.default_rng(seed))
        if (pairs[:, 0] != pairs[:, 1]).sum() != 1:
            continue
        number = int((pairs[:, 0] != pairs[:, 1]).argmax())
        support, query = inputs(tasks.draw(np.random.default_rng(seed)))
        shown = torch.cat([support.view(2, 2), query.view(2, 4)], 1)[number]
        # all six of both classes are used once: twice the mean of all is the sum of all
        assert int(shown.sum()) == sum(2**i for i in range(6)) * 2
        return
    pytest.fail("no episode had a mix")


def test_episodes_are_functions_of_their_numbers() -> None:
    data = TinyImages(queries=3, class_mixing=0.6)
    stream = data.stream("train")
    (both,) = stream.__getitems__([7, 8]).parts
    for one, part in zip(inputs(stream[8]), inputs(both), strict=True):
        assert torch.equal(one, part[1])
    again = TinyImages(queries=3, class_mixing=0.6).stream("train")[8]
    assert torch.equal(inputs(again)[1], inputs(stream[8])[1])
    assert stream.class_names(8) == stream.class_names(8)
    assert any(" + " in name for i in range(5) for name in stream.class_names(i) or ())
    plain = TinyImages(queries=3)
    assert torch.equal(inputs(plain.stream("val")[0])[1], inputs(data.stream("val")[0])[1])
    assert data.augments  # so that no features of its images are kept
    assert data.protocol()["class_mixing"] == 0.6


@pytest.mark.parametrize("options", [{"rotation_classes": True}, {"class_mixing": 0.5}])
def test_learners_train_on_them(options: dict[str, Any], tmp_path: Path) -> None:
    data = TinyImages(queries=3, meta_batch_size=2, train_episodes=4, val_episodes=2, **options)
    for cls in (fewshot.MAML, fewshot.PrototypicalNetwork):
        learner = cls(fewshot.MLP(16, (8,)), task=data.task)
        run = trainer(tmp_path)
        run.fit(learner, data)
        assert 0 <= run.callback_metrics["val/accuracy"] <= 1
    if "class_mixing" in options:
        baseline = fewshot.Baseline(fewshot.MLP(16, (8,)), task=data.task, train_classes=6)
        with pytest.raises(FewshotError, match="trains on plain examples; leave class_mixing out"):
            trainer(tmp_path).fit(baseline, data)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    given: tuple[tuple[Any, dict[str, Any], str], ...] = (
        (OmniglotDataModule, {"rotation_classes": True}, "the split vinyals has turned drawings"),
        (GlyphsDataModule, {"class_mixing": 0.5, "ways": (3, 5)}, "does not go with ways"),
        (
            GlyphsDataModule,
            {"class_mixing": 0.5, "label_assignment": "fixed"},
            "class_mixing does not go with label_assignment: fixed",
        ),
        (GlyphsDataModule, {"class_mixing": 1.5}, "class_mixing is 1.5"),
        (RainbowMNISTDataModule, {"rotation_classes": True}, "leave rotation_classes out"),
        (RainbowMNISTDataModule, {"class_mixing": 0.5}, "leave class_mixing out"),
        (
            fewshot.TextFolderDataModule,
            {"rotation_classes": True},
            "no argument 'rotation_classes'",
        ),
        (
            fewshot.SelfLabelledDataModule,
            {"benchmark": TinyImages(class_mixing=0.5)},
            "class_mixing of TinyImages does not go with training without labels",
        ),
    )
    for cls, arguments, told in given:
        with pytest.raises(FewshotError) as error:
            cls(**arguments)
        assert told in str(error.value), str(error.value)
        assert "\n" not in str(error.value)
    OmniglotDataModule(split="lake", rotation_classes=True)
