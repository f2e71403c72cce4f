"""What compiled code depends on besides the shapes that it is given, as a number.

Whatever a function reads from Python while it is traced, rates, modes, numbers of steps, is a
constant of its graph. It could read anything that lies on its learner; so everything there counts:
no class has to say what its operations depend on. Left out are

- what a class names in a tuple `bookkeeping`: the course of training, results, counters. Names are
  collected over its bases. One that is forgotten costs a compilation, never a wrong result, and
  `Dependencies.changes` names it.
- what the function itself has changed while it was traced, such as an attention map that a network
  keeps: compiled code does not run such Python.
- the inside of objects of Python's library, NumPy, torch and Lightning that are no modules, and of
  collections of more than `LARGEST` items: these count by which object they are.
"""

import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, np.generic),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
"""Types whose values never change, and are the same where they are equal."""

CLOSED = {*sys.stdlib_module_names, "numpy", "torch", "lightning", "pytorch_lightning"}
"""Packages whose objects hold much of their own that changes by itself."""

UNREAD = {name for name in vars(nn.Module()) if "state_dict" in name or "persistent" in name}
"""What every module keeps for saving and loading."""

LARGEST = 10_000
"""Items of a collection that may be hyperparameters; one that has more is data."""


class Dependencies:
    """All that may change what a traced function of a module does, as one number.

    Two looks at a module give the same number if nothing has changed between them, or was changed
    back. Numbers are never given twice: what they stand for is held.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._last: _State | None = None
        self._number = 0
        self._settled: dict[str, Hashable] = {}
        self._own: set[str] = set()  # what the function changes itself

    def __reduce__(self) -> tuple[type["Dependencies"], tuple[()]]:
        """Copies begin empty: they are asked about another module."""
        return Dependencies, ()

    def number(self, module: nn.Module) -> int:
        """The number of the state that `module` is in.

        While nothing changes, this compares what lies there with what lay there, object by object,
        and reads no value.
        """
        if self._last is None or self._last.module is not module or not self._last.holds():
            self._last = _State(module, self._own)
            # a new number, unless this was seen before
            self._number = self._numbers.setdefault(self._last.content(), len(self._numbers))
        return self._number

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors of the state that was last asked for, whose values the number is not of."""
        return () if self._last is None else self._last.tensors

    def settle(self) -> None:
        """Take note that the function was traced in the state that was last asked for."""
        if self._last is None:
            return
        traced, self._last = self._last, _State(self._last.module, self._own)
        if changed := _differences(traced.entries, self._last.entries):
            self._own.update(changed)
            self._last = _State(self._last.module, self._own)
            self._numbers[self._last.content()] = self._number
        self._settled = self._last.entries

    def changes(self) -> list[str]:
        """What has changed since the function was last traced, such as ``inner_lr``."""
        if not self._settled or self._last is None:
            return []
        found = _differences(self._settled, self._last.entries)
        return list(dict.fromkeys(_readable(path) for path in found))


class _Same:
    """Stands for one object, and keeps it alive: no other can take its place in memory."""

    __slots__ = ("what",)

    def __init__(self, what: Any) -> None:
        self.what = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.what is other.what

    def __hash__(self) -> int:
        return id(self.what)


class _State:
    """What lies on a module, on its submodules, and on what else lies there.

    Args:
        module: where to begin.
        left_out: paths that are not followed.
    """

    def __init__(self, module: nn.Module, left_out: Collection[str]) -> None:
        self.module = module
        self.entries: dict[str, Hashable] = {}  # what each path leads to
        self._left_out = set(left_out)
        self._places: dict[int, str] = {}  # where an object was first met
        self.tensors: list[Tensor] = []
        self._sized: list[Collection[Any]] = []
        self._named: list[Iterable[Any]] = []  # of which the keys count
        self._live: list[Iterable[Any]] = []  # values, as they are when they are iterated over
        self._readers: list[Callable[[], Iterable[Any]]] = []  # of other values
        self._visit("", module)
        self._facts = [*map(_facts, self.tensors)]
        self._lengths = [*map(len, self._sized)]
        self._keys = [*chain.from_iterable(self._named)]
        self._values = [*self._read()]

    def content(self) -> Hashable:
        """The same for states that are the same."""
        return tuple(self.entries.items())

    def holds(self) -> bool:
        """Whether nothing has changed since: the same objects everywhere, tensors of the same kind.

        The loops run in C, a microsecond for each submodule.
        """
        try:
            return (
                [*map(len, self._sized)] == self._lengths
                and all(map(is_, chain.from_iterable(self._named), self._keys))
                and all(map(is_, self._read(), self._values))
                and [*map(_facts, self.tensors)] == self._facts
            )
        except LookupError:  # a name is gone
            return False

    def _read(self) -> Iterator[Any]:
        return chain.from_iterable((*self._live, *(read() for read in self._readers)))

    def _visit(self, path: str, value: Any) -> None:
        if isinstance(value, PLAIN):
            # told apart as well: 1, 1.0 and True; 0.0 and -0.0
            exact = repr(value) if isinstance(value, float | complex | np.generic) else value
            self.entries[path] = type(value), exact
        elif isinstance(value, Tensor):
            self.entries[path] = _Same(value), *_facts(value)
            self.tensors.append(value)
        elif id(value) in self._places:
            self.entries[path] = "see", self._places[id(value)]
        else:
            self._places[id(value)] = path
            self._open(path, value)

    def _open(self, path: str, value: Any) -> None:
        """Look into what may have parts."""
        collection = isinstance(value, dict | list | tuple | set | frozenset | deque)
        if collection and len(value) <= LARGEST:
            self.entries[path] = type(value), len(value)
            self._visit_items(path, value)
        else:
            self.entries[path] = (_Same(value),)
        if isinstance(value, nn.Module):
            for name in bookkeeping(type(value)):
                for kind in ("_parameters", "_buffers", "_modules"):
                    self._left_out.add(f"{_joined(path, kind)}[{name!r}]")
        if isinstance(value, nn.Module) or type(value).__module__.partition(".")[0] not in CLOSED:
            self._visit_attributes(path, value)

    def _visit_items(self, path: str, items: Any) -> None:
        if isinstance(items, dict):
            self._visit_named(items, {key: f"{path}[{key!r}]" for key in items})
            return
        if not isinstance(items, tuple | frozenset):
            self._sized.append(items)
            self._live.append(items)
        if isinstance(items, set | frozenset):
            self.entries[path] = type(items), frozenset(map(_item, items))
            return
        for place, value in enumerate(items):
            self._visit(f"{path}[{place}]", value)

    def _visit_attributes(self, path: str, owner: Any) -> None:
        kept = set(bookkeeping(type(owner)))
        attributes = getattr(owner, "__dict__", {})
        self._visit_named(
            attributes, {name: _joined(path, name) for name in attributes if name not in kept}
        )
        slots = [name for name in _slots(type(owner)) if name not in kept]
        if slots:
            self._readers.append(lambda: [getattr(owner, name, None) for name in slots])
        for name in slots:
            self._visit(_joined(path, name), getattr(owner, name, None))

    def _visit_named(self, values: Mapping[Any, Any], paths: dict[Any, str]) -> None:
        """Look into those of some values that have paths, unless these are left out."""
        followed = {key: path for key, path in paths.items() if path not in self._left_out}
        self._sized.append(values)
        if len(followed) == len(values) > 0:
            self._named.append(values)
            self._live.append(values.values())
        elif followed:  # twice the first, so that it is a tuple that is got
            self._readers.append(partial(itemgetter(next(iter(followed)), *followed), values))
        for key, path in followed.items():
            if not isinstance(key, PLAIN):
                self.entries[f"{path} as a key"] = _Same(key)
            if key in UNREAD:
                self.entries[path] = (_Same(values[key]),)
            else:
                self._visit(path, values[key])


def bookkeeping(cls: type) -> Iterator[str]:
    """The attributes of a class, by name, that the maths of an episode does not read."""
    return chain.from_iterable(vars(base).get("bookkeeping", ()) for base in cls.__mro__)


def _slots(cls: type) -> list[str]:
    slots = (vars(base).get("__slots__", ()) for base in cls.__mro__)
    names = chain.from_iterable((one,) if isinstance(one, str) else one for one in slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _facts(tensor: Tensor) -> tuple[Hashable, ...]:
    """What traced operations depend on, whatever its values."""
    stride = tensor.stride() if tensor.layout is torch.strided else None
    return tensor.requires_grad, tensor.dtype, tensor.device, tensor.shape, stride


def _item(value: Any) -> Hashable:
    return (type(value), value) if isinstance(value, PLAIN) else _Same(value)


def _differences(before: dict[str, Hashable], after: dict[str, Hashable]) -> list[str]:
    """The paths that lead elsewhere."""
    paths = dict.fromkeys((*before, *after))
    return [path for path in paths if before.get(path) != after.get(path)]


def _readable(path: str) -> str:
    """A path as it is written in code: a module's parts are its attributes."""
    return re.sub(r"(?:^|\.)_(?:parameters|buffers|modules)\['(.*?)'\]", r".\1", path).lstrip(".")
