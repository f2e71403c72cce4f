"""What the class benchmarks share: episodes of some classes, plain batches of training classes."""

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from lightning.pytorch.trainer.states import TrainerFn

from fewshot.arguments import Count, Positive, Way
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datasets.episodes_file import EpisodesFile, ItemKind, read_episodes
from fewshot.datasets.preprocessing import make_preprocessing
from fewshot.datasets.reading.downloads import data_root
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks, TaskDistribution, VaryingTasks
from fewshot.episodes.fixed_labels import FixedLabelTasks, label_groups
from fewshot.episodes.listed import ListedStream
from fewshot.episodes.sampling import check_split, draw_varying_episode
from fewshot.episodes.streams import STAGES, EpisodeStream, Stage
from fewshot.errors import FewshotError

LabelAssignment: TypeAlias = Literal["random", "fixed"]


class ClassificationDataModule(EpisodicDataModule):
    """A benchmark of N-way K-shot classification over the classes of a dataset.

    Args:
        root: folder with the data; None means `$FEWSHOT_DATA`, or else the user's cache folder.
        download: fetch missing files into `root`.
        way: classes of an episode, N.
        train_way: way in training; None means `way`.
        val_way: way in validation; None means `way`. Splits whose validation classes are fewer than
            `way` (16 of Double MNIST, mini-ImageNet and CIFAR-FS, for 20-way tests) need it.
        unequal_shots: split the N*K support examples of an episode at random among its classes, at
            least 1 for each, so that `shot` is the average; in all stages.
        ways: smallest and largest way, such as ``[5, 20]``: each episode of all stages draws its
            own, uniformly. None means `way` and `train_way` always.
        shots: smallest and largest shot, likewise. Episodes that differ in size are run one by one.
        query_alpha: share the N*Q queries of a validation or test episode out among its classes by
            a Dirichlet distribution of this parameter, 2 in arXiv:2204.11181; None: Q for each.
            Transductive learners should not know: many lean on balance.
        label_assignment: which label a class has in a training episode: `random`, drawn anew for
            each; or `fixed`: the seed cuts the training classes into `train_way` groups, label j is
            always a class of group j. Then one function of the query answers all training tasks,
            which a learner may memorise (docs/challenges.md).
        test_episodes: test episodes, the same list every time; or a file of them, whose way, shots
            and queries are the test's: `fewshot.datasets.episodes_file` says its form.
        **kwargs: arguments of `EpisodicDataModule`.
    """

    facts: ClassVar[tuple[str, ...]] = ("train_classes",)
    can_download: ClassVar[bool] = True
    items: ClassVar[ItemKind | None] = None
    """What a file of test episodes names; None: the benchmark cannot read one."""

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        way: Way = 5,
        train_way: Way | None = None,
        val_way: Way | None = None,
        unequal_shots: bool = False,
        ways: tuple[int, int] | None = None,
        shots: tuple[int, int] | None = None,
        query_alpha: Positive | None = None,
        label_assignment: LabelAssignment = "random",
        test_episodes: Count | str = 600,
        **kwargs: Any,
    ) -> None:
        self.listed: EpisodesFile | None = None
        if not isinstance(test_episodes, int):
            self.listed = self._read_list(Path(test_episodes))
            test_episodes = len(self.listed.episodes)
        super().__init__(test_episodes=test_episodes, **kwargs)
        for name, sizes, least in (("ways", ways, 2), ("shots", shots, 1)):
            if sizes is not None and not least <= sizes[0] <= sizes[1]:
                raise FewshotError(
                    f"{name} is {list(sizes)}; give the smallest and the largest, in this order, at"
                    f" least {least}"
                )
        fixed = {"train_way": train_way, "val_way": val_way} if ways else {}
        fixed |= {"train_shot": kwargs.get("train_shot")} if shots else {}
        fixed |= {"unequal_shots": unequal_shots or None} if ways or shots else {}
        if conflicting := [name for name, value in fixed.items() if value is not None]:
            raise FewshotError(
                f"{conflicting[0]} does not go with {'ways' if ways else 'shots'}; leave one of"
                " them out"
            )
        alone = {
            "query_alpha": query_alpha is not None,
            "label_assignment: fixed": label_assignment == "fixed",
        }
        varying = {"ways": ways, "shots": shots, "unequal_shots": unequal_shots}
        for name, other in product(alone, varying):
            if alone[name] and varying[other]:
                raise FewshotError(f"{name} does not go with {other}; leave one of them out")
        self.ways, self.shots, self.query_alpha = ways, shots, query_alpha
        self.label_assignment: LabelAssignment = label_assignment
        if unequal_shots and min(self.shot, self.train_shot) < 2:
            raise FewshotError(
                "unequal_shots is on and an episode has 1 shot: there is nothing to split; set shot"
                " >= 2"
            )
        self.unequal_shots = unequal_shots
        if download and not self.can_download:
            raise FewshotError(
                f"{self.benchmark} has nothing to download; leave out download: true"
            )
        self.root, self.download = data_root(root), download
        self.way, self.train_way = way, way if train_way is None else train_way
        self.val_way = way if val_way is None else val_way
        self._datasets: dict[str, ClassDataset] | None = None

    def _read_list(self, path: Path) -> EpisodesFile:
        """The test episodes of a file.

        Raises:
            FewshotError: it cannot be read, or the benchmark takes none.
        """
        if self.items is None:
            raise FewshotError(
                f"test_episodes is {str(path)!r}, but inputs of {self.benchmark} cannot be made of"
                " a file's images or texts; give a number"
            )
        return read_episodes(path.expanduser(), self.items)

    @abstractmethod
    def load(self) -> dict[str, ClassDataset]:
        """Read the classes of train, val and test."""

    @property
    def split_name(self) -> str:
        """Which of the benchmark's class splits is in use."""
        return "default"

    @property
    def datasets(self) -> dict[str, ClassDataset]:
        """The classes of train, val and test, read once and checked against the task's episodes."""
        if self._datasets is None:
            datasets = self.with_new_classes(self.load())
            for stage in STAGES:
                if not (stage == "test" and self.listed):
                    self.check(stage, datasets[stage])
            self._datasets = datasets
        return self._datasets

    def with_new_classes(self, read: dict[str, ClassDataset]) -> dict[str, ClassDataset]:
        """The classes in use, of those that were read."""
        return read

    def check(self, stage: Stage, split: ClassDataset) -> None:
        """Check the stage's classes against the episodes asked for.

        Raises:
            FewshotError: they cannot be drawn.
        """
        way, shot, queries = self.sizes(stage)
        way, shot = self.ways[1] if self.ways else way, self.shots[1] if self.shots else shot
        prefixes = (
            ("train_", "train_") if stage == "train" else ("val_" if stage == "val" else "", "")
        )
        check_split(stage, split.classes, split.counts, way, shot, queries, *prefixes)
        if stage == "train" and self.label_assignment == "fixed":
            label_groups(self.seed, len(split.classes), way)
        if self.unequal_shots and (fewest := int(split.counts.min())) <= shot + queries:
            raise FewshotError(
                f"unequal_shots has nothing to give in the {stage} split: a class of {fewest}"
                f" examples has {queries} queries and {shot} shots; lower queries or shot"
            )

    def sizes(self, stage: Stage) -> tuple[int, int, int]:
        """The way, shot and queries of a stage's episodes."""
        if stage == "train":
            return self.train_way, self.train_shot, self.train_queries
        return self.val_way if stage == "val" else self.way, self.shot, self.queries

    @property
    def train_classes(self) -> int:
        """How many classes training has, for learners that learn to tell them all apart.

        Reads the data.
        """
        return len(self.datasets["train"].classes)

    def examples(self) -> ClassDataset:
        """The training classes."""
        return self.datasets["train"]

    @property
    def balanced_queries(self) -> bool | None:
        """Whether test episodes have as many queries of each class; a file of them may have any."""
        return None if self.listed else self.query_alpha is None

    @property
    def task(self) -> dict[str, Any]:
        """Classification with this benchmark's ways."""
        if self.ways is not None:
            return {"kind": "classification", "way": None}
        way = self.listed.way if self.listed else self.way
        return {"kind": "classification", "way": way, "train_way": way and self.train_way}

    def settings(self) -> dict[str, Any]:
        """The arguments, and once they are read which classes `root` has."""
        if self._datasets is None:
            return super().settings()
        train = self._datasets["train"]
        content = zlib.crc32(repr((train.classes, train.counts.tolist())).encode())
        told = f"{len(train.classes)} of {train.counts.sum()} examples ({content:08x})"
        return {**super().settings(), "training_classes": told}

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        unequal = {"unequal_shots": True} if self.unequal_shots else {}
        val_way = {"val_way": self.val_way} if self.val_way != self.way else {}
        varying = {
            name: f"{sizes[0]} to {sizes[1]}"
            for name, sizes in (("way", self.ways), ("shot", self.shots))
            if sizes
        }
        return {
            **super().protocol(),
            "split": self.split_name,
            "way": self.way,
            **val_way,
            **unequal,
            **varying,
            **({} if self.query_alpha is None else {"query_alpha": self.query_alpha}),
            **({"label_assignment": "fixed"} if self.label_assignment == "fixed" else {}),
            **(self.listed.facts() if self.listed else {}),
        }

    def parts(self, stage: Stage) -> Sequence[ClassDataset]:
        """The stage's classes; those of listed episodes are not known."""
        return () if stage == "test" and self.listed else (self.datasets[stage],)

    def examples_a_batch(self, stage: Stage, plain: bool = False) -> int:
        """Those of its episodes, of the smallest way and shot where these vary."""
        if plain:
            return self.batch_size
        way, shot, queries = self.sizes(stage)
        way, shot = self.ways[0] if self.ways else way, self.shots[0] if self.shots else shot
        episodes = self.meta_batch_size if stage == "train" else self.eval_batch_size
        ranks = 1 if stage == "train" else self._ranks()[1]
        return episodes * ranks * way * (shot + queries)

    def prepare_data(self) -> None:
        """Download and cache, once a machine, where the data are needed."""
        tests = self.trainer and self.trainer.state.fn in (TrainerFn.TESTING, TrainerFn.PREDICTING)
        if not (self.listed and tests):
            _ = self.datasets

    def setup(self, stage: str) -> None:
        """Read the data on every rank."""
        self.prepare_data()

    def stream(self, stage: Stage) -> EpisodeStream:
        """The endless list of a stage's episodes; those of a file end."""
        if stage == "test" and self.listed:
            reader = make_preprocessing(self.preprocessing or {})
            return ListedStream(self.listed.episodes, reader.stored)
        return super().stream(stage)

    def training_tasks_alike(self) -> TaskDistribution | None:
        """Tasks of the training classes, of validation's sizes, where the classes suffice."""
        dataset, (way, shot, queries) = self.datasets["train"], self.sizes("val")
        if self.ways or self.shots or int(dataset.counts.min()) < shot + queries:
            return None
        if self.label_assignment == "fixed":
            if way != self.train_way:
                return None
            groups = label_groups(self.seed, len(dataset.classes), way)
            return FixedLabelTasks(dataset, shot, queries, groups)
        return ClassTasks(dataset, way, shot, queries) if len(dataset.classes) >= way else None

    def tasks(self, stage: Stage) -> TaskDistribution:
        """N-way K-shot tasks over the stage's classes."""
        dataset, (way, shot, queries) = self.datasets[stage], self.sizes(stage)
        if stage == "train" and self.label_assignment == "fixed":
            groups = label_groups(self.seed, len(dataset.classes), way)
            return FixedLabelTasks(dataset, shot, queries, groups)
        if not self.ways and not self.shots:
            alpha = None if stage == "train" else self.query_alpha
            return ClassTasks(dataset, way, shot, queries, self.unequal_shots, alpha)
        return VaryingTasks(
            dataset,
            partial(
                draw_varying_episode,
                starts=dataset.starts,
                counts=dataset.counts,
                ways=self.ways or (way, way),
                shots=self.shots or (shot, shot),
                queries=queries,
            ),
        )
