"""Parameters that the network does not use are named before the first step by every learner."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from fewshot.backbones import MLP
from fewshot.datamodules import SinusoidDataModule
from fewshot.engine.episode_map import Parallel
from fewshot.engine.inner_loop import Weights, with_gradient
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import ANIL, BOIL, FOMAML, MAML, MetaSGD, OptimizationLearner, ProtoMAML
from fewshot.learners.outcome import Outcome

REGRESSION = {"kind": "regression"}


class Leftover(MLP):
    """An MLP with a layer that its forward pass does not run."""

    def __init__(self, in_features: int = 1) -> None:
        super().__init__(in_features, (5,))
        self.classifier = nn.Linear(5, 10)


def fit(learner: OptimizationLearner) -> None:
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    data = SinusoidDataModule(
        shot=5, queries=5, meta_batch_size=3, train_episodes=6, val_episodes=2, test_episodes=2
    )
    trainer.fit(learner, data)


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("cls", [MAML, FOMAML, BOIL, MetaSGD])
def test_a_layer_that_should_adapt_but_is_not_used_is_an_error(
    cls: type[OptimizationLearner], parallel: Parallel
) -> None:
    learner = cls(Leftover(), task=REGRESSION, episode_parallel=parallel)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with pytest.raises(
        FewshotError,
        match=(
            r"^backbone.classifier.weight, backbone.classifier.bias get no gradient: the network"
            r" does not use them;"
            r" remove the layer, or freeze it and leave it out of `adapt`$"
        ),
    ):
        fit(learner)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_it_is_an_error_with_prototypes_for_a_head_too() -> None:
    learner = ProtoMAML(Leftover(2), task={"kind": "classification", "way": 2})
    half = Examples(torch.randn(3, 4, 2), torch.tensor([0, 0, 1, 1]).expand(3, -1))
    with pytest.raises(
        FewshotError, match=r"^backbone.classifier.weight, backbone.classifier.bias get no gradient"
    ):
        learner.run(Episode(half, half), training=True)


class OwnGradient(OptimizationLearner):
    """Moves towards the adapted weights, by its own gradient with a value for every weight."""

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        return self.descend(support, self.initial_weights(), steps, 0.01)

    def training_outcome(self, episode: Episode, norm: Any) -> Outcome:
        outcome = super().training_outcome(episode, norm)
        start = self.initial_weights()
        *_, adapted = self.inner_loop(episode.support, self.inner_steps)
        towards = {name: start[name] - adapted[name] for name in start}
        return outcome._replace(loss=with_gradient(outcome.loss, start, towards))


def test_it_is_an_error_for_learners_that_make_their_gradient_themselves() -> None:
    with pytest.raises(
        FewshotError, match=r"^backbone.classifier.weight, backbone.classifier.bias get no gradient"
    ):
        fit(OwnGradient(Leftover(), task=REGRESSION, episode_parallel="loop"))
    fit(OwnGradient(MLP(1, (5,)), task=REGRESSION, episode_parallel="loop"))


@pytest.mark.parametrize(("cls", "adapt"), [(ANIL, None), (MAML, ["backbone.layers", "head"])])
def test_a_layer_that_neither_loop_uses_is_an_error(
    cls: type[OptimizationLearner], adapt: Any
) -> None:
    # one process would train on; several would wait for its gradient
    learner = cls(Leftover(), task=REGRESSION, **({} if adapt is None else {"adapt": adapt}))
    with pytest.raises(
        FewshotError, match=r"^backbone.classifier.weight, backbone.classifier.bias get no gradient"
    ):
        fit(learner)


def test_the_remedy_works() -> None:
    network = Leftover()
    network.classifier.requires_grad_(False)
    fit(MAML(network, task=REGRESSION, adapt=["backbone.layers", "head"]))
    fit(ANIL(network, task=REGRESSION))


def test_what_is_used_by_the_outer_loop_alone_may_train() -> None:
    fit(ANIL(MLP(1, (5,)), task=REGRESSION))
    fit(BOIL(MLP(1, (5,)), task=REGRESSION))
    fit(MAML(MLP(1, (5,)), task=REGRESSION, adapt=["backbone.layers.0.weight"]))


def test_the_check_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    learner = MAML(MLP(1, (5,)), task=REGRESSION, episode_parallel="loop", inner_steps=1)
    original = learner.forward_with

    def counted(weights: Weights, inputs: Tensor) -> Tensor:
        calls.append(len(inputs))
        return original(weights, inputs)

    monkeypatch.setattr(learner, "forward_with", counted)
    half = Examples(torch.randn(3, 4, 1), torch.randn(3, 4, 1))
    for steps in range(3):
        list(learner.run(Episode(half, half), training=True))
        assert len(calls) == 1 + 3 * 2 * (steps + 1)
