"""The model-based family: a network reads the support, and answers queries by what it has kept."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.learners.embedding import EmbeddingLearner
from fewshot.learners.outcome import Outcome


class ModelBasedLearner(EmbeddingLearner):
    """Model-based few-shot learning: one forward pass reads the support, another answers queries.

    The weights are the same for all episodes, so that a meta-batch is embedded in one pass and read
    at once. A subclass says what is kept of a support set (`read`) and how that answers (`answer`),
    with the axis B.

    Batch normalisation in the backbone trains on the statistics of the whole meta-batch; at
    evaluation `inductive` uses the running averages of training, `transductive` those of each
    episode's support and query together.

    Args:
        backbone: the network from inputs to features.
        frozen: leave the backbone's weights and running averages as they are, for one that comes
            trained (`weights`).
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(self, backbone: Backbone | nn.Module, frozen: bool = False, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.frozen = frozen
        if frozen:
            self.backbone.requires_grad_(False)

    @abstractmethod
    def read(self, support: Examples) -> Any:
        """What is kept of B support sets: features (B, S, D) with their targets (B, S, ...)."""

    @abstractmethod
    def answer(self, kept: Any, queries: Tensor) -> Tensor:
        """Outputs (B, n, output_size) for query features (B, n, D), each query by itself."""

    def ordered(self, support: Examples, inputs: Inputs) -> Examples:
        """Embedded support sets in the order in which they are read.

        `inputs` are what was embedded.
        """
        return support

    def adapt(self, support: Examples) -> Any:
        """What is kept of one support set; batch normalisation by the running averages."""
        with evaluation_mode(self):
            embedded = Examples(self.embed(support.inputs)[None], support.targets[None])
            return self.read(self.ordered(embedded, _with_axis(support.inputs)))

    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of inputs (n, ...)."""
        with evaluation_mode(self):
            return self.answer(adapted, self.embed(inputs)[None])[0]

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Embed the meta-batch in one pass, read all supports and answer all queries at once."""
        with evaluation_mode(self.backbone) if self.frozen else nullcontext():
            support, query = self.embed_meta_batch(episodes, training)
        yield self.outcome(
            Episode(
                Examples(support, episodes.support.targets),
                Examples(query, episodes.query.targets),
            ),
            episodes,
            training,
        )

    def outcome(self, embedded: Episode, episodes: Episode, training: bool) -> Outcome:
        """The outcome of a meta-batch whose inputs have become features."""
        assert isinstance(embedded.query.inputs, Tensor)
        kept = self.read(self.ordered(embedded.support, episodes.support.inputs))
        return self.judged(self.answer(kept, embedded.query.inputs), embedded.query.targets)


def _with_axis(inputs: Inputs) -> Inputs:
    """Inputs of one episode as those of a meta-batch."""
    return (
        {name: value[None] for name, value in inputs.items()}
        if isinstance(inputs, dict)
        else inputs[None]
    )
