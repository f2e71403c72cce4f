"""Playing: trials of an actor in an environment, as a pure function of facts and seeds.

Shapes as in `fewshot.environments.base`; T steps of a trial.
"""

from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fewshot.environments.base import Environment
from fewshot.environments.noise import Noise

OF_ENVIRONMENT, OF_ACTOR, OF_TIES, OF_BEGINNING = 0, 1, 2, 3  # purposes of random numbers

AT_ONCE = 2**20
"""Numbers of all steps of a trial that are drawn together: some 30 MB while they are."""


class Moment(NamedTuple):
    """What an actor knows when it acts: what it sees, and what came of its last action.

    Args:
        step: its number in the trial, from 0.
        observation: (n, O).
        action: the last, as the environment writes it, (n, 1) or (n, A); at first zero, or of
            discrete ones -1: none.
        reward: the last, (n,); zero at first.
        ended: whether the last step ended an episode, (n,); zero at first.
    """

    step: int
    observation: Tensor
    action: Tensor
    reward: Tensor
    ended: Tensor


class Uniform(Protocol):
    """Gives the random numbers of a step."""

    def __call__(self, count: int, purpose: int = OF_ACTOR) -> Tensor:
        """Uniform numbers (n, count): the same each time, others for another purpose."""


class Actor(Protocol):
    """What acts: from what it remembers (None at first) and a moment to actions (n, A)."""

    def __call__(self, memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
        """The actions, and what is remembered."""


class Trials(NamedTuple):
    """What was played, (n, T, ...); steps after an episode's end have a `mask` of 0.

    Args:
        observations: what was seen before each action, (n, T, O).
        actions: (n, T, 1) or (n, T, A).
        rewards: (n, T).
        mask: 1 where a step counts.
        regrets: expected reward that the actions forwent, (n, T).
        ended: whether the episode was over after the step, (n, T).
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    regrets: Tensor
    ended: Tensor


@torch.no_grad()
def play(
    environment: Environment,
    actor: Actor,
    facts: Tensor,
    noise: Noise,
    steps: int | None = None,
) -> Trials:
    """Trials of `actor` in tasks of `facts` (n, F).

    Args:
        environment: what is acted in.
        actor: what acts.
        facts: of the tasks.
        noise: what is random, of the actor too.
        steps: of the trials; None means all.
    """
    total = environment.steps if steps is None else steps
    chances = noise.uniform(range(total), OF_ENVIRONMENT, environment.noise, facts.dtype)
    horizon, chosen = environment.horizon, _Chosen(noise, total, facts)
    begins = range(0, total, horizon)
    starts = noise.uniform(begins, OF_BEGINNING, environment.begin_noise, facts.dtype)
    state, memory, rows = environment.begin(facts, starts[:, 0]), None, []
    alive, zero = torch.ones_like(state[:, 0]), torch.zeros_like(state[:, 0])
    action = zero[:, None].expand(-1, environment.action_values) - float(environment.discrete)
    reward, ended = zero, zero
    for t in range(total):
        if t and t % horizon == 0:
            state = environment.begin(facts, starts[:, t // horizon])
            alive = torch.ones_like(alive)
        seen = environment.observe(state)
        moment = Moment(t, seen, action, reward, ended)
        action, memory = actor(memory, moment, partial(chosen.at, t))
        action = action.to(facts.dtype)
        state, reward, over = environment.step(state, action, facts, chances[:, t])
        reward = reward * alive
        counts, alive = alive, alive * (1 - over)
        ended = 1 - alive if (t + 1) % horizon else torch.ones_like(alive)
        rows.append((seen, action, reward, counts, ended))
    columns = zip(*rows, strict=True)
    observations, actions, rewards, mask, ends = (torch.stack(column, 1) for column in columns)
    regrets = torch.zeros_like(rewards)
    if environment.has_regret:
        forgone = environment.regrets(observations, facts)
        regrets = forgone.gather(2, actions.long())[..., 0] * mask
    return Trials(observations, actions, rewards, mask, regrets, ends)


class _Chosen:
    """The numbers by which an actor chooses: of all steps at once where they are few."""

    def __init__(self, noise: Noise, steps: int, facts: Tensor) -> None:
        self.noise, self.steps, self.facts = noise, steps, facts
        self.held: dict[tuple[int, int], Tensor] = {}

    def at(self, step: int, count: int, purpose: int = OF_ACTOR) -> Tensor:
        """Numbers (n, count) of a step."""
        if len(self.facts) * self.steps * count > AT_ONCE:
            drawn = self.noise.uniform(range(step, step + 1), purpose, count, self.facts.dtype)
            return drawn[:, 0]
        if (count, purpose) not in self.held:
            drawn = self.noise.uniform(range(self.steps), purpose, count, self.facts.dtype)
            self.held[count, purpose] = drawn
        return self.held[count, purpose][:, step]
