import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from fakes import fake_cifar100

from fewshot.datasets.cifar100 import CifarSplit, load_cifar100
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

PARTS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_cifar100(tmp_path / "root", images=5)


def images(dataset: ClassDataset) -> torch.Tensor:
    assert isinstance(dataset.inputs, torch.Tensor)
    return dataset.inputs


@pytest.mark.parametrize(("split", "sizes"), [("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_the_splits_are_disjoint_and_share_out_all_classes(
    root: Path, split: CifarSplit, sizes: tuple[int, ...]
) -> None:
    data = load_cifar100(root, split, verify=False)
    assert tuple(len(data[part].classes) for part in PARTS) == sizes
    assert len({name for part in PARTS for name in data[part].classes}) == 100
    for dataset in data.values():
        assert list(dataset.classes) == sorted(dataset.classes)
        assert dataset.counts.tolist() == [5] * len(dataset.classes)


def test_rows_are_the_images_of_their_class_training_ones_first(root: Path) -> None:
    folder = root / "cifar-100-python"
    train, test, meta = (
        pickle.loads((folder / name).read_bytes()) for name in ("train", "test", "meta")
    )
    data = load_cifar100(root, "cifar_fs", verify=False)["test"]
    for start, name in zip(data.starts, data.classes, strict=True):
        label = meta["fine_label_names"].index(name)
        rows = [part["data"][np.array(part["fine_labels"]) == label] for part in (train, test)]
        # a row is the red plane, then the green one, then the blue one, each line by line
        expected = np.concatenate(rows).reshape(5, 3, 32, 32)
        assert (images(data)[start : start + 5].numpy() == expected).all()


@pytest.mark.parametrize("place", [".", "cifar-100-python", "cifar100/cifar-100-python", "archive"])
def test_files_are_found_where_people_have_them(root: Path, tmp_path: Path, place: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if place == "archive":
        with tarfile.open(other / "cifar-100-python.tar.gz", "w:gz") as file:
            file.add(root / "cifar-100-python", "cifar-100-python")
        before = sorted(other.rglob("*"))
    else:
        (other / place).parent.mkdir(parents=True, exist_ok=True)
        (root / "cifar-100-python").rename(other / place)
    data = load_cifar100(other, "fc100", verify=False)
    assert images(data["train"]).shape == (300, 3, 32, 32)
    assert place != "archive" or sorted(other.rglob("*")) == before  # nothing is unpacked


def test_missing_data_name_their_source_and_licence(tmp_path: Path) -> None:
    with pytest.raises(FewshotError) as caught:
        load_cifar100(tmp_path / "none", "fc100")
    message = str(caught.value)
    for part in (
        str(tmp_path / "none"),
        "cifar-100-python.tar.gz",
        "download: true",
        "toronto.edu",
        "licence",
    ):
        assert part in message
    assert "\n" not in message


def test_a_download_is_torchvisions(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    # torchvision ships no types
    class Original(torchvision.datasets.CIFAR100):  # type: ignore[misc]
        def __init__(self, folder: Path, download: bool) -> None:
            fetched.append(folder)
            folder.mkdir()
            (folder / "cifar-100-python").symlink_to(root / "cifar-100-python")

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", Original)
    for _ in range(2):
        load_cifar100(tmp_path / "new", "fc100", download=True, verify=False)
    assert fetched == [tmp_path / "new"]

    class Broken(torchvision.datasets.CIFAR100):  # type: ignore[misc]  # the same
        def __init__(self, folder: Path, download: bool) -> None:
            raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", Broken)
    with pytest.raises(FewshotError, match=r"could not download CIFAR-100 \(no network\)"):
        load_cifar100(tmp_path / "other", "fc100", download=True)


def edited(root: Path, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    path = root / "cifar-100-python" / name
    content = pickle.loads(path.read_bytes())
    edit(content)
    path.write_bytes(pickle.dumps(content, 2))


Edit = tuple[str, Callable[[dict[str, Any]], object], str]


@pytest.mark.parametrize(
    "case",
    [
        ("train", lambda c: c.pop("data"), "train has no 'data'"),
        ("meta", lambda c: c.pop("fine_label_names"), "meta has no 'fine_label_names'"),
        ("test", lambda c: c.update(data=c["data"][:, 1:]), "does not hold CIFAR-100's arrays"),
        ("test", lambda c: c["fine_labels"].pop(), "500 images, 499 fine and 500 coarse labels"),
        (
            "meta",
            lambda c: c["fine_label_names"].pop(),
            "holds images of 99 classes, CIFAR-100 has 100",
        ),
        ("train", lambda c: c.update(fine_labels=["x"] * 400), "does not hold CIFAR-100's arrays"),
    ],
    ids=lambda case: case[2],
)
def test_other_files_are_refused(root: Path, case: Edit) -> None:
    name, edit, message = case
    edited(root, name, edit)
    with pytest.raises(FewshotError, match=message) as caught:
        load_cifar100(root, "cifar_fs", verify=False)
    assert str(caught.value).endswith("delete it and fetch it again with download: true")


def test_a_truncated_archive_is_refused(root: Path, tmp_path: Path) -> None:
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(root / "cifar-100-python", "cifar-100-python")
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(FewshotError, match=f"{archive} is truncated or corrupt"):
        load_cifar100(tmp_path, "fc100", verify=False)


def test_a_part_of_it_is_taken_only_where_the_user_says_so(root: Path) -> None:
    with pytest.raises(
        FewshotError, match=r"train is not CIFAR-100's \(its MD5 differs\).*verify: false"
    ):
        load_cifar100(root, "cifar_fs")
    with pytest.raises(
        FewshotError, match="unknown split of CIFAR-100 'fs'; use cifar_fs or fc100"
    ):
        load_cifar100(root, "fs", verify=False)  # type: ignore[arg-type]  # the value under test


@pytest.mark.parametrize("split", ["cifar_fs", "fc100"])
def test_the_splits_are_the_published_lists(shared_data: Path, split: CifarSplit) -> None:
    data = load_cifar100(shared_data / "cifar100", split, verify=False)
    folder = shared_data / "cifar100/cifar-100-python"
    parts = [
        pickle.loads((folder / name).read_bytes(), encoding="latin1") for name in ("train", "test")
    ]
    meta = pickle.loads((folder / "meta").read_bytes(), encoding="latin1")
    pairs = {
        (meta["coarse_label_names"][c], meta["fine_label_names"][f])
        for part in parts
        for f, c in zip(part["fine_labels"], part["coarse_labels"], strict=True)
    }
    for part in PARTS:
        published = json.loads((shared_data / "splits" / split / f"{part}.json").read_text())
        names = {
            fine for coarse, fine in pairs if coarse in published or [coarse, fine] in published
        }
        assert set(data[part].classes) == names
        # the subset has a sixth of the images
        assert data[part].counts.tolist() == [100] * len(names)
