"""`fewshot.evaluate`: a learner on a benchmark's test episodes, as a result to look at."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

import lightning as L
from rich.console import Console

from fewshot.callbacks.by_class import results_by_class
from fewshot.callbacks.progress import EpisodeProgressBar
from fewshot.callbacks.quiet import silence_what_users_cannot_mend
from fewshot.callbacks.results import results
from fewshot.callbacks.results_table import results_table
from fewshot.callbacks.trainer import check_arguments
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.errors import FewshotError, nearest
from fewshot.extras import require
from fewshot.learners.base import MetaLearner
from fewshot.tasks.estimates import Estimate, format_estimate


@dataclass(frozen=True)
class Evaluation:
    """What a test has found.

    It prints as the command line's table does, in a notebook too.
    """

    metrics: Mapping[str, Estimate]
    """The mean of every metric over the episodes, with its 95 % confidence interval."""
    episodes: Mapping[str, list[float]]
    """The table of the episodes: every metric of each, by the episode's number."""
    results: Mapping[str, Any]
    """What ``results.json`` holds: protocol, provenance, metrics and their units."""

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of a metric.

        Raises:
            FewshotError: there is none of that name.
        """
        if name not in self.metrics:
            raise FewshotError(f"there is no metric {name!r}{nearest(name, self.metrics)}")
        return self.metrics[name]

    def __str__(self) -> str:
        # in a notebook Rich would show it there, and write nothing into the file
        console = Console(file=StringIO(), width=100, color_system=None, force_jupyter=False)
        console.print(results_table(dict(self.results)))
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        facts = self.results
        units = facts["units"]
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>"
            f"{escape(format_estimate(value.mean, value.ci95, units.get(name, '')))}</td></tr>"
            for name, value in self.metrics.items()
        )
        table = results_table(dict(facts))
        return (
            f"<table><caption>{escape(str(table.title))}<br>{escape(str(table.caption))}</caption>"
            f"<tr><th>metric</th><th>mean ± 95 % CI</th></tr>{rows}</table>"
        )

    def to_pandas(self) -> Any:
        """The table of the episodes as a ``pandas.DataFrame``.

        Raises:
            FewshotError: pandas is not installed.
        """
        return require("pandas", "pandas").DataFrame(dict(self.episodes)).set_index("episode")


def evaluate(
    learner: MetaLearner,
    data: EpisodicDataModule,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    progress: bool = True,
    **trainer: Any,
) -> Evaluation:
    """Evaluate a learner on a benchmark's test episodes; nothing is written.

    ```python
    >>> import fewshot
    >>> data = fewshot.GaussianProcessDataModule(shot=5, test_episodes=50)
    >>> learner = fewshot.GaussianProcess(task=data.task)
    >>> found = fewshot.evaluate(learner, data, progress=False)
    >>> print(found)
        GaussianProcess on Gaussian
              process, 5-shot
    ┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━┓
    ┃ metric         ┃ mean ± 95 % CI ┃
    ┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━┩
    │ loss           │    0.62 ± 0.09 │
    │ log_likelihood │   -0.62 ± 0.09 │
    │ mse            │    0.42 ± 0.09 │
    │ coverage95     │    0.94 ± 0.02 │
    └────────────────┴────────────────┘
    50 test episodes, seed 0, inductive
                batch norm
    >>> found["log_likelihood"].mean
    -0.6167...
    ```

    Args:
        learner: what is evaluated, with the weights that it has.
        data: the benchmark; its `test_episodes` says how many, its `seed` which.
        checkpoint: weights that are loaded first; None: those at hand.
        progress: show a bar.
        **trainer: arguments of Lightning's Trainer, such as ``accelerator`` and ``precision``.

    Raises:
        FewshotError: an argument is no learner or no benchmark, or the Trainer has none such.
    """
    check_arguments(trainer)
    for value, kind in ((learner, MetaLearner), (data, EpisodicDataModule)):
        if not isinstance(value, kind):
            raise FewshotError(
                f"{type(value).__name__} is no fewshot.{kind.__name__}; give one (see `fewshot"
                " list`)"
            )
    silence_what_users_cannot_mend()
    callbacks = [EpisodeProgressBar()] if progress else []
    runner = L.Trainer(
        **{
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": progress,
            "callbacks": callbacks,
            **trainer,
        }
    )
    start = time.perf_counter()
    file = None if checkpoint is None else os.fspath(checkpoint)
    runner.test(learner, datamodule=data, ckpt_path=file, verbose=False)
    seconds = time.perf_counter() - start
    columns = {name: column.tolist() for name, column in learner.columns["test"].items()}
    found = results(runner, learner, seconds, results_by_class(runner, learner))
    return Evaluation(dict(learner.estimates["test"]), columns, found)
