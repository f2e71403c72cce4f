"""What all learners share: their arguments, and the two verbs `adapt` and `predict`.

How they train is in `meta_step`, how they are judged in `evaluation`, what outlives a run in
`checkpoints`.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Adam

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.hyperparameters import (
    build,
    describe,
)
from fewshot.learners.checkpoints import Checkpointed
from fewshot.learners.confidence import Confidence
from fewshot.learners.going_on import GoesOn
from fewshot.learners.guard import Guard
from fewshot.learners.later import TakesTask
from fewshot.learners.meta_step import MetaStep
from fewshot.learners.outcome import Outcome
from fewshot.learners.table import AnswerTable, EpisodeTable
from fewshot.learners.trainer_checks import check_trainer
from fewshot.tasks import Classification, Task, make_task
from fewshot.tasks.estimates import Estimate

BatchNormPolicy: TypeAlias = Literal["transductive", "inductive"]

NOT_KEPT = ("optimizer", "lr_scheduler", "weights", "feature_memory", "feature_cache")
"""Arguments that runs need and an adapted prediction does not; a run's config.yaml holds them.
`weights` names a file whose content is in the checkpoint."""


class MetaLearner(TakesTask, MetaStep, GoesOn, Checkpointed):
    """A learner: `adapt` to a support set, `predict` a query set; the rest is the same for all.

    A subclass writes its maths for one episode. The optimization is manual: one optimizer step a
    meta-batch, on the mean of the episodes' losses.

    ```python
    >>> import fewshot, torch
    >>> learner = fewshot.PrototypicalNetwork(
    ...     fewshot.Pixels(2), task={"kind": "classification", "way": 2}
    ... )
    >>> support = fewshot.Examples(torch.tensor([[0.0, 0.0], [4.0, 4.0]]), torch.tensor([0, 1]))
    >>> adapted = learner.adapt(support)  # of labels 0 and 1
    >>> learner.predict(adapted, torch.tensor([[1.0, 0.0], [3.0, 4.0]])).argmax(-1)
    tensor([0, 1])
    ```

    Args:
        backbone: the network from inputs to features; any module with an attribute `out_features`.
        task: the task kind as plain facts, such as ``{"kind": "classification", "way": 5}``; a
            DataModule's `task`. May be left out where a Trainer is given a DataModule, whose `task`
            it then takes.
        optimizer: makes the outer optimizer from the parameters.
        lr_scheduler: makes the outer scheduler from the optimizer; it steps once a meta-batch
            (`ReduceLROnPlateau`: once a validation, on the task's main metric).
        gradient_clip: largest norm of the meta-gradient; None leaves it as it is.
        nonfinite: what to do with a meta-gradient that is not finite, which never reaches the
            weights: `stop` with the episode and the inner step that it came from, or `skip` the
            meta-batch and count it in `train/skipped`; a hundred skipped in a row stop the run too.
            With a `fused` optimizer, which leaves a step out on the device, nobody waits for the
            answer: the run stops or counts one meta-step later. Under `16-mixed` a step that
            overflows for its loss's scale is left out in silence, and the scale halved.
        batchnorm: statistics of batch normalisation at evaluation. `transductive`: those of the
            query batch, so that queries see each other. `inductive`: none of the query's own (each
            family says which instead).
        weights: a checkpoint of any learner, whose backbone's weights are taken; None leaves the
            backbone as it is.
    """

    trains_on: ClassVar[Literal["episodes", "examples", "nothing"]] = "episodes"
    """What a training batch is: a meta-batch, or plain `Examples` of the training classes;
    benchmarks read it. A learner that has all its training in `adapt` trains on `nothing`."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names that the command line takes."""
    takes: ClassVar[type[Task] | None] = None
    """The kind of task that the learner is made for; None: any."""
    judges_nota: ClassVar[bool] = False
    """Whether it can say of a query that it is of none of the episode's classes."""
    acts: ClassVar[bool] = False
    """Whether it can act: its examples may depend on what it does."""
    fixed_way: ClassVar[bool] = False
    """Whether the learner knows one way alone: training, test and use must have the same."""

    knows_weights_by_name: ClassVar[bool] = False
    """Whether weights under other names than those that it was made with are none to it."""
    proven_in_bfloat16: ClassVar[bool] = False
    """Whether the journal (docs/journal/measurements.md) shows that this class, no subclass of it,
    is as accurate in bfloat16: the interval of the difference holds 0 and is narrower than 3.5
    points, and it has learned."""
    usual_backbone: ClassVar[Mapping[str, Any] | None] = None
    """The network of a command line that names none; None: the benchmark's."""
    begins_at: Sequence[str] = ()
    """Arguments that say where learned values begin, and nothing of what a checkpoint continues."""

    def __init__(
        self,
        backbone: Backbone | nn.Module,  # Backbone first: the command line's short names mean ours
        task: dict[str, Any],
        optimizer: OptimizerCallable = Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        gradient_clip: Positive | None = None,
        nonfinite: Literal["stop", "skip"] = "stop",
        batchnorm: BatchNormPolicy = "inductive",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = make_task(task)
        if not self.judges_nota and isinstance(self.task, Classification) and self.task.nota:
            raise FewshotError(
                f"{type(self).__name__} cannot say that a query is of none of the classes, which"
                " the benchmark asks; set nota_rate to 0 (out_of_scope to false), or choose a"
                " learner such as PrototypicalNetwork"
            )
        self.check_kind(self.task)
        self.backbone: nn.Module = build(backbone, nn.Module, "backbone")
        if not isinstance(getattr(self.backbone, "out_features", None), int):
            raise FewshotError(
                f"backbone {type(backbone).__name__} has no integer attribute out_features; set it"
                " to the length of its features"
            )
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.gradient_clip = gradient_clip
        self.batchnorm: BatchNormPolicy = batchnorm
        self.guard = Guard(nonfinite, self._diverged)
        self.weights_file: str | None = None  # the checkpoint that the backbone was taken from
        # how a checkpoint's benchmark makes inputs of files
        self.preprocessing: dict[str, Any] | None = None
        kept = {name: value for name, value in self.init_args.items() if name not in NOT_KEPT}
        self.save_hyperparameters(describe(kept))
        tables = {"val": EpisodeTable(), "test": EpisodeTable(), "answers": AnswerTable()}
        self.tables = nn.ModuleDict(tables)
        self.tables["val_confidence"] = Confidence()
        self.tables["test_confidence"] = Confidence(chooses=False)
        # of what training draws at random besides the episodes; a checkpoint's takes its place
        self.seed = self.made_with_seed = torch.initial_seed()
        self.loaded_step = 0  # the meta-steps of the checkpoint whose weights these are
        self.columns: dict[str, dict[str, Tensor]] = {}
        self.estimates: dict[str, dict[str, Estimate]] = {}
        self.softmax_temperature: float | None = None
        self.last_validation: dict[str, Any] | None = None
        self.calibration: dict[str, dict[str, Any]] = {}
        if weights is not None:
            self.take_backbone(weights)

    @property
    def has_nothing_to_train(self) -> bool:
        """Whether all that it learns, it learns in `adapt`, or its weights are frozen."""
        return self.trains_on == "nothing" or not any(p.requires_grad for p in self.parameters())

    @property
    def features(self) -> int:
        """D, the length of the backbone's features."""
        features = self.backbone.out_features
        assert isinstance(features, int)  # `__init__` has seen to it
        return features

    @classmethod
    def check_kind(cls, task: Task) -> None:
        """Check the kind of a task.

        Raises:
            FewshotError: the learner is made for another.
        """
        if task.acts and not cls.acts:
            raise FewshotError(
                f"{cls.__name__} cannot act, which the benchmark's task"
                f" ({task.kind}) is; choose MAML, FOMAML, MetaSGD, CAVIA, Reptile,"
                " MultiTask or RL2"
            )
        if cls.takes is not None and not isinstance(task, cls.takes):
            raise FewshotError(
                f"{cls.__name__} is made for {cls.takes.kind}, but the benchmark's task is"
                f" {task.kind}; choose another learner, or a benchmark of {cls.takes.kind}, such as"
                f" {cls.takes.such_as}"
            )

    def on_test_epoch_start(self) -> None:
        """Look at the weights before they are judged."""
        self.check_weights()
        super().on_test_epoch_start()

    def on_validation_epoch_start(self) -> None:
        """The same where nothing is trained."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self.check_weights()
        super().on_validation_epoch_start()

    def on_predict_epoch_start(self) -> None:
        """The same."""
        self.check_weights()
        super().on_predict_epoch_start()

    def configure_callbacks(self) -> Any:
        """Look at the Trainer, which asks for callbacks before it does anything."""
        check_trainer(self.trainer, self)
        return super().configure_callbacks()

    def facts(self) -> dict[str, Any]:
        """The learner's facts that stand beside its results."""
        return {}

    @abstractmethod
    def adapt(self, support: Examples) -> Any:
        """Learn from the support examples (S, ...) of one episode; gives what `predict` needs."""

    @abstractmethod
    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) for inputs (n, ...) by an adapted predictor."""

    @abstractmethod
    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt to and predict each of B stacked episodes; yields outcomes of successive chunks.

        In training every `Outcome.loss` carries the graph of its meta-gradient.
        """
