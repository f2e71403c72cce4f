"""One-shot link prediction: Wiki-One, NELL-One and what else has their files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from fewshot.arguments import Count
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datasets.few_shot_graph import FewShotGraph, read_graph
from fewshot.datasets.reading.downloads import Arrays, data_root, file_hash
from fewshot.datasets.reading.entity_vectors import read_vectors, train_vectors, with_inverses
from fewshot.datasets.reading.neighbours import neighbours
from fewshot.datasets.reading.npz import mapped_arrays
from fewshot.datasets.relation_tasks import EvaluationEpisodes, RelationTasks, background_relations
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.streams import Stage
from fewshot.errors import FewshotError

FORMAT = 1
"""Goes into the caches' names: raise it with every change of how vectors are trained or neighbours
found."""


class WikiOneDataModule(EpisodicDataModule):
    """Wiki-One: rank the tails of a relation that few triples are known of; also NELL-One.

    Paper: arXiv:1808.09040.

    `root` holds ``path_graph``, ``{train,dev,test}_tasks.json``, ``rel2candidates.json``,
    ``e1rel_e2.json``, ``ent2ids`` and ``relation2ids``. Validation and test have an episode for
    each relation: its first `shot` triples are the support, all others queries, and results are
    means over queries. Facts for learners and backbones: `entities`, `dimensions`,
    `entity_vectors`, `tail_counts`, `relations`, `neighbours`, `edges`.

    Args:
        root: folder with the data; None means `wiki_one` below `$FEWSHOT_DATA`, or else below the
            user's cache folder.
        background: how the background graph is used. `pre-train`: vectors of entities are trained
            on it first. `in-train`: its relations are training tasks besides the others, and
            vectors begin at random.
        embeddings: what pre-trains vectors. They are read from ``entity2vec.TransE`` (`DistMult`)
            in `root` where that file is; else trained, which takes minutes, and cached in the data
            root with a checksum.
        dimensions: values of an entity's vector; those of a file are the file's.
        embedding_epochs: passes over the background graph to train vectors.
        max_neighbours: neighbours that are kept of an entity, for learners which look at them.
        shot: support triples.
        queries: query triples of a training episode, each against one wrong tail.
        meta_batch_size: training episodes a step, over all ranks.
        train_episodes: training episodes an epoch, over all ranks.
        eval_batch_size: relations in memory at once.
        val_episodes: relations to validate on, the first of the file; None: all.
        test_episodes: relations to test on, the first of the file; None: all, which published
            results are on.
        **kwargs: arguments of `EpisodicDataModule`.
    """

    benchmark: ClassVar[str] = "Wiki-One"
    facts: ClassVar[tuple[str, ...]] = (
        "entities",
        "dimensions",
        "entity_vectors",
        "tail_counts",
        "relations",
        "neighbours",
        "edges",
    )
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {"class_path": "fewshot.EntityVectors"}

    def __init__(
        self,
        root: str | None = None,
        background: Literal["pre-train", "in-train"] = "pre-train",
        embeddings: Literal["TransE", "DistMult"] = "TransE",
        dimensions: Count = 100,
        embedding_epochs: Count = 50,
        max_neighbours: Count = 50,
        shot: Count = 1,
        queries: Count = 3,
        meta_batch_size: Count = 64,
        train_episodes: Count = 64000,
        eval_batch_size: Count = 1,
        val_episodes: Count | None = None,
        test_episodes: Count | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            shot=shot,
            queries=queries,
            meta_batch_size=meta_batch_size,
            train_episodes=train_episodes,
            eval_batch_size=eval_batch_size,
            val_episodes=1 if val_episodes is None else val_episodes,
            test_episodes=1 if test_episodes is None else test_episodes,
            **kwargs,
        )
        self.root = data_root(None) / "wiki_one" if root is None else data_root(root)
        self.background, self.embeddings = background, embeddings
        self.asked_dimensions, self.embedding_epochs = dimensions, embedding_epochs
        self.max_neighbours = max_neighbours
        self.asked_episodes = {"val": val_episodes, "test": test_episodes}
        self._graph: FewShotGraph | None = None
        self._found: tuple[str, Arrays] | None = None
        self._neighbourhoods: tuple[str, Arrays] | None = None

    @property
    def task(self) -> dict[str, Any]:
        """Ranking."""
        return {"kind": "ranking"}

    @property
    def graph(self) -> FewShotGraph:
        """The graph and its relations, read once."""
        if self._graph is None:
            graph = read_graph(self.root)
            for stage, episodes in self.asked_episodes.items():
                if episodes is not None and episodes > len(graph.tasks[stage]):
                    raise FewshotError(
                        f"{stage}_episodes is {episodes}, but {self.root} has"
                        f" {len(graph.tasks[stage])} relations; an episode is a relation, lower it"
                        " or leave it out for all"
                    )
                self.episodes[stage] = episodes or len(graph.tasks[stage])
            self._graph = graph
        return self._graph

    @property
    def entities(self) -> int:
        """How many entities there are."""
        return self.graph.entities

    @property
    def relations(self) -> int:
        """How many relations the background graph has, inverses included."""
        return self.graph.relations

    @property
    def neighbours(self) -> str:
        """The file with each entity's neighbours in the background graph."""
        return self._neighbours()[0]

    @property
    def edges(self) -> int:
        """How many neighbours all entities have together."""
        return len(self._neighbours()[1]["edges"])

    @property
    def dimensions(self) -> int:
        """Values of an entity's vector."""
        return (
            self.asked_dimensions
            if self.background == "in-train"
            else self._vectors()[1]["entities"].shape[1]
        )

    @property
    def entity_vectors(self) -> str | None:
        """The file of pre-trained vectors; None where they begin at random."""
        return None if self.background == "in-train" else self._vectors()[0]

    @property
    def tail_counts(self) -> list[int]:
        """How often each entity is a tail in the background graph."""
        counts: list[int] = np.bincount(
            self.graph.background[:, 2], minlength=self.entities
        ).tolist()
        return counts

    def _vectors(self) -> tuple[str, Arrays]:
        """The cache file with the vectors, and what is in it.

        Trained or read where it is not there.
        """
        if self._found is None:
            entity_file, relation_file = (
                self.root / f"{of}2vec.{self.embeddings}" for of in ("entity", "relation")
            )
            graph, is_given = self.graph, entity_file.is_file()
            size = (
                ""
                if is_given
                else f"_{graph.entities}x{self.asked_dimensions}_{self.embedding_epochs}"
            )
            files = [file for file in (entity_file, relation_file) if is_given and file.is_file()]

            def build() -> Arrays:
                if is_given:
                    sizes = {"entities": graph.entities, "relations": graph.relations}
                    return {
                        part: read_vectors(file, sizes[part])
                        for part, file in zip(sizes, files, strict=False)
                    }
                arguments = self.embeddings, self.asked_dimensions, self.embedding_epochs
                trained = train_vectors(
                    graph.background, graph.entities, graph.relations, *arguments, seed=0
                )
                return {
                    **trained,
                    "relations": with_inverses(
                        trained["relations"], graph.inverses, self.embeddings
                    ),
                }

            name = f"entity_vectors_{self.embeddings}{size}"
            # which numbers entities have, how many there are, and which relations are inverses
            lists = [self.root / "ent2ids", self.root / "relation2ids"]
            self._found = self._cached(
                name, [*(files or [self.root / "path_graph"]), *lists], build
            )
        return self._found

    def _neighbours(self) -> tuple[str, Arrays]:
        """The cache file with the neighbours, and what is in it."""
        if self._neighbourhoods is None:
            graph = self.graph
            if lonely := np.setdiff1d(
                graph.background[:, 1], np.flatnonzero(graph.inverses >= 0)
            ).tolist():
                raise FewshotError(
                    f"{self.root / 'relation2ids'}: the relation of id {lonely[0]} has no inverse,"
                    " of its name and _inv; neighbours need one, add it"
                )
            self._neighbourhoods = self._cached(
                f"neighbours_{self.max_neighbours}",
                [self.root / "path_graph", self.root / "ent2ids", self.root / "relation2ids"],
                lambda: neighbours(
                    graph.background, graph.inverses, graph.entities, self.max_neighbours
                ),
            )
        return self._neighbourhoods

    def _cached(
        self, name: str, sources: list[Path], build: Callable[[], Arrays]
    ) -> tuple[str, Arrays]:
        """The cache file of what is built from `sources`, and what is in it."""
        digest = "_".join(file_hash(source, "sha256")[:16] for source in sources)
        path = data_root(None) / f"{name}_v{FORMAT}_{digest}.npz"
        return str(path), mapped_arrays(path, build)

    def prepare(self) -> None:
        """Read and check the graph; train the vectors."""
        if self.background == "pre-train":
            self._vectors()
        for stage in ("val", "test"):
            self.stream(stage)

    def setup(self, stage: str) -> None:
        """Read the graph, so that the number of episodes is known."""
        self.graph.tasks  # noqa: B018

    def tasks(self, stage: Stage) -> TaskDistribution:
        """The distribution of training episodes; validation and test have a list."""
        graph, least = self.graph, self.train_shot + self.train_queries
        if self.background == "in-train":
            graph = background_relations(graph, least)
        return RelationTasks(graph, graph.tasks[stage], self.train_shot, self.train_queries)

    def stream(self, stage: Stage) -> Any:
        """Training episodes without end; of validation and test an episode for each relation."""
        if stage == "train":
            return super().stream(stage)
        return EvaluationEpisodes(self.graph, self.graph.tasks[stage], self.shot, self.seed)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result.

        How the background graph was used among them.
        """
        mode = {"pre-train": "BG:Pre-Train", "in-train": "BG:In-Train"}[self.background]
        facts = {"split": self.root.name, "background": mode, "queries": "all"}
        if self.background == "pre-train":
            facts["embeddings"] = self.embeddings
        return {**super().protocol(), **facts}
