from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from fewshot.datamodules import ImageDataModule
from fewshot.datasets.preprocessing import as_float
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.streams import STAGES
from fewshot.episodes.types import MetaBatch
from fewshot.errors import FewshotError


@pytest.fixture
def benchmark(class_dataset: Callable[..., ClassDataset]) -> type[ImageDataModule]:
    """A benchmark of random images: 9, 6 and 5 classes of 8 examples."""

    class Images(ImageDataModule):
        benchmark = "Images"
        can_download = False
        in_channels, image_size = 3, 8
        loaded = 0

        def load(self) -> dict[str, ClassDataset]:
            type(self).loaded += 1
            sizes = {"train": 9, "val": 6, "test": 5}
            return {
                stage: class_dataset(counts=(8,) * n, channels=3, seed=i)
                for i, (stage, n) in enumerate(sizes.items())
            }

    return Images


def targets(meta_batch: MetaBatch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    support, query = meta_batch.stacked
    return tuple(support.targets.shape), tuple(query.targets.shape)


def test_each_stage_has_its_own_shape_of_episodes(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(way=5, shot=1, queries=2, train_way=7, train_shot=2, train_queries=3, meta_batch_size=4,
                     eval_batch_size=3, train_episodes=12, val_episodes=7, test_episodes=4)  # fmt: skip
    assert (
        len(data.train_dataloader()),
        len(data.val_dataloader()),
        len(data.test_dataloader()),
    ) == (3, 3, 2)
    assert targets(next(iter(data.train_dataloader()))) == ((4, 14), (4, 21))
    assert [targets(b) for b in data.val_dataloader()] == [((n, 5), (n, 10)) for n in (3, 3, 1)]
    assert [targets(b) for b in data.predict_dataloader()] == [((n, 5), (n, 10)) for n in (3, 1)]


def test_training_is_as_the_test_unless_told_otherwise(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(way=4, shot=3, queries=2)
    assert (data.train_way, data.train_shot, data.train_queries) == (4, 3, 2)
    assert data.task == {"kind": "classification", "way": 4, "train_way": 4}
    assert benchmark(way=4, train_way=6).task == {
        "kind": "classification",
        "way": 4,
        "train_way": 6,
    }


def test_stages_draw_from_their_own_classes(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(way=5, queries=2, train_episodes=4, val_episodes=3, test_episodes=3)
    for stage, loader in (
        ("train", data.train_dataloader()), ("val", data.val_dataloader()), ("test", data.test_dataloader()),
    ):  # fmt: skip
        images = data.datasets[stage].inputs
        assert isinstance(images, Tensor)
        known = {image.numpy().tobytes() for image in images}
        for meta_batch in loader:
            inputs = meta_batch.stacked.query.inputs
            assert isinstance(inputs, Tensor)
            assert {image.numpy().tobytes() for image in inputs.flatten(0, 1)} <= known


def test_the_test_episodes_depend_on_the_seed_alone(benchmark: type[ImageDataModule]) -> None:
    def first(**kwargs: Any) -> Tensor:
        data = benchmark(queries=2, test_episodes=2, eval_batch_size=2, **kwargs)
        inputs = next(iter(data.test_dataloader())).stacked.query.inputs
        assert isinstance(inputs, Tensor)
        return inputs

    once = first()
    torch.manual_seed(7)
    assert torch.equal(
        first(train_way=6, meta_batch_size=2, train_episodes=100, train_shot=3), once
    )
    assert not torch.equal(first(seed=1), once)


def test_the_data_are_read_once(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(queries=2)
    data.prepare_data()
    data.setup("fit")
    data.train_dataloader()
    assert data.datasets is data.datasets
    assert benchmark.loaded == 1  # type: ignore[attr-defined]


def test_images_become_floats_between_0_and_1(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(queries=2)
    assert (data.in_channels, data.image_size, data.in_features) == (3, 8, 192)
    batch = next(iter(data.val_dataloader()))
    converted = data.on_after_batch_transfer(batch, 0)
    for part, original in zip(converted.stacked, batch.stacked, strict=True):
        assert isinstance(part.inputs, Tensor)
        assert isinstance(original.inputs, Tensor)
        assert original.inputs.dtype == torch.uint8
        torch.testing.assert_close(part.inputs, original.inputs / 255)
        assert torch.equal(part.targets, original.targets)
    assert as_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]


def test_the_protocol_is_what_a_result_is_compared_by(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(way=3, shot=2, queries=4, seed=9, train_shot=5)
    facts = {
        "benchmark": "Images",
        "split": "default",
        "way": 3,
        "shot": 2,
        "queries": 4,
        "seed": 9,
    }
    assert facts.items() <= data.protocol().items()
    assert str(data).startswith("Images(benchmark=Images, ")
    assert benchmark.loaded == 0  # type: ignore[attr-defined]  # describing it reads nothing


def test_the_root_is_the_argument_or_the_environments(
    benchmark: type[ImageDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "environment"))
    assert benchmark().root == tmp_path / "environment"
    assert benchmark(root=str(tmp_path / "own")).root == tmp_path / "own"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_episodes": 0}, "val_episodes is 0; set val_episodes >= 1"),
        ({"test_episodes": -1}, "test_episodes is -1; set test_episodes >= 1"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0; set eval_batch_size >= 1"),
        ({"seed": -1}, "seed is -1; set seed >= 0"),
        ({"num_workers": -2}, "num_workers is -2; set num_workers >= 0"),
        ({"download": True}, "Images has nothing to download; leave out download: true"),
    ],
)
def test_bad_arguments_are_errors(
    benchmark: type[ImageDataModule], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        benchmark(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"way": 6}, "the test split has 5 classes, too few for way 6"),
        ({"train_way": 10}, "the train split has 9 classes, too few for train_way 10"),
        (
            {"shot": 7},
            (
                "class 'class0' of the train split has 8 examples, too few for train_shot 7 [+]"
                " train_queries 2"
            ),
        ),
        (
            {"shot": 7, "train_shot": 1},
            "class 'class0' of the val split has 8 examples, too few for shot 7 [+] q",
        ),
        ({"train_queries": 0}, "train_queries is 0; set train_queries >= 1"),
        ({"way": 1}, "way is 1: an episode needs at least 2 classes; set way >= 2"),
    ],
)
def test_episodes_that_the_data_cannot_fill_are_errors(
    benchmark: type[ImageDataModule], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        benchmark(**({"queries": 2} | arguments)).setup("fit")


def test_meta_batches_that_do_not_fit_are_errors(benchmark: type[ImageDataModule]) -> None:
    with pytest.raises(
        FewshotError, match="train_episodes 10 is not a positive multiple of meta_batch_size 4"
    ):
        benchmark(queries=2, train_episodes=10, meta_batch_size=4).train_dataloader()


def test_unequal_shots_share_out_the_support(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(
        way=3, shot=2, queries=2, unequal_shots=True, val_episodes=30, eval_batch_size=30
    )
    (meta_batch,) = data.val_dataloader()
    batch = meta_batch.stacked
    assert targets(meta_batch) == ((30, 6), (30, 6))
    shots = [torch.bincount(labels, minlength=3).tolist() for labels in batch.support.targets]
    assert len({tuple(one) for one in shots}) > 3
    assert all(min(one) >= 1 for one in shots)
    assert data.protocol()["unequal_shots"] is True
    assert "unequal_shots" not in benchmark(way=3).protocol()
    one = data.stream("val")[4]  # alone as in its meta-batch
    assert torch.equal(one.support.targets, batch.support.targets[4])
    assert isinstance(batch.support.inputs, Tensor)
    assert isinstance(one.support.inputs, Tensor)
    assert torch.equal(one.support.inputs, batch.support.inputs[4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shot": 1}, "an episode has 1 shot: there is nothing to split; set shot >= 2"),
        ({"shot": 2, "train_shot": 1}, "an episode has 1 shot"),
        (
            {"shot": 5, "queries": 3},
            "nothing to give in the train split: a class of 8 examples has 3 queries and 5",
        ),
    ],
)
def test_unequal_shots_that_could_not_be_unequal(
    benchmark: type[ImageDataModule], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        _ = benchmark(way=3, unequal_shots=True, **arguments).datasets


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("32-true", torch.float32), ("64-true", torch.float64), ("bf16-true", torch.bfloat16)],
)
def test_images_have_the_precision_of_the_trainer(
    benchmark: type[ImageDataModule], precision: Any, expected: torch.dtype
) -> None:
    data = benchmark(way=3, queries=2)
    data.trainer = L.Trainer(
        accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False
    )
    drawn = data.stream("val").__getitems__([0, 1])
    batch = data.on_after_batch_transfer(drawn, 0).stacked
    assert batch.support.inputs.dtype == batch.query.inputs.dtype == expected  # type: ignore[union-attr]
    assert batch.support.targets.dtype == torch.int64


def test_validation_may_have_a_way_of_its_own(benchmark: type[ImageDataModule]) -> None:
    data = benchmark(way=3, val_way=2, queries=2)
    assert [sorted(set(data.stream(stage)[0].support.targets.tolist())) for stage in STAGES] == [
        [0, 1, 2],
        [0, 1],
        [0, 1, 2],
    ]
    assert data.protocol()["val_way"] == 2
    assert "val_way" not in benchmark(way=3, queries=2).protocol()
    with pytest.raises(
        FewshotError, match="the val split has 6 classes, too few for val_way 50; set val_way <= 6"
    ):
        benchmark(way=3, val_way=50, queries=2).setup("fit")
