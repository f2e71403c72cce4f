"""The progress of a run: one line that fits 80 columns; where there is no terminal, one an epoch.

And which steps' figures somebody takes.
"""

import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import MetricsTextColumn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.table import Column
from rich.text import Text

from fewshot.callbacks.memorisation import figures_of
from fewshot.episodes.types import as_batch
from fewshot.learners.cadence import is_drawn

BAR = 10
"""Columns of the bar: what is left of 80 is for the figures."""


class EpisodeProgressBar(RichProgressBar):
    """Lightning's Rich progress bar, with training episodes (or plain examples) a second.

    The rate is over all ranks. A bar takes one line, and that of a test gives it back. Where there
    is neither a terminal nor a notebook with ipywidgets, each epoch ends with a line.

    Args:
        refresh_rate: steps between two refreshes of the bar.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=False)
        self._since = self._began = time.perf_counter()
        self._episodes, self._name = 0, "episodes"
        self._lines = False
        self.epoch = ""
        self.shown: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Look where the bar would be drawn."""
        super().setup(trainer, pl_module, stage)
        console = Console()
        if self.is_enabled and not (console.is_terminal or _has_widgets(console)):
            self._lines = True
            self.disable()

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """What it is, the bar, steps, time left; the figures come last."""
        return [
            _Name(self),
            BarColumn(BAR),
            MofNCompleteColumn(),
            TimeLeft(compact=True, elapsed_when_finished=True),
        ]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        super().on_train_start(trainer, pl_module)
        self._keep_to_a_line()

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        super().on_sanity_check_start(trainer, pl_module)
        self._keep_to_a_line()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        super().on_validation_start(trainer, pl_module)
        self._keep_to_a_line()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar, which nothing is to be left of: results come last."""
        super().on_test_start(trainer, pl_module)
        self._keep_to_a_line(leave=False)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        super().on_predict_start(trainer, pl_module)
        self._keep_to_a_line(leave=False)

    def _keep_to_a_line(self, leave: bool = True) -> None:
        """Have the figures cut off where they do not fit: Lightning's column breaks the line."""
        if self.progress is not None:
            kept = [c for c in self.progress.columns if not isinstance(c, MetricsTextColumn)]
            if not any(isinstance(column, _Figures) for column in kept):
                self.progress.columns = (*kept, _Figures(self))
            self.progress.live.transient = not leave

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away before the results are printed."""
        super().on_test_epoch_end(trainer, pl_module)
        if self.progress is not None:
            self.progress.stop()

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Start the clock anew, so that validation is not counted."""
        self.epoch = described(trainer.current_epoch, trainer.max_epochs)
        super().on_train_epoch_start(trainer, *args)
        self._since = self._began = time.perf_counter()
        self._episodes = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's figures where there is no bar."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._lines:
            seconds = time.perf_counter() - self._began
            figures = written(self.get_metrics(trainer, pl_module), ", ")
            print(f"{self.epoch}: {figures}, {seconds:.1f} s", flush=True)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the episodes, or the plain examples, of the step.

        Draw the bar anew where it is time to.
        """
        trained = as_batch(batch)
        self._episodes += trained.size * trainer.world_size
        self._name = trained.unit
        # Lightning's reads the figures at every step, which waits for an accelerator
        if is_drawn(self, batch_idx) or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The logged metrics and the episodes a second."""
        metrics: dict[str, Any] = {
            k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"
        }
        if self._episodes:
            metrics[f"{self._name}/s"] = (
                f"{self._episodes / (time.perf_counter() - self._since):.1f}"
            )
        memorisation = figures_of(trainer).get("memorisation", {})
        if memorisation.get("unadapted") is not None:
            metrics["unadapted"] = memorisation["unadapted"]
        self.shown = metrics
        return metrics


def _has_widgets(console: Console) -> bool:
    """Whether this is a notebook that Rich can draw in: it draws in a widget or not at all."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


class _Name(ProgressColumn):
    """What a bar is of."""

    def __init__(self, bar: EpisodeProgressBar) -> None:
        super().__init__(Column(no_wrap=True))
        self.bar = bar

    def render(self, task: Task) -> Text:
        """The epoch, or the stage."""
        # Lightning's counts from 0 to the last
        return Text(self.bar.epoch if task.description.startswith("Epoch") else task.description)


class _Figures(ProgressColumn):
    """The figures of training in what is left of the line."""

    def __init__(self, bar: EpisodeProgressBar) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self.bar = bar

    def render(self, task: Task) -> Text:
        """Those of the training bar; others have none. What does not fit is cut off."""
        if task.id != self.bar.train_progress_bar_id or self.bar.progress is None:
            return Text()
        steps = len(f"{task.total:.0f}/{task.total:.0f}") if task.total else len("0000/?")
        others = max(len(self.bar.epoch), len("validation")) + BAR + steps + len("0:00:00") + 4
        found = Text(written(self.bar.shown, " "))
        found.truncate(max(1, self.bar.progress.console.width - others), overflow="ellipsis")
        return found


def described(epoch: int, epochs: int | None) -> str:
    """The name of an epoch, counted from 1.

    >>> described(0, 6), described(0, -1)
    ('epoch 1/6', 'epoch 1')
    """
    return f"epoch {epoch + 1}" + (f"/{epochs}" if epochs is not None and epochs > 0 else "")


def written(metrics: Mapping[str, Any], between: str) -> str:
    """Figures in short: those of training without their stage, those of a validation as `val`.

    >>> written({"train/accuracy": 0.5, "val/accuracy": 0.4123, "episodes/s": "6.0"}, ", ")
    'accuracy 0.500, val 0.412, 6.0 episodes/s'
    """
    trained = {name.removeprefix("train/") for name in metrics if name.startswith("train/")}
    texts = []
    for name, value in metrics.items():
        text = value if isinstance(value, str) else f"{float(value):.3f}"
        stage, _, metric = name.partition("/")
        if name.endswith("/s"):
            texts.append(f"{text} {name}")
        elif stage == "val" and metric in trained:
            texts.append(f"val {text}")
        else:
            texts.append(f"{name.removeprefix('train/').replace('/', ' ')} {text}")
    return between.join(texts)
