"""The meta-step: manual optimization on the mean loss of a meta-batch, chunk by chunk."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fewshot.engine.randomness import seed_generators
from fewshot.episodes.types import ExampleBatch, MetaBatch
from fewshot.errors import FewshotError
from fewshot.learners.cadence import should_log
from fewshot.learners.evaluation import Evaluation
from fewshot.learners.guard import Guard
from fewshot.learners.lightning_internals import attached_trainer
from fewshot.learners.optimization_check import check_optimization, tell_of_a_rise
from fewshot.learners.outcome import Outcome


class MetaStep(Evaluation):
    """Mix-in: one optimizer step a training batch, through the guard; everything manual."""

    backbone: nn.Module
    guard: Guard
    optimizer: OptimizerCallable
    lr_scheduler: LRSchedulerCallable | None
    gradient_clip: float | None
    seed: int
    learning_rate: float | None = None
    """What Lightning's learning-rate finder sets; takes the place of the outer optimizer's."""

    def as_batch(self, batch: Any) -> MetaBatch | ExampleBatch:
        """What a loader gave, as what the learner trains on.

        Raises:
            FewshotError: it is something else.
        """
        return MetaBatch.of(batch, type(self).__name__)

    def training_outcomes(self, batch: Any) -> Iterator[Outcome]:
        """The outcomes of a training batch's chunks: episodes, unless a family trains otherwise.

        Episodes that differ in size are run one by one, rather than padded and stacked: batch
        normalisation then has the statistics of each episode's own examples, and an episode's
        outcome does not depend on the others.
        """
        for part in MetaBatch.of(batch, type(self).__name__).parts:
            yield from self.run(part, training=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """A meta-step: the episodes' mean loss, backward by chunk, one optimizer step.

        Returns:
            The loss (), without its graph: callbacks get it as ``outputs["loss"]``.
        """
        # Dropout draws what the seed, the step and the rank say: a resumed run draws what it would
        # have drawn.
        seed_generators(
            self.device, step_seed(self.seed, self.trainer.global_step, self.trainer.global_rank)
        )
        batch = self.as_batch(batch)
        optimizer = self.optimizers()
        # one optimizer, always; narrows Lightning's union
        assert isinstance(optimizer, LightningOptimizer)
        looked_at, loss = should_log(self.trainer, batch_idx), torch.zeros((), device=self.device)
        passes = self.passes(batch)
        for number, part in enumerate(passes, start=1):
            losses, metrics = self._backward(optimizer, part)
            # Logged while an accelerator still computes the gradient, for which what follows may
            # wait.
            if number == 1:
                loss = losses.mean()
                if looked_at:
                    self._log_training(loss, metrics)
            self._step(optimizer, part, number == len(passes))
        if looked_at and self.guard.skipped:
            self.log("train/skipped", float(self.guard.skipped), prog_bar=True)
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
        return loss

    def passes(self, batch: Any) -> list[Any]:
        """What optimizer steps are taken on in turn: the batch, once.

        Learners that act may take several on what they have played. Trainers count them as one.
        """
        return [batch]

    def _backward(
        self, optimizer: LightningOptimizer, batch: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses (B,) and metrics (B,) of a batch, whose gradient is the parameters' then."""
        optimizer.zero_grad()
        total, done = batch.size, 0
        losses: list[Tensor] = []
        metrics: list[dict[str, Tensor]] = []
        for outcome in self.training_outcomes(batch):
            done += len(outcome.loss)
            # Ranks are synchronised once a step: by the last chunk's backward.
            with self._no_sync() if done < total else nullcontext():
                self.manual_backward(outcome.loss.sum() / total)
            losses.append(outcome.loss.detach())
            metrics.append({name: value.detach() for name, value in outcome.metrics.items()})
        columns = {name: torch.cat([chunk[name] for chunk in metrics]) for name in metrics[0]}
        return torch.cat(losses), columns

    def _log_training(self, loss: Tensor, metrics: dict[str, Tensor]) -> None:
        self.log("train/loss", loss, prog_bar=True)
        for name, score in self.task.scores(metrics).items():
            self.log(f"train/{name}", score, prog_bar=name == self.task.monitor[0])

    def _step(self, optimizer: LightningOptimizer, batch: Any, counted: bool) -> None:
        """Let the optimizer step, if the gradient is finite."""
        scale = self._loss_scale()
        take = partial(self._clip_and_step, optimizer, scale, counted)
        if scale > 1:
            # Under 16-mixed the gradient is so many times too large. Should that overflow, the
            # optimizer's step leaves the weights alone and the scale is halved; what is not finite
            # without a scale is no overflow.
            take()
        else:
            self.guard.step(take, optimizer.optimizer, self.trainer.global_step, batch)

    def on_train_epoch_end(self) -> None:
        """Hear of the epoch's last step."""
        self.guard.settle()

    def _clip_and_step(
        self, optimizer: LightningOptimizer, scale: float, counted: bool = True
    ) -> None:
        if self.gradient_clip is not None:
            self.clip_gradients(optimizer.optimizer, self.gradient_clip * scale, "norm")
        if counted:
            optimizer.step()
        else:  # the same, but for the Trainer's number of steps
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)

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
        for i, one in enumerate(batch.singles()):
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

    def over_ranks(self, value: Tensor) -> Tensor:
        """The mean over the processes of a training."""
        if (trainer := attached_trainer(self)) is None:
            return value
        mean: Tensor = trainer.strategy.reduce(value, reduce_op="mean")
        return mean

    def _no_sync(self) -> AbstractContextManager[None]:
        strategy = self.trainer.strategy
        if isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return nullcontext()

    def configure_optimizers(self) -> Any:
        """The outer optimizer and, where one is set, its scheduler."""
        if not (parameters := [p for p in self.parameters() if p.requires_grad]):
            raise FewshotError(
                f"{type(self).__name__} on {type(self.backbone).__name__} has nothing to train; use"
                " `fewshot test`"
            )
        steps = getattr(attached_trainer(self), "max_steps", -1)
        check_optimization(self.optimizer, self.lr_scheduler, steps if steps >= 0 else None)
        optimizer = self.optimizer(parameters)
        if self.learning_rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
        precision = getattr(attached_trainer(self), "precision_plugin", None)
        # what Lightning goes by, at the first step
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        if self.gradient_clip is not None and fused and isinstance(precision, MixedPrecision):
            raise FewshotError(
                f"Lightning does not clip the gradient (gradient_clip is {self.gradient_clip}) of a"
                f" fused optimizer under {precision.precision}; set fused: false, leave"
                " gradient_clip out, or set precision: 32-true"
            )
        if self.lr_scheduler is None:
            return optimizer
        return [optimizer], [self.lr_scheduler(optimizer)]

    def on_train_start(self) -> None:
        """Warn of a schedule that is not the run's."""
        for one in self.trainer.lr_scheduler_configs:
            tell_of_a_rise(one.scheduler, self.trainer.estimated_stepping_batches)


def step_seed(*numbers: int) -> int:
    """A seed of 63 bits that is a function of non-negative `numbers`."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
