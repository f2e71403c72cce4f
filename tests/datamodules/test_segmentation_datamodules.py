"""The benchmarks of segmentation: episodes, protocol, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_camvid, fake_masks, fake_voc

from fewshot.datamodules import CamVidDataModule, Pascal5iDataModule, SegmentationFolderDataModule
from fewshot.datamodules.camvid import CLASSES
from fewshot.episodes.streams import STAGES, Stage
from fewshot.episodes.types import Episode
from fewshot.errors import FewshotError

TABLE = {"train": {"cup": 1, "key": 2}, "val": {"pen": 3, "bag": 4}, "test": {"hat": 5, "cap": 6}}


def marks(episode: Episode) -> set[int]:
    found = episode.query.marks
    assert found is not None
    return set(found.flatten().tolist())


def labels(targets: torch.Tensor) -> set[int]:
    return set(targets.flatten().tolist())


def test_an_episode_is_about_classes_of_its_stage(tmp_path: Path) -> None:
    module = Pascal5iDataModule(str(fake_voc(tmp_path)), fold=2, image_size=16, test_episodes=12)
    meta_batch = next(iter(module.test_dataloader()))
    batch = meta_batch.stacked
    images = batch.query.inputs
    assert isinstance(images, torch.Tensor)
    assert images.shape == (8, 1, 3, 16, 16)
    assert batch.query.targets.shape == (8, 1, 16, 16)
    assert marks(batch) <= set(range(10, 15))
    converted = module.on_after_batch_transfer(meta_batch, 0).stacked
    torch.testing.assert_close(converted.query.inputs, images.float() / 255)
    assert marks(converted) == marks(batch)
    stages: tuple[Stage, ...] = ("train", "val")
    for stage in stages:
        assert not any(marks(module.stream(stage)[i]) & set(range(10, 15)) for i in range(20))


def test_the_test_episodes_are_one_list(tmp_path: Path) -> None:
    root = str(fake_voc(tmp_path))
    first, second = (Pascal5iDataModule(root, image_size=8, test_episodes=4) for _ in range(2))
    for one, other in zip(first.test_dataloader(), second.test_dataloader(), strict=True):
        images = (one.stacked.query.inputs, other.stacked.query.inputs)
        assert torch.equal(*images)  # type: ignore[arg-type]  # tensors


def test_the_protocol_names_fold_and_lists(tmp_path: Path) -> None:
    root = fake_voc(tmp_path)
    module = Pascal5iDataModule(
        str(root), fold=1, lists=str(root / "lists"), val_classes="test", image_size=16
    )
    facts = module.protocol()
    assert (facts["split"], facts["lists"], facts["val_classes"]) == (
        "fold 1",
        "given lists",
        "test",
    )
    assert (facts["way"], facts["shot"], facts["min_pixels"]) == (1, 1, 2048)
    assert (
        module.task["classes"][5:10]
        == list(module.datasets["test"].values)
        == list(module.datasets["val"].values)
    )
    assert (module.in_channels, module.image_size, module.in_features) == (3, 16, 768)


def test_camvid_is_found_in_its_folder(tmp_path: Path) -> None:
    fake_camvid(tmp_path / "CamVid")
    module = CamVidDataModule(str(tmp_path), image_size=16)
    assert {stage: list(module.datasets[stage].values) for stage in STAGES} == {
        k: list(v) for k, v in CLASSES.items()
    }
    names = [{pair[0].name for pair in module.datasets[stage].pairs} for stage in STAGES]
    assert not names[0] & names[1]
    assert not (names[0] | names[1]) & names[2]
    with pytest.raises(
        FewshotError, match=r"has no CamVid: expected train/, trainannot/.*CC BY-NC"
    ):
        CamVidDataModule(str(tmp_path / "none")).setup("fit")


def test_the_real_camvid(shared_data: Path) -> None:
    module = CamVidDataModule(str(shared_data / "camvid_sample"))
    assert {stage: len(module.datasets[stage].pairs) for stage in STAGES} == {
        "train": 20,
        "val": 6,
        "test": 10,
    }
    episode = module.stream("test")[0]
    assert labels(episode.support.targets) == {0, 1, 255}


def folder(root: Path, **kwargs: Any) -> SegmentationFolderDataModule:
    return SegmentationFolderDataModule(str(root), **{"classes": TABLE, "image_size": 16, **kwargs})


def test_ones_own_masks(tmp_path: Path) -> None:
    module = folder(fake_masks(tmp_path), way=2, shot=2, queries=1)
    episode = module.stream("val")[0]
    assert episode.query.targets.shape == (2, 16, 16)
    assert labels(episode.query.targets) == {0, 1, 2}
    assert module.task["classes"] == ["cup", "key", "pen", "bag", "hat", "cap"]
    assert marks(episode) == {2, 3}
    assert module.protocol()["classes"]["test"] == ["hat", "cap"]


def test_one_folder_may_serve_all_splits(tmp_path: Path) -> None:
    root = fake_masks(tmp_path)
    module = folder(root, images="images/train", masks="masks/train")
    assert module.datasets["train"].pairs == module.datasets["test"].pairs


def test_training_may_ignore_the_classes_of_the_other_splits(tmp_path: Path) -> None:
    module = CamVidDataModule(str(fake_camvid(tmp_path)), image_size=12)
    assert module.protocol()["unseen"] == "ignored"
    values = {stage: set(CLASSES[stage].values()) for stage in STAGES}
    for stage in STAGES:
        tasks = module.tasks(stage)
        # of each of the 256 values, in an episode about the first class
        found = tasks._labels(np.array([0]))
        assert found[tasks.dataset.values[tasks.names[0]]] == 1
        others = values["val"] | values["test"] if stage == "train" else set()
        assert set(np.flatnonzero(found == 255).tolist()) == others | {11, 255}
    with pytest.raises(FewshotError, match=r"unseen is 'gone'; did you mean 'ignored'\?"):
        folder(tmp_path, unseen="gone")


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"train": {"a": 1}}, "classes are given for train; give them for train, val and test"),
        (TABLE | {"val": {"cup": 9}}, "the class 'cup' stands twice"),
        (TABLE | {"val": {"new": 6}}, "the value 6 stands twice"),
        (TABLE | {"val": {"new": 255}}, "'new' has the value 255; values of masks are 0 ... 254"),
        (
            TABLE | {"test": {"hat": 5, "gone": 77}},
            "class 'gone' of the test split has 0 images of 2048 pixels or more",
        ),
    ],
)
def test_tables_that_cannot_be_are_refused(tmp_path: Path, table: Any, match: str) -> None:
    with pytest.raises(FewshotError, match=match):
        folder(fake_masks(tmp_path, 2), classes=table).setup("fit")


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="min_pixels is 0; set min_pixels >= 1"):
        folder(tmp_path, min_pixels=0)
    with pytest.raises(FewshotError, match="val_classes is 'all'"):
        Pascal5iDataModule(str(tmp_path), val_classes="all")  # type: ignore[arg-type]
    with pytest.raises(FewshotError, match="fold is 7"):
        Pascal5iDataModule(str(tmp_path), fold=7)
