"""A command line that is built and not run: what its validations would be judged by."""

import io
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from fewshot.errors import FewshotError


class Judge(NamedTuple):
    """What the validations of a run are judged by."""

    metric: str
    mode: str
    """Whether it is to be the largest (``max``) or the smallest (``min``)."""
    unit: str


def judges(runs: Sequence[Sequence[str]]) -> list[Judge]:
    """What judges the validations of each of these command lines of `fewshot fit`.

    All are built, in a process of its own that ends with what it has imported and allocated.

    Raises:
        FewshotError: one cannot be built, or would not validate.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as builder:
        return [*builder.map(judge, runs)]


def judge(args: Sequence[str]) -> Judge:
    """The same of one, in this process."""
    from fewshot.cli import lightning  # here: it takes seconds
    from fewshot.hyperparameters import without_weights

    class Built(lightning.FewshotCLI):
        """Has no folder and does nothing."""

        def instantiate_classes(self) -> None:
            with without_weights():
                super().instantiate_classes()

        def _take_folder(self) -> None:
            pass

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # the runs say it
        built = lightning.run(["fit", *args], Built)
    metric, mode = built.model.task.monitor
    if (fault := _fault(built)) is not None:
        raise FewshotError(
            f"no validation gives {metric}, which a search goes by: {fault}; change that, or leave"
            " --search out"
        )
    return Judge(metric, mode, built.model.task.unit(metric))


def _fault(built: Any) -> str | None:
    """Why a run would not validate; None where nothing is known to keep it from that."""
    config = built.config["fit"]["trainer"]
    every, epochs = config["check_val_every_n_epoch"], config["max_epochs"]
    if built.model.has_nothing_to_train:
        return f"{type(built.model).__name__} has nothing to train here"
    if config["limit_val_batches"] == 0:
        return "trainer.limit_val_batches is 0"
    if built.datamodule.episodes["val"] == 0:
        return "data.val_episodes is 0"
    if config["fast_dev_run"]:
        return "trainer.fast_dev_run is set"
    if every is not None and epochs is not None and every > epochs >= 0:
        return f"trainer.check_val_every_n_epoch is {every} of {epochs} epochs"
    return None
