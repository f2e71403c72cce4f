"""Conditional Neural Processes (Garnelo et al., arXiv:1807.01613)."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.model_based.process import ProcessLearner, gaussian, perceptron


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
        width: int = 128,
        encoder_layers: int = 4,
        decoder_layers: int = 5,
        min_deviation: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        check_sizes(
            min_deviation, width=width, encoder_layers=encoder_layers, decoder_layers=decoder_layers
        )
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


def check_sizes(min_deviation: float, **sizes: int) -> None:
    """Check the arguments of a neural process.

    Raises:
        FewshotError: naming the first that is out of range.
    """
    for name, size in sizes.items():
        if size < 1:
            raise FewshotError(f"{name} is {size}; set {name} >= 1")
    if not 0 < min_deviation < 1:
        raise FewshotError(f"min_deviation is {min_deviation}; set it between 0 and 1, such as 0.1")
