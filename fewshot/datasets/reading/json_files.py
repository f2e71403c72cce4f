"""JSON files of labelled texts: read whole, with the line of what is wrong in them."""

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from json.decoder import WHITESPACE  # type: ignore[attr-defined]  # typeshed leaves it out
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError


@contextmanager
def collection_paused() -> Iterator[None]:
    """Inside, or in a decorated function, no search for cyclic garbage: reading makes none.

    The search goes through the millions of objects that have been read again and again: half the
    time of a large file.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_object(path: Path, remedy: str, encodings: Sequence[str] = ("utf-8",)) -> dict[str, Any]:
    """The JSON object that the file `path` holds.

    Args:
        path: the file.
        remedy: what the user can do about a wrong file, for the message.
        encodings: tried in this order.

    Raises:
        FewshotError: the file cannot be read, holds no object, or an object of it has a key twice.
    """
    try:
        data = json.loads(_text(path, encodings), object_pairs_hook=_object)
    # ValueError: not JSON, not text, or a key twice
    except (OSError, ValueError, RecursionError) as error:
        raise FewshotError(f"{path} cannot be read as JSON ({error}); {remedy}") from error
    if not isinstance(data, dict):
        raise FewshotError(f"{path} holds a {type(data).__name__}, not an object; {remedy}")
    return data


def place(path: Path, *keys: str | int, encodings: Sequence[str] = ("utf-8",)) -> str:
    """A value's place in the JSON file `path`: name, line and the value's `keys` from the root."""
    text = _text(path, encodings)
    line = text.count("\n", 0, _position(text, keys)) + 1
    name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(
        "."
    )
    return f"{path}, line {line}: {name}"


def _text(path: Path, encodings: Sequence[str]) -> str:
    content = path.read_bytes()
    for encoding in encodings[:-1]:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            pass  # the next one
    return content.decode(encodings[-1])


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of `pairs`; Python's own reader would silently keep the last of equal keys."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands there twice")
        found[key] = value
    return found


def _position(text: str, keys: Sequence[str | int]) -> int:
    """Where the value begins that `keys` lead to from the root of a JSON text."""
    decoder, at = json.JSONDecoder(), _skip(text, 0)
    for key in keys:
        found, inside, number = None, _skip(text, at + 1), 0
        while found != key:
            if text[at] == "{":
                found, inside = decoder.raw_decode(text, inside)
                inside = _skip(text, _skip(text, inside) + 1)  # past the colon
            else:
                found, number = number, number + 1
            if found != key:
                # past the comma
                inside = _skip(text, _skip(text, decoder.raw_decode(text, inside)[1]) + 1)
        at = inside
    return at


def _skip(text: str, at: int) -> int:
    """The first place from `at` on without white space."""
    match = WHITESPACE.match(text, at)
    assert match is not None  # it may be empty
    return int(match.end())
