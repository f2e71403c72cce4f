"""RL^2 in float64: read at once as step by step, PPO's gradient, the curriculum, and that it learns."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from fewshot import (
    RL2,
    BanditDataModule,
    FewshotError,
    NavigationDataModule,
    Pixels,
    RandomPolicy,
    TabularMDPDataModule,
    ThompsonSampling,
)
from fewshot.datamodules import ControlDataModule
from fewshot.environments.play import Moment
from fewshot.episodes.types import Episode, MetaBatch, map_tensors
from fewshot.learners.playing import play_all
from fewshot.tasks.advantages import discounted

SIZES: dict[str, Any] = {"meta_batch_size": 3, "train_episodes": 3, "queries": 2}


def made(memory: Any, kind: str = "mdp", **more: Any) -> tuple[RL2, Episode]:
    kinds: dict[str, Callable[[], ControlDataModule]] = {
        "mdp": lambda: TabularMDPDataModule(3, 2, horizon=2, trial_episodes=3, **SIZES),
        "bandit": lambda: BanditDataModule(3, 5, **SIZES),
        "navigation": lambda: NavigationDataModule(horizon=3, trial_episodes=2, **SIZES),
    }
    data = kinds[kind]()
    torch.manual_seed(0)
    learner = RL2(
        Pixels(data.in_features), task=data.task, memory=memory, hidden=4, **more
    ).double()
    batch = next(iter(data.train_dataloader())).stacked
    return learner, map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)


@pytest.mark.parametrize("kind", ["mdp", "bandit", "navigation"])
@pytest.mark.parametrize(
    ("memory", "deep"),
    [("gru", False), ("lstm", False), ("snail", False), ("gru", True), ("lstm", True)],
)
def test_a_trial_read_at_once_is_what_was_read_step_by_step(
    memory: str, deep: bool, kind: str
) -> None:
    learner, episodes = made(memory, kind, deep=deep)
    seen: list[Tensor] = []

    def act(memory: Any, moment: Moment, uniform: Any) -> tuple[Tensor, Any]:
        seen.append(learner.outputs_at(memory, moment)[0])
        return learner.act(memory, moment, uniform)

    trials = play_all(learner.task, act, episodes.query)
    outputs, values = learner.whole(trials)
    torch.testing.assert_close(torch.stack(seen, 1), outputs, rtol=0, atol=1e-12)
    assert values.shape == trials.rewards.shape == (6, learner.task.place.steps)
    assert len({tuple(row) for row in outputs[:, -1].tolist()}) > 1, "it remembers what it saw"


def test_ppos_first_gradient_is_the_policy_gradient() -> None:
    learner, episodes = made("gru", value_weight=0.3, entropy_weight=0.2)
    played = learner.played(MetaBatch([episodes]))
    (outcome,) = learner.training_outcomes(played)
    outcome.loss.mean().backward()  # type: ignore[no-untyped-call]
    found = [p.grad.clone() for p in learner.parameters() if p.grad is not None]
    learner.zero_grad()
    outputs, values = learner.whole(played.trials)
    categorical: Any = torch.distributions.Categorical
    policy = categorical(logits=outputs)
    log_prob = policy.log_prob(played.trials.actions[..., 0].long())
    gains = log_prob * played.advantages + 0.2 * policy.entropy()
    rewards, discount = played.trials.rewards, learner.task.discount
    steps = range(rewards.shape[1])
    scale = torch.tensor(
        [[sum(discount**u for u in range(len(steps) - t)) for t in steps]], dtype=torch.float64
    )
    off = torch.nn.functional.smooth_l1_loss(values / scale, played.returns / scale)
    (0.3 * off - gains.mean()).backward()
    expected = [p.grad for p in learner.parameters() if p.grad is not None]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert played.advantages.mean().abs() < 1e-12
    assert played.advantages.std(correction=0).item() == pytest.approx(1)
    to_come = [sum(discount ** (u - t) * rewards[:, u] for u in steps if u >= t) for t in steps]
    torch.testing.assert_close(played.returns, torch.stack(to_come, 1), rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_what_is_learned_from_regrets_are_these_and_the_rewards_that_came_are_not() -> None:
    learner, episodes = made("gru", learns="regrets")
    played = learner.played(MetaBatch([episodes]))
    expected = discounted(-played.trials.regrets, learner.task.discount)
    torch.testing.assert_close(played.returns, expected, rtol=0, atol=1e-12)
    assert played.trials.regrets.min() >= 0 < played.trials.regrets.max()
    from_rewards = made("gru")[0].played(MetaBatch([episodes]))
    torch.testing.assert_close(from_rewards.trials.actions, played.trials.actions)
    assert (from_rewards.advantages - played.advantages).abs().max() > 0.1


def test_without_known_regrets_there_is_nothing_to_learn_from_them() -> None:
    with pytest.raises(FewshotError, match=r"best actions in navigation.*leave learns at rewards"):
        made("gru", "navigation", learns="regrets")


def test_a_deep_memory_is_refused_where_it_would_do_nothing() -> None:
    with pytest.raises(FewshotError, match="snail has layers of its own; leave deep at false"):
        made("snail", deep=True)


def test_minibatches_are_the_meta_batch_in_parts() -> None:
    learner, episodes = made("gru", minibatches=2, epochs=3)
    whole = learner.played(MetaBatch([episodes]))
    parts = learner.passes(MetaBatch([episodes]))
    assert [part.size for part in parts] == [2, 1] * 3
    assert [len(part.advantages) for part in parts[:2]] == [4, 2], "two trials of each task"
    (all_,) = learner.training_outcomes(whole)
    apart = torch.cat([next(iter(learner.training_outcomes(part))).loss for part in parts[:2]])
    torch.testing.assert_close(apart, all_.loss[[0, 2, 1]], rtol=0, atol=1e-12)
    learner, episodes = made("gru", minibatches=4)
    with pytest.raises(FewshotError, match="3 tasks cannot be taken in 4 minibatches"):
        learner.passes(MetaBatch([episodes]))


def test_values_are_sums_of_a_mean_reward_of_the_steps_to_come() -> None:
    learner, episodes = made("gru")
    torch.nn.init.zeros_(learner.value.weight)
    torch.nn.init.constant_(learner.value.bias, 2.0)
    trials = learner.played(MetaBatch([episodes])).trials
    ones = discounted(torch.ones_like(trials.rewards), learner.task.discount)
    assert ones[0, 0] > ones[0, -1] == 1
    torch.testing.assert_close(learner.whole(trials)[1], 2 * ones, rtol=0, atol=1e-12)


def test_trials_begin_short_and_lengthen() -> None:
    learner, episodes = made("gru", "bandit", begin_episodes=2, lengthen_every=10)
    lengths = []
    for step in (0, 9, 10, 19, 20, 500):
        learner._trainer = SimpleNamespace(global_step=step)  # type: ignore[assignment]
        lengths.append(learner.episodes_of_a_trial())
    assert lengths == [2, 2, 4, 4, 5, 5]
    learner._trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=0, strategy=SimpleNamespace(reduce=lambda value, reduce_op: value)
    )
    assert learner.played(MetaBatch([episodes])).trials.rewards.shape == (6, 2)
    assert learner.evaluate(episodes).outputs.shape[1:3] == (2, 5), "judged on whole trials"


@pytest.mark.parametrize("memory", ["gru", "lstm", "snail"])
def test_the_two_verbs_go_on_where_the_support_ended(memory: str) -> None:
    learner, episodes = made(memory)
    one: Episode = map_tensors(lambda tensor: tensor[0], episodes)
    outputs = learner.predict(learner.adapt(one.support), torch.eye(3).double())
    assert outputs.shape == (3, 2)
    assert outputs.isfinite().all()


def test_it_learns_to_explore() -> None:
    data = BanditDataModule(
        2, 6, meta_batch_size=200, train_episodes=12000, val_episodes=10, test_episodes=2000
    )
    torch.manual_seed(0)
    learner = RL2(
        Pixels(1), task=data.task, hidden=16, optimizer=lambda p: torch.optim.Adam(p, lr=0.01)
    )
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(learner, data)
    assert trainer.global_step == 60
    found = {}
    for one in (learner, RandomPolicy(task=data.task), ThompsonSampling(task=data.task)):
        trainer.test(one, data, verbose=False)
        found[type(one).__name__] = one.estimates["test"]["return"]
    gain = found["RL2"].mean - found["RandomPolicy"].mean
    assert gain > 3 * found["RL2"].ci95
    assert found["ThompsonSampling"].mean > found["RandomPolicy"].mean


def test_rewards_that_are_not_finite_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, episodes = made("gru", "navigation")
    episodes.query.inputs[1, 0].fill_(float("nan"))  # type: ignore[index]
    with pytest.raises(FewshotError, match="reward of step 0 of task 1 of the meta-batch is nan"):
        learner.evaluate(episodes)
