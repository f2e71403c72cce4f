"""TensorBoard as runs have it: charts under what they show, a test's figures as a table."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import summary

from fewshot.learners.lightning_internals import file_writer

TEST = "test/"
OF_CLASSES = "test/class/"
"""Figures that have a table of their own, `test/classes`."""


class BoardLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger with charts that can be found, and none of a single point.

    A chart's name begins with what it shows, so that accuracy comes first and its charts stand side
    by side: `val/accuracy` is `accuracy/val`. TensorBoard opens the first groups alone. Figures of
    a test are no charts but a table in TEXT, `test/figures`. Other loggers keep Lightning's names.

    Args:
        save_dir: where the folder of all runs lies.
        name: that folder's name.
        **kwargs: arguments of Lightning's TensorBoardLogger.
    """

    def __init__(self, save_dir: str, name: str | None = "lightning_logs", **kwargs: Any) -> None:
        super().__init__(save_dir, name, default_hp_metric=False, **kwargs)
        self._tested: dict[str, float] = {}
        self._step = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Draw what has a chart, and keep a test's figures for their table."""
        charts = {}
        for name, value in metrics.items():
            if name.startswith(TEST):
                self._tested |= {} if name.startswith(OF_CLASSES) else {name: float(value)}
            elif (tag := chart(name)) is not None:
                charts[tag] = value
        self._step = self._step if step is None else step
        super().log_metrics(charts, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the table of a test that has ended, and close."""
        if self._tested:
            rows = [(name, written(self._tested, name)) for name in figures(self._tested)]
            log_text(self, "test/figures", markdown(("figure", "value"), rows), self._step)
            self._tested = {}
        super().finalize(status)


def chart(name: str) -> str | None:
    """What a figure is called in TensorBoard, its metric before its stage; None: it has no chart.

    Epochs are steps by another name. Intervals at each inner step are the bands of a picture.

    >>> [chart(name) for name in ("val/accuracy_ci95", "best/val_mse", "train/loss", "lr-Adam")]
    ['accuracy/val_ci95', 'mse/best_val', 'loss/train', 'lr-Adam']
    """
    if name == "epoch" or re.search(r"_step\d+_ci95$", name):
        return None
    match = re.fullmatch(r"(train/|val/|best/val_)(.+)", name)
    return name if match is None else tag_of(match[2], match[1][:-1].replace("/", "_"))


def tag_of(metric: str, stage: str) -> str:
    """A metric's chart at a stage; variants of a metric stand in its group.

    >>> [tag_of(name, "val") for name in ("mse", "mse_step0", "accuracy_video", "fb_iou")]
    ['mse/val', 'mse/val_step0', 'accuracy/val_video', 'fb_iou/val']
    """
    group = re.match(r"(accuracy|iou|loss)(?=_| on )|.+?(?=_step\d|_ci95$| on |$)", metric)
    assert group is not None
    return f"{group[0]}/{stage}{metric[group.end() :]}"


def figures(tested: Mapping[str, float]) -> list[str]:
    """The names of a test's figures, without those of intervals that stand behind their means."""
    return [name for name in tested if name.removesuffix("_ci95") not in tested.keys() - {name}]


def written(tested: Mapping[str, float], name: str) -> str:
    """A figure, with its interval where it has one."""
    ci95 = tested.get(f"{name}_ci95", math.nan)
    return f"{tested[name]:.6g}" + (f" ± {ci95:.3g}" if math.isfinite(ci95) else "")


def markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as TensorBoard's TEXT draws it.

    >>> print(markdown(("class", "accuracy"), [("a", 0.5)]))
    | class | accuracy |
    | --- | --- |
    | a | 0.5 |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    number = isinstance(value, float)
    text = f"{value:.4g}" if number and math.isfinite(value) else "?" if number else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def log_text(logger: TensorBoardLogger, tag: str, text: str, step: int) -> None:
    """Write Markdown to TEXT; torch's own `add_text` lengthens every tag by ``/text_summary``."""
    made = summary.text(tag, text)  # type: ignore[no-untyped-call]
    made.value[0].tag = tag
    file_writer(logger).add_summary(made, step)
