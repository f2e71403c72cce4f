"""Any environment of Gymnasium whose `reset` takes the task as its options."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewshot.arguments import Count
from fewshot.environments.base import Environment, Step
from fewshot.environments.outside import outside
from fewshot.errors import FewshotError, closest
from fewshot.extras import require

Facts = dict[str, Any]
"""How each option of `reset` is drawn: ``[low, high]`` uniformly, or ``{"choice": [...]}``."""


class Instances:
    """Environments of this process, made as they are needed; copies of it begin with none."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.turn = 0
        """Which trials they play: those before are lost."""

    def __reduce__(self) -> Any:
        return Instances, ()


@dataclass(frozen=True)
class GymnasiumEnvironment(Environment):
    """Gymnasium's environment, an instance of it a trial; the task and a seed are given to `reset`.

    Observations are flattened (`gymnasium.spaces.flatten`), values cut to the bounds of actions.
    Under vmap the trials of all episodes are stepped in one call, in this process.

    Args:
        env: a registered id, or the import path of a function that makes one.
        facts: the options of `reset` by name, and how they are drawn.
        most_steps: of an episode; None: as registered.
        episodes: of a trial.

    Raises:
        FewshotError: it cannot be made, or acted in.
    """

    kind: ClassVar[str] = "gymnasium"
    begin_noise: ClassVar[int] = 2

    env: str
    facts: Facts
    most_steps: Count | None = None
    episodes: Count = 1
    instances: Instances = field(
        default_factory=Instances, init=False, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        require("gymnasium", "control")
        for name, how in self.facts.items():
            choice = isinstance(how, Mapping) and list(how) == ["choice"] and how["choice"]
            if not choice and not (isinstance(how, list | tuple) and len(how) == 2):
                raise FewshotError(
                    f"facts.{name} is {how!r}; give [low, high], or {{choice: [one, another]}}"
                )
        one = self.made(0)
        arguments = inspect.signature(one.unwrapped.reset).parameters.values()
        if not any(a.name == "options" or a.kind is a.VAR_KEYWORD for a in arguments):
            raise FewshotError(
                f"the reset of {self.env} takes no options, so that it cannot be told its task;"
                " give it an argument options"
            )
        _ = self.action_size, self.horizon

    # ------------------------------------------------------------------ what it is

    def made(self, number: int) -> Any:
        """The instance of a number."""
        while len(self.instances.made) <= number:
            self.instances.made.append(make(self.env))
        return self.instances.made[number]

    @cached_property
    def discrete(self) -> bool:  # type: ignore[override]  # of the instance here
        """Whether actions are numbered."""
        return type(self.made(0).action_space).__name__ == "Discrete"

    @cached_property
    def horizon(self) -> int:
        """`most_steps`, or those of Gymnasium's registry."""
        spec = getattr(self.made(0), "spec", None)
        steps = self.most_steps or getattr(spec, "max_episode_steps", None)
        if not steps:
            raise FewshotError(f"{self.env} has no limit of steps; set horizon, such as 100")
        return int(steps)

    @cached_property
    def observation_size(self) -> int:
        """The values of a flattened observation."""
        from gymnasium.spaces import flatdim

        return int(flatdim(self.made(0).observation_space))

    @cached_property
    def action_size(self) -> int:
        """Actions, or values of one."""
        space = self.made(0).action_space
        if self.discrete:
            return int(space.n)
        if type(space).__name__ != "Box" or not np.issubdtype(space.dtype, np.floating):
            raise FewshotError(
                f"{self.env} takes actions of {space}, which no policy here gives; wrap it to take"
                " Discrete ones or a Box of real values"
            )
        return int(np.prod(space.shape))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The facts (F,): values, of a choice its number; at least one, which may mean nothing."""
        found = [np.zeros(0 if self.facts else 1)]
        for how in self.facts.values():
            one = (
                rng.integers(len(how["choice"])) if isinstance(how, Mapping) else rng.uniform(*how)
            )
            found.append(np.ravel(one).astype(float))
        return np.concatenate(found)

    def options(self, row: np.ndarray) -> dict[str, Any]:
        """What `reset` is told of facts (F,)."""
        found, place = dict[str, Any](), 0
        for name, how in self.facts.items():
            shape = () if isinstance(how, Mapping) else np.broadcast(*how).shape
            part = row[place : (place := place + int(np.prod(shape)))].reshape(shape)
            value = part if shape else float(part)
            found[name] = how["choice"][int(part)] if isinstance(how, Mapping) else value
        return found

    # ------------------------------------------------------------------ acting

    def begin(self, facts: Tensor, noise: Tensor) -> Tensor:
        """The turn, and what is seen first (n, 1 + O)."""
        return outside(self._reset, facts, noise)[0]

    def observe(self, state: Tensor) -> Tensor:
        """What is seen."""
        return state[:, 1:]

    def step(self, state: Tensor, action: Tensor, facts: Tensor, noise: Tensor) -> Step:
        """A step of each instance that is not over."""
        return Step(*outside(self._step, state, action))

    def reset(self, one: Any, seed: int, row: np.ndarray) -> Any:
        """What an instance gives at the start of a task of facts (F,)."""
        return one.reset(seed=seed, options=self.options(row))

    def _reset(self, facts: Tensor, noise: Tensor) -> tuple[Tensor]:
        self.instances.turn += 1
        seen = []
        for i, (row, chance) in enumerate(zip(facts.cpu().numpy(), noise.tolist(), strict=True)):
            seed = int(chance[0] * 2**23) << 8 | int(chance[1] * 2**8)
            one = self.made(i)
            one.over = False
            first, _ = self.reset(one, seed, row)
            seen.append([self.instances.turn, *self.flat(first)])
        return (torch.tensor(seen, dtype=facts.dtype, device=facts.device),)

    def _step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if int(state[0, 0]) != self.instances.turn:
            raise FewshotError(f"{self.env} has begun anew since; play one batch after another")
        after, rewards, ended = state.clone(), list[float](), list[float]()
        for i, values in enumerate(action.cpu().numpy()):
            one, reward = self.instances.made[i], 0.0
            if not one.over:
                seen, reward, terminated, truncated, _ = one.step(self.action(one, values))
                one.over = bool(terminated or truncated)
                after[i, 1:] = torch.as_tensor(self.flat(seen)).to(after)
            rewards.append(float(reward))
            ended.append(float(one.over))
        return (
            after,
            torch.tensor(rewards, dtype=torch.float64).to(state),
            torch.tensor(ended).to(state),
        )

    def action(self, one: Any, values: np.ndarray) -> Any:
        """Values (1,) or (A,) as `step` takes them, cut to the bounds."""
        space = one.action_space
        if self.discrete:
            return int(space.start) + int(values[0])
        return values.reshape(space.shape).clip(space.low, space.high).astype(space.dtype)

    def flat(self, seen: Any) -> np.ndarray:
        """An observation as values (O,)."""
        from gymnasium.spaces import flatten

        flat: np.ndarray = np.asarray(flatten(self.made(0).observation_space, seen), dtype=float)
        return flat


class Holder:
    """An instance, and whether its episode is over."""

    def __init__(self, one: Any) -> None:
        self.one, self.over = one, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["one"], name)


def make(env: str) -> Holder:
    """An instance of a registered id, or of what the function of an import path makes.

    Of ``module:name`` the name is an id that the module registers, or such a function.

    Raises:
        FewshotError: there is none.
    """
    gymnasium = require("gymnasium", "control")
    module, _, name = env.rpartition(":" if ":" in env else ".")
    found = None
    try:
        if env not in gymnasium.registry and module:
            found = importlib.import_module(module)
        for known in (env, name if ":" in env else env):
            if known in gymnasium.registry:
                return Holder(gymnasium.make(known, disable_env_checker=True))
        if hasattr(found, name):
            return Holder(getattr(found, name)())
    except ImportError as error:
        reason = f"env {env!r} cannot be made ({error}); install what it needs"
        raise FewshotError(" ".join(reason.split())) from error
    if found is not None:
        raise FewshotError(
            f"env is {env!r}, but {module} has no {name} and registers none; give the import path"
            " of a function that makes an environment"
        )
    near = closest(env, list(gymnasium.registry))
    raise FewshotError(
        f"env {env!r} is not registered{f'; did you mean {near!r}?' if near else ''}; give an id of"
        " Gymnasium's registry, or the import path of a function that makes one"
    )
