"""Vectors of a knowledge graph's entities."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone
from fewshot.datasets.reading.npz import npz_member
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError
from fewshot.hyperparameters import weights_follow


class EntityVectors(Backbone):
    """A vector for each entity of a knowledge graph, by its id. Paper: Bordes et al. 2013.

    Args:
        entities: how many there are.
        dimensions: values of a vector.
        entity_vectors: the file (``.npz``) with the vectors to begin with; None begins with random
            ones of unit length.
        frozen: keep the vectors as they are, so that a learner trains its other weights alone.
        sparse: gradients of the vectors in use alone, for large graphs and optimizers that take
            them, such as Adagrad.
        kind: whose vectors of the file these are.

    Raises:
        FewshotError: the file's vectors are others.
    """

    begins_at = ("entity_vectors",)

    def __init__(
        self,
        entities: Count,
        dimensions: Count = 100,
        entity_vectors: str | None = None,
        frozen: bool = False,
        sparse: bool = False,
        kind: Literal["entities", "relations"] = "entities",
    ) -> None:
        super().__init__()
        self.out_features = dimensions
        self.vectors = nn.Embedding(entities, dimensions, sparse=sparse)
        with torch.no_grad():
            if entity_vectors is not None and not weights_follow():
                vectors = vectors_of(entity_vectors, kind)
                if vectors.shape != (entities, dimensions):
                    raise FewshotError(
                        f"{entity_vectors} has vectors {vectors.shape}, but {kind} is {entities}"
                        f" and dimensions {dimensions}; leave all three to the benchmark"
                    )
                np.copyto(self.vectors.weight.numpy(), vectors)
            else:
                self.vectors.weight.copy_(nn.functional.normalize(self.vectors.weight, dim=1))
        self.vectors.weight.requires_grad_(not frozen)

    def forward(self, inputs: Inputs) -> Tensor:
        """Vectors (..., D) of ids (...); an id below 0 is none, and its vector is any."""
        if not isinstance(inputs, Tensor):
            raise FewshotError(
                "EntityVectors reads ids of entities; choose a learner of rankings such as MetaR"
            )
        vectors: Tensor = self.vectors(inputs.clamp(min=0))
        return vectors


class MappedEntityVectors(Backbone):
    """Vectors of entities that stay in their file, for graphs whose vectors do not fit.

    Paper: Bordes et al. 2013.

    They are not trained, and only those in use are read. A checkpoint does not hold them: it names
    the file.

    Args:
        entities: how many there are.
        dimensions: values of a vector.
        entity_vectors: the file (``.npz``) with the vectors.

    Raises:
        FewshotError: there is no file, or its vectors are others.
    """

    def __init__(
        self, entities: Count, dimensions: Count = 100, entity_vectors: str | None = None
    ) -> None:
        super().__init__()
        if entity_vectors is None:
            raise FewshotError(
                "MappedEntityVectors needs a file of vectors; set data.background to pre-train"
            )
        self.vectors, self.out_features = vectors_of(entity_vectors, "entities"), dimensions
        if self.vectors.shape != (entities, dimensions):
            raise FewshotError(
                f"{entity_vectors} has vectors {self.vectors.shape}, but entities is {entities} and"
                f" dimensions {dimensions}; leave all three to the benchmark"
            )
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()), persistent=False)  # for device and precision

    def forward(self, inputs: Inputs) -> Tensor:
        """Vectors (..., D) of ids (...); an id below 0 is none, and its vector is any."""
        if not isinstance(inputs, Tensor):
            raise FewshotError(
                "MappedEntityVectors reads ids of entities; choose a learner of rankings such as"
                " MetaR"
            )
        ids, places = torch.unique(inputs.clamp(min=0), return_inverse=True)
        return torch.from_numpy(self.vectors[ids.cpu().numpy()]).to(self.like)[places]


def vectors_of(path: str, kind: str) -> NDArray[np.float32]:
    """The vectors (n, D) of `kind`, entities or relations, in a file of `WikiOneDataModule`.

    Left on the disk.

    Raises:
        FewshotError: there is no such file, or it has none of that kind.
    """
    if not Path(path).is_file():
        raise FewshotError(
            f"the file of vectors {path} is missing; let the benchmark make it anew, or name one"
        )
    return npz_member(Path(path), kind)
