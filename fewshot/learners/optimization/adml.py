"""Adversarial meta-learning (Yin et al., arXiv:1806.03316)."""

from typing import Any

from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples
from fewshot.learners.optimization.attacks import FGSM, Attack
from fewshot.learners.optimization.maml import MAML
from fewshot.learners.outcome import Outcome


class ADML(MAML):
    """ADML: MAML that adapts to clean and to attacked examples and judges each by the other.

    Paper: arXiv:1806.03316.

    The clean support leads to theta_c, the attacked one to theta_a; the initialisation learns from
    [L(theta_a, clean query) + L(theta_c, attacked query)] / 2, through both inner loops. The paper
    takes its two outer steps in turn, here they are one. Support and query are attacked once an
    episode, through the initialisation; the attacked examples are constants of the meta-gradient.
    Any learner on tensors of floats can be trained so.

    Evaluation is that of the family: it adapts to the clean support and reports ``accuracy`` on the
    clean queries and ``accuracy_adversarial`` on queries attacked through the adapted weights. In
    training ``accuracy`` is that of theta_a on the clean queries, ``accuracy_adversarial`` that of
    theta_c on the attacked ones.

    Args:
        backbone: the network from inputs to features.
        attack: makes the attacked examples, in training and at evaluation; None means `FGSM`.
        **kwargs: arguments of `MAML`.
    """

    acts = False
    mixes_features = False  # examples are attacked as they are

    def __init__(
        self, backbone: Backbone | nn.Module, attack: Attack | None = None, **kwargs: Any
    ) -> None:
        super().__init__(backbone, attack=FGSM() if attack is None else attack, **kwargs)

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: mean of both crossed query losses, with its meta-gradient graph."""
        support, query = (self.attacked(part) for part in episode)
        clean, adversarial = self._adapted(episode.support), self._adapted(support)
        one, other = (
            self._outcome(self.forward_with(weights, self.embedded(inputs)), episode.query)
            for weights, inputs in ((adversarial, episode.query.inputs), (clean, query.inputs))
        )
        metrics = one.metrics | {
            f"{name}_adversarial": value for name, value in other.metrics.items()
        }
        return Outcome((one.loss + other.loss) / 2, metrics, one.outputs)

    def attacked(self, examples: Examples) -> Examples:
        """The examples, attacked through the initialisation."""
        assert self.attack is not None
        assert isinstance(examples.inputs, Tensor)  # the family has checked it
        weights = self.initial_weights()

        def loss(inputs: Tensor) -> Tensor:
            outputs = self.forward_with(weights, self.embedded(inputs))
            return self.task.loss(outputs, examples.targets)

        return Examples(self.attack(loss, examples.inputs), examples.targets)

    def _adapted(self, support: Examples) -> Weights:
        *_, weights = self.inner_loop(
            Examples(self.embedded(support.inputs), support.targets), self.inner_steps
        )
        return weights
