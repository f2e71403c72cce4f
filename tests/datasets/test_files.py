import gc
import hashlib
import logging
import multiprocessing
import os
import re
import socket
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fewshot.datasets.reading import downloads
from fewshot.datasets.reading.downloads import cached_arrays, data_root, download, opened_zip
from fewshot.errors import FewshotError

CONTENT = b"what the address gives" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def is_clean(folder: Path, *names: str) -> bool:
    """Nothing but `names` lies in the folder: no scratch is left behind."""
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


# --- where data lie -------------------------------------------------------------------


def test_the_data_root_is_the_argument_then_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    with pytest.raises(
        FewshotError, match=f"gave a file with sha256 {SHA256}, expected 00.*put the right file at"
    ):
        download(source, target, "00")
    assert is_clean(target.parent)


def test_an_address_that_gives_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder/file"
    with pytest.raises(
        FewshotError, match=rf"could not download file:///nowhere .* put it at {target}"
    ):
        download("file:///nowhere", target, SHA256)

    def cut_off(url: str, path: str) -> None:
        Path(path).write_bytes(CONTENT[:100])
        raise IncompleteRead(CONTENT[:100])

    monkeypatch.setattr(downloads, "download_url_to_file", cut_off)
    with pytest.raises(FewshotError, match=r"could not download http://x .*IncompleteRead"):
        download("http://x", target, SHA256)
    assert is_clean(target.parent)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, source: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FewshotError, match=f"cannot write into {tmp_path / 'file'} .* set `root`"):
        download(source, tmp_path / "file/target", SHA256)


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on this machine that gives `answer` to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}/file"
        served.shutdown()


def begin(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()


def test_a_server_that_falls_silent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def half(handler: BaseHTTPRequestHandler) -> None:
        begin(handler)
        handler.wfile.write(CONTENT[:100])
        stop.wait(20)

    monkeypatch.setattr(downloads, "SILENCE", 0.3)
    with server(half) as url:
        with pytest.raises(FewshotError, match=r"could not download .*timed out"):
            download(url, tmp_path / "new/file", SHA256)
        stop.set()
    assert is_clean(tmp_path / "new")
    assert socket.getdefaulttimeout() is None


def test_a_server_that_stops_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        begin(handler)
        handler.wfile.write(CONTENT[:100])

    with (
        server(half) as url,
        pytest.raises(FewshotError, match=r"gave a file with sha256 .* try again|could not"),
    ):
        download(url, tmp_path / "new/file", SHA256)
    assert is_clean(tmp_path / "new")


def at_once(number: int, work: Callable[[], None]) -> list[int | None]:
    """The exit codes of processes that do the same at the same time."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(number)

    def task() -> None:
        gc.disable()  # what other tests left for the collector is no business of this process
        barrier.wait(60)
        work()

    processes = [context.Process(target=task) for _ in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_four_processes_may_download_at_once(tmp_path: Path) -> None:
    target = tmp_path / "new/file"

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        begin(handler)
        for start in range(0, len(CONTENT), 500):
            handler.wfile.write(CONTENT[start : start + 500])
            time.sleep(0.02)

    def work() -> None:
        download(url, target, SHA256)
        assert target.read_bytes() == CONTENT

    with server(slowly) as url:
        assert at_once(4, work) == [0] * 4
    assert is_clean(target.parent, "file")


def test_four_processes_may_build_a_cache_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new/arrays.npz"

    def work() -> None:
        for _ in range(5):
            assert right(cached_arrays(path, Builder()))

    assert at_once(4, work) == [0] * 4
    assert is_clean(path.parent, "arrays.npz", "arrays.npz.sha256")
    build = Builder()
    assert right(cached_arrays(path, build))
    assert build.calls == 0


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


@pytest.mark.parametrize(
    "damage", ["ends early", "checksum", "deflate", "no zip", "empty", "missing"]
)
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
    with pytest.raises(
        FewshotError, match=r"leads outside the archive; do not use this archive"
    ) as caught:
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


def test_no_archive_is_unpacked() -> None:
    """What is never written cannot land outside of its folder: members are read in place."""
    package = Path(downloads.__file__).parents[1]
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    unpacking = re.compile(r"\.extract(all)?\(|unpack_archive|extract_archive")
    assert [str(path) for path, text in sources.items() if unpacking.search(text)] == []


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


@pytest.mark.parametrize(
    "damage", ["truncated", "one bit", "no sidecar", "sidecar", "sidecar is no text"]
)
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


def test_a_cache_that_cannot_be_written_costs_the_cache_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
