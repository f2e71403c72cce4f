"""A frozen body in an inner loop of the head alone: what the head reads is made once, and kept."""

from operator import methodcaller

from torch import Tensor, nn

from fewshot.episodes.types import Episode, Examples, Inputs, count, map_tensors
from fewshot.learners.embedding import joined
from fewshot.learners.embedding_once import EmbedsOnce
from fewshot.learners.optimization.attacks import Attack
from fewshot.learners.optimization.fast_weights import FEATURES
from fewshot.learners.optimization.network import Network


class FrozenBody(EmbedsOnce):
    """Mix-in: both loops run on features of a frozen backbone, which nothing but the input makes.

    Where the backbone trains, nothing is held: it normalises by the statistics of each episode.

    Args:
        backbone: the network from inputs to features.
        **kwargs: arguments of `EmbedsOnce`.
    """

    network: Network
    head: nn.Module
    attack: Attack | None

    def hold_features(self) -> None:
        """Begin to hold features.

        Not of a backbone that trains, nor where queries are attacked, or maps are read.
        """
        frozen = self.network.unfrozen is self.head
        if frozen and self.attack is None and not self.network.dense:
            super().hold_features()

    def made_ready(self, episodes: Episode, training: bool) -> Episode:
        """B stacked episodes, their features in the place of the inputs where these are kept."""
        kept = self.features_kept
        if kept is None or (training and self.augmented()):
            return episodes
        inputs: Inputs = map_tensors(methodcaller("flatten", 0, 1), joined(episodes, 1))
        flat = kept.of(inputs)
        features = flat.view(count(episodes), -1, *flat.shape[1:])
        size = episodes.support.targets.shape[1]
        support, query = features[:, :size], features[:, size:]
        return Episode(_embedded(episodes.support, support), _embedded(episodes.query, query))


def _embedded(examples: Examples, features: Tensor) -> Examples:
    return examples._replace(inputs={FEATURES: features})
