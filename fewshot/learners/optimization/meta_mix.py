"""MetaMix (Yao et al., arXiv:2007.13040): queries are mixed with the support, and so are labels."""

from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.mixing import Mixture, mixture_in, places_to_mix, unmixed
from fewshot.engine.runner import Runner
from fewshot.episodes.types import Episode, Inputs, MetaBatch, count
from fewshot.errors import FewshotError
from fewshot.learners.interpolation import InterpolatesTasks
from fewshot.learners.optimization.fast_weights import FastWeights
from fewshot.learners.optimization.network import give_shapes
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification, Regression

ADDRESS = 6  # behind the seed and an episode's number


class MixesQueries(InterpolatesTasks, FastWeights):
    """A learner whose adapted network may be judged on queries with support examples mixed in.

    MetaMix (arXiv:2007.13040): each query goes with a support example drawn for it. At a layer
    drawn for the episode what the network knows of both is mixed, lam of the query and 1 - lam of
    the other, and so are their losses, lam ~ Beta(2, 2). What is memorised of training tasks then
    does not answer their queries.

    Args:
        backbone: the network from inputs to features.
        metamix: in training judge the adapted network on queries that support examples are mixed
            into (MetaMix, arXiv:2007.13040); ``train/accuracy`` is theirs, by the query's label.
        **kwargs: arguments of `InterpolatesTasks`.

    Raises:
        FewshotError: the learner or its task has nothing to be mixed so.
    """

    runner: Runner
    embed_together: bool
    mixes_queries: ClassVar[bool] = False
    """Whether the class's own `training_outcome` counts the labels that are mixed in."""

    def __init__(
        self, backbone: Backbone | nn.Module, metamix: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        if metamix:
            self._check_metamix()
        self.metamix = metamix

    def _check_metamix(self) -> None:
        cls = type(self)
        owner = next(base for base in cls.__mro__ if "training_outcome" in vars(base))
        if not vars(owner).get("mixes_queries"):
            raise FewshotError(
                f"{cls.__name__} has a loss of its own, in which metamix has no part; leave metamix"
                " out, or choose MAML, ANIL, MetaSGD or ProtoMAML"
            )
        if not isinstance(self.task, Classification | Regression):
            raise FewshotError(
                "metamix mixes images or vectors of classes, or of functions, but the benchmark's"
                f" task is {self.task.kind}; leave metamix out"
            )
        if self.mlti == "features" or (self.mlti and isinstance(self.task, Regression)):
            raise FewshotError(
                "mlti mixes features, and metamix does too; leave one of them out, or set mlti:"
                " cutmix where there are images"
            )

    def layers_to_mix(self, episodes: Episode) -> int:
        """How many layers of the backbone there are of which one may be drawn."""
        if self.runner.first_time("layers to mix"):
            inputs = episodes.support.inputs
            assert isinstance(inputs, Tensor)  # who asks has seen to it
            give_shapes(self.network, inputs[0])
            run = self.network.features
            self.network.mixed_at = places_to_mix(self.backbone, run, inputs[0].clone())
        return len(self.network.mixed_at)

    def as_batch(self, batch: Any) -> Any:
        """What a loader gave, with support examples to be mixed into its queries."""
        batch = super().as_batch(batch)
        if not self.metamix:
            return batch
        rngs = iter(self.episode_generators(batch, ADDRESS))
        parts = []
        for part in batch.parts:
            self._check_inputs(part)
            layers = self.layers_to_mix(part)
            parts.append(with_support(part, [next(rngs) for _ in range(count(part))], layers))
        return batch._replace(parts=parts)

    def _check_inputs(self, episodes: Episode) -> None:
        support, query = episodes.support.inputs, episodes.query.inputs
        if (
            not isinstance(support, Tensor)
            or not isinstance(query, Tensor)
            or not support.is_floating_point()
            or support.shape[2:] != query.shape[2:]
        ):
            raise FewshotError(
                "metamix mixes images or vectors of one shape, but this benchmark's inputs are"
                " others; leave metamix out"
            )

    def blended(self, outcome: Outcome, episode: Episode) -> Outcome:
        """The outcome of an episode's queries; of mixtures with the loss of both labels."""
        mixture = mixture_in(episode.query.inputs)
        if not self.metamix or mixture is None:
            return outcome
        targets = episode.support.targets[mixture.partner]
        other, share = self.task.loss(outcome.outputs, targets), mixture.share.to(outcome.loss)
        return outcome._replace(loss=share * outcome.loss + (1 - share) * other)

    def _diverged(self, step: int, batch: Any) -> str:
        return super()._diverged(step, MetaBatch.of(batch).map(unmixed))


def with_support(episodes: Episode, rngs: list[np.random.Generator], layers: int) -> Episode:
    """Stacked episodes whose queries are to be mixed with support examples, as generators say.

    Queries are given support examples in a random order, pass after pass.
    """
    support, query = episodes
    number, seen = query.targets.shape[1], support.targets.shape[1]
    device, passes = query.targets.device, -(-number // seen)
    shares = torch.tensor([rng.beta(2, 2) for rng in rngs], dtype=torch.float64)
    places = torch.tensor([int(rng.integers(layers)) for rng in rngs])
    orders = [np.concatenate([rng.permutation(seen) for _ in range(passes)]) for rng in rngs]
    partner = torch.from_numpy(np.stack(orders)[:, :number])
    assert isinstance(query.inputs, Tensor)
    assert isinstance(support.inputs, Tensor)
    mixture = Mixture(
        query.inputs,
        support.inputs,
        partner.to(device),
        shares.to(query.inputs),
        places.to(device),
    )
    # what the network reads as any inputs: `Network.features` sees to it
    return Episode(support, query._replace(inputs=cast(Inputs, mixture)))
