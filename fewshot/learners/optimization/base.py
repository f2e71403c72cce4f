"""The optimization-based family: a predictor is the network after gradient steps on the support."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.adapters import Adapters
from fewshot.backbones.base import Backbone, needed_map_shape
from fewshot.backbones.channels_last import channels_last, kernels
from fewshot.engine.compiling.compiler import Compile
from fewshot.engine.episode_map import Parallel
from fewshot.engine.inner_loop import Rate, Weights, steps_on
from fewshot.engine.normalization import EpisodeNorm, forget_running_statistics
from fewshot.engine.runner import Runner, option
from fewshot.episodes.types import Episode, Examples
from fewshot.hyperparameters import build
from fewshot.learners.base import BatchNormPolicy
from fewshot.learners.bookkeeping import OF_TRAINING
from fewshot.learners.optimization.acting import ActsByGradients
from fewshot.learners.optimization.attacks import Attack
from fewshot.learners.optimization.evaluation import Curve
from fewshot.learners.optimization.first_batch import look_once
from fewshot.learners.optimization.meta_dropout import PerturbsFeatures
from fewshot.learners.optimization.network import Network, adapters_of, head_of
from fewshot.learners.optimization.outer import Outer
from fewshot.learners.optimization.parameters import (
    Adapt,
    adapted_names,
    check_task,
    named_now,
    refuse_unused,
)
from fewshot.learners.outcome import Outcome
from fewshot.tasks import check_one_way


class OptimizationLearner(PerturbsFeatures, ActsByGradients):
    """Optimization-based meta-learning: learn an initialisation that adapts in few gradient steps.

    Batch normalisation uses the batch at hand, in the inner loop as in the outer. At evaluation,
    `transductive` lets the query be normalised by its own statistics (the original MAML),
    `inductive` by those of the support under the adapted weights, so that no query sees another.

    Evaluation judges the adapted network, and with `eval_curve` also what came before it: loss and
    metrics before adaptation and after each inner step (``accuracy_step0``, ...).

    Args:
        backbone: the network from inputs to features.
        head: the module from features (n, D) to outputs (n, output_size); None means a linear
            layer. In segmentation it reads the backbone's feature maps (n, C, h, w); None means a
            1x1 convolution.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_steps: gradient steps at validation and test; None means `inner_steps`.
        eval_curve: the adaptation curve of validation and test, and its figure: `none`; its `ends`,
            before adaptation and after the last step; or `all` steps. Each of them costs a pass
            over the queries.
        adapt: which parameters the inner loop changes: `all`, the `head`, the `body` (the
            backbone), or a list of names such as ``backbone.blocks.3`` and ``head.weight``, each of
            which stands for all that begins with it. Where the backbone is left alone, its features
            are computed once an episode.
        adapters: `LoRA` or `TSA`, small weights that learn in the backbone's place, in both loops.
        inner_gradient_clip: largest norm of an inner step's gradient; None leaves it as it is.
        episode_parallel: how a meta-batch is run: `loop`, `vmap`, or `auto` for what is faster on
            the device. Recurrent networks take the loop always, and the run says so; `auto` takes
            it too for others that cannot be vmapped over.
        episodes_per_chunk: episodes in memory at once; None means 1 for the loop, the meta-batch
            for vmap.
        compile: compile the inner loop in training, with its derivatives: faster steps after a
            first one of up to minutes (seconds, once compiled on the machine). `capture`, on a CUDA
            GPU alone, records the operations instead: ready in seconds, between uncompiled and
            compiled in speed. Evaluation is not compiled.
        checkpoint_inner_steps: keep the weights after each inner step in memory instead of its
            activations, which the backward pass computes again: less memory, more time. Needs
            `episode_parallel: loop`, uncompiled.
        batchnorm: statistics at evaluation, `transductive` or `inductive`; see above.
        attack: evaluation also attacks the queries, through the adapted weights, and reports
            ``accuracy_adversarial`` (each metric of the task, and the loss); `FGSM`, `PGD` or one
            of your own; None attacks nothing.
        outer: the outer step of tasks to act in: `TRPO`, `ProMP`, or one of your own; None is one
            step of the optimizer on what was played.
        **kwargs: arguments of `PerturbsFeatures`.
    """

    bookkeeping = OF_TRAINING
    """Attributes that no episode's maths reads; `compile` compiles anew when any other changes.

    A subclass names its own in a `bookkeeping` of its own, which adds to this.
    """
    mixes_queries = True
    fixed_way = True  # one head serves all episodes
    judges_nota = True
    episode_parallel, episodes_per_chunk = option("parallel"), option("episodes_per_chunk")
    compiler, checkpoint_inner_steps = option("compiler"), option("recompute")

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        head: nn.Module | None = None,
        inner_steps: Count = 1,
        eval_inner_steps: Count | None = None,
        eval_curve: Curve = "none",
        adapt: Adapt = "all",
        adapters: Adapters | None = None,
        inner_gradient_clip: Positive | None = None,
        episode_parallel: Parallel = "auto",
        episodes_per_chunk: Count | None = None,
        compile: Compile = False,
        checkpoint_inner_steps: bool = False,
        batchnorm: BatchNormPolicy = "transductive",
        attack: Attack | None = None,
        outer: Outer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, batchnorm=batchnorm, **kwargs)
        if self.fixed_way:
            check_one_way(self.task, type(self).__name__)
        self.inner_steps, self.eval_inner_steps = inner_steps, eval_inner_steps or inner_steps
        self.eval_curve: Curve = eval_curve
        self.inner_gradient_clip = inner_gradient_clip
        self.attack = build(attack, Attack, "attack")
        self.outer = build(outer, Outer, "outer")
        if dense := self.task.dense:
            needed_map_shape(self.backbone, type(self).__name__)
        self.head, self.head_is_given = head_of(head, self.backbone, self.task), head is not None
        self.adapters = adapters_of(adapters, self.backbone, type(self).__name__)
        parts = self.backbone, self.head, dense, self.adapters
        # Not a submodule: their parameters are registered once
        object.__setattr__(self, "network", Network(*parts))
        forget_running_statistics(self.network.unfrozen)
        self.adapted_names = adapted_names(self.network, adapt)
        self._kernels = kernels(self.network)
        self.head_only = all(name.startswith("head.") for name in self.adapted_names)
        self.make_noise(compile)
        task = self.task
        check_task(task, compile, bool(self.adapted_names) and self.head_only, self.outer)
        self.runner = Runner(
            self.network,
            self.backbone,
            *(episode_parallel, episodes_per_chunk, compile, checkpoint_inner_steps, task.probe),
        )

    def initial_weights(self) -> Weights:
        """The learned initialisation of the parameters that adapt, by name.

        In the layout in which the network reads them, which fast weights then have too.
        """
        parameters = named_now(self.network, self.adapted_names)
        return {name: self.as_read(name, parameter) for name, parameter in parameters.items()}

    def as_read(self, name: str, value: Tensor) -> Tensor:
        """A value for each weight of a parameter, in the layout of the parameter's fast weights."""
        return channels_last(value) if name in self._kernels else value

    def descend(
        self,
        support: Examples,
        weights: Weights,
        steps: int,
        rate: Rate,
        first_order: bool = False,
        fixed: Weights | None = None,
    ) -> Iterator[Weights]:
        """Gradient descent on the mean support loss from `weights`, beside others kept `fixed`."""
        # Where the head alone adapts, the steps hold its few activations only, and read features
        # that have a graph.
        read = None
        if self.runner.recomputes() and not self.head_only:
            read = [p for p in self.parameters() if p.requires_grad]
        losses, clip = self.support_losses(support, fixed), self.inner_gradient_clip
        return steps_on(losses, weights, rate, steps, first_order, clip, read)

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: the adapted network's query loss, with its meta-gradient graph."""
        support, query = self.embedded_episode(episode)
        inside = Examples(support, episode.support.targets)
        *_, weights = self.inner_loop(inside, self.inner_steps)
        outcome = self.judged(weights, Examples(query, episode.query.targets))
        return self.blended(outcome, episode)

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt to and predict every episode."""
        look_once(self, episodes, training)
        if not training:
            return self.runner.run(self.evaluation_outcome, self.made_ready(episodes, False))
        return self.runner.run(self.training_outcome, self.made_ready(episodes, True), self)

    def on_after_backward(self) -> None:
        """Once: refuse parameters that neither loop uses.

        Several ranks would wait forever for their gradients.
        """
        if self.runner.first_time("backward"):
            parameters = self.network.named_parameters()
            refuse_unused([n for n, p in parameters if p.requires_grad and p.grad is None])
