"""The optimization-based family: a predictor is the network after some steps of gradient descent on the support."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewshot.backbones.base import Backbone
from fewshot.engine import Parallel, map_episodes
from fewshot.episodes import Episode, Examples, Inputs, map_tensors
from fewshot.errors import FewshotError
from fewshot.inner_loop import Weights
from fewshot.learners.base import BatchNormPolicy, MetaLearner, Outcome
from fewshot.normalization import EpisodeNorm, Statistics, forget_running_statistics
from fewshot.tasks import Classification


class Adapted(NamedTuple):
    """An adapted predictor: its weights, and the support's batch statistics where queries must use them."""

    weights: Weights
    statistics: Statistics | None


class Network(nn.Module):
    """Backbone and head as one module, so that all parameters are swapped in one call."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of inputs (n, ...)."""
        outputs = self.head(self.backbone(inputs))
        assert isinstance(outputs, Tensor)
        return outputs


class OptimizationLearner(MetaLearner):
    """Optimization-based meta-learning: learn an initialisation that few gradient steps turn into a predictor.

    Batch normalisation uses the batch at hand, in the inner loop as in the outer. At evaluation, `transductive` lets
    the query be normalised by its own statistics (the original MAML), `inductive` by those of the support under the
    adapted weights, so that no query sees another.

    Evaluation reports loss and metrics before adaptation and after each inner step (``accuracy_step0``, ...).

    Args:
        backbone: the network from inputs to features.
        inner_lr: learning rate of the inner loop, on the mean support loss.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_steps: gradient steps at validation and test; None means `inner_steps`.
        episode_parallel: how a meta-batch is run: `loop`, `vmap`, or `auto` for what is faster on the device.
        episodes_per_chunk: episodes in memory at once; None means 1 for the loop, the meta-batch for vmap.
        batchnorm: statistics at evaluation, `transductive` or `inductive`; see above.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: float = 0.01,
        inner_steps: int = 1,
        eval_inner_steps: int | None = None,
        episode_parallel: Parallel = "auto",
        episodes_per_chunk: int | None = None,
        batchnorm: BatchNormPolicy = "transductive",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, batchnorm=batchnorm, **kwargs)
        for name, value in (("inner_steps", inner_steps), ("eval_inner_steps", eval_inner_steps)):
            if value is not None and value < 1:
                raise FewshotError(f"{name} is {value}; set {name} >= 1")
        if episodes_per_chunk is not None and episodes_per_chunk < 1:
            raise FewshotError(f"episodes_per_chunk is {episodes_per_chunk}; set it >= 1 or leave it out")
        if isinstance(self.task, Classification) and self.task.train_way not in (None, self.task.way):
            raise FewshotError(
                f"{type(self).__name__} has one head for all episodes, but train_way is {self.task.train_way} and way"
                f" is {self.task.way}; set train_way to {self.task.way} or choose a metric-based learner"
            )
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.eval_inner_steps = eval_inner_steps or inner_steps
        self.episode_parallel, self.episodes_per_chunk = episode_parallel, episodes_per_chunk
        features = self.backbone.out_features
        assert isinstance(features, int)
        self.head = nn.Linear(features, self.task.output_size)
        forget_running_statistics(self.backbone)
        # Not a submodule: the parameters are registered once, as backbone.* and head.*
        object.__setattr__(self, "network", Network(self.backbone, self.head))

    network: Network

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Yield the fast weights before and after each inner step on one support set."""
        raise NotImplementedError

    def support_loss(self, weights: Weights, support: Examples) -> Tensor:
        """The mean loss of the network with `weights` on the support, a scalar."""
        return self.task.loss(functional_call(self.network, weights, (support.inputs,)), support.targets)

    def adapt(self, support: Examples) -> Adapted:
        """The network adapted to one support set."""
        with torch.inference_mode(False), EpisodeNorm(exact_vmap=False) as norm:
            support = map_tensors(torch.clone, support)
            *_, weights = self.inner_loop(support, self.eval_inner_steps)
            return self._adapted(weights, support, norm)

    def predict(self, adapted: Adapted, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of inputs (n, ...)."""
        with EpisodeNorm(exact_vmap=False) as norm:
            return self._outputs(adapted, inputs, norm)

    def run(self, meta_batch: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt to and predict every episode; in evaluation with the whole adaptation curve among the metrics."""
        function = self._training_outcome if training else self._evaluation_outcome
        return map_episodes(function, meta_batch, self.episode_parallel, self.episodes_per_chunk)

    def _training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        *_, weights = self.inner_loop(episode.support, self.inner_steps)
        return self._outcome(functional_call(self.network, weights, (episode.query.inputs,)), episode)

    def _evaluation_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        curve: dict[str, Tensor] = {}
        for step, weights in enumerate(self.inner_loop(episode.support, self.eval_inner_steps)):
            adapted = self._adapted(weights, episode.support, norm)
            outcome = self._outcome(self._outputs(adapted, episode.query.inputs, norm), episode)
            curve[f"loss_step{step}"] = outcome.loss
            curve.update({f"{name}_step{step}": value for name, value in outcome.metrics.items()})
        return outcome._replace(metrics=outcome.metrics | curve)

    def _outcome(self, outputs: Tensor, episode: Episode) -> Outcome:
        targets = episode.query.targets
        return Outcome(self.task.loss(outputs, targets), self.task.metrics(outputs, targets), outputs)

    def _adapted(self, weights: Weights, support: Examples, norm: EpisodeNorm) -> Adapted:
        if self.batchnorm == "transductive":
            return Adapted(weights, None)
        with norm.record() as statistics:
            functional_call(self.network, weights, (support.inputs,))
        return Adapted(weights, statistics)

    def _outputs(self, adapted: Adapted, inputs: Inputs, norm: EpisodeNorm) -> Tensor:
        with nullcontext() if adapted.statistics is None else norm.replay(adapted.statistics):
            outputs = functional_call(self.network, adapted.weights, (inputs,))
        assert isinstance(outputs, Tensor)
        return outputs
