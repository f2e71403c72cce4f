"""Task kinds: what the outputs of a learner are judged by, and how they are shown.

A benchmark states its task as a dict of plain values (`DataModule.task`), which the command line
links to the learner and a checkpoint can hold; `make_task` builds the task kind from it. The kind
is one of `KINDS`, or the import path of a class of the user's own. Importing this package imports
no kind: each comes, with torch, when it is asked for.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewshot.errors import FewshotError, nearest

if TYPE_CHECKING:
    from fewshot.tasks.base import EpisodeView, Task
    from fewshot.tasks.classification import (
        Classification,
        Reading,
        Understanding,
        VideoClassification,
        check_one_way,
    )
    from fewshot.tasks.control import Control
    from fewshot.tasks.ranking import Ranking, mean_ranks
    from fewshot.tasks.regression import GaussianRegression, Regression, gaussian_log_likelihood
    from fewshot.tasks.segmentation import Segmentation

__all__ = [
    "KINDS",
    "Classification",
    "Control",
    "EpisodeView",
    "GaussianRegression",
    "Ranking",
    "Reading",
    "Regression",
    "Segmentation",
    "Task",
    "Understanding",
    "VideoClassification",
    "check_one_way",
    "gaussian_log_likelihood",
    "make_task",
    "mean_ranks",
    "task_class",
]

KINDS = {
    "classification": "fewshot.tasks.classification.Classification",
    "understanding": "fewshot.tasks.classification.Understanding",
    "reading": "fewshot.tasks.classification.Reading",
    "video_classification": "fewshot.tasks.classification.VideoClassification",
    "control": "fewshot.tasks.control.Control",
    "ranking": "fewshot.tasks.ranking.Ranking",
    "regression": "fewshot.tasks.regression.Regression",
    "segmentation": "fewshot.tasks.segmentation.Segmentation",
}
"""The package's own kinds, by the names that benchmarks state."""

_OTHERS = (
    "fewshot.tasks.base.EpisodeView",
    "fewshot.tasks.base.Task",
    "fewshot.tasks.classification.check_one_way",
    "fewshot.tasks.ranking.mean_ranks",
    "fewshot.tasks.regression.GaussianRegression",
    "fewshot.tasks.regression.gaussian_log_likelihood",
)


def __getattr__(name: str) -> Any:
    """A public name of this package, from the file that it is in."""
    for path in (*KINDS.values(), *_OTHERS):
        module, _, public = path.rpartition(".")
        if public == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_task(facts: Mapping[str, Any]) -> "Task":
    """The task kind that `facts` describe, such as ``{"kind": "classification", "way": 5}``.

    Args:
        facts: the kind, as one of `KINDS`, an import path or the class itself, and its arguments.

    Raises:
        FewshotError: the kind is unknown, or its facts are not the kind's.
    """
    arguments = dict(facts)
    kind = arguments.pop("kind", None)
    cls = task_class(kind)
    try:
        return cls(**arguments)
    except TypeError as error:
        raise FewshotError(
            f"task {dict(facts)} does not fit the kind {kind!r} ({error})"
        ) from error


def task_class(kind: Any) -> "type[Task]":
    """The class of a task kind, by one of `KINDS`, by its import path, or by itself.

    Raises:
        FewshotError: there is none, it is no task kind, or it lacks one of its facts.
    """
    from fewshot.tasks.base import Task

    if isinstance(kind, Mapping):  # a class, as a checkpoint holds it
        kind = kind.get("class_path")
    cls = _imported(KINDS.get(kind, kind)) if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise FewshotError(
            f"task kind {kind!r} is no class of a task kind; use one of {', '.join(sorted(KINDS))},"
            " or the import path of a class that is derived from fewshot.tasks.Task"
        )
    for fact in ("kind", "monitor"):
        if not hasattr(cls, fact):
            raise FewshotError(
                f"task kind {cls.__name__} does not state its {fact}; make it a class attribute, as"
                " fewshot.tasks.Regression does"
            )
    return cls


def _imported(path: str) -> Any:
    """What stands at an import path."""
    module, _, name = path.rpartition(".")
    if not module:
        raise FewshotError(
            f"task kind {path!r} is unknown{nearest(path, KINDS)}; one of your own is named by its"
            " import path, such as my_module.MyKind"
        )
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise FewshotError(
            f"task kind {path!r} cannot be imported ({error}); start where {module} can be"
            " imported, or set PYTHONPATH to its folder"
        ) from error
    if not hasattr(found, name):
        raise FewshotError(
            f"task kind {path!r} is unknown: {module} has no {name}"
            f"{nearest(name, (word for word in vars(found) if not word.startswith('_')))}"
        )
    return getattr(found, name)
