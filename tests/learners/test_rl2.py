"""RL^2 in float64: read at once as step by step, PPO's gradient, the curriculum, and that it learns."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

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
from fewshot.learners.model_based.memory_of_trials import AttentionLayer
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
        Pixels(data.in_features), task=data.task, memory=memory, **{"hidden": 4} | more
    ).double()
    batch = next(iter(data.train_dataloader())).stacked
    return learner, map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)


@pytest.mark.parametrize("kind", ["mdp", "bandit", "navigation"])
@pytest.mark.parametrize(
    ("memory", "more"),
    [
        ("gru", {}),
        ("lstm", {}),
        ("snail", {}),
        ("attention", {}),
        ("lstm", {"layers": 2}),
        ("attention", {"layers": 1}),
    ],
)
def test_a_trial_read_at_once_is_what_was_read_step_by_step(
    memory: str, more: dict[str, Any], kind: str
) -> None:
    learner, episodes = made(memory, kind, **more)
    seen: list[Tensor] = []

    def act(memory: Any, moment: Moment, uniform: Any) -> tuple[Tensor, Any]:
        seen.append(learner.outputs_at(memory, moment)[0])
        return learner.act(memory, moment, uniform)

    trials = play_all(learner.task, act, episodes.query)
    outputs, values = learner.whole(trials)
    torch.testing.assert_close(torch.stack(seen, 1), outputs, rtol=0, atol=1e-12)
    assert values.shape == trials.rewards.shape == (6, learner.task.place.steps)
    assert len({tuple(row) for row in outputs[:, -1].tolist()}) > 1, "it remembers what it saw"


def test_a_layer_of_attention_is_torchs_own_with_the_same_weights() -> None:
    torch.manual_seed(0)
    ours = AttentionLayer(8).double()
    theirs = nn.TransformerEncoderLayer(
        8, 4, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    attention = theirs.self_attn
    pairs = {
        "first": theirs.norm1, "second": theirs.norm2, "read": attention.out_proj,
        "alone.0": theirs.linear1, "alone.2": theirs.linear2,
    }  # fmt: skip
    with torch.no_grad():
        attention.in_proj_weight.copy_(ours.asked.weight)
        attention.in_proj_bias.copy_(ours.asked.bias)
        for name, module in pairs.items():
            module.load_state_dict(ours.get_submodule(name).state_dict())
    steps = torch.randn(3, 7, 8, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    expected = theirs(steps, mask, is_causal=True)
    found, known = ours(steps[:, :4], None)
    later, _ = ours(steps[:, 4:], known)  # several steps behind others
    torch.testing.assert_close(torch.cat([found, later], 1), expected, rtol=0, atol=1e-12)


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


def first_derivatives(learner: RL2, episodes: Episode, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Of each task's loss by the bias of the policy's head, advantages left as they are."""
    as_they_are = itertools.cycle([0.0, 1.0])  # the mean and the variance that are asked for
    monkeypatch.setattr(learner, "over_ranks", lambda value: value * 0 + next(as_they_are))
    played = learner.played(MetaBatch([episodes]))
    losses = next(iter(learner.training_outcomes(played))).loss
    of_each = torch.ones_like(losses, requires_grad=True)  # the sum's derivative by it is wanted
    bias = learner.head.get_parameter("bias")
    (both,) = torch.autograd.grad(losses @ of_each, bias, create_graph=True)
    (found,) = torch.autograd.grad(both[0] - both[1], of_each)
    return found


def test_regrets_have_the_gradient_of_rewards_in_expectation_with_less_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 4000
    data = TabularMDPDataModule(
        2, 2, horizon=2, trial_episodes=2, discount=1, gae_lambda=1, queries=1,
        meta_batch_size=count, train_episodes=count,
    )  # fmt: skip
    drawn = next(iter(data.train_dataloader())).stacked
    facts = drawn.query.inputs[:1].expand(count, -1, -1)  # one task, played often
    episodes = Episode(drawn.support, drawn.query._replace(inputs=facts))
    episodes = map_tensors(lambda t: t.double() if t.is_floating_point() else t, episodes)
    found = {}
    for learns in ("rewards", "regrets"):
        torch.manual_seed(0)
        learner = RL2(
            Pixels(2), task=data.task, hidden=4, learns=learns, value_weight=0, entropy_weight=0
        ).double()
        torch.nn.init.zeros_(learner.value.weight)
        torch.nn.init.zeros_(learner.value.bias)
        found[learns] = first_derivatives(learner, episodes, monkeypatch)
    errors = {name: each.std() / count**0.5 for name, each in found.items()}
    off = found["rewards"].mean() - found["regrets"].mean()
    assert off.abs() < 4 * torch.stack([*errors.values()]).norm()
    assert found["regrets"].mean().abs() > 4 * errors["regrets"], "there is something to learn"
    assert errors["regrets"] < 0.85 * errors["rewards"]


def test_what_a_single_step_forgoes_is_known_of_all_its_actions() -> None:
    data = TabularMDPDataModule(3, 2, horizon=1, trial_episodes=1, **SIZES)
    torch.manual_seed(0)
    learner = RL2(
        Pixels(3), task=data.task, hidden=4, learns="regrets", value_weight=0, entropy_weight=0
    ).double()
    batch = next(iter(data.train_dataloader())).stacked
    episodes = map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)
    torch.nn.init.zeros_(learner.value.weight)
    torch.nn.init.constant_(learner.value.bias, -0.5)
    played = learner.played(MetaBatch([episodes]))
    (outcome,) = learner.training_outcomes(played)
    outcome.loss.mean().backward()  # type: ignore[no-untyped-call]
    found = learner.head.bias.grad
    learner.zero_grad()
    assert isinstance(episodes.query.inputs, Tensor)
    mean = episodes.query.inputs.flatten(0, 1)[:, 3 * 3 * 2 :][:, :2]  # of state 0's actions
    policy = learner.whole(played.trials)[0][:, 0].softmax(-1)
    lost = (policy * (mean.amax(1, keepdim=True) - mean)).sum(1)
    # and the advantage, which is of what is expected alone
    log_prob = policy.gather(1, played.trials.actions[:, 0].long())[:, 0].log()
    expected = 0.5 - lost.detach()
    scale = expected.std(correction=0)
    gains = log_prob * (expected - expected.mean()) / scale - lost / scale
    (-gains.mean()).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, learner.head.bias.grad, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("memory", "more", "told"),
    [
        ("snail", {"layers": 2}, "layers of snail follow from the trials; leave layers out"),
        ("attention", {"hidden": 6}, "hidden=6 .* 4 heads .*have a multiple of 4"),
    ],
)
def test_options_that_a_memory_has_no_use_for_are_refused(
    memory: str, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(FewshotError, match=told):
        made(memory, **more)


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


@pytest.mark.parametrize("memory", ["gru", "lstm", "snail", "attention"])
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
