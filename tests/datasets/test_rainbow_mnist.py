"""RainbowMNIST: its images against single steps of PIL, its tasks, its episodes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_mnist
from PIL import Image

from fewshot.datamodules import RainbowMNISTDataModule
from fewshot.datasets.mnist import load_mnist
from fewshot.datasets.rainbow_mnist import (
    COLOURS,
    TASKS,
    RainbowImages,
    load_rainbow_mnist,
    shown,
    split_tasks,
)
from fewshot.episodes.distributions import gather
from fewshot.errors import FewshotError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_mnist(tmp_path_factory.mktemp("mnist"), drawings=56 * 5)


def made(root: Path, **arguments: Any) -> RainbowMNISTDataModule:
    return RainbowMNISTDataModule(
        root=str(root), verify=False, **({"shot": 1, "queries": 2} | arguments)
    )


def test_tasks_are_all_looks_split_40_6_10() -> None:
    assert len(set(TASKS)) == 56 == 7 * 2 * 4
    parts = split_tasks(3)
    assert {part: len(tasks) for part, tasks in parts.items()} == {
        "train": 40,
        "val": 6,
        "test": 10,
    }
    assert sorted(task for tasks in parts.values() for task in tasks) == list(range(56))
    few = split_tasks(3, train_tasks=10)
    assert few == {**parts, "train": parts["train"][:10]}
    assert split_tasks(4) != parts


@pytest.mark.parametrize("task", range(0, 56, 5))
def test_a_task_shows_a_drawing_in_its_look(task: int) -> None:
    drawing = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    colour, size, degrees = TASKS[task]
    ink = Image.fromarray(drawing.astype(np.float32))
    if size == "half":
        middle = Image.new("F", (28, 28), 0)
        middle.paste(ink.reduce(2), (7, 7))
        ink = middle
    weight = np.asarray(ink.rotate(degrees))[..., None] / 255
    expected = 255 * weight + np.array(COLOURS[colour]) * (1 - weight)
    image = shown(drawing[None], task)[0].transpose(1, 2, 0)
    assert np.abs(image - expected).max() <= 0.501


def test_a_drawing_belongs_to_one_task_and_its_class_tells_digit_and_look(root: Path) -> None:
    mnist, parts = load_mnist(root, verify=False), load_rainbow_mnist(root, verify=False)
    digits = np.repeat(np.arange(10), mnist.counts)
    used = []
    for part, tasks in split_tasks(0).items():
        data = parts[part]
        assert isinstance(data.inputs, RainbowImages)
        assert len(set(data.classes)) == len(data.classes) == 10 * len(tasks)
        for c, name in enumerate(data.classes):
            rows = slice(data.starts[c], data.starts[c] + data.counts[c])
            look, digit = name.split(": ")
            assert (digits[data.inputs.which[rows]] == int(digit)).all()
            assert set(data.inputs.tasks[rows]) == {tasks[c // 10]}
            assert look == " ".join(map(str, TASKS[tasks[c // 10]]))
        used.append(data.inputs.which)
    together = np.concatenate(used)
    assert len(set(together)) == len(together) == 56 * 5 * 10


def test_images_are_functions_of_their_row(root: Path) -> None:
    data = load_rainbow_mnist(root, verify=False)["train"]
    rows = torch.tensor([[0, 1999], [57, 0]])
    together = gather(data.inputs, rows)
    assert isinstance(together, torch.Tensor)
    assert together.shape == (2, 2, 3, 28, 28)
    assert together.dtype == torch.uint8
    for row, image in zip(rows.flatten(), together.flatten(0, 1), strict=True):
        assert torch.equal(gather(data.inputs, row[None, None])[0, 0], image)  # type: ignore[index]


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_an_episode_stays_within_one_task(root: Path, stage: Any) -> None:
    tasks = made(root, way=6).tasks(stage)
    looks, orders = set(), set()
    for seed in range(40):
        names = tasks.class_names(np.random.default_rng(seed))
        assert len(set(names)) == 6
        assert len({name.split(":")[0] for name in names}) == 1
        looks.add(names[0].split(":")[0])
        orders.add(names)
        episode = tasks.draw(np.random.default_rng(seed))
        corner = episode.query.inputs[:, :, 14, 14]  # type: ignore[index]
        assert episode.query.targets.tolist() == np.repeat(range(6), 2).tolist()
        assert corner.shape == (12, 3)
    assert len(looks) > 4
    assert len(orders) == 40


def test_train_tasks_are_the_looks_of_training(root: Path) -> None:
    data = made(root, train_tasks=2)
    tasks = data.tasks("train")
    looks = {tasks.class_names(np.random.default_rng(s))[0].split(":")[0] for s in range(30)}
    assert looks == {" ".join(map(str, TASKS[t])) for t in split_tasks(0)["train"][:2]}
    assert data.train_classes == 20
    assert data.protocol()["train_tasks"] == 2


def test_with_fixed_labels_label_j_is_the_digit_j(root: Path) -> None:
    data = made(root, label_assignment="fixed")
    alike = data.training_tasks_alike()
    assert alike is not None
    for tasks in (data.tasks("train"), alike):
        for seed in range(5):
            names = tasks.class_names(np.random.default_rng(seed))
            assert [int(name[-1]) for name in names] == list(range(10))
    names = data.tasks("val").class_names(np.random.default_rng(0))
    assert [int(name[-1]) for name in names] != list(range(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_tasks": 41}, "train_tasks is 41.*set train_tasks <= 40"),
        ({"way": 11}, "way is 11.*set way <= 10"),
        ({"train_way": 20}, "train_way is 20.*set train_way <= 10"),
        ({"ways": (5, 10)}, "ways does not go with; leave ways out"),
        ({"shots": (1, 2)}, "shots does not go with"),
        ({"shot": 2, "unequal_shots": True}, "unequal_shots does not go with"),
        ({"query_alpha": 2.0}, "query_alpha does not go with"),
        ({"way": 5, "label_assignment": "fixed"}, "train_way is 5; set train_way to 10"),
    ],
)
def test_what_it_cannot_draw_is_refused(
    root: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message) as caught:
        made(root, **arguments)
    assert "\n" not in str(caught.value)


def test_too_few_drawings_are_told(root: Path) -> None:
    with pytest.raises(FewshotError, match=r"has 5 examples, too few for train_shot 1 \+ train_q"):
        made(root, queries=15).tasks("test")


def test_the_real_digits_suffice(shared_data: Path) -> None:
    parts = load_rainbow_mnist(shared_data / "mnist")
    assert {part: set(data.counts) for part, data in parts.items()} == {
        "train": {100},
        "val": {100},
        "test": {100},
    }
