"""None of the above: the rules' logits, and thresholds against trying all of them."""

import math
from typing import Any

import pytest
import torch
from every_learner import NAMES, OF_LANGUAGE_MODELS, SIZES, SMALL, TinyImages

from fewshot import MLP, FewshotError
from fewshot.cli.catalogue import find
from fewshot.episodes.distributions import NotaTasks, TaskDistribution
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import episode
from fewshot.hyperparameters import parameter_names
from fewshot.learners import MetaLearner
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


class WithOutsiders(TinyImages):
    """Episodes of three of the six classes, with queries of the others."""

    OTHERS = 4

    @property
    def task(self) -> dict[str, Any]:
        return {**super().task, "nota": True}

    def tasks(self, stage: Stage) -> TaskDistribution:
        return NotaTasks(self.datasets[stage], *self.sizes(stage), self.OTHERS)


# see test_bert_pair.py
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_LANGUAGE_MODELS])
def test_every_learner_judges_or_refuses_in_a_line(name: str) -> None:
    cls = find(name)
    assert cls is not None
    assert issubclass(cls, MetaLearner)
    benchmark = WithOutsiders(way=3, shot=2, **SIZES)
    torch.manual_seed(0)
    backbone = MLP(benchmark.in_features, (8,))
    facts: dict[str, Any] = {
        "task": benchmark.task,
        "train_classes": 6,
        "length_scale": 1.0,
        "variance": 1.0,
        "noise": 0.1,
        "tail_counts": [1, 2],
    }
    facts |= {"shot": 2, "backbone": backbone}
    arguments = {fact: facts[fact] for fact in parameter_names(cls) if fact in facts}
    if not cls.judges_nota:
        with pytest.raises(
            FewshotError, match=f"^{name} cannot say that a query is of none of the classes"
        ) as caught:
            cls(**arguments, **SMALL.get(name, {}))
        assert "\n" not in str(caught.value)
        return
    centred: dict[str, Any] = (
        {"transform": "l2"} if name == "SimpleShot" else {}
    )  # its default asks for training examples first
    learner = cls(**arguments, **SMALL.get(name, {}), **centred)
    loaded = next(iter(benchmark.test_dataloader()))
    batch = benchmark.on_after_batch_transfer(loaded, 0).stacked
    outcome = learner.evaluate(batch)
    assert outcome.outputs.shape == (2, 3 * 3 + 4, 4)
    assert outcome.outputs.isfinite().all()
    right, none = outcome.outputs.argmax(-1) == batch.query.targets, batch.query.targets == 3
    torch.testing.assert_close(outcome.metrics["recall_none"], (right & none).sum(1) / none.sum(1))
    torch.testing.assert_close(
        outcome.metrics["accuracy_in_scope"], (right & ~none).sum(1) / (~none).sum(1)
    )
    one = episode(batch, 0)
    assert learner.predict(learner.adapt(one.support), one.query.inputs).shape == (13, 4)


def test_some_of_each_are_tested() -> None:
    judging = {name for name in NAMES if getattr(find(name), "judges_nota", False)}
    assert {"PrototypicalNetwork", "RFS", "MAML"} <= judging
    assert {"SNAIL", "MANN", "ProtoMAML"} <= set(NAMES) - judging
