"""An image folder is decoded once; what cannot be decoded is told at once."""

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import python
from PIL import Image

from fewshot.datasets import packed_images
from fewshot.datasets.image_folder import ImageFolder, load_image_folder, read_folder
from fewshot.datasets.reading import decoding, folders, store
from fewshot.datasets.reading.downloads import data_root
from fewshot.episodes.class_dataset import LazyInputs
from fewshot.errors import FewshotError


def save(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (10, 10), value).save(path)
    return path


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Three classes of three images; image i of class c is grey 10 c + i."""
    for c, name in enumerate(("ant", "bee", "cat")):
        for i in range(3):
            save(tmp_path / "animals" / name / f"{i}.png", 10 * c + i)
    return tmp_path / "animals"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The images that are decoded from now on."""
    seen: list[Any] = []
    read = decoding.read_image

    def counted(source: Any, *arguments: Any) -> Any:
        seen.append(source)
        return read(source, *arguments)

    monkeypatch.setattr(store, "read_image", counted)
    monkeypatch.setattr(packed_images, "read_image", counted)
    return seen


def greys(folder: ImageFolder) -> list[int]:
    inputs = folder.images.inputs
    assert isinstance(inputs, LazyInputs | torch.Tensor)
    every = inputs.take(np.arange(len(inputs))) if isinstance(inputs, LazyInputs) else inputs
    return [int(value) for value in every[:, 0, 0, 0]]


GREYS = [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_a_second_start_decodes_nothing_and_holds_nothing(
    animals: Path, decodings: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert greys(read_folder(animals, 4)) == GREYS
    assert len(decodings) == 9
    again = read_folder(animals, 4)
    assert greys(again) == GREYS
    assert len(decodings) == 9
    assert isinstance(again.images.inputs, store.PackedImages)
    assert isinstance(again.images.inputs.images, np.memmap)
    assert again.images.inputs.folder.is_relative_to(data_root(None) / "image_folder")
    assert not caplog.records


def test_other_processes_share_the_store(animals: Path) -> None:
    read_folder(animals, 4)
    program = """
import sys
from pathlib import Path
from fewshot.datasets import image_folder, packed_images
from fewshot.datasets.reading import store
def refuse(*arguments):
    raise AssertionError("decoded again")
store.read_image = packed_images.read_image = refuse
print(image_folder.read_folder(Path(sys.argv[1]), 4).images.inputs.take([8])[0, 0, 0, 0].item())
"""
    done = subprocess.run(
        [python(), "-c", program, str(animals)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "22\n", done.stderr


def touched(path: Path) -> None:
    state = path.stat()
    save(path, 99)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: touched(root / "bee/1.png"), [*GREYS[:4], 99, *GREYS[5:]]),
        (lambda root: (root / "bee/1.png").unlink(), [*GREYS[:4], *GREYS[5:]]),
        (lambda root: save(root / "bee/9.png", 13), [*GREYS[:6], 13, *GREYS[6:]]),
        (lambda root: (root / "ant/0.png").rename(root / "cat/9.png"), [*GREYS[1:], 0]),
    ],
    ids=["changed", "removed", "added", "moved"],
)
def test_a_store_whose_images_changed_is_made_again_in_one_line(
    animals: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path], object],
    expected: list[int],
) -> None:
    read_folder(animals, 4)
    change(animals)
    assert greys(read_folder(animals, 4)) == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"{animals}: its images have changed since they were decoded; they are decoded again"
    ]
    assert greys(read_folder(animals, 4)) == expected
    assert len(caplog.records) == 1


def test_a_process_that_comes_late_is_not_given_other_images(animals: Path) -> None:
    late = pickle.dumps(read_folder(animals, 4).images.inputs)
    assert len(pickle.loads(late)) == 9
    touched(animals / "bee/1.png")
    read_folder(animals, 4)
    with pytest.raises(
        FewshotError, match="has been made again of other images since this run began"
    ):
        pickle.loads(late)


def test_where_no_store_can_be_written_images_are_in_memory(
    animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "file"))
    (animals / "bee/1.png").write_bytes(b"no image")
    folder = read_folder(animals, 4)
    assert isinstance(folder.images.inputs, torch.Tensor)
    assert greys(folder) == [*GREYS[:4], *GREYS[5:]]
    assert folder.counts == {"ant": 3, "bee": 2, "cat": 3}
    assert list(folder.broken) == ["bee"]
    (record,) = caplog.records
    assert "images are decoded into memory instead, at every start" in record.getMessage()


def test_all_broken_files_are_told_the_first_ten_by_name(animals: Path) -> None:
    given = {"train": ["ant"], "val": ["bee"], "test": ["cat"]}
    for number in range(13):
        (animals / f"bee/x{number:02d}.jpg").write_bytes(b"no image")
    with pytest.raises(FewshotError) as caught:
        load_image_folder(animals, 4, classes=given)
    message = str(caught.value)
    assert message.count("cannot be decoded") == 10
    assert "x09.jpg" in message
    assert "x10.jpg" not in message
    assert message.endswith("; and 3 more; replace or delete these 13 files")


def test_what_could_not_be_read_is_tried_again(animals: Path) -> None:
    """By access rights, which the time of a file does not tell."""
    path, content = animals / "bee/1.png", (animals / "bee/1.png").read_bytes()
    state = path.stat()
    path.write_bytes(b"x" * len(content))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert read_folder(animals, 4).counts["bee"] == 2
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert greys(read_folder(animals, 4)) == GREYS


def test_a_link_that_leads_nowhere_is_a_broken_file(animals: Path) -> None:
    (animals / "cat/9.png").symlink_to(animals / "nowhere")
    folder = read_folder(animals, 4)
    assert greys(folder) == GREYS
    assert "9.png cannot be decoded" in folder.broken["cat"][0]


def test_heic_is_read_where_it_can_be(
    animals: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(folders, "reads_heic", lambda: False)
        (animals / "ant/9.HEIC").write_bytes(b"?")
        read_folder(animals, 4)
        (record,) = caplog.records
        assert "1 file (1 .heic)" in record.getMessage()
        assert record.getMessage().endswith(
            "to png or jpg, or pip install 'fewshot-lightning[heic]'"
        )
    heif = pytest.importorskip("pillow_heif")
    assert decoding.reads_heic()
    content = heif.from_pillow(Image.new("RGB", (64, 64), (200, 100, 50)))
    content.save(animals / "ant/9.HEIC")
    content.save(animals / "ant/10.heic.jpg", format="HEIF")  # as some phones name it
    for name in ("9.HEIC", "10.heic.jpg"):
        image = decoding.read_image(animals / "ant" / name, 4, 3)
        assert np.abs(image.astype(int) - np.array([200, 100, 50])[:, None, None]).max() < 8
    assert read_folder(animals, 4).counts["ant"] == 5
