"""The optimization-based family: a predictor is the network after gradient steps on the support."""

from abc import abstractmethod
from collections.abc import Hashable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.func import functional_call

from fewshot.backbones.base import Backbone, maps_of, needed_map_shape
from fewshot.engine.compiling.compiler import Compile, Compiler
from fewshot.engine.episode_map import Parallel, choose, loop_only, map_episodes
from fewshot.engine.inner_loop import Rate, Weights, gradient_steps
from fewshot.engine.modes import How, evaluation_mode
from fewshot.engine.normalization import EpisodeNorm, Statistics, forget_running_statistics
from fewshot.episodes.types import Episode, Examples, Inputs, map_tensors
from fewshot.errors import FewshotError
from fewshot.hyperparameters import build
from fewshot.learners.base import BatchNormPolicy, MetaLearner
from fewshot.learners.optimization.attacks import Attack
from fewshot.learners.optimization.parameters import Adapt, adapted_names, refuse_unused
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification, check_one_way
from fewshot.tasks.masks import at_size


class Adapted(NamedTuple):
    """An adapted predictor: weights, and the support's batch statistics if queries need them."""

    weights: Weights
    statistics: Statistics | None


class Network(nn.Module):
    """Backbone and head as one module, so that all parameters are swapped in one call.

    Args:
        backbone: inputs to features.
        head: features to outputs.
        dense: take the backbone's feature maps (n, C, h, w) for the features, so that the outputs
            are maps too.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, dense: bool = False) -> None:
        super().__init__()
        self.backbone, self.head, self.dense = backbone, head, dense

    def features(self, inputs: Inputs) -> Tensor:
        """What the head reads of inputs (n, ...)."""
        features = maps_of(self.backbone, inputs) if self.dense else self.backbone(inputs)
        assert isinstance(features, Tensor)
        return features

    def forward(self, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size, ...) of inputs (n, ...)."""
        outputs = self.head(self.features(inputs))
        assert isinstance(outputs, Tensor)
        return outputs


class OptimizationLearner(MetaLearner):
    """Optimization-based meta-learning: learn an initialisation that adapts in few gradient steps.

    Batch normalisation uses the batch at hand, in the inner loop as in the outer. At evaluation,
    `transductive` lets the query be normalised by its own statistics (the original MAML),
    `inductive` by those of the support under the adapted weights, so that no query sees another.

    Evaluation reports loss and metrics before adaptation and after each inner step
    (``accuracy_step0``, ...).

    Args:
        backbone: the network from inputs to features.
        head: the module from features (n, D) to outputs (n, output_size); None means a linear
            layer. In segmentation it reads the backbone's feature maps (n, C, h, w); None means a
            1x1 convolution.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_steps: gradient steps at validation and test; None means `inner_steps`.
        adapt: which parameters the inner loop changes: `all`, the `head`, the `body` (the
            backbone), or a list of names such as ``backbone.blocks.3`` and ``head.weight``, each of
            which stands for all that begins with it. Where the backbone is left alone, its features
            are computed once an episode.
        inner_gradient_clip: largest norm of an inner step's gradient; None leaves it as it is.
        episode_parallel: how a meta-batch is run: `loop`, `vmap`, or `auto` for what is faster on
            the device. Recurrent networks take the loop always, and the run says so.
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
        **kwargs: arguments of `MetaLearner`.
    """

    bookkeeping = (
        *(vars(L.LightningModule()).keys() - vars(nn.Module()).keys()),
        *("_hparams", "_hparams_initial", "_hparams_name", "init_args"),
        *("tables", "columns", "estimates", "guard", "seed", "loaded_step", "weights_file"),
        *("preprocessing", "optimizer", "lr_scheduler", "compiler", "_auto", "_done"),
    )
    """Attributes that no episode's maths reads: those of Lightning, of a run, and how it is run.

    A change of any other attribute, or of a module's, has `compile` compile anew. A subclass names
    its own in a `bookkeeping` of its own, which adds to this.
    """
    network: Network
    fixed_way = True  # one head serves all episodes
    judges_nota = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        head: nn.Module | None = None,
        inner_steps: int = 1,
        eval_inner_steps: int | None = None,
        adapt: Adapt = "all",
        inner_gradient_clip: float | None = None,
        episode_parallel: Parallel = "auto",
        episodes_per_chunk: int | None = None,
        compile: Compile = False,
        checkpoint_inner_steps: bool = False,
        batchnorm: BatchNormPolicy = "transductive",
        attack: Attack | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, batchnorm=batchnorm, **kwargs)
        for name, value in (
            ("inner_steps", inner_steps),
            ("eval_inner_steps", eval_inner_steps),
            ("episodes_per_chunk", episodes_per_chunk),
        ):
            if value is not None and value < 1:
                raise FewshotError(f"{name} is {value}; set {name} >= 1")
        if inner_gradient_clip is not None and inner_gradient_clip <= 0:
            raise FewshotError(
                f"inner_gradient_clip is {inner_gradient_clip}; set it > 0 or leave it out"
            )
        if self.fixed_way:
            check_one_way(self.task, type(self).__name__)
        if compile and isinstance(self.task, Classification) and self.task.way is None:
            raise FewshotError(
                "compile is on, which takes minutes for each size of an episode, but the"
                " benchmark's way differs from episode to episode; set compile: false"
            )
        if checkpoint_inner_steps and (compile or episode_parallel == "vmap"):
            raise FewshotError(
                "checkpoint_inner_steps runs each episode by itself, uncompiled, but"
                f" episode_parallel is {episode_parallel} and compile is {compile}; set"
                " episode_parallel: loop and compile: false"
            )
        self.inner_steps = inner_steps
        self.eval_inner_steps = eval_inner_steps or inner_steps
        self.inner_gradient_clip = inner_gradient_clip
        self.episode_parallel, self.episodes_per_chunk = episode_parallel, episodes_per_chunk
        self.checkpoint_inner_steps = checkpoint_inner_steps
        self.attack: Attack | None = build(attack, Attack, "attack")
        self.compiler = (
            Compiler("capture" if compile == "capture" else "inductor") if compile else None
        )
        self._auto: dict[Hashable, How] = {}
        self.dense = self.task.dense
        if self.dense:
            needed_map_shape(self.backbone, type(self).__name__)
        self.head: nn.Module = (
            self._linear_head() if head is None else build(head, nn.Module, "head")
        )
        self._head_is_given = head is not None
        # Not a submodule: the parameters are registered once, as backbone.* and head.*
        object.__setattr__(self, "network", Network(self.backbone, self.head, self.dense))
        forget_running_statistics(self.network)
        self.adapted_names = adapted_names(self.network, adapt)
        self.head_only = all(name.startswith("head.") for name in self.adapted_names)
        self._recurrent = loop_only(self.network)
        self._done: set[str] = set()  # of what is said or checked once

    def _linear_head(self) -> nn.Module:
        if self.dense:
            return nn.Conv2d(
                needed_map_shape(self.backbone, type(self).__name__)[0], self.task.output_size, 1
            )
        features = self.backbone.out_features
        assert isinstance(features, int)
        return nn.Linear(features, self.task.output_size)

    # ------------------------------------------------------------------ one episode

    @abstractmethod
    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Yield the fast weights before and after each inner step on one (embedded) support set."""

    def initial_weights(self) -> Weights:
        """The learned initialisation of the parameters that adapt, by name."""
        parameters = dict(self.network.named_parameters())
        return {name: parameters[name] for name in self.adapted_names}

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

        def loss(fast_weights: Weights) -> Tensor:
            outputs = self.forward_with({**(fixed or {}), **fast_weights}, support.inputs)
            return self.task.loss(outputs, support.targets)

        return gradient_steps(
            loss,
            weights,
            rate,
            steps,
            first_order,
            self.inner_gradient_clip,
            [p for p in self.parameters() if p.requires_grad] if self._checkpointing() else None,
        )

    def _checkpointing(self) -> bool:
        """Whether to recompute the inner steps in the backward pass, where one is to come."""
        # Where the head alone adapts, the steps hold its few activations only, and read features
        # that have a graph.
        return self.checkpoint_inner_steps and torch.is_grad_enabled() and not self.head_only

    def forward_with(self, weights: Weights, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of embedded inputs under the fast `weights`."""
        if self.head_only:
            outputs = functional_call(
                self.head, {n.removeprefix("head."): w for n, w in weights.items()}, (inputs,)
            )
        else:
            outputs = functional_call(self.network, weights, (inputs,))
        assert isinstance(outputs, Tensor)
        if self.fixed_way and outputs.shape[1] != self.task.output_size:
            raise FewshotError(
                f"the head {type(self.head).__name__} gives {outputs.shape[1]} outputs, but the"
                f" task needs {self.task.output_size}; give its last layer that many"
            )
        return outputs

    def facts(self) -> dict[str, Any]:
        """The attack that the queries of the evaluation are put under, with its arguments."""
        if self.attack is None:
            return super().facts()
        arguments = ", ".join(f"{name}={value}" for name, value in self.attack.init_args.items())
        return super().facts() | {"attack": f"{type(self.attack).__name__}({arguments})"}

    def embedded(self, inputs: Inputs) -> Inputs:
        """What the inner loop works on: features where only the head adapts, else the inputs."""
        if not self.head_only:
            return inputs
        return self.network.features(inputs)

    # ------------------------------------------------------------------ the two verbs, and the meta

    def adapt(self, support: Examples) -> Adapted:
        """The network adapted to one support set."""
        return self.adapt_for(support, self.eval_inner_steps)

    def adapt_for(self, support: Examples, steps: int) -> Adapted:
        """The network after `steps` inner steps on one support set.

        0 gives it before adaptation.
        """
        with (
            torch.inference_mode(False),
            evaluation_mode(self.network),
            EpisodeNorm(exact_vmap=False) as norm,
        ):
            support = map_tensors(torch.clone, support)
            inside = Examples(self.embedded(support.inputs), support.targets)
            *_, weights = self.inner_loop(inside, steps)
            return Adapted(weights, self._statistics(weights, support, norm))

    def outputs_by_step(self, episode: Episode, outputs: Tensor) -> dict[str, Tensor]:
        """Those before adaptation, after the first inner step and after the last."""
        last, found = self.eval_inner_steps, dict[str, Tensor]()
        with torch.no_grad():
            for step in range(min(last, 2)):
                adapted = self.adapt_for(episode.support, step)
                found[_after(step)] = self.predict(adapted, episode.query.inputs).to(outputs)
        return found | {_after(last): outputs}

    def predict(self, adapted: Adapted, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of inputs (n, ...).

        In segmentation (n, N+1, H, W) of images (n, C, H, W).
        """
        with (
            evaluation_mode(self.network),
            EpisodeNorm(exact_vmap=False) as norm,
            _replayed(norm, adapted.statistics),
        ):
            outputs = self.forward_with(adapted.weights, self.embedded(inputs))
        return at_size(outputs, inputs) if self.dense and isinstance(inputs, Tensor) else outputs

    def run(self, meta_batch: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt to and predict every episode.

        In evaluation with the whole adaptation curve among the metrics.
        """
        how = self._how(meta_batch)
        if self.attack is not None and self._first_time("attack"):
            for part in meta_batch:
                self.attack.check(part.inputs)
        if training:
            self._check_support(meta_batch)
            key = None if self.compiler is None else self.compiler.dependencies.number(self)
            return map_episodes(
                self.training_outcome, meta_batch, how, self.episodes_per_chunk, self.compiler, key
            )
        return map_episodes(self.evaluation_outcome, meta_batch, how, self.episodes_per_chunk)

    def _how(self, meta_batch: Episode) -> How:
        """Loop or vmap.

        What `auto` means is found out once for each kind of device and size of support.
        """
        if self.checkpoint_inner_steps:
            return "loop"
        if self._recurrent is not None:
            self._say_loop()
            return "loop"
        if self.episode_parallel != "auto":
            return self.episode_parallel
        # the size is in it because a resumed run meets other episodes first
        targets = meta_batch.support.targets
        kind = targets.device.type, targets.shape[1]
        if kind not in self._auto:
            with evaluation_mode(self.backbone):
                self._auto[kind] = choose(self.backbone, meta_batch)
        return self._auto[kind]

    def _say_loop(self) -> None:
        """Once: that the loop is taken because of recurrent weights.

        Loudly where vmap was asked for.
        """
        if self.episode_parallel != "loop" and self._first_time("loop"):
            say = rank_zero_warn if self.episode_parallel == "vmap" else rank_zero_info
            say(f"{self._recurrent} weights cannot be vmapped over: episodes run one by one")

    def _first_time(self, what: str) -> bool:
        first = what not in self._done
        self._done.add(what)
        return first

    def _check_support(self, meta_batch: Episode) -> None:
        """Once: refuse weights that should adapt but have no part in the support loss.

        `grad` just says 0 of them.
        """
        if (self.head_only and not self._head_is_given) or not self._first_time(
            "support"
        ):  # our linear layer is in use
            return
        support = map_tensors(lambda tensor: tensor[0], meta_batch.support)
        with torch.enable_grad(), EpisodeNorm(exact_vmap=False):
            inside = Examples(self.embedded(support.inputs), support.targets)
            start = next(iter(self.inner_loop(inside, self.inner_steps)))
            weights = {name: weight.detach().requires_grad_() for name, weight in start.items()}
            loss = self.task.loss(self.forward_with(weights, inside.inputs), inside.targets)
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        refuse_unused(
            [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]
        )

    def on_after_backward(self) -> None:
        """Once: refuse parameters that neither loop uses.

        Several ranks would wait forever for their gradients.
        """
        if self._first_time("backward"):
            refuse_unused(
                [
                    n
                    for n, p in self.network.named_parameters()
                    if p.requires_grad and p.grad is None
                ]
            )

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: the adapted network's query loss, with its meta-gradient graph."""
        support = Examples(self.embedded(episode.support.inputs), episode.support.targets)
        *_, weights = self.inner_loop(support, self.inner_steps)
        return self._outcome(
            self.forward_with(weights, self.embedded(episode.query.inputs)), episode
        )

    def evaluation_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One evaluation episode: its outcome, with loss and metrics after 0, 1, ...

        Inner steps among the metrics.
        """
        curve: dict[str, Tensor] = {}
        support = Examples(self.embedded(episode.support.inputs), episode.support.targets)
        for step, weights in enumerate(self.inner_loop(support, self.eval_inner_steps)):
            # statistics and features of a body that does not adapt are the same after every step
            body_is_new = step == 0 or not self.head_only
            if body_is_new:
                statistics = self._statistics(weights, episode.support, norm)
            with _replayed(norm, statistics):
                if body_is_new:
                    query = self.embedded(episode.query.inputs)
                outcome = self._outcome(self.forward_with(weights, query), episode)
            curve[f"loss_step{step}"] = outcome.loss
            curve.update({f"{name}_step{step}": value for name, value in outcome.metrics.items()})
        if self.attack is not None:
            curve |= self._attacked(self.attack, weights, statistics, episode, norm)
        return outcome._replace(metrics=outcome.metrics | curve)

    def _attacked(
        self,
        attack: Attack,
        weights: Weights,
        statistics: Statistics | None,
        episode: Episode,
        norm: EpisodeNorm,
    ) -> dict[str, Tensor]:
        """Loss and metrics on queries that are attacked through the adapted `weights`."""
        inputs, targets = episode.query.inputs, episode.query.targets
        assert isinstance(inputs, Tensor)  # `Attack.check` has seen to it

        def outputs(inputs: Tensor) -> Tensor:
            with _replayed(norm, statistics):
                return self.forward_with(weights, self.embedded(inputs))

        # The same random start always: results must not depend on what was evaluated before, or how
        # many at once.
        attacked = attack(lambda inputs: self.task.loss(outputs(inputs), targets), inputs, seed=0)
        outcome = self._outcome(outputs(attacked), episode)
        named = {"loss": outcome.loss, **outcome.metrics}
        return {f"{name}_adversarial": value for name, value in named.items()}

    def _outcome(self, outputs: Tensor, episode: Episode) -> Outcome:
        targets = episode.query.targets
        return Outcome(
            self.task.loss(outputs, targets), self.task.metrics(outputs, targets), outputs
        )

    def _statistics(
        self, weights: Weights, support: Examples, norm: EpisodeNorm
    ) -> Statistics | None:
        """The support's batch statistics under `weights`, if queries use them by the policy."""
        if self.batchnorm == "transductive":
            return None
        with norm.record() as statistics:
            self.forward_with(weights, self.embedded(support.inputs))
        return statistics


def _after(steps: int) -> str:
    return f"after {steps} step{'s' if steps > 1 else ''}" if steps else "before adaptation"


def _replayed(norm: EpisodeNorm, statistics: Statistics | None) -> Any:
    return nullcontext() if statistics is None else norm.replay(statistics)
