"""None of the above: the rules' logits, and thresholds against trying all of them."""

import math

import pytest
import torch

from fewshot.learners.nota import Criterion, NoneOfTheAbove, best_threshold

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.3, 0.2, 0.1]], dtype=torch.float64)


def test_the_rules_add_their_logit() -> None:
    torch.testing.assert_close(NoneOfTheAbove("minimum")(LOGITS)[:, 3], LOGITS.amin(1) - 1)
    torch.testing.assert_close(NoneOfTheAbove("learned")(LOGITS)[:, 3], LOGITS.mean(1))
    assert NoneOfTheAbove("minimum", active=False)(LOGITS) is LOGITS


@pytest.mark.parametrize(("rule", "threshold"), [("probability", 0.5), ("similarity", 1.0)])
def test_a_threshold_rejects_what_is_below_it(rule: str, threshold: float) -> None:
    none = NoneOfTheAbove(rule)  # type: ignore[arg-type]  # one of its literals
    assert none.lacks_threshold
    assert none(LOGITS).argmax(1).tolist() == [0, 0]  # not yet known: nothing is rejected
    none.threshold = threshold
    assert (none.confidence(LOGITS) < threshold).tolist() == [False, True]
    assert none(LOGITS).argmax(1).tolist() == [0, 3]
    assert none.facts() == {"nota": rule, "threshold": threshold}


@pytest.mark.parametrize("criterion", ["accuracy", "balanced"])
def test_the_threshold_is_the_best_of_all(criterion: Criterion) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        confidences = torch.randint(0, 12, (40,), generator=generator) / 12  # some are equal
        none = torch.rand(40, generator=generator) < 0.3
        right = (torch.rand(40, generator=generator) < 0.7) & ~none

        def score(threshold: float) -> float:
            rejected = confidences < threshold  # noqa: B023  # used at once
            known, others = (right & ~rejected).sum(), (none & rejected).sum()  # noqa: B023
            if criterion == "accuracy":
                return float(known + others) / 40
            return float(known / (~none).sum() + others / none.sum())  # noqa: B023

        found = best_threshold(confidences, right, none, criterion)
        assert math.isclose(score(found), max(score(t / 24) for t in range(-1, 27)), abs_tol=1e-6)
