"""Half-cheetahs that run in a direction or at a speed, simulated by MuJoCo."""

from typing import Any, ClassVar, Literal

from fewshot.arguments import Count
from fewshot.datamodules.control import ControlDataModule


class HalfCheetahDataModule(ControlDataModule):
    """HalfCheetah: run in a direction, or at a speed (MuJoCo). Paper: arXiv:1703.03400.

    Needs gymnasium and mujoco, ``pip install 'fewshot-lightning[control]'``.

    Args:
        goal: `direction`, forwards or backwards, or `velocity`, a speed from U[0, 2].
        horizon: steps of an episode.
        trial_episodes: episodes of a trial, for learners that remember.
        meta_batch_size: tasks a step, over all ranks.
        **kwargs: arguments of `ControlDataModule`.
    """

    benchmark: ClassVar[str] = "HalfCheetah"

    def __init__(
        self,
        goal: Literal["direction", "velocity"] = "direction",
        horizon: Count = 100,
        trial_episodes: Count = 1,
        meta_batch_size: Count = 40,
        **kwargs: Any,
    ) -> None:
        self.goal, self.horizon, self.trial_episodes = goal, horizon, trial_episodes
        super().__init__(meta_batch_size=meta_batch_size, **kwargs)

    @property
    def environment(self) -> dict[str, Any]:
        """The cheetah with this kind of goal."""
        kind = f"half_cheetah_{self.goal}"
        return {"kind": kind, "horizon": self.horizon, "episodes": self.trial_episodes}

    def sizes(self) -> str:
        """The goal, and the steps."""
        episodes = f"{self.trial_episodes} x " if self.trial_episodes > 1 else ""
        return f"{self.goal}, {episodes}{self.horizon} steps"
