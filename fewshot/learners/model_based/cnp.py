"""Conditional Neural Processes (Garnelo et al., arXiv:1807.01613)."""

from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Range
from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Examples
from fewshot.learners.model_based.process import ProcessLearner, gaussian, perceptron

Deviation: TypeAlias = Annotated[float, Range(0, 1, above=True, below=True)]


class CNP(ProcessLearner):
    """CNP: the mean of what an encoder makes of the support points tells a decoder the rest.

    Paper: arXiv:1807.01613.

    Trained by the log-likelihood of the query points alone, as it is judged.

    Args:
        backbone: what becomes of the inputs first; `Pixels` leaves them as they are.
        width: units of each hidden layer, and of the representation (the paper: 128).
        encoder_layers: layers of the encoder (the paper: 3 hidden ones).
        decoder_layers: layers of the decoder (the paper: 5 with the last).
        min_deviation: smallest standard deviation that can be predicted. 0.1 is the paper's, and
            right where the observations have noise of 0.1; noise-free functions seen at many points
            need a smaller one, or the band covers too much.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        width: Count = 128,
        encoder_layers: Count = 4,
        decoder_layers: Count = 5,
        min_deviation: Deviation = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.min_deviation = min_deviation
        self.encoder = perceptron([self.features + self.task.targets, *[width] * encoder_layers])
        self.decoder = perceptron(
            [width + self.features, *[width] * (decoder_layers - 1), self.task.output_size]
        )

    def read(self, support: Examples) -> Tensor:
        """The representation r (B, width): the mean over the support points."""
        return pairs(self.encoder, support).mean(-2)

    def answer(self, kept: Tensor, queries: Tensor) -> Tensor:
        """Means and standard deviations at the queries."""
        shared = kept[:, None].expand(-1, queries.shape[1], -1)
        return gaussian(self.decoder(torch.cat([shared, queries], -1)), self.min_deviation)


def pairs(encoder: nn.Module, points: Examples) -> Tensor:
    """`encoder` of each point (x; y), of shape (B, S, D + targets)."""
    assert isinstance(points.inputs, Tensor)
    encoded = encoder(torch.cat([points.inputs, points.targets], -1))
    assert isinstance(encoded, Tensor)
    return encoded
