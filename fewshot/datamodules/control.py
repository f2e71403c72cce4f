"""Benchmarks to act in: bandits, tabular MDPs, navigation."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from fewshot.arguments import Count, Range
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datasets.control import ControlTasks
from fewshot.environments import make_environment
from fewshot.episodes.streams import Stage
from fewshot.tasks.control import Discount, InnerLoss

Arms: TypeAlias = Annotated[int, Range(2, why=": fewer leave nothing to choose")]


class ControlDataModule(EpisodicDataModule):
    """Tasks to act in; judged by the undiscounted return of a trial.

    An episode is the facts of a task and a seed for each trial, of the support and of the query:
    what is played is a function of them and of the policy. Learners that remember (RL2) begin each
    trial anew and play the query alone.

    Facts for backbones: `in_features`, the values of an observation.

    Args:
        shot: trials that a learner adapts to, before each inner step anew.
        queries: trials that it is judged on.
        meta_batch_size: tasks a step, over all ranks.
        eval_batch_size: tasks evaluated at once by each rank.
        train_episodes: tasks an epoch, over all ranks.
        val_episodes: validation tasks.
        test_episodes: test tasks.
        inner_loss: of policy gradients in the inner loop, `lvc`, `dice` or `log_likelihood`; see
            `fewshot.tasks.Control`.
        discount: of a step's reward, against the one before, in the inner and the outer loop.
        gae_lambda: of the generalised advantages of both.
        **kwargs: arguments of `EpisodicDataModule`.
    """

    facts: ClassVar[tuple[str, ...]] = ("in_features",)
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {
        "class_path": "fewshot.MLP",
        "init_args": {"hidden": [64, 64], "activation": "tanh"},
    }

    def __init__(
        self,
        shot: Count = 20,
        queries: Count = 20,
        meta_batch_size: Count = 20,
        eval_batch_size: Count = 40,
        train_episodes: Count = 2000,
        val_episodes: Count = 40,
        test_episodes: Count = 200,
        inner_loss: InnerLoss = "lvc",
        discount: Discount = 0.99,
        gae_lambda: Discount = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            shot=shot,
            queries=queries,
            meta_batch_size=meta_batch_size,
            eval_batch_size=eval_batch_size,
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            **kwargs,
        )
        self.inner_loss, self.discount, self.gae_lambda = inner_loss, discount, gae_lambda
        self.place = make_environment(self.environment)

    @property
    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """The environment as plain facts, for `fewshot.environments.make_environment`."""

    @property
    def task(self) -> dict[str, Any]:
        """Acting in the environment."""
        return {
            "kind": "control",
            "environment": self.environment,
            "inner_loss": self.inner_loss,
            "discount": self.discount,
            "gae_lambda": self.gae_lambda,
        }

    @property
    def in_features(self) -> int:
        """The values of an observation."""
        return self.place.observation_size

    def tasks(self, stage: Stage) -> ControlTasks:
        """The environment's tasks, with the stage's trials."""
        if stage == "train":
            return ControlTasks(self.place, self.train_shot, self.train_queries)
        return ControlTasks(self.place, self.shot, self.queries)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        return {**super().protocol(), "split": self.sizes(), "environment": self.environment}

    @abstractmethod
    def sizes(self) -> str:
        """What results call the tasks, such as ``5 arms, 10 pulls``."""


class BanditDataModule(ControlDataModule):
    """Bandit: arms with unknown means; a trial is so many pulls. Paper: arXiv:1611.02779.

    Args:
        arms: how many can be pulled, K.
        pulls: N, of a trial.
        kind: `bernoulli` arms pay 1 with p ~ U[0, 1]; `gaussian` ones a mean ~ U[0, 1], with noise
            of deviation 1.
        shot: trials that a learner adapts to.
        queries: trials that it is judged on.
        meta_batch_size: tasks a step, over all ranks.
        eval_batch_size: tasks evaluated at once by each rank.
        train_episodes: tasks an epoch, over all ranks.
        val_episodes: validation tasks.
        test_episodes: test tasks.
        **kwargs: arguments of `ControlDataModule`.
    """

    benchmark: ClassVar[str] = "Bandit"

    def __init__(
        self,
        arms: Arms = 5,
        pulls: Count = 10,
        kind: Literal["bernoulli", "gaussian"] = "bernoulli",
        shot: Count = 1,
        queries: Count = 1,
        meta_batch_size: Count = 1000,
        eval_batch_size: Count = 1000,
        train_episodes: Count = 100000,
        val_episodes: Count = 1000,
        test_episodes: Count = 10000,
        **kwargs: Any,
    ) -> None:
        self.arms, self.pulls, self.kind = arms, pulls, kind
        super().__init__(
            shot=shot,
            queries=queries,
            meta_batch_size=meta_batch_size,
            eval_batch_size=eval_batch_size,
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            **kwargs,
        )

    @property
    def environment(self) -> dict[str, Any]:
        """The bandit of this kind."""
        return {"kind": f"{self.kind}_bandit", "arms": self.arms, "pulls": self.pulls}

    def sizes(self) -> str:
        """Arms and pulls."""
        return f"{self.kind}, {self.arms} arms, {self.pulls} pulls"


class TabularMDPDataModule(ControlDataModule):
    """TabularMDP: random transitions and rewards; a trial is so many episodes.

    Paper: arXiv:1611.02779.

    Args:
        states: how many.
        actions: how many.
        horizon: steps of an episode.
        trial_episodes: episodes of a trial, the paper's N.
        shot: trials that a learner adapts to.
        queries: trials that it is judged on.
        meta_batch_size: tasks a step, over all ranks.
        eval_batch_size: tasks evaluated at once by each rank.
        train_episodes: tasks an epoch, over all ranks.
        val_episodes: validation tasks.
        test_episodes: test tasks.
        **kwargs: arguments of `ControlDataModule`.
    """

    benchmark: ClassVar[str] = "TabularMDP"

    def __init__(
        self,
        states: Count = 10,
        actions: Count = 5,
        horizon: Count = 10,
        trial_episodes: Count = 10,
        shot: Count = 1,
        queries: Count = 1,
        meta_batch_size: Count = 500,
        eval_batch_size: Count = 500,
        train_episodes: Count = 50000,
        val_episodes: Count = 500,
        test_episodes: Count = 2000,
        **kwargs: Any,
    ) -> None:
        self.states, self.actions = states, actions
        self.horizon, self.trial_episodes = horizon, trial_episodes
        super().__init__(
            shot=shot,
            queries=queries,
            meta_batch_size=meta_batch_size,
            eval_batch_size=eval_batch_size,
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            **kwargs,
        )

    @property
    def environment(self) -> dict[str, Any]:
        """The MDPs of this size."""
        return {
            "kind": "tabular_mdp",
            "states": self.states,
            "actions": self.actions,
            "horizon": self.horizon,
            "episodes": self.trial_episodes,
        }

    def sizes(self) -> str:
        """The size of an MDP and of a trial."""
        size = f"{self.states} states, {self.actions} actions"
        return f"{size}, {self.trial_episodes} episodes of {self.horizon}"


class NavigationDataModule(ControlDataModule):
    """Navigation: steps on a plane to a goal that only rewards tell of. Paper: arXiv:1703.03400.

    Args:
        sparse: reward near the goal alone, in place of minus the distance everywhere.
        horizon: steps of an episode, at most.
        trial_episodes: episodes of a trial, for learners that remember.
        **kwargs: arguments of `ControlDataModule`.
    """

    benchmark: ClassVar[str] = "Navigation"

    def __init__(
        self,
        sparse: bool = False,
        horizon: Count = 100,
        trial_episodes: Count = 1,
        **kwargs: Any,
    ) -> None:
        self.sparse, self.horizon, self.trial_episodes = sparse, horizon, trial_episodes
        super().__init__(**kwargs)

    @property
    def environment(self) -> dict[str, Any]:
        """The plane, dense or sparse."""
        kind = "sparse_navigation" if self.sparse else "navigation"
        return {"kind": kind, "horizon": self.horizon, "episodes": self.trial_episodes}

    def sizes(self) -> str:
        """Dense or sparse, and the steps."""
        kind = "sparse" if self.sparse else "dense"
        episodes = f"{self.trial_episodes} x " if self.trial_episodes > 1 else ""
        return f"{kind}, {episodes}{self.horizon} steps"
