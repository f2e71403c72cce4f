"""Task kinds: what the outputs of a learner are judged by.

A benchmark states its task as a dict of plain values (`DataModule.task`), which the command line
links to the learner and a checkpoint can hold; `make_task` builds the task kind from it.
"""

from collections.abc import Mapping
from typing import Any

from fewshot.errors import FewshotError
from fewshot.tasks.base import Task
from fewshot.tasks.classification import (
    Classification,
    Reading,
    Understanding,
    VideoClassification,
    check_one_way,
)
from fewshot.tasks.ranking import Ranking, mean_ranks
from fewshot.tasks.regression import GaussianRegression, Regression, gaussian_log_likelihood
from fewshot.tasks.segmentation import Segmentation

__all__ = [
    "KINDS",
    "Classification",
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
]

KINDS: dict[str, type[Task]] = {
    cls.kind: cls
    for cls in (
        Classification,
        Understanding,
        Reading,
        VideoClassification,
        Ranking,
        Regression,
        Segmentation,
    )
}


def make_task(facts: Mapping[str, Any]) -> Task:
    """The task kind that `facts` describe, such as ``{"kind": "classification", "way": 5}``.

    Raises:
        FewshotError: the kind is unknown, or its facts are not the kind's.
    """
    arguments = dict(facts)
    kind = arguments.pop("kind", None)
    if kind not in KINDS:
        raise FewshotError(f"task kind {kind!r} is unknown; use one of {', '.join(sorted(KINDS))}")
    try:
        return KINDS[kind](**arguments)
    except TypeError as error:
        raise FewshotError(
            f"task {dict(facts)} does not fit the kind {kind!r} ({error})"
        ) from error
