import math
import re

import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.tasks import Classification, Regression, make_task


def test_classification_is_judged_by_cross_entropy_and_accuracy() -> None:
    task = make_task({"kind": "classification", "way": 3})
    assert task == Classification(3)
    assert task.output_size == 3
    assert task.monitor == ("accuracy", "max")
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0]])
    labels = torch.tensor([0, 2, 0, 2])
    share = [math.exp(2) / (math.exp(2) + 2), 1 / (math.e + 2), 1 / 3, math.exp(3) / (math.e + 1 + math.exp(3))]
    assert task.loss(logits, labels).item() == pytest.approx(-sum(map(math.log, share)) / 4)
    assert task.metrics(logits, labels)["accuracy"].item() == 0.75  # a tie goes to the first class


def test_regression_is_judged_by_the_mean_squared_error() -> None:
    task = make_task({"kind": "regression", "targets": 2})
    assert task == Regression(2)
    assert task.output_size == 2
    assert task.monitor == ("mse", "min")
    outputs, targets = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    assert task.loss(outputs, targets).item() == pytest.approx((4 + 9) / 4)
    assert task.metrics(outputs, targets)["mse"].item() == pytest.approx((4 + 9) / 4)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "ranking"}, "task kind 'ranking' is unknown; use one of classification, regression"),
        ({"way": 5}, "task kind None is unknown; use one of classification, regression"),
        ({"kind": "classification", "ways": 5}, "does not fit the kind 'classification'"),
        ({"kind": "classification", "way": 1}, "way is 1: an episode needs at least 2 classes; set way >= 2"),
        ({"kind": "classification", "way": 5, "train_way": 0}, "train_way is 0: .*; set train_way >= 2"),
    ],
)
def test_bad_facts_are_errors(facts: dict[str, object], message: str) -> None:
    with pytest.raises(FewshotError, match=message) as error:
        make_task(facts)
    assert not re.search(r"\n", str(error.value))


def test_the_facts_are_not_changed() -> None:
    facts = {"kind": "classification", "way": 5, "train_way": None}
    make_task(facts)
    assert facts == {"kind": "classification", "way": 5, "train_way": None}
