"""Reptile (Nichol, Achiam and Schulman, arXiv:1803.02999)."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights, clipped, scaled_gradient, with_gradient
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.randomness import orders, reordered
from fewshot.episodes.types import Episode, Examples, MetaBatch, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.optimization.network import check_shapes
from fewshot.learners.optimization.second_moment import BETA2, SecondMoment
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification

EPSILON = 1e-8  # of Adam


class Reptile(OptimizationLearner):
    """Reptile: moves the initialisation towards the end weights of ordinary training on a task.

    theta <- theta + epsilon * mean over the meta-batch of (theta' - theta), where theta' comes from
    `inner_steps` steps on mini-batches of the support. epsilon is the rate of the outer optimizer,
    SGD; the paper lets it decay to zero (`LinearLR`). A `meta_batch_size` of 1 is the paper's
    serial version. Other optimizers take theta - theta' for the gradient. Nothing is differentiated
    twice. Paper: arXiv:1803.02999.

    The query of a training episode is not learned from: it gives the logged loss and metrics. Give
    training more examples than the test has (`train_shot` of the benchmark; the paper: 10 to 15).

    Mini-batches go through the support in random order without replacement, again and again; the
    order is a function of the episode. At evaluation it takes the classes in turn. Adam has beta1 =
    0; its second moment goes on from task to task, as in the original code, and tasks of evaluation
    begin with that of training (`SecondMoment`).

    Args:
        backbone: the network from inputs to features.
        inner_optimizer: `sgd`, or `adam` with beta1 = 0.
        inner_lr: learning rate of the inner optimizer, on the mean loss of a mini-batch (the
            paper: 0.001).
        inner_steps: mini-batches of the inner loop in training (the paper: 5 on 5-way Omniglot, 10
            on 20-way).
        inner_batch: support examples of a mini-batch (the paper: 10 on 5-way Omniglot, 20 on
            20-way); None takes the whole support.
        eval_inner_batch: the same at validation and test; None means `inner_batch`.
        query_among_support: with ``batchnorm: inductive``, normalise each query in a batch of its
            own together with the support, as the authors' inductive evaluation does; false leaves
            its values out of the statistics. Costs a pass over the support a query.
        optimizer: makes the outer optimizer from the parameters; the rate of SGD is epsilon.
        **kwargs: arguments of `OptimizationLearner`, without `checkpoint_inner_steps`
            and `outer`.
    """

    fixed_arguments = ("checkpoint_inner_steps", "outer")

    mixes_features = False  # mini-batches are made of inputs
    knows_weights_by_name = True
    acts = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_optimizer: Literal["sgd", "adam"] = "adam",
        inner_lr: Positive = 1e-3,
        inner_steps: Count = 5,
        inner_batch: Count | None = 10,
        eval_inner_batch: Count | None = None,
        query_among_support: bool = False,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            inner_steps=inner_steps,
            optimizer=optimizer,
            checkpoint_inner_steps=False,
            outer=None,
            **kwargs,
        )
        if query_among_support and self.batchnorm != "inductive":
            raise FewshotError(
                "query_among_support says how inductive evaluation normalises; set batchnorm:"
                " inductive"
            )
        self.query_among_support = query_among_support
        self.inner_optimizer, self.inner_lr, self.inner_batch = (
            inner_optimizer,
            inner_lr,
            inner_batch,
        )
        self.eval_inner_batch = inner_batch if eval_inner_batch is None else eval_inner_batch
        if inner_optimizer == "adam":
            check_shapes(self.network, type(self).__name__)
        self.second_moment = (
            SecondMoment(self.initial_weights()) if inner_optimizer == "adam" else None
        )

    def training_outcomes(self, batch: MetaBatch) -> Iterator[Outcome]:
        """The family's.

        When all have been handed out, the second moment goes on by what their tasks end with.
        """
        total: Weights = {}
        for outcome in super().training_outcomes(batch):
            for name, squares in outcome.state.items():
                total[name] = total.get(name, 0) + squares.sum(0)
            yield outcome
        if self.second_moment is not None:
            tasks, reduce = batch.size, self.trainer.strategy.reduce
            mean = {
                name: reduce(squares / tasks, reduce_op="mean") for name, squares in total.items()
            }
            self.second_moment.go_on(mean, self.inner_steps, tasks * self.trainer.world_size)

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """The family's.

        In training on support sets in random order, pass after pass, as the mini-batches take them.
        """
        if training and self.inner_batch is not None:
            passes = math.ceil(
                self.inner_steps * self.inner_batch / episodes.support.targets.shape[1]
            )
            order = orders(episodes.support.inputs, passes)
            episodes = episodes._replace(
                support=map_tensors(lambda tensor: reordered(tensor, order), episodes.support)
            )
        return super().run(episodes, training)

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: query loss of the trained weights, with gradient theta - theta'."""
        support = Examples(self.embedded(episode.support.inputs), episode.support.targets)
        start = self.initial_weights()
        for weights, squares in self.train_on(
            mini_batches(support, self.inner_steps, self.inner_batch, as_they_come)
        ):
            trained, state = weights, squares  # no others are kept
        with torch.no_grad():
            query = Examples(self.embedded(episode.query.inputs), episode.query.targets)
            outcome = self.judged(trained, query)
        return outcome._replace(
            loss=with_gradient(
                outcome.loss, start, {name: start[name] - trained[name] for name in start}
            ),
            state=state,
        )

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """The inner optimizer on the mini-batches of evaluation."""
        order = in_turn if isinstance(self.task, Classification) else as_they_come
        for weights, _ in self.train_on(mini_batches(support, steps, self.eval_inner_batch, order)):
            yield weights

    def train_on(self, batches: Iterable[Examples]) -> Iterator[tuple[Weights, Weights]]:
        """Yield the weights and Adam's second moment at the start and after each step.

        One step a mini-batch, without a graph.
        """
        weights = {name: weight.detach() for name, weight in self.initial_weights().items()}
        squares = {} if self.second_moment is None else self.second_moment.squares
        yield weights, squares
        for step, batch in enumerate(batches, start=1):
            direction = self._gradient(weights, self.examples_for(weights, batch, step - 1))
            if self.second_moment is not None:
                squares = {
                    n: BETA2 * squares[n] + (1 - BETA2) * g.square() for n, g in direction.items()
                }
                share = self.second_moment.share(step)
                direction = {
                    n: g / ((squares[n] / share).sqrt() + EPSILON) for n, g in direction.items()
                }
            weights = {
                name: weight - self.inner_lr * direction[name] for name, weight in weights.items()
            }
            yield weights, squares

    def _gradient(self, weights: Weights, batch: Examples) -> Weights:
        def loss(fast_weights: Weights) -> Tensor:
            return self.task.support_loss(
                self.forward_with(fast_weights, batch.inputs), batch.targets
            )

        with torch.no_grad():
            gradients = scaled_gradient(loss, weights)
            return (
                gradients
                if self.inner_gradient_clip is None
                else clipped(gradients, self.inner_gradient_clip)
            )


def mini_batches(
    support: Examples, steps: int, size: int | None, order: Callable[[Tensor, int], Tensor]
) -> Iterator[Examples]:
    """Yield `steps` mini-batches of `size` examples: pass after pass over the support, by `order`.

    Args:
        support: the examples.
        steps: how many.
        size: examples of each; None yields the whole support.
        order: from targets (S,) and a number of passes to places (passes, S).
    """
    if size is None:
        yield from [support] * steps
        return
    passes = math.ceil(steps * size / len(support.targets))
    for places in order(support.targets, passes).flatten()[: steps * size].view(steps, size):
        yield map_tensors(lambda tensor: tensor[places], support)  # noqa: B023  # used at once


def as_they_come(targets: Tensor, passes: int) -> Tensor:
    """Places (passes, S), each pass in the order of the examples."""
    return torch.arange(len(targets), device=targets.device).expand(passes, -1)


def in_turn(targets: Tensor, passes: int) -> Tensor:
    """Places (passes, S): a pass takes one example of every class, then the next of each."""
    earlier = (targets[:, None] == targets).tril(-1).sum(1)  # of the same class
    return earlier.argsort(stable=True).expand(passes, -1)
