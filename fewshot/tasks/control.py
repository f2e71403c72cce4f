"""Control: outputs are distributions over actions, judged by what comes of acting by them.

Shapes: n trials of an episode's support or query, T steps of a trial, M = n * T; E episodes of a
trial, H steps of an episode, T = E * H; O values of an observation, A of an action.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from fewshot.arguments import Range
from fewshot.environments import make_environment
from fewshot.environments.base import Environment
from fewshot.environments.noise import Noise
from fewshot.environments.outside import outside
from fewshot.environments.play import Moment, Trials, Uniform, play
from fewshot.episodes.types import Examples, Inputs, map_tensors
from fewshot.errors import FewshotError
from fewshot.tasks.advantages import advantages, discounted, ridge_values, standardised
from fewshot.tasks.base import EpisodeView, Task
from fewshot.tasks.policies import Categorical, Gaussian, Policy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

InnerLoss: TypeAlias = Literal["lvc", "dice", "log_likelihood"]
Discount: TypeAlias = Annotated[float, Range(0, 1)]


class Steps(NamedTuple):
    """What is known of steps that were played, (..., T, ...); packed, they stand side by side.

    Args:
        actions: (..., A), or the number of a discrete one (..., 1).
        outputs: of the policy that acted, (..., `Policy.size`).
        advantages: standardised over all steps of the episode that count, (...).
        rewards: (...).
        mask: 1 where a step counts, (...).
        regrets: expected reward that was forgone, (...).
    """

    actions: Tensor
    outputs: Tensor
    advantages: Tensor
    rewards: Tensor
    mask: Tensor
    regrets: Tensor

    def packed(self) -> Tensor:
        """All of it side by side, (..., C)."""
        return torch.cat([*self[:2], torch.stack(self[2:], -1)], -1)

    @classmethod
    def of(cls, packed: Tensor, task: "Control") -> "Steps":
        """What `packed` (..., C) holds."""
        sizes = [task.place.action_values, task.policy.size, 4]
        actions, outputs, rest = torch.split(packed, sizes, -1)
        return cls(actions, outputs, *rest.unbind(-1))


@dataclass(frozen=True)
class Control(Task):
    """Acting in an environment: an episode's support and query are trials, played when asked for.

    An example is a trial to be played: the facts of the task and a seed. What comes of playing it
    is a function of them and of the policy, so that it is the same in a loop, vmapped, and on any
    rank, and all policies meet the same chances.

    Args:
        environment: what is acted in, such as ``{"kind": "navigation"}``.
        inner_loss: of the inner loop. `lvc` (ProMP, arXiv:1810.06784): ratios of probabilities, the
            right gradient and a curvature of low variance. `dice` (arXiv:1802.05098): unbiased
            curvature, noisier. `log_likelihood`: the right gradient, biased curvature (MAML's
            original code).
        discount: of a step's reward, against the one before.
        gae_lambda: of the generalised advantages.
    """

    kind: ClassVar[str] = "control"
    such_as: ClassVar[str] = "BanditDataModule"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("return", "max")
    prediction_columns: ClassVar[tuple[str, ...]] = ("return", "length")
    acts: ClassVar[bool] = True

    environment: Mapping[str, Any]
    inner_loss: InnerLoss = "lvc"
    discount: Discount = 0.99
    gae_lambda: Discount = 1.0

    def __post_init__(self) -> None:
        _ = self.place

    @cached_property
    def place(self) -> Environment:
        """The environment itself."""
        return make_environment(self.environment)

    @cached_property
    def policy(self) -> Policy:
        """How outputs say what to do."""
        kind = Categorical if self.place.discrete else Gaussian
        return kind(self.place.action_size)

    @property
    def output_size(self) -> int:
        """A logit an action, or a mean and a deviation a value."""
        return self.policy.size

    def head(self, features: int) -> nn.Module | None:
        """Of a Gaussian policy; a categorical one has a linear layer."""
        return self.policy.head(features)

    # ------------------------------------------------------------------ playing

    def probe(self, examples: Examples) -> Inputs:
        """Observations (n, O), as a network reads them step by step while it acts."""
        return _tensor(examples.inputs).new_zeros(
            len(examples.targets), self.place.observation_size
        )

    @torch.no_grad()
    def experience(
        self, examples: Examples, act: Callable[[Inputs], Tensor], step: int = 0
    ) -> Examples:
        """What comes of acting in tasks: observations (M, O) and packed `Steps` (M, C).

        What has been played already, before each of several inner steps, is told apart by its
        targets, which are no seeds.
        """
        facts, seeds = _tensor(examples.inputs), examples.targets
        if seeds.is_floating_point():
            return examples if seeds.dim() == 2 else map_tensors(lambda held: held[step], examples)
        trials = play(self.place, Memoryless(self.policy, act), facts, Noise(seeds, step))
        outside(self.check_rewards, trials.rewards, facts)
        return self.learned_from(trials, act)

    def learned_from(self, trials: Trials, act: Callable[[Inputs], Tensor]) -> Examples:
        """Trials (n, T) that were played by `act`, as observations (M, O) and packed `Steps`."""
        seen = trials.observations.flatten(0, 1)
        outputs = act(seen).to(trials.rewards).view(*trials.rewards.shape, -1)
        return Examples(seen, self.steps(trials, outputs).packed().flatten(0, 1))

    def check_rewards(self, rewards: Tensor, facts: Tensor) -> tuple[Tensor]:
        """The rewards (n, T) of tasks (n, F), which must be finite; called outside of transforms.

        Raises:
            FewshotError: one is not; its task and step are named.
        """
        if not (finite := rewards.isfinite()).all():
            trial, step = (~finite).nonzero()[0].tolist()
            task = textwrap.shorten(str([float(f"{x:.4g}") for x in facts[trial].tolist()]), 60)
            raise FewshotError(
                f"the reward of step {step} in the task of facts {task} is"
                f" {rewards[trial, step].item()}; have {self.place.kind} give finite rewards"
            )
        return (rewards[:, :1].clone(),)

    def steps(self, trials: Trials, outputs: Tensor) -> Steps:
        """The steps of trials (n, T) of a policy that remembers nothing, with their advantages.

        An episode is then worth what comes of it alone, whatever the trial.
        """
        by_episode = Trials(*(self.by_episode(part.flatten(0, 1)) for part in trials))
        rewards, mask = by_episode.rewards, by_episode.mask
        values = ridge_values(by_episode.observations, discounted(rewards, self.discount), mask)
        found = advantages(rewards, values, mask, self.discount, self.gae_lambda)
        found = standardised(found, mask).view_as(trials.rewards)
        return Steps(trials.actions, outputs, found, trials.rewards, trials.mask, trials.regrets)

    def by_episode(self, values: Tensor) -> Tensor:
        """Values of steps (M, ...) as (n * E, H, ...)."""
        return values.reshape(-1, self.place.horizon, *values.shape[1:])

    # ------------------------------------------------------------------ judging

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The outer loop's: minus the mean of ratio x advantage over the steps that count."""
        steps = Steps.of(targets, self)
        return -mean_of_steps(self.ratio(outputs, steps) * steps.advantages, steps.mask)

    def ratio(self, outputs: Tensor, steps: Steps) -> Tensor:
        """How much likelier the actions are than when they were taken, (M,)."""
        return self.log_ratio(outputs, steps).exp()

    def log_ratio(self, outputs: Tensor, steps: Steps) -> Tensor:
        """The log of it."""
        now = self.policy.log_prob(outputs.to(steps.outputs.dtype), steps.actions)
        return now - self.policy.log_prob(steps.outputs, steps.actions)

    def support_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The inner loop's: `inner_loss`."""
        if self.inner_loss == "lvc":
            return self.loss(outputs, targets)
        steps = Steps.of(targets, self)
        log_ratio = self.log_ratio(outputs, steps)
        if self.inner_loss == "log_likelihood":  # of which a constant is taken
            return -mean_of_steps(log_ratio * steps.advantages, steps.mask)
        rewards, mask = self.by_episode(steps.rewards), self.by_episode(steps.mask)
        so_far = (self.by_episode(log_ratio) * mask).cumsum(1)
        times = torch.arange(rewards.shape[1], device=rewards.device, dtype=rewards.dtype)
        return -mean_of_steps(so_far.exp() * rewards * self.discount**times, mask)

    def kl(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean KL(new || old) over the states that count, of the policy against what acted."""
        steps = Steps.of(targets, self)
        return mean_of_steps(
            self.policy.kl(outputs.to(steps.outputs.dtype), steps.outputs), steps.mask
        )

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Means over the trials: undiscounted return, steps, and regret where it is known."""
        return self.judged(Steps.of(targets.reshape(-1, self.place.steps, targets.shape[-1]), self))

    def judged(self, steps: Steps) -> dict[str, Tensor]:
        """The same of steps of trials (n, T)."""
        found = {"return": steps.rewards.sum(1).mean(), "length": steps.mask.sum(1).mean()}
        return found | ({"regret": steps.regrets.sum(1).mean()} if self.place.has_regret else {})

    # ------------------------------------------------------------------ how it is shown

    def shown(self, outputs: Tensor, query: Examples) -> Tensor:
        """The trials that were played: observations beside packed `Steps`, (n, T, O + C)."""
        played = torch.cat([_tensor(query.inputs), query.targets], -1)
        return played.reshape(-1, self.place.steps, played.shape[-1])

    def played(self, outputs: Tensor) -> tuple[Tensor, Steps]:
        """The observations (n, T, O) and the steps of what is `shown`."""
        size = self.place.observation_size
        return outputs[..., :size], Steps.of(outputs[..., size:], self)

    def predictions(self, outputs: Tensor, targets: Tensor) -> list[Sequence[Any] | Tensor]:
        """The return and the length of each trial."""
        steps = self.played(outputs)[1]
        return [steps.rewards.sum(1).tolist(), steps.mask.sum(1).int().tolist()]

    def picture(self, view: EpisodeView) -> "Figure | None":
        """Paths on a plane, before and after; the regret by steps where it is known."""
        from fewshot.tasks.drawing.control import draw_paths, draw_regret

        if self.place.has_regret:
            return draw_regret(self, view)
        return draw_paths(self, view) if self.place.plane else None


class Memoryless(NamedTuple):
    """The actor that draws each action by the outputs for what it sees."""

    policy: Policy
    act: Callable[[Inputs], Tensor]

    def __call__(self, memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
        """The actions (n, A)."""
        outputs = self.act(moment.observation).to(moment.reward.dtype)
        return self.policy.sample(outputs, uniform(self.policy.numbers)), None


def mean_of_steps(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the steps that count."""
    return (values * mask).sum() / mask.sum()


def _tensor(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)  # a benchmark of control gives no others
    return inputs
