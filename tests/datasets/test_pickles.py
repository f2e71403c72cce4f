import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from fewshot.datasets.reading.pickles import load_pickle
from fewshot.errors import FewshotError


class Program:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch harm",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_are_read(tmp_path: Path, protocol: int) -> None:
    content = {
        "data": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "objects": np.array([b"a", "b", None], object),
        "scalar": np.int64(7),
        "labels": [1, 2],
        "ordered": OrderedDict(a=(1.5, True)),
        "set": {3},
        "bytes": b"\xff\x00",
    }
    (tmp_path / "file").write_bytes(pickle.dumps(content, protocol))
    found = load_pickle(tmp_path / "file")
    assert (found["data"] == content["data"]).all()
    assert found["objects"].tolist() == [b"a", "b", None]
    assert {k: found[k] for k in ("scalar", "labels", "ordered", "set", "bytes")} == {
        k: content[k] for k in ("scalar", "labels", "ordered", "set", "bytes")
    }


def test_an_array_of_python_2_is_read(tmp_path: Path) -> None:
    # what Python 2.7 and NumPy 1.x write at protocol 2 of {'data': array([200, 7], uint8)}
    content = (
        b"\x80\x02}q\x01U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01K\x02\x85cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff"
        b"\xff\xff\xffK\x00tb\x89U\x02\xc8\x07tbs."
    )
    assert load_pickle(tmp_path / "file", io.BytesIO(content))["data"].tolist() == [200, 7]


@pytest.mark.parametrize(
    "value", [Program(), [Program()], np.array([Program()], object), Path("x"), len, io.BytesIO()]
)
def test_anything_else_is_refused_and_not_run(
    tmp_path: Path, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(pickle.dumps(value))
    with pytest.raises(
        FewshotError, match=r"file cannot be read as a pickle of arrays \(it names .*, which"
    ):
        load_pickle(tmp_path / "file")
    assert not (tmp_path / "harm").exists()


def test_a_codec_by_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="it encodes as zip"):
        load_pickle(tmp_path / "file", io.BytesIO(b"c_codecs\nencode\n(Vx\nVzip\ntR."))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"no pickle", pickle.dumps(list(range(999)))[:500]]
)
def test_a_damaged_pickle_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(
        FewshotError, match=f"{tmp_path / 'file'} cannot be read as a pickle"
    ) as caught:
        load_pickle(tmp_path / "file")
    assert "\n" not in str(caught.value)
    with pytest.raises(FewshotError, match="cannot be read as a pickle"):
        load_pickle(tmp_path / "missing")
