"""PsCo: pseudo-supervised contrast for meta-learning without labels (arXiv:2303.00996)."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Positive, Share
from fewshot.backbones.base import Backbone, features_of
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Inputs, MetaBatch, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners.embedding import at_least_float32, full_precision
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means
from fewshot.learners.outcome import Outcome


def sinkhorn(similarity: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Assignments (n, Q), rows summing to 1, of similarities (n, Q): entropic transport.

    Starts at exp(similarity / epsilon). Each iteration shares every column, then every row, out
    alike; in logarithms, where a small epsilon overflows nothing.
    """
    logs = similarity / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(0, keepdim=True)
        logs = logs - logs.logsumexp(1, keepdim=True)
    return logs.softmax(1)


def pseudo_supervised(queries: Tensor, shots: Tensor, temperature: float) -> Tensor:
    """The loss (n,) of telling each query's K shots from those of all others.

    log sum_j exp(q_i . s_j / t) - mean_k q_i . s_ik / t, over all n K shots in the sum.

    Args:
        queries: of unit length, (n, D).
        shots: of unit length, (n, K, D).
        temperature: t.
    """
    every = queries @ shots.flatten(0, 1).T / temperature
    own = (queries * shots.mean(1)).sum(1) / temperature
    return every.logsumexp(1) - own


def momentum_contrast(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """The loss (n,) of telling each query's key from all of the queue (arXiv:1911.05722)."""
    positive = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.T], 1) / temperature
    return logits.logsumexp(1) - logits[:, 0]


def paired(support: Tensor, query: Tensor) -> Tensor:
    """For each query label (n,) a place among the support labels (S,) of the same class.

    The m-th query of a class is paired with its m-th support example, beginning anew behind the
    last.
    """
    places = torch.empty_like(query)
    for label in query.unique():  # type: ignore[no-untyped-call]
        mine, of = (support == label).nonzero()[:, 0], (query == label).nonzero()[:, 0]
        places[of] = mine[torch.arange(len(of), device=mine.device) % len(mine)]
    return places


class PsCo(MetricLearner):
    """PsCo: contrast with a queue whose nearest entries are the shots of tasks made on the way.

    For learning without labels: a training episode's queries are strong views of the support's
    weak ones, as `SelfLabelledDataModule` makes them; `train_way` is the batch, 256 in the paper.
    A network that follows the trained one reads the support; optimal transport assigns entries of a
    queue of earlier features to each, and the best K are its shots. The query is trained to find
    its shots, and its own other view. At test a query is of the class of the nearest prototype, by
    cosine: prototypes by the projection, queries by the predictor behind it. One process trains:
    the queue is not shared. Paper: arXiv:2303.00996.

    Args:
        backbone: the embedding network.
        queue: entries of the queue (the authors' code: 16 384).
        momentum: of the network that follows (the authors' code: 0.99).
        temperature: of the contrast with the queue (the authors' code: 0.2).
        task_shots: K, entries of the queue that are the shots of an example; 1 on Omniglot, 4 on
            mini-ImageNet.
        task_temperature: of the tasks of those shots.
        epsilon: of the optimal transport; smaller is sharper (the authors' code: 0.05).
        iterations: of the optimal transport (the authors' code: 3).
        hidden: units in the middle of the projection and of the predictor.
        projected: length of what is compared.
        **kwargs: arguments of `MetaLearner`. The paper's optimizer is SGD of rate 0.03, momentum
            0.9 and weight decay 5e-4 along a cosine.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        queue: Count = 16384,
        momentum: Share = 0.99,
        temperature: Positive = 0.2,
        task_shots: Count = 4,
        task_temperature: Positive = 1.0,
        epsilon: Positive = 0.05,
        iterations: Count = 3,
        hidden: Count = 4096,
        projected: Count = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if task_shots > queue:
            raise FewshotError(
                f"task_shots is {task_shots}, of a queue of {queue}; set task_shots <= {queue}"
            )
        self.momentum, self.temperature, self.task_shots = momentum, temperature, task_shots
        self.task_temperature, self.epsilon, self.iterations = task_temperature, epsilon, iterations
        self.projector = nn.Sequential(
            *_two_layers(self.features, hidden, projected), nn.BatchNorm1d(projected, affine=False)
        )
        self.predictor = nn.Sequential(*_two_layers(projected, hidden, projected))
        self.follower = copy.deepcopy(nn.ModuleList([self.backbone, self.projector]))
        self.follower.requires_grad_(False)
        self.queue: Tensor
        self.place: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(queue, projected), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    # ------------------------------------------------------------------ classification

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """Prototypes (N, D) of unit length of support features (S, ...)."""
        with evaluation_mode(self.projector):
            projections = F.normalize(self.projector(features), dim=-1)
        return F.normalize(class_means(projections, targets, way), dim=-1)

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Logits (n, N): cosines of predicted query features to the prototypes, by temperature."""
        with evaluation_mode(self.projector), evaluation_mode(self.predictor):
            queries = F.normalize(self.predictor(self.projector(features)), dim=-1)
        return queries @ predictor.T / self.temperature

    # ------------------------------------------------------------------ training

    def on_fit_start(self) -> None:
        """Refuse several processes, whose queues would differ."""
        super().on_fit_start()
        self.refuse_others(self.trainer.world_size)

    @staticmethod
    def refuse_others(processes: int) -> None:
        """Say what to do where several processes would train."""
        if processes > 1:
            raise FewshotError(
                "PsCo trains in one process, whose queue no other shares, but there are"
                f" {processes}; set trainer.devices: 1"
            )

    def training_outcomes(self, batch: Any) -> Iterator[Outcome]:
        """Let the follower follow, contrast, and put the keys into the queue."""
        self.follow()
        for part in MetaBatch.of(batch, type(self).__name__).parts:
            outcome, keys = self.contrast(part)
            yield outcome
            self.enqueue(keys)  # the backward pass has read the queue by now

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Contrast in training; the follower and the queue move in `training_outcomes` alone."""
        if training:
            yield self.contrast(episodes)[0]
        else:
            yield from super().run(episodes, training)

    def contrast(self, episodes: Episode) -> tuple[Outcome, Tensor]:
        """The outcome of B episodes, and the keys (n, D) of their support, for the queue."""
        (weak, labels, _), (strong, targets, _) = episodes
        count, way = len(targets), int(labels.max()) + 1
        with torch.no_grad():
            backbone, projector = self.follower
            keys = F.normalize(projector(_features(backbone, weak)), dim=-1)
        queries = F.normalize(
            self.predictor(self.projector(_features(self.backbone, strong))), dim=-1
        )
        with full_precision(queries):
            keys, queries = keys.to(self.queue.dtype), queries.to(self.queue.dtype)
            places = torch.stack([paired(one, of) for one, of in zip(labels, targets, strict=True)])
            offsets = torch.arange(count, device=places.device)[:, None] * labels.shape[1]
            mates = keys[(places + offsets).flatten()]
            losses = self.losses(queries, mates).view(count, -1).mean(1)
            prototypes = torch.func.vmap(lambda k, t: F.normalize(class_means(k, t, way), dim=-1))(
                keys.view(count, -1, keys.shape[-1]), labels
            )
            logits = queries.view(count, -1, queries.shape[-1]) @ prototypes.mT / self.temperature
        metrics = torch.func.vmap(self.task.metrics)(logits, targets)
        return Outcome(losses, metrics, logits), keys

    def losses(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Both losses (n,) of queries and their keys (n, D), of unit length."""
        with torch.no_grad():
            assigned = sinkhorn(keys @ self.queue.T, self.epsilon, self.iterations)
            shots = self.queue[assigned.topk(self.task_shots, 1).indices]
        return pseudo_supervised(queries, shots, self.task_temperature) + momentum_contrast(
            queries, keys, self.queue, self.temperature
        )

    @torch.no_grad()
    def follow(self) -> None:
        """Move the follower's weights towards the trained ones; take their buffers."""
        trained = nn.ModuleList([self.backbone, self.projector])
        for ours, theirs in zip(self.follower.parameters(), trained.parameters(), strict=True):
            ours.lerp_(theirs.to(ours.dtype), 1 - self.momentum)
        for kept, now in zip(self.follower.buffers(), trained.buffers(), strict=True):
            kept.copy_(now)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put keys (n, D) in the place of the oldest entries, but those that are not finite."""
        keys = keys[keys.isfinite().all(1)][-len(self.queue) :].to(self.queue.dtype)
        rows = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys
        self.place.copy_((self.place + len(keys)) % len(self.queue))


def _two_layers(inputs: int, hidden: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs, bias=False),
    ]


def _features(backbone: nn.Module, inputs: Inputs) -> Tensor:
    """Features (B*n, D) of stacked inputs (B, n, ...)."""
    flat = map_tensors(lambda tensor: tensor.flatten(0, 1), inputs)
    return at_least_float32(features_of(backbone, flat))
