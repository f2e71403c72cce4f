"""Pickles of arrays and plain containers, read without running what else a pickle could hold.

Unpickling calls whatever the file names, so an untrusted pickle is a program. Datasets come as
pickles all the same.
"""

import pickle
from pathlib import Path
from typing import IO, Any

from fewshot.errors import FewshotError

NUMPY = {
    **dict.fromkeys(
        ("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct", "scalar")
    ),
    **dict.fromkeys(("numpy.core.numeric", "numpy._core.numeric"), ("_frombuffer",)),
    "numpy": ("ndarray", "dtype"),
    "collections": ("OrderedDict",),
    "builtins": ("set", "frozenset", "bytearray"),
    "__builtin__": ("set", "frozenset", "bytearray"),  # as Python 2 calls them
}
"""All that a pickle may name: what NumPy's arrays and the plain containers are made by."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1  # how bytes are written for Python 2
        if name not in NUMPY.get(module, ()):
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is no array and no plain container"
            )
        return super().find_class(module, name)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes as {encoding}")
    return text.encode("latin-1")


def load_pickle(path: Path, file: IO[bytes] | None = None) -> Any:
    """The content of a pickle of arrays and plain containers, Python 2's included.

    Args:
        path: the file; what errors call it.
        file: read this instead, from its place on.

    Raises:
        FewshotError: it cannot be read, is damaged, or holds anything else.
    """
    try:
        if file is not None:
            return _Restricted(file, encoding="latin1").load()
        with path.open("rb") as opened:
            return _Restricted(opened, encoding="latin1").load()
    # a damaged pickle can raise about anything: its operations are carried out on wrong values
    except Exception as error:
        raise FewshotError(
            f"{path} cannot be read as a pickle of arrays ({error}); replace it"
        ) from error
