"""Trying to run a network under a transform: what fails leaves nothing behind.

A network may draw random numbers, write into its buffers, and set attributes of its modules. All
that is kept before a try, and made as it was after one that failed.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.episodes.types import flatten, map_tensors
from fewshot.errors import FewshotError

Result = TypeVar("Result")
Tree = TypeVar("Tree")

NO_FAILURE = (FewshotError, torch.OutOfMemoryError, MemoryError)
"""Errors that say nothing of whether a network can be transformed."""


class Trial:
    """Runs that may fail because a network cannot be transformed; `error` is why.

    What fails in the backward pass alone, or writes into a buffer, which a transformed network does
    once and not once an episode, fails too. Only the first run of a kind is looked at so closely:
    it takes another backward pass.

    Args:
        network: what is run.
        device: where.
        first: whether it is the first run of its kind.
        backward: whether a backward pass is to come.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, first: bool, backward: bool
    ) -> None:
        self.network, self.device, self.first, self.backward = network, device, first, backward
        self.error: Exception | None = None

    def inputs(self, tree: Tree) -> Tree:
        """The inputs to run on: a network may write into its inputs too."""
        return map_tensors(torch.clone, tree) if self.first else tree

    def until_failure(self, results: Iterator[Result]) -> Iterator[Result]:
        """Yield the results up to the first that fails, before which all is made as it was."""
        while True:
            state = (State(self.network) if self.first else None, Generators(self.device))
            try:
                result = next(results, None)
                if result is not None and state[0] is not None:
                    self._look_closely(result, state[0])
            except NO_FAILURE:
                raise
            except Exception as error:
                for part in state:
                    if part is not None:
                        part.restore()
                self.error = error
                return
            if result is None:
                return
            self.first = False
            yield result

    def _look_closely(self, result: Any, state: "State") -> None:
        if self.backward:
            generators = Generators(self.device)
            leaves = [leaf.sum() for leaf in flatten(result)[0] if leaf.requires_grad]
            weights = [p for p in self.network.parameters() if p.requires_grad]
            if leaves and weights:
                torch.autograd.grad(leaves, weights, retain_graph=True, allow_unused=True)
            generators.restore()
        if (name := state.changed_buffer()) is not None:
            raise RuntimeError(f"its forward changes the buffer {name}")


class State:
    """The buffers and attributes of a network's modules, and the random numbers of Python's own."""

    def __init__(self, network: nn.Module) -> None:
        self.python, self.numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        self.modules = [(module, dict(vars(module))) for module in network.modules()]
        self.buffers = [
            (name, module, buffer, buffer.detach().clone())
            for module in network.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def changed_buffer(self) -> str | None:
        """The class of a module and its buffer that was written into, or replaced, since."""
        for name, module, buffer, value in self.buffers:
            if getattr(module, name, None) is not buffer or not _same(buffer, value):
                return f"{type(module).__name__}.{name}"
        return None

    @torch.no_grad()
    def restore(self) -> None:
        """Make all be as it was."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        for module, attributes in self.modules:
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
        for name, module, buffer, value in self.buffers:
            if getattr(module, name, None) is not buffer:
                setattr(module, name, buffer)
            if not _same(buffer, value):
                buffer.copy_(value)


class Generators:
    """The states of torch's generators, that of the CPU and that of `device`."""

    def __init__(self, device: torch.device) -> None:
        self.of_cpu, self.of_device = torch.get_rng_state(), None
        self.device = device
        if device.type != "cpu":
            self.of_device = torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        """Set the generators to these states."""
        torch.set_rng_state(self.of_cpu)
        if self.of_device is not None:
            torch.get_device_module(self.device).set_rng_state(self.of_device, self.device)


@contextmanager
def untouched(network: nn.Module, device: torch.device) -> Iterator[None]:
    """What runs inside leaves no trace in the network and the random numbers to come."""
    state, generators = State(network), Generators(device)
    try:
        yield
    finally:
        state.restore()
        generators.restore()


def _same(one: object, other: Tensor) -> bool:
    """Whether two tensors hold the same; NaN is the same as NaN."""
    return (
        isinstance(one, Tensor)
        and one.shape == other.shape
        and torch.allclose(one, other, 0, 0, equal_nan=True)
    )
