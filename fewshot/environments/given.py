"""An environment of Gymnasium that is there already and knows its task: nothing is drawn."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from fewshot.environments.gymnasium_environment import GymnasiumEnvironment, Holder
from fewshot.errors import FewshotError
from fewshot.extras import require


@runtime_checkable
class Playable(Protocol):
    """What is acted in: a `gymnasium.Env`."""

    observation_space: Any
    action_space: Any

    def reset(self, *, seed: int | None = None) -> Any:
        """What is seen first, and facts."""

    def step(self, action: Any) -> Any:
        """What is seen, the reward, whether it is the end, whether it was cut, and facts."""


@dataclass(frozen=True)
class GivenEnvironment(GymnasiumEnvironment):
    """One instance, which plays one trial at a time and is told nothing but a seed.

    Args:
        given: the instance.
    """

    kind: ClassVar[str] = "given"

    given: Any = None

    def __post_init__(self) -> None:
        require("gymnasium", "control")
        self.instances.made.append(Holder(self.given))
        _ = self.action_size
        try:
            _ = self.observation_size
        except (NotImplementedError, ValueError) as error:
            raise FewshotError(
                f"{self.env} gives observations of {self.given.observation_space}, which are no"
                " fixed number of values; wrap it to give a Box"
            ) from error

    def reset(self, one: Any, seed: int, row: np.ndarray) -> Any:
        """What the instance gives at the start."""
        return one.reset(seed=seed)


def given(instance: Playable, horizon: int, episodes: int) -> GivenEnvironment:
    """An instance as an environment of this library, with trials of this length.

    Raises:
        FewshotError: it cannot be acted in, or gymnasium is not installed.
    """
    name = getattr(getattr(instance, "spec", None), "id", None)
    name = name or type(getattr(instance, "unwrapped", instance)).__name__
    return GivenEnvironment(name, {}, horizon, episodes, given=instance)
