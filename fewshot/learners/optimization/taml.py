"""Task-agnostic meta-learning (Jamal and Qi, arXiv:1805.07722), by entropy."""

from typing import Any

from torch import Tensor, nn

from fewshot.arguments import NonNegative
from fewshot.backbones.base import Backbone
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples
from fewshot.learners.optimization.maml import MAML
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification


class TAML(MAML):
    """TAML: MAML whose initialisation is to prefer no label, and whose adapted networks are sure.

    The loss also has `entropy` times the fall of the queries' mean entropy by adaptation, negated:
    H(after) - H(before). An initialisation that answers training tasks by itself pays for it.
    Classification. Paper: arXiv:1805.07722.

    Args:
        backbone: the network from inputs to features.
        entropy: the weight of the entropies.
        **kwargs: arguments of `MAML`.
    """

    takes = Classification
    task: Classification
    takes_noise = True

    def __init__(
        self, backbone: Backbone | nn.Module, entropy: NonNegative = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.entropy = entropy

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: the adapted network's query loss, and the fall of the entropy."""
        support, query = self.embedded_episode(episode)
        inside = Examples(support, episode.support.targets)
        first, *_, weights = self.inner_loop(inside, self.inner_steps)
        outcome = self._outcome(self.forward_with(weights, query), episode.query)
        fall = entropy(self.forward_with(first, query)) - entropy(outcome.outputs)
        return outcome._replace(loss=outcome.loss - self.entropy * fall)


def entropy(logits: Tensor) -> Tensor:
    """The mean entropy, in nats, of the labels' distributions that logits (n, N) are."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).mean()
