import hashlib
import logging
import os
import stat
import zipfile
from collections.abc import Mapping
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fewshot.datasets import files
from fewshot.datasets.files import cached_arrays, data_root, download, opened_zip
from fewshot.errors import FewshotError

CONTENT = b"what the address gives" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def is_clean(folder: Path, *names: str) -> bool:
    """Nothing but `names` lies in the folder: no scratch is left behind."""
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


# --- where data lie -------------------------------------------------------------------


def test_the_data_root_is_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("FEWSHOT_DATA", "~/data")
    assert data_root("~/mine") == Path("/home/someone/mine")
    assert data_root(None) == Path("/home/someone/data")
    monkeypatch.delenv("FEWSHOT_DATA")
    assert data_root(None).name == "fewshot"


# --- download -------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "served").write_bytes(CONTENT)
    return (tmp_path / "served").as_uri()


def test_download_keeps_only_the_right_file(tmp_path: Path, source: str) -> None:
    target = tmp_path / "new/folder/file"
    download(source, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert is_clean(target.parent, "file")
    download("file:///nowhere", target, SHA256)  # it is there and right: nothing is fetched
    target.write_bytes(CONTENT[:100])
    download(source, target, SHA256)  # it is cut off: fetched again
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(tmp_path: Path, source: str) -> None:
    target = tmp_path / "folder/file"
    with pytest.raises(FewshotError, match=f"gave a file with sha256 {SHA256}, expected 00.*put the right file at"):
        download(source, target, "00")
    assert is_clean(target.parent)


def test_an_address_that_gives_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder/file"
    with pytest.raises(FewshotError, match=rf"could not download file:///nowhere .* put it at {target}"):
        download("file:///nowhere", target, SHA256)

    def cut_off(url: str, path: str) -> None:
        Path(path).write_bytes(CONTENT[:100])
        raise IncompleteRead(CONTENT[:100])

    monkeypatch.setattr(files, "download_url_to_file", cut_off)
    with pytest.raises(FewshotError, match=r"could not download http://x .*IncompleteRead"):
        download("http://x", target, SHA256)
    assert is_clean(target.parent)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, source: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FewshotError, match=f"cannot write into {tmp_path / 'file'} .* set `root`"):
        download(source, tmp_path / "file/target", SHA256)


# --- archives -------------------------------------------------------------------------


def archive_of(folder: Path, members: Mapping[str, bytes]) -> Path:
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def read_all(archive: Path) -> dict[str, bytes]:
    with opened_zip(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_an_archive_is_read_in_place(tmp_path: Path) -> None:
    members = {"folder/one": b"1", "two..png": b"2"}
    assert read_all(archive_of(tmp_path, members)) == members
    assert is_clean(tmp_path, "archive.zip")


@pytest.mark.parametrize("damage", ["ends early", "checksum", "deflate", "no zip", "empty", "missing"])
def test_a_damaged_archive_is_an_error(tmp_path: Path, damage: str) -> None:
    content = np.random.default_rng(0).bytes(5000)
    archive = archive_of(tmp_path, {"one": content, "two": b"x" * 5000})
    data = bytearray(archive.read_bytes())
    if damage == "ends early":
        del data[len(data) // 2 :]
    elif damage == "checksum":
        data[100] ^= 1  # random bytes are stored as they are, even by deflate
    elif damage == "deflate":
        data[33] = 0xFF  # the head of the first block
    else:
        data[:] = b"" if damage == "empty" else b"<html>not found</html>"
    archive.write_bytes(data)
    if damage == "missing":
        archive.unlink()
    with pytest.raises(FewshotError, match=f"{archive} is truncated or corrupt .* fetch it again"):
        read_all(archive)


@pytest.mark.parametrize("name", ["../outside", "/tmp/fewshot-outside", "folder/../../outside"])
def test_a_member_that_leaves_the_folder_is_an_error(tmp_path: Path, name: str) -> None:
    archive = archive_of(tmp_path, {"inside": b"1", name: b"2"})
    with pytest.raises(FewshotError, match=r"leads outside the archive; do not use this archive") as caught:
        read_all(archive)
    assert repr(name) in str(caught.value)


def test_a_link_in_an_archive_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(link, "/etc")
    with pytest.raises(FewshotError, match="the member 'link' leads outside the archive"):
        read_all(archive)


# --- caches ---------------------------------------------------------------------------


class Builder:
    """Counts how often the arrays are built."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, NDArray[np.generic]]:
        self.calls += 1
        return {"images": np.arange(1000, dtype=np.uint8), "names": np.array(["a", "é"])}


def right(arrays: Mapping[str, NDArray[np.generic]]) -> bool:
    return (
        sorted(arrays) == ["images", "names"]
        and (arrays["images"] == np.arange(1000, dtype=np.uint8)).all().item()
        and arrays["names"].tolist() == ["a", "é"]
    )


def test_arrays_are_built_once(tmp_path: Path) -> None:
    build, path = Builder(), tmp_path / "new/folder/arrays.npz"
    assert right(cached_arrays(path, build))
    assert right(cached_arrays(path, build))
    assert build.calls == 1
    assert is_clean(path.parent, "arrays.npz", "arrays.npz.sha256")


@pytest.mark.parametrize("damage", ["truncated", "one bit", "no sidecar", "sidecar", "sidecar is no text"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str) -> None:
    build, path = Builder(), tmp_path / "arrays.npz"
    sidecar = tmp_path / "arrays.npz.sha256"
    cached_arrays(path, build)
    if damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "one bit":
        data = bytearray(path.read_bytes())
        data[500] ^= 1
        path.write_bytes(data)
    elif damage == "no sidecar":
        sidecar.unlink()
    else:
        sidecar.write_bytes(b"\xff\xfe" if "text" in damage else b"")
    assert right(cached_arrays(path, build))
    assert right(cached_arrays(path, build))
    assert build.calls == 2


def test_a_cache_that_cannot_be_written_costs_the_cache_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    build, path = Builder(), tmp_path / "file/arrays.npz"
    with caplog.at_level(logging.WARNING):
        assert right(cached_arrays(path, build))
    assert f"cannot write the cache {path}" in caplog.text


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, **arrays: NDArray[np.generic]) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with caplog.at_level(logging.WARNING):
        assert right(cached_arrays(tmp_path / "arrays.npz", Builder()))
    assert "No space left on device" in caplog.text
    assert is_clean(tmp_path)


def test_an_error_while_building_is_passed_on(tmp_path: Path) -> None:
    def fail() -> dict[str, NDArray[np.generic]]:
        raise FewshotError("no data")

    with pytest.raises(FewshotError, match="no data"):
        cached_arrays(tmp_path / "new/arrays.npz", fail)
    assert not (tmp_path / "new").exists()
