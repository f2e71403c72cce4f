"""Clusters of examples by their features, by scikit-learn.

Shapes: n examples, D features.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fewshot.datasets.reading.downloads import cached_arrays
from fewshot.episodes.class_dataset import LazyInputs
from fewshot.episodes.types import Inputs
from fewshot.extras import require

Features: TypeAlias = NDArray[np.float32]

COMPONENTS = 64
"""Features that plain ones are brought down to."""
SIDE = 14
"""Pixels that larger images are shrunk to before, so that strokes a little apart look alike."""
FITTED = 10_000
"""Examples, at most, that components are found by."""
AT_ONCE = 4096
"""Images that are read at once, and examples that a step of k-means looks at."""
FORMAT = 1
"""Of what is kept, in the files' names: raise it with every change that changes a cluster."""
PLACE = 5
"""In the seed: behind the stages, the orders of plain examples, and fixed labels."""


def clustered(features: Features, clusters: int, seed: int, number: int) -> NDArray[np.int32]:
    """The cluster (n,) of each example in partition `number` of CACTUs (arXiv:1810.02334).

    K-means in small batches, started by k-means++. In all partitions but the first each feature is
    scaled by a number of its own, uniform in [0, 1] (the authors' code). All that is drawn is a
    function of the seed and `number`.

    Args:
        features: (n, D).
        clusters: how many, at most n.
        seed: of the partitions.
        number: of the partition, from 0.
    """
    require("sklearn", "sklearn")
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng([seed, PLACE, number])
    scale = rng.random(features.shape[1], np.float32)
    start = int(rng.integers(2**31))
    means = MiniBatchKMeans(clusters, batch_size=AT_ONCE, n_init=1, random_state=start)
    labels: NDArray[np.int32] = means.fit(features * scale if number else features).labels_
    return labels


def kept_clusters(
    place: Path, features: Callable[[], Features], clusters: int, partitions: int, seed: int
) -> list[NDArray[np.int32]]:
    """The clusters (n,) of each partition: read where files have them, else made and written.

    A file a partition, with its checksum: what a killed run has finished, the next one need not do.

    Args:
        place: what the files of these features begin with.
        features: makes them, (n, D); asked for once, where a partition is missing.
        clusters: of a partition.
        partitions: how many.
        seed: of the partitions.
    """
    held: list[Features] = []

    def labels_of(number: int) -> dict[str, NDArray[Any]]:
        if not held:
            held.append(features())
        return {"labels": clustered(held[0], clusters, seed, number)}

    found: list[Any] = []
    for number in range(partitions):
        path = place.with_name(f"{place.name}-{clusters}-seed{seed}-{number}-v{FORMAT}.npz")
        found.append(cached_arrays(path, partial(labels_of, number))["labels"])
    return found


def plain_features(inputs: Inputs | LazyInputs) -> Features:
    """Features (n, D) without a network: principal components of pixels, or of counted words.

    Args:
        inputs: images uint8 (n, C, H, W), which are shrunk to 14 pixels where they are larger; or
            texts, whose counts are weighted by how rare a word is (latent semantic analysis).
    """
    require("sklearn", "sklearn")
    from sklearn.decomposition import PCA

    if isinstance(inputs, dict):
        return _components_of_texts(inputs)
    pixels = np.concatenate(
        [
            _pixels(inputs, range(i, min(i + AT_ONCE, len(inputs))))
            for i in range(0, len(inputs), AT_ONCE)
        ]
    )
    some = np.random.default_rng(0).permutation(len(pixels))[:FITTED]
    number = min(COMPONENTS, len(some), pixels.shape[1])
    found = PCA(number, svd_solver="covariance_eigh").fit(pixels[np.sort(some)])
    features: Features = found.transform(pixels).astype(np.float32)
    return features


def _pixels(inputs: torch.Tensor | LazyInputs, rows: range) -> Features:
    """Images at these rows as vectors (n, P) in [0, 1]."""
    places = np.arange(rows.start, rows.stop)
    taken = (
        inputs.take(places) if isinstance(inputs, LazyInputs) else inputs[rows.start : rows.stop]
    )
    images = taken.float() / 255
    if max(images.shape[-2:]) > SIDE:
        images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
    pixels: Features = images.flatten(1).numpy()
    return pixels


def _components_of_texts(texts: dict[str, torch.Tensor]) -> Features:
    """Components (n, D) of the counted terms of texts."""
    from scipy.sparse import csr_array
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    tokens, lengths = texts["tokens"].numpy(), texts["lengths"].numpy()
    there = np.arange(tokens.shape[1]) < lengths[:, None]
    rows, terms = np.nonzero(there)[0], tokens[there]
    shape = len(tokens), int(tokens.max()) + 1
    counts = csr_array((np.ones(len(rows), np.float32), (rows, terms)), shape=shape)
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    number = min(COMPONENTS, *(size - 1 for size in shape))
    found = TruncatedSVD(number, random_state=0).fit_transform(weighted)
    features: Features = normalize(found).astype(np.float32)
    return features
