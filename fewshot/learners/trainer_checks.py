"""What Lightning's Trainer has that is made for automatic optimization, refused with the remedy.

A meta-step is one step of manual optimization: what acts on automatic steps would do nothing, or
something else, without a word.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import lightning as L
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    DeviceStatsMonitor,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from lightning.pytorch.trainer.states import TrainerFn

from fewshot.errors import FewshotError
from fewshot.learners.lightning_internals import SizeSearch, rate_search, saves_by_the_clock

ONE_STEP = "a meta-batch is one optimizer step; set data.meta_batch_size (data.batch_size)"


def check_trainer(trainer: L.Trainer, learner: Any) -> None:
    """Check a Trainer's flags and callbacks before it does anything.

    Raises:
        FewshotError: naming all that is not right here, each with its remedy.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set from outside
    training = trainer.state.fn == TrainerFn.FITTING
    found = list(_flags(trainer)) if training else []
    for callback in callbacks:
        for kind, check in CHECKS.items():
            in_use = isinstance(callback, kind) and (training or kind in ANYWHERE)
            if in_use and (told := check(callback, trainer, learner)):
                found.append(f"{type(callback).__name__} {told}")
    if found:
        raise FewshotError("; ".join(found))


def check_going_on(trainer: L.Trainer) -> None:
    """Check the callbacks of a training that goes on from a checkpoint.

    Raises:
        FewshotError: naming those that do not go on, each with its remedy.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set from outside
    if found := [told for kind, told in NOT_GOING_ON.items() for c in callbacks if type(c) is kind]:
        raise FewshotError("; ".join(found))


def _flags(trainer: L.Trainer) -> Iterator[str]:
    if trainer.accumulate_grad_batches != 1:
        yield f"accumulate_grad_batches is {trainer.accumulate_grad_batches}, but {ONE_STEP}"
    if trainer.gradient_clip_val:
        yield (
            f"gradient_clip_val is {trainer.gradient_clip_val}, which clips steps of automatic"
            " optimization alone; set model.gradient_clip"
        )


def _accumulation(callback: Callback, trainer: L.Trainer, learner: Any) -> str:
    return f"accumulates gradients over steps, but {ONE_STEP}"


def _averaging(callback: Callback, trainer: L.Trainer, learner: Any) -> str:
    return (
        "trains on after its average under manual optimization; take WeightAveraging or"
        " EMAWeightAveraging, which are right here"
    )


def _pruning(callback: Callback, trainer: L.Trainer, learner: Any) -> str:
    if not learner.knows_weights_by_name:
        return ""
    return (
        f"renames weights, which {type(learner).__name__} knows by name; leave it out, or take a"
        " learner such as MAML"
    )


def _clock(callback: ModelCheckpoint, trainer: L.Trainer, learner: Any) -> str:
    if not saves_by_the_clock(callback):
        return ""
    return (
        "has a train_time_interval, whose clock stands still under manual optimization; leave it"
        " out and set checkpoint.every_minutes, from Python LastCheckpoint(every_minutes=...)"
    )


def _device_stats(callback: Callback, trainer: L.Trainer, learner: Any) -> str:
    if isinstance(trainer.accelerator, CPUAccelerator) and find_spec("psutil") is None:
        return "needs psutil for the CPU; pip install psutil"
    return ""


def _rate_finder(callback: LearningRateFinder, trainer: L.Trainer, learner: Any) -> str:
    attribute, updates = rate_search(callback)
    if not updates:
        return ""
    if attribute != "learning_rate" and (attribute or "lr" in learner.init_args):
        return f"changes {attribute or 'lr'}, not the outer optimizer; set attr_name: learning_rate"
    return ""


def _size_finder(callback: BatchSizeFinder, trainer: L.Trainer, learner: Any) -> str:
    search, data = SizeSearch.of(callback), trainer.datamodule  # type: ignore[attr-defined]
    if trainer.state.fn != TrainerFn.FITTING:
        right = "eval_batch_size"
    else:
        right = "batch_size" if learner.trains_on == "examples" else "meta_batch_size"
    if not hasattr(data, right):
        return ""  # a benchmark of one's own
    if search.attribute != right:
        return f"changes {search.attribute}, which is not in use here; set batch_arg_name: {right}"
    if right != "meta_batch_size":
        return ""
    if search.mode != "power":
        return "tries sizes by bisection, of which train_episodes is no multiple; set mode: power"
    return _doubling(search, data.episodes["train"])


def _doubling(search: SizeSearch, episodes: int) -> str:
    """Whether an epoch is whole meta-batches of each size that the search may try."""
    size, trials = search.first, search.trials
    while trials and size <= min(episodes, search.largest):
        if episodes % size:
            remedy = "init_val to one that divides it"
            if size > search.first:
                remedy = f"max_val to {size // 2}"
            return (
                f"doubles meta_batch_size from {search.first} on, but train_episodes {episodes} is"
                f" no multiple of {size}; set train_episodes to one, or {remedy}"
            )
        size, trials = 2 * size, trials - 1
    return ""


CHECKS: Mapping[type[Callback], Callable[..., str]] = {
    GradientAccumulationScheduler: _accumulation,
    StochasticWeightAveraging: _averaging,
    ModelPruning: _pruning,
    ModelCheckpoint: _clock,
    LearningRateFinder: _rate_finder,
    BatchSizeFinder: _size_finder,
    DeviceStatsMonitor: _device_stats,
}
"""What is said of a callback of each class that is not right, without its name."""
ANYWHERE = (BatchSizeFinder, DeviceStatsMonitor)
"""Those that act outside of training too."""
NOT_GOING_ON: Mapping[type[Callback], str] = {
    ModelPruning: (
        "ModelPruning does not keep its masks in checkpoints, so that pruned weights would grow"
        " again; train in one go, or leave it out"
    ),
    LearningRateFinder: (
        "LearningRateFinder would find a learning rate anew, which the checkpoint's optimizer does"
        " not take; leave it out and set the optimizer's lr to the one that was found"
    ),
}
"""What is said of those that a training cannot go on with."""
