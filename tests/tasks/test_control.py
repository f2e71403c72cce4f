"""The control task in float64: advantages by hand, an enumerated MDP, what is shown and refused."""

import itertools
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot import (
    ANIL,
    MAML,
    MLP,
    BanditDataModule,
    FewshotError,
    NavigationDataModule,
    PrototypicalNetwork,
    RandomPolicy,
    TabularMDPDataModule,
    ThompsonSampling,
)
from fewshot.callbacks.pictures import EpisodePicture
from fewshot.callbacks.predictions import PredictionWriter
from fewshot.environments.noise import Noise
from fewshot.episodes.types import Examples, map_tensors
from fewshot.tasks.advantages import advantages, discounted, ridge_values, standardised
from fewshot.tasks.base import EpisodeView
from fewshot.tasks.control import Control, Steps
from fewshot.tasks.policies import Categorical, Gaussian

# Two states, two actions, two steps: P(1 | s, a) and r(s, a), which nothing blurs.
CHANCE = torch.tensor([[0.2, 0.9], [0.6, 0.3]], dtype=torch.float64)
REWARD = torch.tensor([[1.0, -0.5], [2.0, 0.3]], dtype=torch.float64)
ALPHA = 0.7
TRAJECTORIES = [*itertools.product(range(2), range(2), range(2))]  # a, s', a'


def mdp(loss: Any) -> Control:
    """A task whose trials are given, not played: only the sizes of the environment are used."""
    place = {"kind": "tabular_mdp", "states": 2, "actions": 2, "horizon": 2, "episodes": 1}
    return Control(place, inner_loss=loss, discount=1.0)


def chances(logits: Tensor) -> Tensor:
    """The probability (8,) of each trajectory under logits (2, 2) of the states."""
    pi = logits.softmax(1)
    found = []
    for a, s, b in TRAJECTORIES:
        came = CHANCE[0, a] if s else 1 - CHANCE[0, a]
        found.append(pi[0, a] * came * pi[s, b])
    return torch.stack(found)


def expected_return(logits: Tensor) -> Tensor:
    """J, exactly."""
    returns = torch.stack([REWARD[0, a] + REWARD[s, b] for a, s, b in TRAJECTORIES])
    return (chances(logits) * returns).sum()


def surrogate_hessian(loss: Any, logits: Tensor, which: int) -> Tensor:
    """The Hessian (4, 4) of minus the loss of one trajectory, times its 2 steps."""
    task, (a, s, b) = mdp(loss), TRAJECTORIES[which]
    actions = torch.tensor([[a], [b]], dtype=torch.float64)
    rewards = torch.stack([REWARD[0, a], REWARD[s, b]])
    places = torch.tensor([0, s])
    to_go = torch.stack([rewards.sum(), rewards[1]])  # what advantages stand for here
    old, ones = logits[places], torch.ones(2, dtype=torch.float64)
    steps = Steps(actions, old, to_go, rewards, ones, 0 * ones).packed()

    def value(flat: Tensor) -> Tensor:
        return -2 * task.support_loss(flat.view(2, 2)[places], steps)

    found: Tensor = torch.func.jacrev(torch.func.grad(value))(logits.flatten())
    slope: Tensor = torch.func.grad(value)(logits.flatten())
    return torch.cat([slope[None], found])


@pytest.mark.parametrize("loss", ["dice", "lvc", "log_likelihood"])
def test_meta_gradients_of_an_enumerated_mdp(loss: str) -> None:
    """One inner step on J: dice's curvature is unbiased, the others' bias is what theory says."""
    logits = torch.tensor([[0.3, -0.4], [-0.2, 0.5]], dtype=torch.float64)
    slope = torch.func.grad(expected_return)(logits)
    after = logits + ALPHA * slope
    there = torch.func.grad(expected_return)(after).flatten()

    def adapted_return(start: Tensor) -> Tensor:
        return expected_return(start + ALPHA * torch.func.grad(expected_return)(start))

    exact = torch.func.grad(adapted_return)(logits).flatten()
    parts = torch.stack([surrogate_hessian(loss, logits, i) for i in range(8)])
    shares = chances(logits)
    mean = (shares[:, None, None] * parts).sum(0)
    torch.testing.assert_close(mean[0], slope.flatten(), atol=1e-12, rtol=0)  # all three
    enumerated = there + ALPHA * mean[1:] @ there
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(shares, 100_000, replacement=True, generator=generator)
    estimates = there + ALPHA * (parts[:, 1:] @ there)[drawn]
    off = (estimates.mean(0) - exact).abs()
    interval = 4 * estimates.std(0) / math.sqrt(len(drawn))
    if loss == "dice":
        torch.testing.assert_close(enumerated, exact, atol=1e-12, rtol=0)
        assert (off <= interval).all()
    else:
        assert (enumerated - exact).abs().max() > 1e-2
        assert (off > interval).any()
        # lvc lacks the terms across time alone; log-likelihood has no curvature of the ratio
        pi = logits.softmax(1)
        if loss == "log_likelihood":
            fisher = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None]
            visits = shares.new_zeros(2)
            for share, (a, s, b) in zip(shares, TRAJECTORIES, strict=True):
                visits[0] += share * (REWARD[0, a] + REWARD[s, b])
                visits[s] += share * REWARD[s, b]
            expected = torch.zeros(4, 4, dtype=torch.float64)
            for i in range(2):
                expected[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = -visits[i] * fisher[i]
            torch.testing.assert_close(mean[1:], expected, atol=1e-12, rtol=0)


def test_advantages_are_those_written_out() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.3, 9.0]], dtype=torch.float64)
    assert discounted(rewards, 0.5)[0].tolist() == [1 + 1 + 0.75, 3.5, 3.0]
    errors = [1 - 0.9 - 0.5, 2 + 1.8 + 1, 3 - 2, 4 + 0.27 - 1, 5 - 0.3]
    found = advantages(rewards, values, mask, 0.9, 0.8)
    k = 0.9 * 0.8
    assert found[0].tolist() == pytest.approx(
        [errors[0] + k * errors[1] + k * k * errors[2], errors[1] + k * errors[2], errors[2]]
    )
    assert found[1].tolist() == pytest.approx([errors[3] + k * errors[4], errors[4], 0])
    scaled = standardised(found, mask)
    assert scaled.sum().item() == pytest.approx(0, abs=1e-12)
    assert (scaled.square().sum() / 5).item() == pytest.approx(1)
    assert scaled[1, 2] == 0


def test_the_baseline_is_a_ridge_regression_of_the_steps_that_count() -> None:
    from sklearn.linear_model import Ridge

    torch.manual_seed(0)
    seen, returns = torch.randn(6, 8, 2).double(), torch.randn(6, 8).double()
    mask = (torch.arange(8) < torch.tensor([8, 3, 5, 8, 1, 8])[:, None]).double()
    t = (torch.arange(8.0).double() / 100).expand(6, -1)[..., None]
    features = torch.cat([seen, seen**2, t, t**2, t**3, torch.ones_like(t)], -1)
    model = Ridge(1e-5, fit_intercept=False, solver="cholesky")
    model.fit(features[mask > 0].numpy(), returns[mask > 0].numpy())
    expected = torch.from_numpy(model.predict(features.flatten(0, 1).numpy())).view(6, 8)
    torch.testing.assert_close(ridge_values(seen, returns, mask), expected, atol=1e-6, rtol=1e-6)


def test_policies_are_torchs_distributions() -> None:
    categorical: Any = lambda x: torch.distributions.Categorical(logits=x)  # noqa: E731
    torch.manual_seed(0)
    a, b, action = torch.randn(3, 5, 4).double()
    one, other = map(categorical, (a, b))
    policy, chosen = Categorical(4), torch.tensor([0, 1, 2, 3, 3])
    torch.testing.assert_close(policy.log_prob(a, chosen[:, None]), one.log_prob(chosen))
    torch.testing.assert_close(policy.kl(a, b), torch.distributions.kl_divergence(one, other))
    torch.testing.assert_close(policy.entropy(a), one.entropy())
    uniform = Noise(torch.arange(20000)).uniform(range(1), 1, 1, torch.float64)[:, 0]
    drawn = policy.sample(a[:1].expand(20000, -1), uniform)[:, 0]
    assert torch.bincount(drawn).div(20000).sub(one.probs[0]).abs().max() < 0.015
    real = Gaussian(2)

    def normal(x: Tensor) -> Any:
        return torch.distributions.Independent(
            torch.distributions.Normal(x[:, :2], x[:, 2:].exp()), 1
        )

    torch.testing.assert_close(real.log_prob(a, action[:, :2]), normal(a).log_prob(action[:, :2]))
    torch.testing.assert_close(
        real.kl(a, b), torch.distributions.kl_divergence(normal(a), normal(b))
    )
    torch.testing.assert_close(real.entropy(a), normal(a).entropy())


def test_what_was_played_is_told_and_shown() -> None:
    task = Control({"kind": "bernoulli_bandit", "arms": 2, "pulls": 3})
    facts = torch.tensor([[0.0, 1.0]]).expand(2, -1)
    query = Examples(facts, torch.tensor([5, 6]))
    certain = torch.tensor([-50.0, 50.0])
    act: Any = lambda seen: certain.expand(len(seen), -1)  # noqa: E731
    played = task.experience(query, act)
    outputs = certain.expand(6, -1)
    assert task.metrics(outputs, played.targets) == {"return": 3, "length": 3, "regret": 0}
    shown = task.shown(outputs, played)
    assert shown.shape == (2, 3, 1 + 1 + 2 + 4)
    assert task.predictions(shown, query.targets) == [[3.0, 3.0], [3, 3]]
    # what was played already is given back, each inner step its own
    held: Examples = map_tensors(lambda tensor: torch.stack([tensor, 2 * tensor]), played)
    assert torch.equal(task.experience(held, act, 1).targets, 2 * played.targets)


@pytest.mark.parametrize("name", ["bandit", "mdp", "navigation"])
def test_episodes_are_facts_and_seeds_by_their_number(name: str) -> None:
    data = {
        "bandit": BanditDataModule(arms=3),
        "mdp": TabularMDPDataModule(),
        "navigation": NavigationDataModule(sparse=True),
    }[name]
    stream = data.stream("train")
    batch = stream.__getitems__([4, 9]).stacked
    for place, number in enumerate((4, 9)):
        for part, one in zip(batch, stream[number], strict=True):
            assert torch.equal(part.inputs[place], one.inputs)  # type: ignore[index, arg-type]
            assert torch.equal(part.targets[place], one.targets)
    assert len(
        {*batch.support.targets.flatten().tolist(), *batch.query.targets.flatten().tolist()}
    ) == (batch.support.targets.numel() + batch.query.targets.numel())


def test_who_cannot_act_says_so() -> None:
    data = NavigationDataModule()
    for cls in (PrototypicalNetwork, ANIL):
        with pytest.raises(FewshotError, match=f"{cls.__name__} cannot act, .* choose MAML"):
            cls(MLP(2), task=data.task)
    with pytest.raises(FewshotError, match="set compile: false"):
        MAML(MLP(2), task=data.task, compile=True)
    with pytest.raises(FewshotError, match="adapt is 'head'"):
        MAML(MLP(2), task=data.task, adapt="head")


def view(learner: Any, data: Any) -> EpisodeView:
    batch = next(iter(data.test_dataloader()))
    return EpisodePicture().view(learner, next(batch.singles()), data)


def test_pictures_are_paths_by_steps_and_regrets_beside_others() -> None:
    torch.manual_seed(0)
    walk = NavigationDataModule(horizon=5, shot=2, queries=3)
    learner = MAML(MLP(2, (4,)), task=walk.task, inner_lr=0.1)
    figure = learner.task.picture(view(learner, walk))
    assert figure is not None
    before, after = figure.axes
    assert before.get_title("left").startswith("before adaptation: return -")
    assert after.get_title("left").startswith("after 1 step: return -")
    assert len(after.lines) == 3 + 2  # paths, the goal and the start
    bandit = BanditDataModule(3, 4)
    policy = ThompsonSampling(task=bandit.task)
    shown = policy.task.picture(view(policy, bandit))
    assert shown is not None
    curves: dict[str, Any] = {
        str(line.get_label()): line.get_ydata() for line in shown.axes[0].lines
    }
    assert list(curves) == ["learner", "Thompson sampling", "UCB1, scale 0.2", "random"]
    assert list(curves["learner"]) == list(curves["Thompson sampling"]), "the same chances"
    assert shown.axes[0].get_xlabel() == "pulls"
    mdp = TabularMDPDataModule(2, 2, 2, 2)
    by_chance = RandomPolicy(task=mdp.task)
    shown = by_chance.task.picture(view(by_chance, mdp))
    assert shown is not None
    curves = {str(line.get_label()): line.get_ydata() for line in shown.axes[0].lines}
    assert list(curves) == ["learner", "PSRL", "random"]
    assert list(curves["learner"]) == list(curves["random"]), "the same chances"
    assert shown.axes[0].get_xlabel() == "steps"


def test_predictions_are_returns_of_the_test_trials(tmp_path: Path) -> None:
    data = BanditDataModule(2, 4, queries=2, test_episodes=3, eval_batch_size=2)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[PredictionWriter()],
    )  # fmt: skip
    trainer.predict(RandomPolicy(task=data.task), data)
    (file,) = tmp_path.rglob("predictions.csv")
    rows = [line.split(",") for line in file.read_text().split()]
    assert rows[0] == ["episode", "query", "return", "length"]
    assert [row[:2] for row in rows[1:]] == [[str(e), str(q)] for e in range(3) for q in range(2)]
    assert all(0 <= float(row[2]) <= 4 and row[3] == "4" for row in rows[1:])


def test_predictions_of_a_learner_that_adapts_have_the_return_of_the_test(tmp_path: Path) -> None:
    data = NavigationDataModule(horizon=4, shot=2, queries=3, test_episodes=3, eval_batch_size=2)
    learner = MAML(MLP(2, (4,)), task=data.task, inner_lr=0.1)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[PredictionWriter()],
    )  # fmt: skip
    (tested,) = trainer.test(learner, data, verbose=False)
    trainer.predict(learner, data)
    (file,) = tmp_path.rglob("predictions.csv")
    rows = [line.split(",") for line in file.read_text().split()[1:]]
    assert len(rows) == 3 * 3
    returns = [float(row[2]) for row in rows]
    assert np.mean(returns) == pytest.approx(tested["test/return"], abs=1e-5)
    assert len(set(returns)) > 1
