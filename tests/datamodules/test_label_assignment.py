"""Labels that always mean the same classes: which, in training alone, and what does not fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fewshot.datamodules import ImageDataModule
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.fixed_labels import label_groups
from fewshot.errors import FewshotError


@pytest.fixture
def made(class_dataset: Callable[..., ClassDataset]) -> Callable[..., ImageDataModule]:
    """A benchmark of 11 classes in each split, whose images all have the class's number."""

    class Numbered(ImageDataModule):
        benchmark = "Numbered"

        def load(self) -> dict[str, ClassDataset]:
            dataset = class_dataset(counts=(9,) * 11)
            assert isinstance(dataset.inputs, torch.Tensor)
            dataset.inputs[:] = torch.arange(11).repeat_interleave(9).view(-1, 1, 1, 1)
            return dict.fromkeys(("train", "val", "test"), dataset)

    return lambda **kwargs: Numbered(shot=2, queries=3, **kwargs)


def classes(episodes: Any) -> set[tuple[int, int]]:
    """The pairs of a label and a class in episodes."""
    return {
        pair
        for part in episodes
        for pair in zip(
            part.targets.flatten().tolist(), part.inputs[..., 0, 0, 0].flatten().tolist(), strict=True
        )
    }  # fmt: skip


def test_a_label_means_the_classes_of_its_group_in_training_alone(
    made: Callable[..., ImageDataModule],
) -> None:
    data = made(way=5, train_way=4, label_assignment="fixed", seed=3)
    groups = label_groups(3, 11, 4)
    assert sorted(np.concatenate(groups)) == list(range(11))
    assert [len(group) for group in groups] == [3, 3, 3, 2]
    train = data.stream("train").__getitems__(range(60)).stacked
    expected = {(label, int(c)) for label, group in enumerate(groups) for c in group}
    assert classes(train) == expected
    for one in range(5):  # support and query of a label are of one class
        support, query = data.stream("train")[one]
        pairs = classes([support])
        assert classes([query]) == pairs
        assert len(pairs) == 4
    assert len(classes(data.stream("val").__getitems__(range(300)).stacked)) == 5 * 11
    assert data.protocol()["label_assignment"] == "fixed"
    assert "label_assignment" not in made().protocol()
    free = made(way=5, train_way=4, seed=3).stream("train").__getitems__(range(300)).stacked
    assert len(classes(free)) == 4 * 11


def test_the_seed_cuts_the_groups() -> None:
    one, same, other = (label_groups(seed, 30, 5) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"way": 6}, r"fixed, for which each of the 6 labels needs two training classes, but there"
                     r" are 11; set train_way <= 5 or add classes"),
        ({"ways": (2, 4)}, "label_assignment: fixed does not go with ways; leave one of them out"),
        ({"shots": (1, 4)}, "label_assignment: fixed does not go with shots"),
        ({"unequal_shots": True}, "label_assignment: fixed does not go with unequal_shots"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(
    made: Callable[..., ImageDataModule], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        _ = made(label_assignment="fixed", **arguments).datasets
