"""A learner without a `task`: it is made when a Trainer brings the benchmark that states it."""

import functools
from collections.abc import Mapping
from typing import Any, NoReturn, SupportsIndex

import lightning as L
from torch import nn
from typing_extensions import Self

from fewshot.errors import FewshotError
from fewshot.hyperparameters import (
    RemembersArguments,
    check_arguments,
    constructor_arguments,
    missing_arguments,
)


class NotMadeYet(FewshotError, AttributeError):
    """Asked of a learner before its benchmark came; for ``hasattr``, there is no such attribute."""


class Later(L.LightningModule):
    """Mix-in before a learner's class: until `configure_callbacks`, the first that a Trainer calls.

    There it becomes the learner, from the arguments it was given and the facts of the benchmark.
    """

    learner: type[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        L.LightningModule.__init__(self)
        self.given = args, kwargs

    def configure_callbacks(self) -> Any:
        """Become the learner.

        Raises:
            FewshotError: there is no benchmark, or it lacks a fact that the learner needs.
        """
        cls, trainer, (args, kwargs) = self.learner, self.trainer, self.given
        benchmark = getattr(trainer, "datamodule", None)
        facts: dict[str, Any] = {}
        for name in missing_arguments(cls, args, kwargs):
            if (value := getattr(benchmark, name, None)) is None:
                says = "there is no DataModule" if benchmark is None else (
                    f"{type(benchmark).__name__} does not state it"
                )  # fmt: skip
                raise FewshotError(
                    f"{cls.__name__} needs the argument {name}, but {says}; pass {name}=..."
                )
            facts[name] = value
        kwargs = {**kwargs, **facts}
        check_arguments(cls, args, kwargs)
        training = self.training
        self.__class__ = cls
        object.__setattr__(self, "init_args", constructor_arguments(cls, args, kwargs))
        self.__init__(*args, **kwargs)  # type: ignore[misc]  # of the learner now
        self.trainer = trainer
        self.train(training)
        return self.configure_callbacks()

    def __getattr__(self, name: str) -> Any:
        """What the learner would have: an error that says when."""
        if name in vars(L.LightningModule) or name.startswith("__"):
            return super().__getattr__(name)
        raise self._not_yet(name)

    @property
    def has_nothing_to_train(self) -> bool:
        """Whether its class says so."""
        return bool(self.learner.trains_on == "nothing")

    def parameters(self, recurse: bool = True) -> NoReturn:
        """There are none yet."""
        raise self._not_yet("parameters")

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """There is none yet."""
        raise self._not_yet("state_dict")

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> NoReturn:
        """There is nothing to load it into."""
        raise self._not_yet("load_state_dict")

    def _not_yet(self, name: str) -> NotMadeYet:
        learner = self.learner.__name__
        return NotMadeYet(
            f"{learner} was given no task and takes it from the DataModule that it is trained or"
            f" tested with; for {name} before, pass {learner}(..., task=data.task)"
        )


@functools.cache
def later(cls: Any) -> Any:
    """The class `cls`, to be made later."""
    # The name begins with "_": a command line would find two classes of the learner's name
    return type(
        f"_Later{cls.__name__}", (Later, cls), {"learner": cls, "__module__": cls.__module__}
    )


class TakesTask(RemembersArguments):
    """Mix-in: a learner that is given no `task` waits for a DataModule that states it.

    A class of its own, since jsonargparse looks no further than a ``__new__`` for the arguments of
    a class that has one beside its ``__init__``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments, or make what waits."""
        missing = [] if issubclass(cls, Later) else missing_arguments(cls, args, kwargs)
        if "task" not in missing or "backbone" in missing:
            return super().__new__(cls, *args, **kwargs)
        check_arguments(cls, args, kwargs, partly=True)
        unmade: Any = cls
        instance: Self = nn.Module.__new__(later(unmade))
        return instance

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """How it is copied: as an object to be filled, not as a learner without arguments."""
        reduced: Any = super().__reduce_ex__(protocol)
        make, given, *state = reduced
        return (object.__new__ if make.__name__ == "__newobj__" else make, given, *state)
