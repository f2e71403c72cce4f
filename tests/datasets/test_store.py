"""The packed store: what is read is what was packed, whatever happened in between."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.datasets.reading import store
from fewshot.datasets.reading.decoding import Cropped, Encoded, ImageSource, read_image
from fewshot.datasets.reading.store import (
    CHECKS,
    IMAGES,
    INDEX,
    Source,
    open_store,
    packed,
)
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks, gather
from fewshot.episodes.streams import EpisodeStream
from fewshot.errors import FewshotError

SIZE = 6


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Five classes in two splits, of one to three images of random pixels, as files of 8x8."""
    rng = np.random.default_rng(0)
    splits: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    for number, name in enumerate("abcde"):
        for i in range(1 + number % 3):
            path = tmp_path / "data" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
            splits["train" if number < 3 else "test"].setdefault(name, []).append(path)
    return splits


def everything(dataset: ClassDataset) -> torch.Tensor:
    found = gather(dataset.inputs, torch.arange(int(dataset.counts.sum())))
    assert isinstance(found, torch.Tensor)
    return found


def expected(source: Source, split: str) -> np.ndarray:
    return np.stack(
        [read_image(image, SIZE, 3) for images in source[split].values() for image in images]
    )


def refuse() -> Source:
    pytest.fail("a complete store was packed again")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The images that are decoded from now on."""
    decoded: list[object] = []

    def read(image: Path, size: int, channels: int) -> np.ndarray:
        decoded.append(image)
        return read_image(image, size, 3)

    monkeypatch.setattr(store, "read_image", read)
    return decoded


def test_what_is_read_is_what_was_packed(source: Source, tmp_path: Path) -> None:
    first = packed(tmp_path / "store", "1", lambda: source, SIZE)
    for datasets in (
        first,
        packed(tmp_path / "store", "1", refuse, SIZE),
        open_store(tmp_path / "store"),
    ):
        assert list(datasets) == ["train", "test"]
        assert datasets["train"].classes == ("a", "b", "c")
        assert datasets["test"].counts.tolist() == [1, 2]
        for split in datasets:
            assert (everything(datasets[split]).numpy() == expected(source, split)).all()
    chosen = first["train"].select([2, 0])
    assert (everything(chosen).numpy() == expected(source, "train")[[3, 4, 5, 0]]).all()
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [CHECKS, IMAGES, INDEX]


def test_every_kind_of_source(source: Source, tmp_path: Path) -> None:
    path = source["train"]["a"][0]
    assert isinstance(path, Path)
    pixels = np.asarray(Image.open(path))
    images: list[ImageSource] = [
        path,
        Encoded(path.read_bytes(), "x"),
        pixels,
        Cropped(path, (2, 1, 8, 7)),
        pixels[1:7, 2:8],
    ]
    found = everything(
        packed(tmp_path / "store", "1", lambda: {"train": {"a": images}}, SIZE)["train"]
    ).numpy()
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert (found[3] == pixels[1:7, 2:8].transpose(2, 0, 1)).all()
    assert (found[3] == found[4]).all()
    grey = everything(
        packed(tmp_path / "grey", "1", lambda: {"train": {"a": images}}, SIZE, 1)["train"]
    )
    assert grey.shape == (5, 1, SIZE, SIZE)


@pytest.mark.parametrize("changed", ["fingerprint", "size", "channels"])
def test_another_source_is_packed_anew(source: Source, tmp_path: Path, changed: str) -> None:
    packed(tmp_path / "store", "1", lambda: source, SIZE)
    other = {"train": {"e": source["test"]["e"]}}
    size, channels = 5 if changed == "size" else SIZE, 1 if changed == "channels" else 3
    fingerprint = "2" if changed == "fingerprint" else "1"
    datasets = packed(tmp_path / "store", fingerprint, lambda: other, size, channels)  # type: ignore[arg-type]
    assert list(datasets) == ["train"]
    want = np.stack([read_image(image, size, channels) for image in other["train"]["e"]])  # type: ignore[arg-type]
    assert (everything(datasets["train"]).numpy() == want).all()


def test_packing_goes_on_where_it_was_stopped(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = source["test"]["e"][1]
    assert isinstance(damaged, Path)
    content = damaged.read_bytes()
    damaged.write_bytes(b"")
    with pytest.raises(FewshotError, match=rf"{damaged} cannot be decoded \(it has 0 bytes\)"):
        packed(tmp_path / "store", "1", lambda: source, SIZE)
    with pytest.raises(FewshotError, match="no complete packed store"):
        open_store(tmp_path / "store")
    damaged.write_bytes(content)
    decoded = counted(monkeypatch)
    datasets = packed(tmp_path / "store", "1", lambda: source, SIZE)
    assert decoded == [damaged]
    assert (everything(datasets["test"]).numpy() == expected(source, "test")).all()


PACK = """
import sys, time
from pathlib import Path
import numpy as np
from fewshot.datasets.reading import store
original = store.read_image
def slow(image, *args):
    time.sleep(0.02)
    return original(image, *args)
store.read_image = slow
images = np.random.default_rng(0).integers(0, 256, (600, 6, 6, 3), np.uint8)
store.packed(Path(sys.argv[1]), "1", lambda: {"train": {"a": list(images)}}, 6)
"""


def test_a_killed_process_leaves_what_it_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", PACK, str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not (folder / CHECKS).exists() or not np.fromfile(folder / CHECKS, "<u8").any():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    images = np.random.default_rng(0).integers(0, 256, (600, 6, 6, 3), np.uint8)
    decoded = counted(monkeypatch)
    datasets = packed(folder, "1", lambda: {"train": {"a": list(images)}}, 6)
    assert 0 < len(decoded) < 600
    assert (everything(datasets["train"]).numpy() == images.transpose(0, 3, 1, 2)).all()


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_corrupt_image_is_refused_when_it_is_read_and_mended(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    packed(folder, "1", lambda: source, SIZE)
    flip(folder / IMAGES, 2 * 3 * SIZE**2 + 5)
    train = packed(folder, "1", refuse, SIZE)["train"]
    gather(train.inputs, torch.tensor([0, 1, 3]))
    with pytest.raises(
        FewshotError, match=rf"image 2 of the packed store {folder} is corrupt; .*fewshot prepare"
    ):
        gather(train.inputs, torch.tensor([0, 2]))
    decoded = counted(monkeypatch)
    mended = packed(folder, "1", lambda: source, SIZE, verify=True)["train"]
    assert decoded == [source["train"]["b"][1]]
    assert (everything(mended).numpy() == expected(source, "train")).all()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated images": lambda folder: os.truncate(folder / IMAGES, 50),
    "truncated checks": lambda folder: os.truncate(folder / CHECKS, 9),
    "no images": lambda folder: (folder / IMAGES).unlink(),
    "no checks": lambda folder: (folder / CHECKS).unlink(),
    "no index": lambda folder: (folder / INDEX).unlink(),
    "a changed index": (
        lambda folder: (folder / INDEX).write_text(
            (folder / INDEX).read_text().replace('"a"', '"z"')
        )
    ),
    "an index of another form": lambda folder: (folder / INDEX).write_text("[1]"),
    "an index that is no text": lambda folder: (folder / INDEX).write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_packed_again(source: Source, tmp_path: Path, damage: str) -> None:
    packed(tmp_path / "store", "1", lambda: source, SIZE)
    DAMAGES[damage](tmp_path / "store")
    with pytest.raises(FewshotError, match="no complete packed store"):
        open_store(tmp_path / "store")
    datasets = packed(tmp_path / "store", "1", lambda: source, SIZE)
    assert datasets["train"].classes == ("a", "b", "c")
    assert (everything(datasets["train"]).numpy() == expected(source, "train")).all()


def _worker(dataset: ClassDataset, queue: "multiprocessing.Queue[bytes]") -> None:
    queue.put(everything(dataset).numpy().tobytes())


def test_a_dataset_crosses_to_a_spawned_process_as_its_place(
    source: Source, tmp_path: Path
) -> None:
    train = packed(tmp_path / "store", "1", lambda: source, SIZE)["train"]
    assert len(pickle.dumps(train)) < 1500
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[bytes] = context.Queue()
    process = context.Process(target=_worker, args=(train, queue))
    process.start()
    assert queue.get(timeout=300) == expected(source, "train").tobytes()
    process.join()


def test_episodes_of_a_store_are_those_of_the_same_images_in_memory(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, SIZE, SIZE, 3), np.uint8)
    splits = {"train": {name: list(images[10 * i : 10 * i + 10]) for i, name in enumerate("abc")}}
    stored = packed(tmp_path / "store", "1", lambda: splits, SIZE)["train"]
    in_memory = ClassDataset(everything(stored), stored.counts, stored.classes)
    lazy, eager = (
        EpisodeStream(ClassTasks(d, 2, 1, 3), 0, "train").__getitems__([4, 7])
        for d in (stored, in_memory)
    )
    for one, other in zip(lazy.stacked, eager.stacked, strict=True):
        assert isinstance(one.inputs, torch.Tensor)
        assert torch.equal(one.inputs, other.inputs)  # type: ignore[arg-type]
        assert torch.equal(one.targets, other.targets)


def test_what_cannot_be_packed_is_said_in_one_line(source: Source, tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="there are no images to pack into"):
        packed(tmp_path / "store", "1", lambda: {"train": {}}, SIZE)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        FewshotError, match=r"cannot write the packed store .*file/store .*FEWSHOT_DATA"
    ):
        packed(tmp_path / "file" / "store", "1", lambda: source, SIZE)


def test_a_full_disk_is_said_before_anything_is_packed(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr(store, "disk_usage", lambda _: full)
    with pytest.raises(FewshotError, match=r"it needs 0\.0 GB, 0\.0 GB are free"):
        packed(tmp_path / "store", "1", lambda: source, SIZE)
