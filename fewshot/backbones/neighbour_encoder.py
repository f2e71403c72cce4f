"""Vectors of entities made of their neighbours in a knowledge graph."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone
from fewshot.backbones.entity_vectors import EntityVectors
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError, check_at_least
from fewshot.hyperparameters import weights_follow


class NeighbourEncoder(Backbone):
    """GMatching's neighbour encoder: tanh(W [r; e] + b, the mean of an entity's neighbours).

    Paper: arXiv:1808.09040.

    As the mean is linear, only the mean vectors of the relations and of the neighbours go through
    W. An entity without neighbours has the mean 0.

    Args:
        entities: how many there are.
        relations: how many relations of the background graph, inverses included.
        edges: how many neighbours all entities have together.
        dimensions: values of a vector, of the entities', the relations' and the output.
        neighbours: the file (``.npz``) with the neighbours.
        entity_vectors: the file (``.npz``) with vectors of entities and relations to begin with;
            None begins with random ones of unit length.
        frozen: keep the vectors as they are, the default of the authors' code; the commands it
            publishes train them (`--fine_tune`).
        places: of a list of neighbours that is filled up with padding; the authors' published
            commands have 50. Their code adds b for every place, the padding's too, and divides by
            the neighbours alone: tanh(W mean + places / neighbours * b), so that b tells of an
            entity's degree. One without neighbours, for which theirs divides by 0, counts as having
            one. None adds b once.

    Raises:
        FewshotError: the files are not of this graph, or `places` is below 1.
    """

    begins_at = ("entity_vectors",)

    def __init__(
        self,
        entities: Count,
        relations: Count,
        edges: Count,
        dimensions: Count = 100,
        neighbours: str | None = None,
        entity_vectors: str | None = None,
        frozen: bool = True,
        places: int | None = None,
    ) -> None:
        super().__init__()
        if places is not None:
            check_at_least(1, places=places)
        self.places = places
        self.out_features = dimensions
        self.entities = EntityVectors(entities, dimensions, entity_vectors, frozen)
        self.relations = EntityVectors(
            relations, dimensions, entity_vectors, frozen, kind="relations"
        )
        self.project = nn.Linear(2 * dimensions, dimensions)
        self.starts: Tensor
        self.edges: Tensor
        self.register_buffer("starts", torch.zeros(entities + 1, dtype=torch.int64))
        self.register_buffer("edges", torch.zeros(edges, 2, dtype=torch.int32))
        if weights_follow():
            return
        if neighbours is None:
            raise FewshotError(
                "NeighbourEncoder needs neighbours; choose a benchmark that has them:"
                " WikiOneDataModule"
            )
        with np.load(neighbours, allow_pickle=False) as file:
            tensors = {name: torch.from_numpy(file[name]) for name in ("starts", "edges")}
        for name, value in tensors.items():
            if value.shape != (buffer := getattr(self, name)).shape:
                raise FewshotError(
                    f"{neighbours} has {name} {tuple(value.shape)}, not {tuple(buffer.shape)};"
                    " leave entities, edges and neighbours to the benchmark"
                )
            buffer.copy_(value)

    def forward(self, inputs: Inputs) -> Tensor:
        """Vectors (..., D) of ids (...), each entity's made once.

        An id below 0 is none, and its vector is any.
        """
        if not isinstance(inputs, Tensor):
            raise FewshotError(
                "NeighbourEncoder reads ids of entities; choose a learner of rankings such as"
                " GMatching"
            )
        ids, places = torch.unique(inputs.clamp(min=0), return_inverse=True)
        first, sizes = self.starts[ids], self.starts[ids + 1] - self.starts[ids]
        offsets = sizes.cumsum(0) - sizes
        rows = torch.arange(int(sizes.sum()), device=ids.device) + (
            first - offsets
        ).repeat_interleave(sizes)
        means = [
            F.embedding_bag(edges, vectors.vectors.weight, offsets, mode="mean")
            for edges, vectors in zip(
                self.edges[rows].long().unbind(1), (self.relations, self.entities), strict=True
            )
        ]
        mean = torch.cat(means, -1)
        if self.places is None:
            projected = self.project(mean)
        else:
            share = (self.places / sizes.clamp(min=1).to(mean.dtype))[:, None]
            projected = F.linear(mean, self.project.weight) + share * self.project.bias
        made: Tensor = projected.tanh()
        return made[places]
