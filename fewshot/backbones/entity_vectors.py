"""Vectors of a knowledge graph's entities."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.episodes import Inputs
from fewshot.errors import FewshotError, check_at_least
from fewshot.hyperparameters import weights_follow


class EntityVectors(Backbone):
    """A vector for each entity of a knowledge graph, by its id. Paper: Bordes et al. 2013.

    Args:
        entities: how many there are.
        dimensions: values of a vector.
        entity_vectors: the file (``.npz``) with the vectors to begin with; None begins with random ones of unit length.
        frozen: keep the vectors as they are, so that a learner trains its other weights alone.
        kind: whose vectors of the file these are.

    Raises:
        FewshotError: the file's vectors are others.
    """

    def __init__(
        self,
        entities: int,
        dimensions: int = 100,
        entity_vectors: str | None = None,
        frozen: bool = False,
        kind: Literal["entities", "relations"] = "entities",
    ) -> None:
        super().__init__()
        check_at_least(1, entities=entities, dimensions=dimensions)
        self.out_features = dimensions
        self.vectors = nn.Embedding(entities, dimensions)
        with torch.no_grad():
            if entity_vectors is not None and not weights_follow():
                with np.load(entity_vectors, allow_pickle=False) as file:
                    if kind not in file:
                        raise FewshotError(f"{entity_vectors} has no vectors of {kind}; give relation2vec's file too")
                    found = torch.from_numpy(file[kind])
                if found.shape != self.vectors.weight.shape:
                    raise FewshotError(
                        f"{entity_vectors} has vectors {tuple(found.shape)}, but {kind} is {entities} and dimensions"
                        f" {dimensions}; leave all three to the benchmark"
                    )
                self.vectors.weight.copy_(found)
            else:
                self.vectors.weight.copy_(nn.functional.normalize(self.vectors.weight, dim=1))
        self.vectors.weight.requires_grad_(not frozen)

    def forward(self, inputs: Inputs) -> Tensor:
        """Vectors (..., D) of ids (...); an id below 0 is none, and its vector is any."""
        if not isinstance(inputs, Tensor):
            raise FewshotError("EntityVectors reads ids of entities; choose a learner of rankings such as MetaR")
        vectors: Tensor = self.vectors(inputs.clamp(min=0))
        return vectors
