"""What a search has tried, in a file by Optuna (arXiv:1907.10902), and what it is to try next."""

import math
import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cli.sweep_ranges import Range
from fewshot.errors import FewshotError
from fewshot.extras import require

FILE = "search.db"
"""The file of all studies, in the sweep's folder: ``optuna-dashboard sqlite:///sweep/search.db``"""
PRUNERS = {"median": "MedianPruner", "halving": "SuccessiveHalvingPruner", "none": "NopPruner"}
"""Optuna's, by what ``--pruner`` says."""
NUMBER, WHY = "number", "why"
"""What is kept with a trial of Optuna's: which of ours it is, and a word on how it ended."""


class Plan(NamedTuple):
    """How a search goes."""

    ranges: Mapping[str, Range]
    trials: int
    seed: int
    pruner: str


class Outcome(NamedTuple):
    """A trial, as the table shows it."""

    number: int
    values: Mapping[str, Any]
    best: float | None
    """Of its validations; None where there was none."""
    validations: int
    state: str
    """``complete``, ``pruned``, ``failed`` or ``stopped``."""
    why: str


class Trial:
    """A trial that is under way: values for the ranges, and what its validations gave."""

    def __init__(self, of: Any, mode: str) -> None:
        self.of = of
        """Optuna's."""
        self.number: int = of.user_attrs[NUMBER]
        self.values: dict[str, Any] = dict(of.params)
        self.found: list[float] = []
        """What its validations gave, in their order."""
        self._direction = mode

    @property
    def best(self) -> float | None:
        """The best of what was found; None where nothing was."""
        finite = [value for value in self.found if math.isfinite(value)]
        if not finite:
            return None
        return max(finite) if self._direction == "max" else min(finite)

    def take(self, values: Sequence[float]) -> bool:
        """Take note of all that was found so far; whether the trial is to be pruned by now."""
        for value in values[len(self.found) :]:
            self.found.append(value)
            self.of.report(value, len(self.found))
            if self.of.should_prune():
                return True
        return False


class Study:
    """The trials for one combination of what is not searched over.

    What a trial tries is a function of the seed, its number and the trials that have ended, not of
    when the search was stopped in between. A trial that was cut off or has failed is asked for once
    more, under its number.
    """

    def __init__(self, folder: Path, name: str, mode: str, plan: Plan) -> None:
        self._optuna = optuna = require("optuna", "search")
        self.mode, self.plan = mode, plan
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = folder / FILE
        self._open = ExitStack()

        def connect() -> sqlite3.Connection:
            return self._open.enter_context(closing(sqlite3.connect(file)))

        try:
            # by a function: an address would read signs in the name of the folder
            storage = optuna.storages.RDBStorage("sqlite://", {"creator": connect})
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize" if mode == "max" else "minimize",
                pruner=getattr(optuna.pruners, PRUNERS[plan.pruner])(),
                load_if_exists=True,
            )
        except Exception as error:  # of SQLite, SQLAlchemy, Alembic and Optuna
            self.close()
            raise FewshotError(
                f"{file} is no study of a search ({type(error).__name__}); remove it, or set"
                " --folder to another folder"
            ) from error
        self._ranges = {name: self._distribution(of) for name, of in plan.ranges.items()}
        self._begun: set[int] = set()
        for trial in self._trials("RUNNING"):  # whose search was killed
            self._study.tell(trial.number, state=self._state("FAIL"))

    def close(self) -> None:
        """Close the file, which Optuna leaves to the collector; nothing can be asked any more."""
        self._open.close()

    def _distribution(self, of: Range) -> Any:
        kinds = self._optuna.distributions
        if of.words:
            return kinds.CategoricalDistribution(of.words)
        is_whole = isinstance(of.low, int) and isinstance(of.high, int)
        kind = kinds.IntDistribution if is_whole else kinds.FloatDistribution
        step = {} if of.step is None else {"step": of.step}
        return kind(of.low, of.high, log=of.log, **step)

    def _state(self, name: str) -> Any:
        return getattr(self._optuna.trial.TrialState, name)

    def _trials(self, *states: str) -> list[Any]:
        found = self._study.get_trials(states=tuple(map(self._state, states)) or None)
        assert isinstance(found, list)
        return found

    def ended(self) -> dict[int, Any]:
        """Optuna's trials that came to an end, by our numbers."""
        return {t.user_attrs[NUMBER]: t for t in self._trials("COMPLETE", "PRUNED")}

    def ask(self) -> Trial | None:
        """The next trial: one that was not finished, or a new one; None where there is none."""
        known = {t.user_attrs[NUMBER]: t for t in self._trials() if NUMBER in t.user_attrs}
        ended = self.ended()
        again = [n for n in sorted(known) if n not in ended and n not in self._begun]
        number = again[0] if again else max(known, default=-1) + 1
        if number >= self.plan.trials:
            return None
        if again and not self._trials("WAITING"):
            self._study.enqueue_trial(known[number].params, {NUMBER: number})
        seed = random.Random(f"{self.plan.seed} {number}").getrandbits(32)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed)
        trial = self._study.ask(self._ranges)
        if NUMBER not in trial.user_attrs:
            trial.set_user_attr(NUMBER, number)
        self._begun.add(trial.user_attrs[NUMBER])
        return Trial(trial, self.mode)

    def end(self, trial: Trial, state: str, why: str = "") -> None:
        """Note how a trial has ended: ``COMPLETE`` by its best value, ``PRUNED`` or ``FAIL``."""
        of = trial.of
        if why:
            of.set_user_attr(WHY, why)
        self._study.tell(of, trial.best if state == "COMPLETE" else None, self._state(state))

    def outcomes(self) -> list[Outcome]:
        """All trials: those that are complete, best first, then the pruned, then the others."""
        sign = -1 if self.mode == "max" else 1
        order = ["complete", "pruned", "failed", "stopped"]
        last = {t.user_attrs[NUMBER]: t for t in self._trials() if NUMBER in t.user_attrs}
        found = [self._outcome(t) for t in (last | self.ended()).values()]
        return sorted(
            found,
            key=lambda o: (
                order.index(o.state),
                math.inf if o.best is None else sign * o.best,
                o.number,
            ),
        )

    def _outcome(self, of: Any) -> Outcome:
        finite = [v for v in of.intermediate_values.values() if math.isfinite(v)]
        better = max if self.mode == "max" else min
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        why = of.user_attrs.get(WHY, "")
        state = names.get(of.state.name, "stopped")
        return Outcome(
            of.user_attrs[NUMBER],
            dict(of.params),
            better(finite) if finite else None,
            len(of.intermediate_values),
            "stopped" if state == "failed" and not why else state,
            why,
        )
