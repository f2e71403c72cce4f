"""What all learners share: meta-batch loop, manual optimization, logging, episodic evaluation."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from typing_extensions import Self

from fewshot.backbones.base import Backbone
from fewshot.callbacks.progress import is_looked_at
from fewshot.engine.randomness import seed_generators
from fewshot.episodes.types import (
    Episode,
    Examples,
    Inputs,
    MetaBatch,
    count,
    map_tensors,
    singles,
    stacked,
)
from fewshot.errors import FewshotError
from fewshot.hyperparameters import RemembersArguments, build, describe, without_weights
from fewshot.learners.checkpoints import (
    WholeFiles,
    backbone_weights,
    check_arguments,
    check_learner,
    check_shapes,
    read_checkpoint,
)
from fewshot.learners.guard import Guard
from fewshot.learners.table import EpisodeTable
from fewshot.tasks import Classification, Task, make_task
from fewshot.tasks.estimates import Estimate

BatchNormPolicy: TypeAlias = Literal["transductive", "inductive"]


class Outcome(NamedTuple):
    """Results of b episodes: losses (b,), metrics (b,) by name, outputs (b, N*Q, output_size).

    `state` (b, ...) by name is what a learner's training goes on with besides the weights.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    outputs: Tensor
    # a tree of tensors like the others; nobody writes into it
    state: dict[str, Tensor] = {}  # noqa: RUF012


class MetaLearner(RemembersArguments, L.LightningModule):
    """A learner: `adapt` to a support set, `predict` a query set; the rest is the same for all.

    A subclass writes its maths for one episode. The optimization is manual: one optimizer step a
    meta-batch, on the mean of the episodes' losses.

    Args:
        backbone: the network from inputs to features; any module with an attribute `out_features`.
        task: the task kind as plain facts, such as ``{"kind": "classification", "way": 5}``; a
            DataModule's `task`.
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
    takes: ClassVar[type[Task] | None] = None
    """The kind of task that the learner is made for; None: any."""
    judges_nota: ClassVar[bool] = False
    """Whether it can say of a query that it is of none of the episode's classes."""
    fixed_way: ClassVar[bool] = False
    """Whether the learner knows one way alone: training, test and use must have the same."""

    def __init__(
        self,
        backbone: Backbone | nn.Module,  # Backbone first: the command line's short names mean ours
        task: dict[str, Any],
        optimizer: OptimizerCallable = Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        gradient_clip: float | None = None,
        nonfinite: Literal["stop", "skip"] = "stop",
        batchnorm: BatchNormPolicy = "inductive",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = make_task(task)
        self._check_kind()
        if not self.judges_nota and isinstance(self.task, Classification) and self.task.nota:
            raise FewshotError(
                f"{type(self).__name__} cannot say that a query is of none of the classes, which"
                " the benchmark asks; set nota_rate to 0 (out_of_scope to false), or choose a"
                " learner such as PrototypicalNetwork"
            )
        self.backbone: nn.Module = build(backbone, nn.Module, "backbone")
        if not isinstance(getattr(self.backbone, "out_features", None), int):
            raise FewshotError(
                f"backbone {type(backbone).__name__} has no integer attribute out_features; set it"
                " to the length of its features"
            )
        self.optimizer, self.lr_scheduler, self.gradient_clip = (
            optimizer,
            lr_scheduler,
            gradient_clip,
        )
        self.batchnorm: BatchNormPolicy = batchnorm
        self.guard = Guard(nonfinite, self._diverged)
        self.weights_file: str | None = None  # the checkpoint that the backbone was taken from
        # how a checkpoint's benchmark makes inputs of files
        self.preprocessing: dict[str, Any] | None = None
        plain = {
            name: describe(value) for name, value in self.init_args.items() if name not in _NOT_HELD
        }
        self.save_hyperparameters(plain)
        self.tables = nn.ModuleDict({stage: EpisodeTable() for stage in ("val", "test")})
        self.seed = torch.initial_seed()  # of what training draws at random besides the episodes
        self.loaded_step = 0  # the meta-steps of the checkpoint whose weights these are
        self.columns: dict[str, dict[str, Tensor]] = {}
        self.estimates: dict[str, dict[str, Estimate]] = {}
        if weights is not None:
            self._take_backbone(weights)

    def _check_kind(self) -> None:
        if self.takes is not None and not isinstance(self.task, self.takes):
            raise FewshotError(
                f"{type(self).__name__} is made for {self.takes.kind}, but the benchmark's task is"
                f" {self.task.kind}; choose another learner, or a benchmark of {self.takes.kind}"
            )

    def facts(self) -> dict[str, Any]:
        """The learner's facts that stand beside its results."""
        return {}

    # ------------------------------------------------------------------ the two verbs

    @abstractmethod
    def adapt(self, support: Examples) -> Any:
        """Learn from the support examples (S, ...) of one episode; gives what `predict` needs."""

    @abstractmethod
    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) for inputs (n, ...) by an adapted predictor."""

    @abstractmethod
    def run(self, meta_batch: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt to and predict each episode of a stacked meta-batch.

        Yields the outcome of successive chunks.

        In training every `Outcome.loss` carries the graph of its meta-gradient.
        """

    # ------------------------------------------------------------------ training

    def setup(self, stage: str) -> None:
        """Have checkpoints written whole and read as plain values.

        A way of the user's own is left in place.
        """
        with suppress(NotImplementedError):  # of strategies in which each rank saves its own part
            if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
                self.trainer.strategy.checkpoint_io = WholeFiles()

    def training_outcomes(self, batch: Any) -> Iterator[Outcome]:
        """The outcomes of a training batch's chunks: episodes, unless a family trains otherwise.

        Episodes that differ in size are run one by one, rather than padded and stacked: batch
        normalisation then has the statistics of each episode's own examples, and an episode's
        outcome does not depend on the others.
        """
        for part in stacked(batch):
            yield from self.run(part, training=True)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """A meta-step: the episodes' mean loss, backward by chunk, one optimizer step."""
        # Dropout draws what the seed, the step and the rank say: a resumed run draws what it would
        # have drawn.
        seed_generators(
            self.device, step_seed(self.seed, self.trainer.global_step, self.trainer.global_rank)
        )
        optimizer = self.optimizers()
        # one optimizer, always; narrows Lightning's union
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        total, done = count(batch), 0
        losses: list[Tensor] = []
        metrics: list[dict[str, Tensor]] = []
        for outcome in self.training_outcomes(batch):
            done += len(outcome.loss)
            # Ranks are synchronised once a step: by the last chunk's backward.
            with self._no_sync() if done < total else nullcontext():
                self.manual_backward(outcome.loss.sum() / total)
            losses.append(outcome.loss.detach())
            metrics.append({name: value.detach() for name, value in outcome.metrics.items()})
        # Logged while an accelerator still computes the gradient, for which what follows may wait.
        looked_at = is_looked_at(self.trainer, batch_idx)
        if looked_at:
            self.log("train/loss", torch.cat(losses).mean(), prog_bar=True)
            columns = {name: torch.cat([chunk[name] for chunk in metrics]) for name in metrics[0]}
            for name, score in self.task.scores(columns).items():
                self.log(f"train/{name}", score, prog_bar=name == self.task.monitor[0])
        scale = self._loss_scale()
        take = partial(self._clip_and_step, optimizer, scale)
        if scale > 1:
            # Under 16-mixed the gradient is so many times too large. Should that overflow, the
            # optimizer's step leaves the weights alone and the scale is halved; what is not finite
            # without a scale is no overflow.
            take()
        else:
            self.guard.step(take, optimizer.optimizer, self.trainer.global_step, batch)
        if looked_at and self.guard.skipped:
            self.log("train/skipped", float(self.guard.skipped), prog_bar=True)
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Hear of the epoch's last step."""
        self.guard.settle()

    def _clip_and_step(self, optimizer: LightningOptimizer, scale: float) -> None:
        if self.gradient_clip is not None:
            self.clip_gradients(optimizer.optimizer, self.gradient_clip * scale, "norm")
        optimizer.step()

    def _loss_scale(self) -> float:
        """What losses are multiplied by before the backward pass."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _diverged(self, step: int, batch: Any) -> str:
        """The first episode of the meta-batch, and its first inner step, that is not finite.

        In a sentence.
        """
        place = f"the meta-gradient of meta-step {step} is not finite"
        remedy = "lower inner_lr or the optimizer's lr, set gradient_clip, or nonfinite: skip"
        for i, one in enumerate(singles(batch)):
            outcome = self.evaluate(one)
            steps = sorted(
                int(name[9:]) for name in outcome.metrics if name.startswith("loss_step")
            )
            first = next(
                (k for k in steps if not outcome.metrics[f"loss_step{k}"].isfinite().all()), None
            )
            if first is not None or not outcome.loss.isfinite().all():
                where = "" if first is None else f" after inner step {first}"
                return (
                    f"{place}: the loss of episode {i} of the meta-batch diverges{where}; {remedy}"
                )
        return f"{place}, though every episode's loss is: its derivative overflows; {remedy}"

    def _no_sync(self) -> AbstractContextManager[None]:
        strategy = self.trainer.strategy
        return (
            strategy.block_backward_sync()
            if isinstance(strategy, ParallelStrategy)
            else nullcontext()
        )

    def configure_optimizers(self) -> Any:
        """The outer optimizer and, where one is set, its scheduler."""
        if not (parameters := [p for p in self.parameters() if p.requires_grad]):
            raise FewshotError(
                f"{type(self).__name__} on {type(self.backbone).__name__} has nothing to train; use"
                " `fewshot test`"
            )
        optimizer = self.optimizer(parameters)
        precision = getattr(self._trainer, "precision_plugin", None)
        # what Lightning goes by, at the first step
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        if self.gradient_clip is not None and fused and isinstance(precision, MixedPrecision):
            raise FewshotError(
                f"Lightning does not clip the gradient (gradient_clip is {self.gradient_clip}) of a"
                f" fused optimizer under {precision.precision}; set fused: false, leave"
                " gradient_clip out, or set precision: 32-true"
            )
        return (
            optimizer
            if self.lr_scheduler is None
            else ([optimizer], [self.lr_scheduler(optimizer)])
        )

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, meta_batch: Episode) -> Outcome:
        """Adapt to and predict each stacked episode, with no inference mode or outer graph."""
        with torch.inference_mode(False), torch.no_grad():
            # Tensors made in inference mode can take no part in the inner loop's autograd; clones
            # can.
            outcomes = list(self.run(map_tensors(torch.clone, meta_batch), training=False))
            return Outcome(
                torch.cat([outcome.loss for outcome in outcomes]),
                {
                    name: torch.cat([o.metrics[name] for o in outcomes])
                    for name in outcomes[0].metrics
                },
                torch.cat([outcome.outputs for outcome in outcomes]),
            )

    def outputs_by_step(self, episode: Episode, outputs: Tensor) -> dict[str, Tensor]:
        """Outputs for one episode's queries by what they are, as a picture tells them apart.

        Args:
            episode: one episode without the axis B, on the learner's device.
            outputs: those that the learner is judged by, (n, ...); they come last.
        """
        return {"predicted": outputs}

    def validation_step(self, batch: MetaBatch, batch_idx: int) -> None:
        """Evaluate a meta-batch of validation episodes."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: MetaBatch, batch_idx: int) -> None:
        """Evaluate a meta-batch of test episodes."""
        self._evaluation_step("test", batch)

    def predict_step(self, batch: MetaBatch, batch_idx: int) -> list[Outcome]:
        """The outcomes of a meta-batch of test episodes: one, or one each where sizes differ."""
        return [self.evaluate(part) for part in stacked(batch)]

    def _evaluation_step(self, stage: str, batch: MetaBatch) -> None:
        table = self._table(stage)
        for part in stacked(batch):
            outcome = self.evaluate(part)
            # Of the fixed list of episodes, rank r has the numbers r, r + R, r + 2R, ...
            seen = sum(len(numbers) for numbers in table.numbers)
            local = torch.arange(seen, seen + len(outcome.loss), device=self.device)
            numbers = self.trainer.global_rank + self.trainer.world_size * local
            table.update(
                numbers,
                {
                    "loss": outcome.loss,
                    **outcome.metrics,
                    **self.task.marks(part.query, outcome.outputs),
                },
            )

    def _table(self, stage: str) -> EpisodeTable:
        table = self.tables[stage]
        assert isinstance(table, EpisodeTable)
        return table

    def on_validation_epoch_start(self) -> None:
        """Begin an empty table."""
        self._table("val").reset()

    def on_test_epoch_start(self) -> None:
        """Begin an empty table."""
        self._table("test").reset()

    def on_validation_epoch_end(self) -> None:
        """Log the validation episodes' means."""
        self._log_estimates("val")
        scheduler = self.lr_schedulers() if self.trainer.state.fn == "fit" else None
        if isinstance(scheduler, ReduceLROnPlateau) and not self.trainer.sanity_checking:
            scheduler.step(self.estimates["val"][self.task.monitor[0]].mean)

    def on_test_epoch_end(self) -> None:
        """Log the test episodes' means with their confidence intervals."""
        self._log_estimates("test")

    def _log_estimates(self, stage: str) -> None:
        self.columns[stage] = self._table(stage).columns()
        values = {name: column for name, column in self.columns[stage].items() if name != "episode"}
        self.estimates[stage] = self.task.estimates(values)
        main = self.task.monitor[0]
        for name, (mean, ci95) in self.estimates[stage].items():
            # equal on every rank already; sync_dist keeps Lightning from warning that it might not
            # be
            self.log(f"{stage}/{name}", mean, prog_bar=name == main, sync_dist=True)
            self.log(f"{stage}/{name}_ci95", ci95, sync_dist=True)

    # ------------------------------------------------------------------ checkpoints

    def _take_backbone(self, path: str) -> None:
        checkpoint = read_checkpoint(path)
        inductive = self.batchnorm == "inductive"
        self.backbone.load_state_dict(
            backbone_weights(checkpoint, path, self.backbone.state_dict(), inductive)
        )
        self.weights_file, self.loaded_step = path, checkpoint.get("global_step", 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record who wrote the checkpoint, training's own state, how files become inputs."""
        from fewshot import __version__  # here, because the package imports its learners first

        self.guard.settle()
        benchmark = getattr(self._trainer, "datamodule", None)
        checkpoint["fewshot"] = {
            "version": __version__,
            "learner": type(self).__name__,
            "seed": self.seed,
            "skipped": self.guard.skipped,
            "preprocessing": getattr(benchmark, "preprocessing", self.preprocessing),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another learner's checkpoint, and one of another network."""
        check_learner(checkpoint, type(self).__name__)
        check_shapes(checkpoint["state_dict"], self.state_dict())
        self.loaded_step = checkpoint.get("global_step", 0)
        if self._trainer is not None:
            # Lightning takes on the precision after it has loaded the weights: in double precision
            # they were rounded.
            self._trainer.precision_plugin.convert_module(self)
        # the first checkpoints of version 0.1.0 hold neither
        self.seed = checkpoint["fewshot"].get("seed", self.seed)
        self.guard.skipped = checkpoint["fewshot"].get("skipped", 0)
        self.preprocessing = checkpoint["fewshot"].get("preprocessing")

    @classmethod
    # hparams_file, strict and weights_only are settled here
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = None, **kwargs: Any
    ) -> Self:
        """The learner that a checkpoint holds, without further arguments.

        Loaded with ``weights_only=True``.

        Args:
            checkpoint_path: the file.
            map_location: where its tensors go, as for `torch.load`.
            **kwargs: constructor arguments that override what the checkpoint holds.

        Raises:
            FewshotError: the file is no checkpoint, or not this learner's.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        check_learner(checkpoint, cls.__name__)
        check_arguments(checkpoint, cls)
        with without_weights():
            return super().load_from_checkpoint(
                checkpoint_path, map_location, weights_only=True, **kwargs
            )


def step_seed(*numbers: int) -> int:
    """A seed of 63 bits that is a function of non-negative `numbers`."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


_NOT_HELD = ("optimizer", "lr_scheduler", "weights")
"""Arguments that training needs and an adapted prediction does not; a run's config.yaml holds them.
`weights` names a file whose content is in the checkpoint."""
