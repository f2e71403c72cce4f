"""A trained learner of control in one's own environment: plays in it, adapts, then says how to act.

```python
policy = fewshot.load("best.ckpt").adapt(gymnasium.make("CartPole-v1"))
action = policy.predict(observation)
```
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fewshot.deployment.adapting import adapted
from fewshot.environments.given import GivenEnvironment, Playable, given
from fewshot.environments.noise import Noise
from fewshot.environments.play import Trials, play
from fewshot.episodes.types import Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.optimization.evaluation import Adapted
from fewshot.tasks.control import Control, Memoryless


class AdaptedPolicy:
    """A policy that was adapted to an environment.

    Args:
        module: the learner.
        adapted: what its `adapt` gave.
        place: the environment.
        seed: of actions that are sampled.
    """

    def __init__(
        self, module: OptimizationLearner, adapted: Adapted, place: GivenEnvironment, seed: int
    ) -> None:
        self.module, self.adapted, self.place = module, adapted, place
        self.generator = torch.Generator().manual_seed(seed)

    def predict(self, observation: Any, sample: bool = False) -> Any:
        """The action for one observation.

        Args:
            observation: as the environment gives it; of a Box an array of its shape.
            sample: draw it from the policy, rather than take the likeliest (a Gaussian's mean).

        Returns:
            What the environment's `step` takes: an int of Discrete actions, of a Box an array of
            its shape and dtype, within its bounds.

        Raises:
            FewshotError: the observation is none of the environment's, or not finite.
        """
        task = _control(self.module)
        with torch.no_grad():
            outputs = self.module.predict(self.adapted, self._read(observation)).cpu()
            if sample:
                uniform = torch.rand(1, task.policy.numbers, generator=self.generator)
                within = uniform.clamp(2**-24, 1 - 2**-24)  # 0 is minus infinity of a Gaussian
                chosen = task.policy.sample(outputs, within.to(outputs))
            else:
                chosen = task.policy.mode(outputs)
        return self.place.action(self.place.given, chosen[0].numpy())

    def _read(self, observation: Any) -> Tensor:
        try:
            values = torch.from_numpy(self.place.flat(observation))
        except (TypeError, ValueError, KeyError) as error:
            raise FewshotError(f"{self._wrong(observation)} ({error})") from error
        if len(values) != self.place.observation_size or not values.isfinite().all():
            raise FewshotError(self._wrong(observation))
        return values.to(self.module.device, _precision(self.module))[None]

    def _wrong(self, observation: Any) -> str:
        shown = " ".join(f"{observation!r:.60}".split())
        space = self.place.given.observation_space
        return f"the observation {shown} is none of {space} with finite values; give one"


def check_acts(module: MetaLearner) -> None:
    """Check that a learner of control adapts to an environment by inner steps.

    Raises:
        FewshotError: it remembers instead.
    """
    if not isinstance(module, OptimizationLearner):
        raise FewshotError(
            f"this {type(module).__name__} learns to act within a trial, and has no policy that is"
            " adapted once; `fewshot test` and `fewshot predict --config FILE` play its benchmark,"
            " or load a MAML, FOMAML, MetaSGD, CAVIA, Reptile or MultiTask"
        )


def adapted_policy(module: MetaLearner, env: Any, trials: int, seed: int) -> AdaptedPolicy:
    """The policy that a learner adapts to an environment by playing in it.

    Args:
        module: a learner of control.
        env: the environment, which knows its task.
        trials: played before each inner step, one after another.
        seed: of the trials.

    Raises:
        FewshotError: the learner does not act, or it cannot act in this.
    """
    if not module.task.acts:
        raise FewshotError(
            f"this {type(module).__name__} was trained on {module.task.kind} and cannot act in an"
            " environment; give a support set, or load a learner of control"
        )
    task = _control(module)
    if not isinstance(env, Playable):
        raise FewshotError(
            f"this {type(module).__name__} acts, and {f'{env!r:.60}'} is no environment; give"
            " fewshot.load(...).adapt one of Gymnasium, such as gymnasium.make('CartPole-v1');"
            " `fewshot predict --config FILE` plays a benchmark's test tasks"
        )
    if trials < 1:
        raise FewshotError(f"trials is {trials}; give 1 or more")
    assert isinstance(module, OptimizationLearner)  # `check_acts` has seen to it
    place = given(env, task.place.horizon, task.place.episodes)
    check_fits(task, place, type(module).__name__)

    facts = torch.zeros(trials, 1, dtype=_precision(module), device=module.device)
    support = Examples(facts, torch.arange(seed, seed + trials, device=module.device))
    arguments = {field.name: getattr(task, field.name) for field in fields(task)}
    module.task = _Here(**arguments, here=place)
    try:
        return AdaptedPolicy(module, adapted(module, support), place, seed)
    finally:
        module.task = task


def unadapted(module: MetaLearner) -> Adapted:
    """The policy of a learner of control before it has played."""
    assert isinstance(module, OptimizationLearner)  # `check_acts` has seen to it
    facts = torch.zeros(1, 1, dtype=_precision(module), device=module.device)
    with torch.no_grad():
        return module.adapt_for(Examples(facts, torch.zeros_like(facts[0]).long()), 0)


def check_fits(task: Control, place: GivenEnvironment, name: str) -> None:
    """Check that a policy for the environment of `task` can act in another.

    Raises:
        FewshotError: what it sees, or does, is of another kind or size.
    """
    if (mine := _spaces(place)) != (trained := _spaces(task.place)):
        raise FewshotError(
            f"{place.env} has {mine}, and this {name} was trained on {trained}; give an environment"
            " like the benchmark's, or train on one like yours (GymnasiumDataModule)"
        )


def _spaces(place: Any) -> str:
    of = f"{place.action_size} Discrete" if place.discrete else f"Box({place.action_size})"
    return f"observations of {place.observation_size} values and {of} actions"


@dataclass(frozen=True)
class _Here(Control):
    """The task in an environment that is given: its trials are played one after another."""

    here: GivenEnvironment | None = None

    def experience(
        self, examples: Examples, act: Callable[[Inputs], Tensor], step: int = 0
    ) -> Examples:
        """What comes of acting in it, by the seeds of `examples`."""
        assert isinstance(examples.inputs, Tensor)
        seeds = torch.split(examples.targets, 1)
        pairs = zip(torch.split(examples.inputs, 1), seeds, strict=True)
        found = [self._trial(facts, Noise(one, step), act) for facts, one in pairs]
        columns = zip(*found, strict=True)
        return self.learned_from(Trials(*(torch.cat(column) for column in columns)), act)

    def _trial(self, facts: Tensor, noise: Noise, act: Callable[[Inputs], Tensor]) -> Trials:
        assert self.here is not None
        trial = play(self.here, Memoryless(self.policy, act), facts, noise)
        if not (finite := trial.rewards[0].isfinite()).all():
            at = int((~finite).nonzero()[0])
            raise FewshotError(
                f"the reward of step {at} in {self.here.env} is {trial.rewards[0, at].item()}; have"
                " it give finite rewards"
            )
        return trial


def _precision(module: MetaLearner) -> torch.dtype:
    return next(module.parameters()).dtype


def _control(module: MetaLearner) -> Control:
    assert isinstance(module.task, Control)  # of all kinds that alone acts
    return module.task
