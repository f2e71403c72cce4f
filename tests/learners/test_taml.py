"""TAML against its equation, by plain autograd in float64; and what it is for."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mixtures import assert_same_gradients
from torch.distributions import Categorical

from fewshot.backbones import MLP
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import MAML, TAML
from fewshot.learners.optimization.taml import entropy

WAY = 3
TASK = {"kind": "classification", "way": WAY}


pytestmark = pytest.mark.usefixtures("double")


def episodes() -> Episode:
    torch.manual_seed(1)
    labels = [torch.arange(WAY).repeat_interleave(n).expand(2, -1) for n in (2, 4)]
    return Episode(*(Examples(torch.randn(2, y.shape[1], 5), y) for y in labels))


def certainty(logits: torch.Tensor) -> torch.Tensor:
    """The mean entropy, by torch's own distribution, which has no types."""
    distribution: Any = Categorical(logits=logits)
    found: torch.Tensor = distribution.entropy().mean()
    return found


def test_the_entropy_is_that_of_torchs_distribution() -> None:
    logits = 3 * torch.randn(7, WAY)
    torch.testing.assert_close(entropy(logits), certainty(logits))


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_loss_and_gradient_are_those_of_the_equation(how: str) -> None:
    torch.manual_seed(0)
    learner = TAML(MLP(5, [6]), entropy=0.7, inner_lr=0.2, inner_steps=2, task=TASK)
    learner.episode_parallel, batch = how, episodes()
    parameters = list(learner.parameters())
    losses = torch.cat([outcome.loss for outcome in learner.run(batch, training=True)])
    expected = []
    whole: Any = batch
    for i in range(2):
        one: Any = [[t[i] for t in (part.inputs, part.targets)] for part in whole]
        (x, y), (queries, truth) = one
        w: list[torch.Tensor] = list(parameters)

        def outputs(w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
            return F.linear(torch.relu(F.linear(x, w[0], w[1])), w[2], w[3])

        before = certainty(outputs(w, queries))
        for _ in range(2):
            loss = F.cross_entropy(outputs(w, x), y)
            slopes = torch.autograd.grad(loss, w, create_graph=True)
            w = [a - 0.2 * b for a, b in zip(w, slopes, strict=True)]
        after = certainty(outputs(w, queries))
        expected.append(F.cross_entropy(outputs(w, queries), truth) + 0.7 * (after - before))
    wanted = torch.stack(expected)
    assert_same_gradients(losses, wanted, parameters)


def test_an_initialisation_of_fixed_labels_answers_less_by_itself() -> None:
    """Tasks that one function answers: label n is always at place n."""
    unadapted = {}
    for cls in (MAML, TAML):
        torch.manual_seed(0)
        learner = cls(MLP(5, [16]), inner_lr=0.5, task=TASK)
        optimizer = torch.optim.Adam(learner.parameters(), 0.01)
        for step in range(80):
            torch.manual_seed(step)
            labels = [torch.arange(WAY).repeat_interleave(n).expand(4, -1) for n in (1, 4)]
            parts = [Examples(F.one_hot(y, 5) + 0.1 * torch.randn(*y.shape, 5), y) for y in labels]
            optimizer.zero_grad()
            for outcome in learner.run(Episode(*parts), training=True):
                torch.autograd.backward(outcome.loss.mean())
            optimizer.step()
        unadapted[cls] = learner.evaluate_unadapted(Episode(*parts)).metrics["accuracy"].mean()
        adapted = learner.evaluate(Episode(*parts)).metrics["accuracy"].mean()
        assert adapted > 0.9
    assert unadapted[MAML] > 0.95
    assert unadapted[TAML] < 0.7


def test_it_is_for_classes() -> None:
    with pytest.raises(FewshotError, match="TAML is made for classification"):
        TAML(MLP(1), task={"kind": "regression", "targets": 1})
