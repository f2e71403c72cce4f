"""RL^2: fast reinforcement learning via slow reinforcement learning (arXiv:1611.02779).

Shapes: B tasks, n trials of each, T steps of a trial.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, NonNegative, Positive
from fewshot.backbones.base import Backbone, features_of
from fewshot.engine.modes import evaluation_mode
from fewshot.environments.play import Moment, Trials, Uniform
from fewshot.episodes.types import Episode, Examples, Inputs, MetaBatch, count, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.lightning_internals import attached_trainer
from fewshot.learners.model_based.memory_of_trials import MemoryKind, memory_of_trials
from fewshot.learners.model_based.played import Played
from fewshot.learners.outcome import Outcome
from fewshot.learners.playing import facts_of, outcome_of, play_all
from fewshot.tasks.advantages import advantages, discounted
from fewshot.tasks.control import Control


class Remembered(NamedTuple):
    """What is kept of a trial: the memory, and what came of the last action."""

    memory: Any
    last: Moment


class RL2(MetaLearner):
    """RL2: a recurrent policy that reads what came of its actions, and so learns within a trial.

    Paper: arXiv:1611.02779.

    The benchmark's `discount` and `gae_lambda` (the paper: 0.99 and 0.3) are of the whole trial. It
    keeps its memory over the episodes of a trial and begins each trial anew: the support is not
    used. Trained by PPO (the paper: TRPO) on the return of whole trials. The values learn the
    discounted rewards that came, whatever `gae_lambda`: where they learn from each other, by its
    0.3, they lag behind and long trials teach nothing. They are learned as a mean reward of the
    steps to come, of which a step of training is a large part; as a sum, which is 60 in a long
    trial, they take most of the clipped gradient for long. `begin_episodes` begins with short
    trials and doubles them.

    With `learns` = `regrets` (ours) the policy learns from what its actions forgo, which a
    benchmark knows that made its tasks, instead of from the rewards that came. At a `discount` of 1
    the expected gradient is the same: what is left out, the chances of rewards and of transitions
    and the best return of the task, has no part in it. What a step itself forgoes is known of all
    its actions, so its mean over them is taken; what comes later is that of the trial. The policy
    sees what it always saw.

    Args:
        backbone: the network from an observation to features; `Pixels` leaves it as it is.
        memory: `gru`, `lstm`, `snail`: causal convolutions and attention over the whole trial
            (SNAIL's policy, arXiv:1707.03141), or `attention`: layers of a causal transformer
            (arXiv:1706.03762), which looks up what came of each step.
        hidden: units of the recurrent network, filters of a convolution, or values of a step in an
            attention (the paper: 256).
        layers: of the recurrent network or the attention; None: 1 or 3.
        clip: how far PPO's ratio of probabilities may go from 1.
        epochs: optimizer steps on the trials of a meta-batch, which count as one meta-step.
        value_weight: of the values' loss.
        entropy_weight: of the policy's entropy, which is rewarded.
        learns: from `rewards`, or from `regrets`: the expected reward that each action forgoes.
        minibatches: parts of a meta-batch, an optimizer step each in every epoch.
        begin_episodes: episodes of a trial when training begins; None: all.
        lengthen_every: meta-steps after which trials are twice as long, up to the benchmark's.
        gradient_clip: largest norm of a gradient; None leaves it as it is.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: `learns` = `regrets` where the benchmark does not know the best actions;
            `layers` of the memory `snail`; `hidden` that the heads of an attention cannot share.
    """

    takes = Control
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {"class_path": "fewshot.Pixels"}
    acts = True
    task: Control

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        memory: MemoryKind = "gru",
        hidden: Count = 256,
        layers: Count | None = None,
        clip: Positive = 0.2,
        epochs: Count = 5,
        value_weight: NonNegative = 0.5,
        entropy_weight: NonNegative = 0.01,
        learns: Literal["rewards", "regrets"] = "rewards",
        minibatches: Count = 1,
        begin_episodes: Count | None = None,
        lengthen_every: Count = 100,
        gradient_clip: Positive | None = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, gradient_clip=gradient_clip, **kwargs)
        place = self.task.place
        if learns == "regrets" and not place.has_regret:
            raise FewshotError(
                f"nobody knows the best actions in {place.kind}, so there are no regrets to learn"
                " from; leave learns at rewards"
            )
        size = self.features + place.action_size + 2
        self.memory = memory_of_trials(memory, size, hidden, layers, place.steps)
        own = self.task.head(self.memory.out_features)
        self.head = (
            nn.Linear(self.memory.out_features, self.task.output_size) if own is None else own
        )
        self.value = nn.Linear(self.memory.out_features, 1)
        self.clip, self.epochs = clip, epochs
        self.learns, self.minibatches = learns, minibatches
        self.value_weight, self.entropy_weight = value_weight, entropy_weight
        self.begin_episodes, self.lengthen_every = begin_episodes, lengthen_every

    # ------------------------------------------------------------------ the policy

    def read(self, seen: Tensor, action: Tensor, reward: Tensor, ended: Tensor) -> Tensor:
        """What the memory is given (n, T, C): what is seen, and the last action, reward, end."""
        features = features_of(self.backbone, seen.flatten(0, 1)).view(*seen.shape[:2], -1)
        if self.task.place.discrete:
            action = action == torch.arange(self.task.place.action_size, device=action.device)
        parts = [features, action, reward[..., None], ended[..., None]]
        return torch.cat([part.to(features.dtype) for part in parts], -1)

    def act(self, memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
        """The actions (n, A) of a moment, and what is remembered then."""
        outputs, memory = self.outputs_at(memory, moment)
        return self.task.policy.sample(outputs, uniform(self.task.policy.numbers)), memory

    def outputs_at(self, memory: Any, moment: Moment) -> tuple[Tensor, Any]:
        """The policy's outputs (n, size) at a moment, and what is remembered then."""
        remembered, memory = self.memory(self.read(*(p[:, None] for p in moment[1:])), memory)
        outputs: Tensor = self.head(remembered[:, 0]).to(moment.reward.dtype)
        return outputs, memory

    def whole(self, trials: Trials) -> tuple[Tensor, Tensor]:
        """Outputs (n, T, size) and values (n, T) at all steps of trials, read at once."""
        none = trials.actions[:, :1] * 0 - float(self.task.place.discrete)
        nothing = torch.zeros_like(trials.rewards[:, :1])
        before = [
            torch.cat([start, part[:, :-1]], 1)
            for start, part in (
                (none, trials.actions),
                (nothing, trials.rewards),
                (nothing, trials.ended),
            )
        ]
        remembered, _ = self.memory(self.read(trials.observations, *before))
        dtype = trials.rewards.dtype
        means = self.value(remembered)[..., 0].to(dtype)
        return self.head(remembered).to(dtype), means * self.to_come(trials)

    def to_come(self, trials: Trials) -> Tensor:
        """The discounted steps to come (1, T) at each step of trials, itself among them."""
        return discounted(torch.ones_like(trials.rewards[:1]), self.task.discount)

    # ------------------------------------------------------------------ training

    def episodes_of_a_trial(self) -> int:
        """How many a trial has at this point of training."""
        most = self.task.place.episodes
        if self.begin_episodes is None:
            return most
        trainer = attached_trainer(self)
        doublings = (trainer.global_step if trainer else 0) // self.lengthen_every
        return min(most, self.begin_episodes << min(doublings, 30))

    def passes(self, batch: Any) -> list[Any]:
        """The trials of the meta-batch in parts, as often as PPO takes them."""
        batch = MetaBatch.of(batch, type(self).__name__)
        if batch.size < self.minibatches:
            raise FewshotError(
                f"{batch.size} tasks cannot be taken in {self.minibatches} minibatches; have"
                " minibatches at most meta_batch_size"
            )
        return self.played(batch).parts(self.minibatches) * self.epochs

    @torch.no_grad()
    def played(self, batch: MetaBatch) -> Played:
        """Trials of all tasks, with their advantages over all ranks."""
        steps = self.episodes_of_a_trial() * self.task.place.horizon
        query, task = batch.query, self.task
        trials = play_all(task, self.act, query, steps)
        outputs, values = self.whole(trials)
        counts = torch.ones_like(trials.mask)  # a trial goes on where an episode has ended
        from_regrets = self.learns == "regrets"
        gains = -trials.regrets if from_regrets else trials.rewards
        found = advantages(gains, values, counts, task.discount, task.gae_lambda)
        forgone = None
        if from_regrets:  # of a step itself all actions are judged, so the one taken is not
            forgone = task.place.regrets(trials.observations, facts_of(query))
            forgone = forgone * trials.mask[..., None]
            found = found + trials.regrets - mean_over_actions(outputs, forgone)
        mean = self.over_ranks(found.mean())
        deviation = self.over_ranks((found - mean).square().mean()).sqrt() + 1e-8
        scaled = (found - mean) / deviation
        returns = discounted(gains, task.discount)
        forgone = forgone if forgone is None else forgone / deviation
        return Played(trials, outputs, scaled, returns, forgone, batch.size, batch)

    def training_outcomes(self, batch: Any) -> Iterator[Outcome]:
        """PPO's loss of what was played (arXiv:1707.06347)."""
        if not isinstance(batch, Played):
            batch = self.played(MetaBatch.of(batch, type(self).__name__))
        outputs, values = self.whole(batch.trials)
        policy, actions, mask = self.task.policy, batch.trials.actions, batch.trials.mask
        ratio = (policy.log_prob(outputs, actions) - policy.log_prob(batch.outputs, actions)).exp()
        near = ratio.clamp(1 - self.clip, 1 + self.clip)
        gains = (ratio * batch.advantages).minimum(near * batch.advantages)
        if batch.forgone is not None:
            gains = gains - mean_over_actions(outputs, batch.forgone)
        scale = self.to_come(batch.trials)
        off = F.smooth_l1_loss(values / scale, batch.returns / scale, reduction="none")
        losses = self.value_weight * off - mask * (
            gains + self.entropy_weight * policy.entropy(outputs)
        )
        found = outcome_of(self.task, batch.trials, batch.size)
        yield found._replace(loss=losses.view(batch.size, -1).mean(1))

    # ------------------------------------------------------------------ the two verbs

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Play the queries of all tasks at once."""
        if training:
            yield from self.training_outcomes(MetaBatch([episodes]))
            return
        with torch.no_grad():
            trials = play_all(self.task, self.act, episodes.query)
        yield outcome_of(self.task, trials, count(episodes))

    @torch.no_grad()
    def adapt(self, support: Examples) -> Remembered:
        """What is remembered of the first trial of the support, once it is played."""
        kept: list[Any] = []

        def act(memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
            action, memory = self.act(memory, moment, uniform)
            kept[:] = [memory]
            return action, memory

        with evaluation_mode(self):
            one: Examples = map_tensors(lambda tensor: tensor[None, :1], support)
            trials = play_all(self.task, act, one)
        steps = (trials.observations, trials.actions, trials.rewards, trials.ended)
        return Remembered(kept[0], Moment(trials.rewards.shape[1], *(p[:, -1] for p in steps)))

    @torch.no_grad()
    def predict(self, adapted: Remembered, inputs: Inputs) -> Tensor:
        """The policy's outputs (n, size) for observations (n, O), each right after the support."""
        assert isinstance(inputs, Tensor)
        found = []
        with evaluation_mode(self):
            for observation in inputs:
                moment = adapted.last._replace(observation=observation[None])
                found.append(self.outputs_at(adapted.memory, moment)[0])
        return torch.cat(found)


def mean_over_actions(outputs: Tensor, values: Tensor) -> Tensor:
    """The mean (n, T) of values (n, T, A) of all actions under the policy's logits."""
    return (outputs.softmax(-1) * values).sum(-1)
