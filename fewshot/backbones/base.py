"""The backbone contract: inputs -> features, and constructor arguments that a checkpoint can hold."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from fewshot.episodes import Inputs
from fewshot.hyperparameters import RemembersArguments


class Backbone(RemembersArguments, nn.Module, ABC):
    """A network from inputs (n, ...) to features (n, out_features).

    Its constructor's arguments must be plain values (numbers, strings, lists, dicts), so that a checkpoint can hold
    them and rebuild the network by itself.
    """

    out_features: int

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of `inputs` (n, ...)."""
