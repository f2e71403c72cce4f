"""The trials of a search: each a `fewshot fit` without a test, ended where it falls behind."""

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cli import sweep_jobs
from fewshot.cli.built import Judge
from fewshot.cli.sweep_jobs import GRACE, Child, Job, end, say, threads_of
from fewshot.cli.sweep_places import named
from fewshot.cli.sweep_plan import Combination, key_of
from fewshot.cli.sweep_ranges import placed
from fewshot.cli.sweep_stop import Stop
from fewshot.cli.sweep_study import Study, Trial
from fewshot.tasks.estimates import scale_of

VALIDATIONS = "validations.json"
"""What `fewshot.callbacks.validations` writes; that imports what a sweep does without."""
TRIES = (
    "--test_after_fit=false",
    "--trainer.callbacks+=fewshot.callbacks.validations.ValidationValues",
)
"""What makes a fit a trial: the test episodes choose nothing."""


class Attempt:
    """A trial and its process; None where another trial under way is the same run."""

    def __init__(self, trial: Trial, job: Job, place: str) -> None:
        self.trial, self.job, self.place = trial, job, place
        self.child: Child | None = None
        self.is_pruned, self.pruned_at = False, 0.0

    def look(self) -> None:
        """Take what is validated by now; have the process end where the trial is pruned."""
        if not self.is_pruned and self.trial.take(validations(self.job.run)):
            self.is_pruned, self.pruned_at = True, time.monotonic()
            if self.child is not None:
                self.child.process.terminate()  # it finishes its meta-step, and writes last.ckpt
        elif self.is_pruned and self.child and time.monotonic() > self.pruned_at + GRACE:
            self.child.kill()


class Searched(NamedTuple):
    """A combination and what is searched in it."""

    combination: Combination
    study: Study
    judge: Judge
    prefix: str
    """Of the names of its runs."""


class Trials:
    """Runs the trials of one combination, so many together."""

    def __init__(self, searched: Searched, folder: Path, together: int, stop: Stop) -> None:
        self.searched, self.folder = searched, folder
        self.study, self.judge = searched.study, searched.judge
        self.together, self.stop = together, stop
        self.under_way: list[Attempt] = []

    def run(self) -> None:
        """Run what is not done, with a line at each beginning and end, until there is a signal."""
        try:
            while not self.stop.noted and (self._fill() or self.under_way):
                time.sleep(sweep_jobs.POLL)
                for attempt in [*self.under_way]:
                    self._look(attempt)
        finally:
            end([attempt.child for attempt in self.under_way if attempt.child], self.stop)

    def _fill(self) -> bool:
        """Begin as many as may be under way; whether any was begun."""
        begun = False
        while len(self.under_way) < self.together and not self.stop.noted:
            trial = self.study.ask()
            if trial is None:
                break
            self._begin(trial)
            begun = True
        return begun

    def _begin(self, trial: Trial) -> None:
        args = placed(self.searched.combination.args, trial.values)
        name = f"{self.searched.prefix}trial-{trial.number}"
        (run,) = named([Combination(name, args, key_of(args))], self.folder, write=True)
        total = len(str(self.study.plan.trials))
        place = f"[{trial.number + 1:{total}}/{self.study.plan.trials}] {name}"
        attempt = Attempt(trial, Job(run.name, args, self.folder, TRIES), place)
        values = ", ".join(f"{option} {shown(value)}" for option, value in trial.values.items())
        if any(other.job.name == run.name for other in self.under_way):
            say(f"{place}: {values}: the same as {run.name}, which is under way")
            self.under_way.append(attempt)
        elif not self._is_known(attempt):
            attempt.look()  # what a search that was killed did not note any more
            if attempt.is_pruned:
                self._end(attempt, "PRUNED")
            elif attempt.job.is_under_way:
                self._end(attempt, "FAIL", "under way in another process; left to it")
            else:
                how = "goes on" if attempt.job.begins_with else "begins"
                say(f"{place}: {values}: {how} ({attempt.job.log})")
                attempt.child = Child(attempt.job, place, threads_of(self.together))
                self.under_way.append(attempt)

    def _is_known(self, attempt: Attempt) -> bool:
        """Whether an earlier trial tried the same, and then is the answer."""
        trial = attempt.trial
        for number, other in self.study.ended().items():
            if other.params == trial.values:
                pruned = trial.take([*other.intermediate_values.values()])
                state = "PRUNED" if pruned else other.state.name
                self._end(attempt, state, f"the same as trial-{number}")
                return True
        return False

    def _look(self, attempt: Attempt) -> None:
        """Note what is new of an attempt, and its end."""
        if attempt.child is None:
            if not any(o.job.name == attempt.job.name and o.child for o in self.under_way):
                self.under_way.remove(attempt)
                if not self._is_known(attempt):
                    self._end(attempt, "FAIL", f"{attempt.job.name}, the same run, has failed")
            return
        code = attempt.child.process.poll()
        attempt.look()  # after it was seen to end: nothing can follow
        if code is None:
            return
        self.under_way.remove(attempt)
        if attempt.is_pruned:
            self._end(attempt, "PRUNED")
        elif code:
            self._end(attempt, "FAIL", attempt.child.fault())
        elif not attempt.trial.found:
            self._end(attempt, "FAIL", f"it ended well, but without {self.judge.metric}")
        elif attempt.trial.best is None:
            self._end(attempt, "PRUNED", "no value is finite")
        else:
            self._end(attempt, "COMPLETE")

    def _end(self, attempt: Attempt, state: str, why: str = "") -> None:
        self.study.end(attempt.trial, state, why)
        trial, seconds = attempt.trial, ""
        if attempt.child is not None:
            seconds = f", {attempt.child.seconds}"
        if state == "FAIL":
            say(f"{attempt.place}: failed: {why}{seconds} ({attempt.job.log})")
            return
        told = [figure(trial.best, self.judge)]
        if state == "PRUNED":
            number = len(trial.found)
            told.append(f"pruned after {number} validation{'' if number == 1 else 's'}")
        say(f"{attempt.place}: {', '.join([*told, *filter(None, [why])])}{seconds}")


def validations(run: Path | None) -> list[float]:
    """What the validations of a run gave so far, in their order; NaN for what is not finite."""
    if run is None:
        return []
    with suppress(OSError, ValueError):
        found = json.loads((run / VALIDATIONS).read_text(encoding="utf-8"))
        return [math.nan if value is None else value for _, value in sorted(found)]
    return []


def figure(value: float | None, judge: Judge) -> str:
    """A validation's value in its unit."""
    if value is None:
        return f"{judge.metric} unknown"
    return f"{judge.metric} {scale_of(judge.unit) * value:.4g} {judge.unit}".rstrip()


def shown(value: Any) -> str:
    """A value that was tried, in a few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
