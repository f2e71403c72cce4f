"""CACTUs: clusters of unlabelled examples take the place of classes (arXiv:1810.02334)."""

import hashlib
import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.datamodules.self_labelled import usual_change
from fewshot.datamodules.text import TextDataModule
from fewshot.datamodules.unlabelled import UnlabelledDataModule
from fewshot.datasets.clustering import Features, kept_clusters, plain_features
from fewshot.datasets.reading.downloads import data_root
from fewshot.engine.feature_files import identity
from fewshot.engine.fingerprints import fingerprints
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import gather
from fewshot.episodes.partitions import Partition, PartitionTasks
from fewshot.episodes.types import ExampleBatch, Examples, Inputs
from fewshot.episodes.unlabelled import SelfLabelledTasks, size_of
from fewshot.errors import FewshotError
from fewshot.lazy import offered

TOGETHER = 256
"""Examples that are embedded at once."""


class CACTUsDataModule(UnlabelledDataModule):
    """CACTUs: without labels: clusters of the examples' features are the classes of training.

    K-means parts the examples several times, each time with other scales of the features; a
    training episode is of clusters of one partition. Every learner works on it. Learners without
    episodes tell the clusters of the first partition apart. Needs ``pip install
    'fewshot-lightning[sklearn]'``. Clusters are made once and kept in ``clusters/`` in the cache
    folder, by the examples, the encoder's weights and the seed. Paper: arXiv:1810.02334.

    Args:
        encoder: what gives the features: the name of a network with published weights
            (``efficientnet_lite0``; `fewshot list backbones`), a checkpoint of a run of yours on
            inputs of the same kind, or a network. None: the principal components of pixels, or of
            counted words.
        clusters: of a partition, more than there are classes in the data, for the clusters to be
            pure; those that have fewer than `train_shot` + `train_queries` examples are not used.
        partitions: how many.
        **kwargs: arguments of `UnlabelledDataModule`.
    """

    benchmark: ClassVar[str] = "CACTUs"
    reads_pieces = True

    def __init__(
        self,
        encoder: str | nn.Module | None = None,
        clusters: Count = 500,
        partitions: Count = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder, self.clusters, self.partitions = encoder, clusters, partitions
        if clusters < self.train_way:
            raise FewshotError(
                f"clusters is {clusters}, too few for train_way {self.train_way}; set clusters >="
                f" {self.train_way}, some times as many"
            )

    # ------------------------------------------------------------------ clusters

    @cached_property
    def labels(self) -> list[np.ndarray]:
        """The cluster (n,) of each training example in each partition; made once, then read.

        Raises:
            FewshotError: there are fewer examples than clusters, or the encoder does not fit them.
        """
        inputs = self.pool.inputs
        if (number := size_of(inputs)) < self.clusters:
            raise FewshotError(
                f"there are {number} examples without labels, too few for {self.clusters} clusters;"
                f" set clusters well below {number} or add examples"
            )
        network = self._network()
        key = hashlib.sha256(b"plain" if network is None else identity(network).encode())
        for batch in self._stored() if network is None else self._ready():
            key.update(b"".join(fingerprints(batch)))
        place = data_root(None) / "clusters" / key.hexdigest()[:16]

        def features() -> Features:
            told = (
                f"{self.partitions} partitions of {number} examples into {self.clusters} clusters"
            )
            rank_zero_info(f"{told} by {self.encoder_name}: once, then kept in {place}*")
            return plain_features(inputs) if network is None else self._embedded(network)

        return kept_clusters(place, features, self.clusters, self.partitions, self.seed)

    @cached_property
    def groups(self) -> list[Partition]:
        """The clusters of each partition that are large enough for training episodes.

        Raises:
            FewshotError: they are fewer than an episode has classes.
        """
        least = self.train_shot + self.train_queries
        found = [Partition.of(labels, least) for labels in self.labels]
        if (fewest := min(len(of.counts) for of in found)) < self.train_way:
            raise FewshotError(
                f"only {fewest} of {self.clusters} clusters have the {least} examples of train_shot"
                f" + train_queries, too few for train_way {self.train_way}; lower clusters,"
                " train_queries or train_way, or add examples"
            )
        return found

    @property
    def encoder_name(self) -> str:
        """What the features come from, for messages and results."""
        if self.encoder is None:
            counted = isinstance(self.source, TextDataModule)
            return "components of counted words" if counted else "components of pixels"
        return self.encoder if isinstance(self.encoder, str) else type(self.encoder).__name__

    def _network(self) -> nn.Module | None:
        if not isinstance(self.encoder, str):
            return self.encoder
        # by its public name, as of what a checkpoint describes: it stands above benchmarks
        network: nn.Module = offered("fewshot.trained_backbone")(self.encoder, self.source)
        return network

    def _stored(self) -> Iterator[Inputs]:
        """The training examples in their order, as they are stored."""
        number = size_of(self.pool.inputs)
        for start in range(0, number, TOGETHER):
            rows = torch.arange(start, min(start + TOGETHER, number))
            yield gather(self.pool.inputs, rows)

    def _ready(self) -> Iterator[Inputs]:
        """The same as a network reads them, on the run's device."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        for stored in self._stored():
            labels = torch.zeros(size_of(stored), dtype=torch.int64)
            batch = self.on_before_batch_transfer(ExampleBatch(Examples(stored, labels), labels), 0)
            batch = self.transfer_batch_to_device(batch, device, 0)
            ready = self.on_after_batch_transfer(batch, 0).examples.inputs
            yield ready.float() if isinstance(ready, Tensor) else ready

    def _embedded(self, network: nn.Module) -> Features:
        """Features (n, D) of the training examples by a network."""
        features = []
        with evaluation_mode(network), torch.no_grad():
            for inputs in self._ready():
                some = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
                found = network.to(some.device)(inputs)
                features.append(found.flatten(1).float().cpu())
        return torch.cat(features).numpy()

    # ------------------------------------------------------------------ tasks

    def training_tasks(self) -> PartitionTasks:
        """Tasks over the clusters."""
        sizes = self.train_way, self.train_shot, self.train_queries
        return PartitionTasks(self.pool.inputs, self.groups, *sizes)

    def held_out_tasks(self, examples: ClassDataset) -> SelfLabelledTasks:
        """UMTRA's tasks of held out examples: how well examples are told apart by their views."""
        sizes = self.train_way, self.train_shot, self.train_queries
        return SelfLabelledTasks(examples, *sizes, usual_change(self.source))

    def examples(self) -> ClassDataset:
        """The clusters of the first partition, all but the empty ones."""
        partition = Partition.of(self.labels[0], 1)
        inputs = self.pool.select(partition.rows.tolist()).inputs
        names = tuple(f"cluster {number}" for number in range(len(partition.counts)))
        return ClassDataset(inputs, partition.counts, names)

    # ------------------------------------------------------------------ what is said and kept

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, what the clusters are made of among them."""
        made = {"encoder": self.encoder_name, "clusters": self.clusters}
        return {**super().protocol(), **made, "partitions": self.partitions}

    def settings(self) -> dict[str, Any]:
        """The arguments, and once they are read which clusters there are."""
        if "labels" not in vars(self):
            return super().settings()
        content = zlib.crc32(np.concatenate(self.labels).tobytes())
        return {**super().settings(), "found_clusters": f"{content:08x}"}

    # ------------------------------------------------------------------ a run

    def prepare_data(self) -> None:
        """Read, cluster where training needs it, and cache, once a machine."""
        super().prepare_data()
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            _ = self.groups

    def setup(self, stage: str) -> None:
        """Read on every rank."""
        super().setup(stage)
        if stage == "fit":
            _ = self.groups
