"""The callbacks of every run; those that a user names take the place of ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ModelSummary, ProgressBar

from fewshot.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from fewshot.callbacks.curves import AdaptationCurve
from fewshot.callbacks.distributions import TestFigures
from fewshot.callbacks.full_disk import FullDisk
from fewshot.callbacks.hyperparameters import Hyperparameters
from fewshot.callbacks.interruption import Interruption
from fewshot.callbacks.looking_ahead import LookingAhead
from fewshot.callbacks.memorisation import Memorisation
from fewshot.callbacks.pictures import EpisodePicture
from fewshot.callbacks.predictions import PredictionWriter
from fewshot.callbacks.progress import EpisodeProgressBar
from fewshot.callbacks.projector import Projector
from fewshot.callbacks.results import ResultsWriter
from fewshot.callbacks.short_summary import ShortSummary
from fewshot.callbacks.sources import SourceCurves
from fewshot.callbacks.throughput import Throughput
from fewshot.errors import FewshotError


def not_named_already(ours: Sequence[Callback], named: Sequence[Callback]) -> list[Callback]:
    """Those of our callbacks whose work no named one does.

    Any progress bar takes the place of our bar, any model summary that of `ShortSummary`, a
    checkpoint callback that of `BestCheckpoint`, one that writes ``last.ckpt`` that of
    `LastCheckpoint`; of the others, one of the same class.

    Args:
        ours: the callbacks that every run of the command line has.
        named: the user's, of `trainer.callbacks`.

    Raises:
        FewshotError: `LastCheckpoint` would go, but options for it are given.
    """
    return [callback for callback in ours if not any(_replaces(one, callback) for one in named)]


def _replaces(named: Callback, ours: Callback) -> bool:
    if isinstance(ours, LastCheckpoint) and _writes_last(named):
        given = {"every_n_steps": ours.every_n_steps, "every_minutes": ours.every_minutes}
        for name, value in given.items():
            if value is not None:
                raise FewshotError(
                    f"checkpoint.{name} is {value}, but {type(named).__name__} of trainer.callbacks"
                    " writes last.ckpt in its way; leave one of them out"
                )
        return True
    if isinstance(ours, BestCheckpoint):
        return isinstance(named, ModelCheckpoint) and not isinstance(named, LastCheckpoint)
    for kind in (ProgressBar, ModelSummary):
        if isinstance(ours, kind):
            return isinstance(named, kind)
    return isinstance(named, type(ours))


def _writes_last(callback: Callback) -> bool:
    return isinstance(callback, ModelCheckpoint) and (
        isinstance(callback, LastCheckpoint)
        or bool(callback.save_last)
        or callback.filename == "last"
    )


def of_every_run(config: Mapping[str, Any], tests: bool) -> list[Callback]:
    """The callbacks of every run, except those that the Trainer's own flags turn off.

    Args:
        config: the Trainer's arguments.
        tests: whether a test follows a training.
    """
    callbacks: list[Callback] = [
        EpisodePicture(),
        AdaptationCurve(),
        Memorisation(),
        PredictionWriter(),
        Projector(),
        ResultsWriter(),
        TestFigures(),
        SourceCurves(),
        Throughput(),
        Interruption(),
        FullDisk(),
        Hyperparameters(),
    ]
    if tests and not config["fast_dev_run"]:
        callbacks.append(LookingAhead())
    if config["enable_checkpointing"] is not False:
        callbacks.append(BestCheckpoint())
    if config["enable_progress_bar"] is not False:
        callbacks.append(EpisodeProgressBar())
    if config["enable_model_summary"] is not False:
        callbacks.append(ShortSummary())
    return callbacks
