"""Posterior sampling for tabular MDPs (Strens, 2000; Osband et al., arXiv:1306.0940).

Shapes: n trials, S states, A actions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.environments.base import Environment
from fewshot.environments.noise import TRIES, gamma, normal
from fewshot.environments.play import Moment, Uniform
from fewshot.environments.tabular_mdp import TabularMDP, worth_by_step
from fewshot.errors import FewshotError


class Model(NamedTuple):
    """What the steps so far say of the MDPs, and the plan of this episode.

    Args:
        visits: how often s' followed (s, a), (n, S, A, S).
        total: the sum of the rewards of (s, a), (n, S, A).
        plan: the best action at each step of an episode, (n, horizon, S).
        state: where each trial is, one-hot (n, S).
    """

    visits: Tensor
    total: Tensor
    plan: Tensor
    state: Tensor


@dataclass(frozen=True)
class PosteriorSampling:
    """Draws an MDP of the posterior before each episode, and does what is best in it.

    The prior is the benchmark's: Dirichlet(1), mean rewards N(1, 1) that are seen with noise of
    deviation 1. `samples` False plans in the mean of the posterior instead: greedy.

    Raises:
        FewshotError: the environment is no tabular MDP.
    """

    environment: Environment
    samples: bool = True
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.environment, TabularMDP):
            raise FewshotError(
                f"PSRL plans in tabular MDPs, but the environment is {self.environment.kind}; use"
                " TabularMDPDataModule"
            )

    def __call__(
        self, memory: Model | None, moment: Moment, uniform: Uniform
    ) -> tuple[Tensor, Model]:
        """The actions (n, 1), and what is known."""
        model = self.seen(memory, moment)
        place = moment.step % self.environment.horizon
        if place == 0:
            model = model._replace(plan=self.planned(model, uniform))
        action = (model.plan[:, place] * model.state).sum(1, keepdim=True)
        if self.epsilon:
            numbers = uniform(1 + self.environment.action_size)
            any_action = numbers[:, 1:].argmax(1, keepdim=True).to(action)
            action = torch.where(numbers[:, :1] < self.epsilon, any_action, action)
        return action, model

    def seen(self, memory: Model | None, moment: Moment) -> Model:
        """What is known once the last step has been seen."""
        states, actions = self.environment.observation_size, self.environment.action_size
        if memory is None:
            n, like = len(moment.reward), moment.reward
            return Model(
                like.new_zeros(n, states, actions, states),
                like.new_zeros(n, states, actions),
                like.new_zeros(n, self.environment.horizon, states),
                moment.observation,
            )
        acted = F.one_hot(moment.action[:, 0].long(), actions).to(moment.reward)
        pair = memory.state[:, :, None] * acted[:, None]
        total = memory.total + pair * moment.reward[:, None, None]
        # the last state of an episode is not seen: the next one has begun
        known = 1 - moment.ended[:, None]
        came = (known * moment.observation)[:, None, None]
        visits = memory.visits + pair[..., None] * came
        return Model(visits, total, memory.plan, moment.observation)

    def planned(self, model: Model, uniform: Uniform) -> Tensor:
        """The best actions (n, horizon, S) in MDPs of the posterior."""
        shapes, pulls = 1 + model.visits, model.visits.sum(-1)
        mean = (1 + model.total) / (1 + pulls)
        if self.samples:
            size, pairs = shapes[0].numel(), mean[0].numel()
            numbers = uniform(size * 2 * TRIES + pairs + 8)[:, 8:]
            chances = gamma(shapes, numbers[:, :-pairs].reshape(*shapes.shape, 2 * TRIES))
            mean = mean + normal(numbers[:, -pairs:]).view_as(mean) * (1 + pulls).rsqrt()
        else:
            chances = shapes
        chances = chances / chances.sum(-1, keepdim=True)
        return worth_by_step(chances, mean, self.environment.horizon).argmax(-1).to(mean)
