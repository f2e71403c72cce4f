import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import fewshot.tasks
from fewshot.errors import FewshotError
from fewshot.hyperparameters import describe
from fewshot.tasks import (
    KINDS,
    Classification,
    GaussianRegression,
    Ranking,
    Reading,
    Regression,
    Segmentation,
    Understanding,
    VideoClassification,
    check_one_way,
    gaussian_log_likelihood,
    make_task,
    task_class,
)


def test_classification_is_judged_by_cross_entropy_and_accuracy() -> None:
    task = make_task({"kind": "classification", "way": 3})
    assert task == Classification(3)
    assert task.output_size == 3
    assert task.monitor == ("accuracy", "max")
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0]])
    labels = torch.tensor([0, 2, 0, 2])
    share = [
        math.exp(2) / (math.exp(2) + 2),
        1 / (math.e + 2),
        1 / 3,
        math.exp(3) / (math.e + 1 + math.exp(3)),
    ]
    assert task.loss(logits, labels).item() == pytest.approx(-sum(map(math.log, share)) / 4)
    assert task.metrics(logits, labels)["accuracy"].item() == 0.75  # a tie goes to the first class


def test_regression_is_judged_by_the_mean_squared_error() -> None:
    task = make_task({"kind": "regression", "targets": 2})
    assert task == Regression(2)
    assert task.output_size == 2
    assert task.monitor == ("mse", "min")
    outputs, targets = (
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([[1.0, 0.0], [0.0, 4.0]]),
    )
    assert task.loss(outputs, targets).item() == pytest.approx((4 + 9) / 4)
    assert task.metrics(outputs, targets)["mse"].item() == pytest.approx((4 + 9) / 4)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"kind": "sorting"},
            "^task kind 'sorting' is unknown; .*import path, such as my_module.MyKind$",
        ),
        (
            {"kind": "clasification", "way": 5},
            "^task kind 'clasification' is unknown; did you mean 'classification'",
        ),
        (
            {"way": 5},
            (
                "^task kind None is no class of a task kind; use one of classification, control, ranking,"
                " reading, regression, .*, or the import path of a class that is derived from"
                " fewshot.tasks.Task$"
            ),
        ),
        (
            {"kind": "no_such_module.Kind"},
            (
                r"^task kind 'no_such_module.Kind' cannot be imported \(No module named"
                r" 'no_such_module'\); start where no_such_module can be imported, or set"
            ),
        ),
        (
            {"kind": "fewshot.tasks.regression.Regresion"},
            "is unknown: fewshot.tasks.regression has no Regresion; did you mean 'Regression'",
        ),
        (
            {"kind": "fewshot.tasks.ranking.mean_ranks"},
            "^task kind 'fewshot.tasks.ranking.mean_ranks' is no",
        ),
        ({"kind": "fewshot.errors.FewshotError"}, "'fewshot.errors.FewshotError' is no class of a"),
        ({"kind": FewshotError}, "is no class of a task kind"),
        ({"kind": "fewshot.tasks.base.Task"}, "task kind Task does not state its kind; make it a"),
        (
            {"kind": "classification", "ways": 5},
            "Classification has no argument 'ways'; did you mean 'way'",
        ),
        (
            {"kind": "classification", "way": 1},
            "way is 1: an episode needs at least 2 classes; set way >= 2",
        ),
        (
            {"kind": "classification", "way": 5, "train_way": 0},
            "train_way is 0: .*; set train_way >= 2",
        ),
    ],
)
def test_bad_facts_are_errors(facts: dict[str, object], message: str) -> None:
    with pytest.raises(FewshotError, match=message) as error:
        make_task(facts)
    assert not re.search(r"\n", str(error.value))


def test_a_kind_is_named_by_its_path_or_by_itself() -> None:
    made = make_task({"kind": "fewshot.tasks.regression.Regression", "targets": 3})
    assert made == Regression(3)
    assert make_task({"kind": Regression, "targets": 3}) == made
    held = describe({"kind": Regression, "targets": 3})  # as in a checkpoint
    assert make_task(held) == made


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_found_by_its_name(name: str) -> None:
    cls = task_class(name)
    assert cls.kind == name
    assert getattr(fewshot.tasks, cls.__name__) is cls


def test_every_public_name_is_there() -> None:
    assert all(hasattr(fewshot.tasks, name) for name in fewshot.tasks.__all__)
    with pytest.raises(AttributeError, match=r"'fewshot\.tasks' has no attribute 'Sorting'"):
        _ = fewshot.tasks.Sorting


LIGHT = """
import sys, types
fewshot = types.ModuleType("fewshot")  # without the package's own imports
fewshot.__path__ = [{folder!r}]
sys.modules["fewshot"] = fewshot
import fewshot.cli.compare, fewshot.tasks
heavy = {{"torch", "lightning", "numpy", "matplotlib", "rich", "torchmetrics"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
fewshot.tasks.make_task({{"kind": "understanding", "way": 2}})
assert "torch" in sys.modules
assert not {{"matplotlib", "torchmetrics", "lightning"}} & set(sys.modules)
"""


def test_kinds_are_imported_when_they_are_asked_for() -> None:
    folder = str(Path(fewshot.tasks.__file__).parents[1])
    subprocess.run([sys.executable, "-c", LIGHT.format(folder=folder)], check=True)


def test_units_go_by_the_longest_name() -> None:
    class Pixels(Regression):
        units: ClassVar[dict[str, str]] = {"error": "%", "error_px": "px"}

    expected = {"error": "%", "error_px": "px", "error_px_step3": "px", "error_adversarial": "%"}
    task = Pixels()
    assert {name: task.unit(name) for name in expected} == expected
    assert {task.unit(name) for name in ("errors", "px", "loss", "loss_step0", "mse")} == {""}


@pytest.mark.parametrize(
    ("task", "shares"),
    [
        (Classification(2), ("accuracy_in_scope", "recall_none", "recall_none_step1")),
        (Understanding(2), ("f1_macro", "f1a", "em", "em_step1")),
        (Reading(), ("f1", "f1_adversarial")),
        (VideoClassification(None), ("accuracy_video",)),
    ],
)
def test_units_in_classification(task: Classification, shares: tuple[str, ...]) -> None:
    names = ("accuracy", "accuracy_step12", "accuracy_adversarial", *shares)
    assert {task.unit(name) for name in names} == {"%"}
    assert {task.unit(name) for name in ("loss", "loss_step0", "auc", "eer")} == {""}


def test_units_in_other_kinds() -> None:
    for name in ("miou", "miou_step2", "fb_iou", "fb_iou_adversarial", "iou_car", "iou_1"):
        assert Segmentation().unit(name) == "%"
    for task in (Regression(), GaussianRegression(), Ranking(), Segmentation()):
        for name in ("loss", "mse_step1", "coverage95", "log_likelihood", "mrr", "hits1"):
            assert task.unit(name) == ""


def test_the_facts_are_not_changed() -> None:
    facts = {"kind": "classification", "way": 5, "train_way": None}
    make_task(facts)
    assert facts == {"kind": "classification", "way": 5, "train_way": None}


def test_densities_are_judged_by_their_log_likelihood() -> None:
    task = GaussianRegression(2)
    assert task.output_size == 4
    assert task.monitor == ("log_likelihood", "max")
    mean, deviation = torch.randn(7, 2).double(), torch.rand(7, 2).double() + 0.1
    targets = mean + deviation * torch.tensor([[1.95, 1.97]] * 7)
    normal: Any = torch.distributions.Normal(mean, deviation)
    expected = normal.log_prob(targets).sum(1)
    torch.testing.assert_close(gaussian_log_likelihood(targets, mean, deviation), expected)
    outputs = torch.cat([mean, deviation], 1)
    metrics = task.metrics(outputs, targets)
    torch.testing.assert_close(task.loss(outputs, targets), -expected.mean())
    torch.testing.assert_close(metrics["log_likelihood"], expected.mean())
    torch.testing.assert_close(metrics["mse"], ((mean - targets) ** 2).mean())
    # the first value of each is inside, the second outside
    assert metrics["coverage95"].item() == 0.5


def test_one_way_is_asked_of_classification_alone() -> None:
    for task in (Classification(5), Classification(5, 5), Regression()):
        check_one_way(task, "Learner")
    message = r"^Learner has one head .* train_way is 20 and way is 5; set train_way to 5 or"
    with pytest.raises(FewshotError, match=message):
        check_one_way(Classification(5, 20), "Learner")


def test_reading_counts_every_right_answer() -> None:
    """Against a loop: questions of 2, 3 and 1 candidates, the last unanswered by the right one."""
    worth = [[(0.0, 0.5), (1.0, 1.0)], [(1.0, 1.0), (0.0, 0.25), (1.0, 1.0)], [(1.0, 1.0)]]
    targets = torch.full((3, 3, 2), -1.0)
    for target, row in zip(targets, worth, strict=True):
        target[: len(row)] = torch.tensor(row)
    scores = torch.tensor([[2.0, 1.0, -9.0], [0.0, 1.0, 3.0], [1.0, -9.0, -9.0]])
    task = make_task({"kind": "reading"})
    picked = [worth[i][int(scores[i].argmax())] for i in range(3)]
    got = task.metrics(scores, targets)
    assert {name: float(value) for name, value in got.items()} == {
        "accuracy": pytest.approx(sum(exact for exact, _ in picked) / 3),
        "f1": pytest.approx(sum(f1 for _, f1 in picked) / 3),
    }
    assert isinstance(task, Reading)
    assert task.labels(targets).tolist() == [1, 0, 0]
    assert task.labels(torch.full((2, 3, 2), -1.0)).tolist() == [-1, -1]
    log = scores.log_softmax(-1)
    assert float(task.loss(scores, targets)) == pytest.approx(
        -float(log[0, 1] + log[1, 0] + log[2, 0]) / 3
    )


def test_understanding_measures_as_superglue_does() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels, questions = rng.integers(0, 2, 60), np.sort(rng.integers(0, 20, 60))
    outputs = rng.normal(size=(60, 2)) + 2 * np.eye(2)[labels]
    predicted = outputs.argmax(-1)
    task = make_task({"kind": "understanding", "way": 2, "measures": ["f1a", "em", "f1_macro"]})
    targets = torch.from_numpy(labels + 2 * questions)
    found = {
        name: float(value)
        for name, value in task.metrics(torch.from_numpy(outputs), targets).items()
    }
    whole = [all(predicted[questions == q] == labels[questions == q]) for q in np.unique(questions)]
    assert found == pytest.approx(
        {
            "accuracy": (predicted == labels).mean(),
            "f1a": metrics.f1_score(labels, predicted),
            "f1_macro": metrics.f1_score(labels, predicted, average="macro"),
            "em": np.mean(whole),
        },
        rel=1e-6,
    )
    assert 0 < found["em"] < 1
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(outputs), torch.from_numpy(labels)
    )
    torch.testing.assert_close(task.loss(torch.from_numpy(outputs), targets), expected)
    with pytest.raises(
        FewshotError, match=r"^the measure 'f2' is unknown; use one of accuracy, f1_macro, f1a, em$"
    ):
        make_task({"kind": "understanding", "way": 2, "measures": ["f2"]})
