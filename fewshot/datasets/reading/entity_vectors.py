"""Vectors of entities, learned from the triples of a background graph: TransE and DistMult.

Shapes: t triples, E entities, R relations, D values of a vector.
"""

import warnings
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.errors import FewshotError, check_at_least

Model: TypeAlias = Literal["TransE", "DistMult"]
MARGIN, RATE, BATCH = 1.0, 0.1, 1024


def score(model: Model, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
    """How well vector triples (..., D) fit, (...): TransE's -|h + r - t| or DistMult's <h, r, t>.

    Sources: Bordes et al. 2013; arXiv:1412.6575.

    >>> score("TransE", torch.tensor([1.0, 0.0]), torch.tensor([2.0, 4.0]), torch.zeros(2))
    tensor(-5.)
    """
    if model == "TransE":
        distance: Tensor = torch.linalg.vector_norm(head + relation - tail, dim=-1)
        return -distance
    return (head * relation * tail).sum(-1)


def train_vectors(
    triples: NDArray[np.int32],
    entities: int,
    relations: int,
    model: Model,
    dimensions: int,
    epochs: int,
    seed: int,
) -> dict[str, NDArray[np.float32]]:
    """Vectors of `entities` (E, D), of unit length, and of `relations` (R, D).

    A function of the arguments alone.

    Each triple stands against the one with its head or its tail, by chance, exchanged for any
    entity; margin loss, by Adagrad. A relation or an entity without a triple keeps the random
    vector that it began with.

    Raises:
        FewshotError: there is nothing to learn from, or an argument out of range.
    """
    check_at_least(1, dimensions=dimensions, epochs=epochs)
    if not len(triples):
        raise FewshotError(
            "path_graph has no triples to train embeddings on; give embeddings: none"
        )
    rng = torch.Generator().manual_seed(seed)
    from_pretrained: Any = nn.Embedding.from_pretrained  # which has no types
    vectors, bound = [], 6 / dimensions**0.5
    for number in (entities, relations):
        # not drawn by nn.Embedding, whose draws would move the generator of all that is made after
        drawn = torch.empty(number, dimensions).uniform_(-bound, bound, generator=rng)
        vectors.append(from_pretrained(nn.functional.normalize(drawn), freeze=False, sparse=True))
    entity, relation = vectors
    optimizer = torch.optim.Adagrad([entity.weight, relation.weight], lr=RATE)
    data = torch.from_numpy(triples.astype(np.int64))
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(data), generator=rng), BATCH):
            true = data[rows]
            false, places = true.clone(), torch.arange(len(rows))
            at = 2 * torch.randint(2, (len(rows),), generator=rng)
            false[places, at] = torch.randint(entities, (len(rows),), generator=rng)
            right, wrong = (
                score(model, entity(x[:, 0]), relation(x[:, 1]), entity(x[:, 2]))
                for x in (true, false)
            )
            optimizer.zero_grad()
            with warnings.catch_warnings():
                # of torch's own use
                warnings.filterwarnings("ignore", message="Sparse invariant checks")
                (MARGIN - right + wrong).relu().mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():  # only those that moved
                moved = torch.unique(torch.cat([true[:, [0, 2]], false[:, [0, 2]]]))
                entity.weight[moved] = nn.functional.normalize(entity.weight[moved], dim=1)
    return {
        "entities": entity.weight.detach().numpy(),
        "relations": relation.weight.detach().numpy(),
    }


def with_inverses(
    relations: NDArray[np.float32], inverses: NDArray[np.int32], model: Model
) -> NDArray[np.float32]:
    """Vectors of relations (R, D); an inverse (name in ``_inv``) has -r, with DistMult r.

    Args:
        relations: the vectors (R, D); those of relations without triples are random.
        inverses: the inverse of each (R,), -1 where there is none; the later of two is made of the
            earlier.
        model: whose vectors these are.
    """
    made = relations.copy()
    numbers = np.arange(len(inverses))
    pairs = numbers[inverses > numbers]
    made[inverses[pairs]] = relations[pairs] * (-1 if model == "TransE" else 1)
    return made


def read_vectors(path: Path, entities: int) -> NDArray[np.float32]:
    """The vectors (E, D) of a file ``entity2vec.<model>``: a line per id, values split by blanks.

    Raises:
        FewshotError: it cannot be read, or has not a vector of finite values for each entity.
    """
    try:
        vectors = np.loadtxt(path, np.float32, ndmin=2)
    except (OSError, ValueError) as error:
        raise FewshotError(
            f"{path}: not lines of as many numbers each ({error}); fetch the file again"
        ) from error
    if len(vectors) != entities:
        raise FewshotError(
            f"{path} has {len(vectors)} vectors, but ent2ids {entities} entities; give one for each"
        )
    if not (finite := np.isfinite(vectors).all(1)).all():
        raise FewshotError(
            f"{path}, line {int(finite.argmin()) + 1}: not finite; fetch the file again"
        )
    return vectors
