"""The half-cheetah that runs forwards or backwards, or at a speed (MAML, arXiv:1703.03400)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewshot.arguments import Count
from fewshot.environments.base import Environment, Step
from fewshot.environments.noise import normal
from fewshot.environments.outside import outside
from fewshot.extras import require

PLACES, SPEEDS = 9, 9
REPEATS, SECONDS = 5, 0.05  # of the simulator's steps in one of ours; the time of one
TORSO_HEIGHT = 0.7
COST = 0.05
"""Of an action's square."""


@dataclass(frozen=True)
class HalfCheetahDirection(Environment):
    """Reward: direction * speed - 0.05 |action|^2, direction -1 or 1.

    MuJoCo's half-cheetah: 6 torques, which the simulator cuts to [-1, 1]; the state is places and
    speeds (18), the observation the places but for the way run, the speeds, and the torso's place
    (20). It begins near rest, with noise. A step is a function of state and action alone, so that
    trials are the same in a loop and vmapped; all rows are simulated in one call.

    Args:
        horizon: steps of an episode.
        episodes: of a trial.
    """

    kind: ClassVar[str] = "half_cheetah_direction"
    discrete: ClassVar[bool] = False
    begin_noise: ClassVar[int] = PLACES + SPEEDS
    observation_size: ClassVar[int] = 20
    action_size: ClassVar[int] = 6

    horizon: Count = 100
    episodes: Count = 1

    def __post_init__(self) -> None:
        require("mujoco", "control")
        require("gymnasium", "control")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The direction (1,)."""
        return rng.choice([-1.0, 1.0], 1)

    def begin(self, facts: Tensor, noise: Tensor) -> Tensor:
        """Places U[-0.1, 0.1], speeds N(0, 0.1^2), as Gymnasium's begins."""
        return torch.cat([0.2 * noise[:, :PLACES] - 0.1, 0.1 * normal(noise[:, PLACES:])], 1)

    def observe(self, state: Tensor) -> Tensor:
        """Places but the first, speeds, and where the torso is: (x, 0, z)."""
        x, z = state[:, :1], state[:, 1:2]
        return torch.cat([state[:, 1:], x, torch.zeros_like(x), TORSO_HEIGHT + z], 1)

    def step(self, state: Tensor, action: Tensor, facts: Tensor, noise: Tensor) -> Step:
        """Five steps of the simulator; an episode has all its steps."""
        (following,) = outside(simulated, state, action)
        speed = (following[:, 0] - state[:, 0]) / SECONDS
        reward = self.worth(speed, facts[:, 0]) - COST * action.square().sum(1)
        return Step(following, reward, torch.zeros_like(reward))

    def worth(self, speed: Tensor, fact: Tensor) -> Tensor:
        """What a speed (n,) is worth."""
        return fact * speed


@dataclass(frozen=True)
class HalfCheetahVelocity(HalfCheetahDirection):
    """Reward: -|speed - goal| - 0.05 |action|^2, goal ~ U[0, 2]."""

    kind: ClassVar[str] = "half_cheetah_velocity"

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The goal (1,)."""
        return rng.uniform(0, 2, 1)

    def worth(self, speed: Tensor, fact: Tensor) -> Tensor:
        """Minus how far it is from the goal."""
        return -(speed - fact).abs()


def simulated(state: Tensor, action: Tensor) -> tuple[Tensor]:
    """The states (n, 18) after actions (n, 6)."""
    from mujoco.rollout import rollout

    model, data = _simulator()
    begin = np.zeros((len(state), 1 + PLACES + SPEEDS))  # the time is first
    begin[:, 1:] = state.detach().cpu().double().numpy()
    torques = action.detach().cpu().double().numpy()[:, None].repeat(REPEATS, 1)
    after, _ = rollout(model, [data], begin, torques)
    return (torch.from_numpy(after[:, -1, 1:].copy()).to(state),)


_HELD: list[Any] = []


def _simulator() -> tuple[Any, Any]:
    """The model and what it is simulated in, read when first used by this process."""
    if not _HELD:
        mujoco = require("mujoco", "control")
        gymnasium = require("gymnasium", "control")
        # the file alone: Gymnasium's module beside it wants what draws pictures
        assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
        warn = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda text: None)  # of attributes that the file still uses
        try:
            model = mujoco.MjModel.from_xml_path(str(assets / "half_cheetah.xml"))
        finally:
            mujoco.set_mju_user_warning(warn)
        _HELD.extend([model, mujoco.MjData(model)])
    return _HELD[0], _HELD[1]
