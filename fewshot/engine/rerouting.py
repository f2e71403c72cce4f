"""Calls of torch's functions, replaced by others while an episode runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]


class Rerouting(TorchFunctionMode):
    """Inside, some of torch's functions are others; all else goes through.

    Every call of torch passes through every mode in force, at some microseconds each, which a small
    network feels. So there is one mode for all that is replaced.

    Args:
        instead: by the function that is replaced, what is called in its place.
    """

    def __init__(self, instead: Mapping[Function, Function]) -> None:
        super().__init__()
        self.instead = instead

    def __torch_function__(
        self,
        func: Function,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call what stands in the function's place, or the function."""
        return self.instead.get(func, func)(*args, **(kwargs or {}))
