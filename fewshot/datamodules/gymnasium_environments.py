"""Tasks of Gymnasium's environments, and of a user's own."""

from typing import Any, ClassVar

from fewshot.arguments import Count
from fewshot.datamodules.control import ControlDataModule


class GymnasiumDataModule(ControlDataModule):
    """Gymnasium: any environment whose `reset(options=facts)` takes the task. Paper: none.

    Actions are discrete or a box of real values. Needs gymnasium, ``pip install
    'fewshot-lightning[control]'``. A trial is a function of the facts, a seed and the policy,
    so far as the environment's is.

    Args:
        env: a registered id such as ``CartPole-v1`` or ``module:Id-v0``, or the import path of a
            function that makes an environment.
        env_facts: the options of `reset` and how each is drawn: ``{goal: [-1, 1]}`` uniformly (of
            vectors ``[[-1, -1], [1, 1]]``), or ``{gravity: {choice: [moon, earth]}}``.
        horizon: steps of an episode; None: as registered.
        trial_episodes: episodes of a trial, for learners that remember.
        **kwargs: arguments of `ControlDataModule`.
    """

    benchmark: ClassVar[str] = "Gymnasium"

    def __init__(
        self,
        env: str,
        env_facts: dict[str, Any],
        horizon: Count | None = None,
        trial_episodes: Count = 1,
        **kwargs: Any,
    ) -> None:
        self.env, self.env_facts = env, env_facts
        self.horizon, self.trial_episodes = horizon, trial_episodes
        super().__init__(**kwargs)

    @property
    def environment(self) -> dict[str, Any]:
        """The environment, and how its tasks are drawn."""
        return {
            "kind": "gymnasium",
            "env": self.env,
            "facts": self.env_facts,
            "most_steps": self.horizon,
            "episodes": self.trial_episodes,
        }

    def sizes(self) -> str:
        """The environment, and the steps."""
        episodes = f"{self.trial_episodes} x " if self.trial_episodes > 1 else ""
        return f"{self.env}, {episodes}{self.place.horizon} steps"
