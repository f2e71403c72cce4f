"""What all benchmarks share: task distributions a stage, seeded loaders, the facts that learners are built from."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewshot.augmentation import Augmentation
from fewshot.datasets.base import ClassDataset
from fewshot.datasets.files import data_root
from fewshot.episodes import Batch, Examples, Inputs, map_examples
from fewshot.errors import FewshotError
from fewshot.loading import (
    STAGES,
    ClassTasks,
    EpisodeLoader,
    EpisodeStream,
    ExampleStream,
    Item,
    Stage,
    TaskDistribution,
    VaryingTasks,
)
from fewshot.preprocessing import ImagePreprocessing, as_float
from fewshot.sampling import check_split, draw_varying_episode


class EpisodicDataModule(L.LightningDataModule):
    """A benchmark: a distribution over tasks for training, validation and test.

    Learners without meta-learning (`Baseline`, ...) train on plain batches of the training classes' labelled examples
    instead of episodes: `batch_size` a step, and an epoch is one pass over them; `train_episodes`, `meta_batch_size`
    and the training way, shot and queries are not used. Validation and test are the same episodes for all learners.

    Args:
        shot: support examples (a class, in classification), K.
        queries: query examples (a class, in classification), Q.
        train_shot: shot in training; None means `shot`.
        train_queries: queries in training; None means `queries`.
        meta_batch_size: training episodes a step, over all ranks.
        eval_batch_size: episodes evaluated at once by each rank; changes the speed alone.
        train_episodes: training episodes an epoch, over all ranks; a multiple of `meta_batch_size`.
        val_episodes: validation episodes, the same list every time.
        test_episodes: test episodes, the same list every time.
        num_workers: processes that draw episodes ahead; 0 draws them in the training process.
        seed: of the episodes; episode i of a stage is a function of it, the stage and i alone.
        batch_size: training examples a step, over all ranks, for learners that train without episodes.
        worker_timeout: seconds after which a run ends whose `num_workers` processes give nothing; 0: never.
    """

    benchmark: ClassVar[str]
    """What results call the benchmark."""
    shot: int

    def __init__(
        self,
        shot: int = 1,
        queries: int = 15,
        train_shot: int | None = None,
        train_queries: int | None = None,
        meta_batch_size: int = 4,
        eval_batch_size: int = 8,
        train_episodes: int = 1000,
        val_episodes: int = 200,
        test_episodes: int = 600,
        num_workers: int = 0,
        seed: int = 0,
        batch_size: int = 64,
        worker_timeout: float = 600,
    ) -> None:
        super().__init__()
        for argument in ("val_episodes", "test_episodes", "eval_batch_size", "batch_size"):
            if (value := locals()[argument]) < 1:
                raise FewshotError(f"{argument} is {value}; set {argument} >= 1")
        if seed < 0 or num_workers < 0:
            raise FewshotError(f"seed {seed} and num_workers {num_workers} must not be negative")
        self.shot, self.queries = shot, queries
        self.train_shot = shot if train_shot is None else train_shot
        self.train_queries = queries if train_queries is None else train_queries
        self.meta_batch_size, self.eval_batch_size = meta_batch_size, eval_batch_size
        self.episodes = {"train": train_episodes, "val": val_episodes, "test": test_episodes}
        if worker_timeout < 0:
            raise FewshotError(f"worker_timeout is {worker_timeout}; give the seconds to wait, or 0 to wait for ever")
        self.num_workers, self.seed, self.batch_size = num_workers, seed, batch_size
        self.worker_timeout = worker_timeout
        self._train_loader: EpisodeLoader[Any] | None = None
        self._position: dict[str, Any] | None = None  # where a resumed run's training episodes go on

    @property
    @abstractmethod
    def task(self) -> dict[str, Any]:
        """The task kind as plain facts, for `fewshot.tasks.make_task`."""

    @abstractmethod
    def tasks(self, stage: Stage) -> TaskDistribution:
        """The distribution that a stage's episodes are drawn from."""

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """How inputs are made of files, as plain facts for `make_preprocessing`; None where no files make them.

        Checkpoints hold it, so that `fewshot.load` and `fewshot predict` treat a user's files as training did.
        """
        return None

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        return {"benchmark": self.benchmark, "shot": self.shot, "queries": self.queries, "seed": self.seed}

    def __str__(self) -> str:  # Lightning's would draw episodes to describe the loaders
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.protocol().items())})"

    def prepare(self) -> None:
        """Do once what takes long, for `fewshot prepare`: download, decode, cache; check what is there already."""
        self.prepare_data()

    def stream(self, stage: Stage) -> EpisodeStream:
        """The endless list of a stage's episodes."""
        return EpisodeStream(self.tasks(stage), self.seed, stage)

    def examples(self) -> ClassDataset:
        """The labelled examples of the training classes, for learners that train on them.

        Raises:
            FewshotError: the benchmark has no classes.
        """
        raise FewshotError(
            f"{type(self).__name__} has no classes, but the learner needs labelled examples of training classes;"
            " choose a classification benchmark, or a learner that trains on episodes"
        )

    def training_examples(self) -> Iterator[Examples]:
        """Each example of the training classes once, in batches of `batch_size`, in the order of the dataset."""
        stream = ExampleStream(self.examples(), self.seed)
        for start in range(0, len(stream), self.batch_size):
            yield stream.at(np.arange(start, min(start + self.batch_size, len(stream))))

    def train_dataloader(self) -> EpisodeLoader[Any]:
        """What the learner trains on, meta-batches or plain examples, without end, an epoch at a time.

        A resumed run goes on where its checkpoint was written.
        """
        learner = self.trainer.lightning_module if self.trainer else None
        plain = getattr(learner, "trains_on", "episodes") == "examples"
        loader: EpisodeLoader[Any] = (
            self._example_loader() if plain else self._loader("train", self.meta_batch_size, repeat=True)
        )
        if self._position is not None:
            loader.load_state_dict(self._position)
        elif self._train_loader is not None and self.trainer and self.trainer.current_epoch > 0:
            loader.load_state_dict(self._train_loader.state_dict())  # reload_dataloaders_every_n_epochs
        self._train_loader, self._position = loader, None
        return loader

    def state_dict(self) -> dict[str, Any]:
        """The position in the list of training episodes, for the checkpoint.

        Lightning keeps a loader's own state too, but gives it back in the middle of an epoch alone.
        """
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a checkpoint's position when training is resumed."""
        self._position = state if self.trainer and self.trainer.state.fn == "fit" else None

    def val_dataloader(self) -> EpisodeLoader:
        """The validation episodes."""
        return self._loader("val", self.eval_batch_size * self._ranks()[1])

    def every_val_episode(self) -> EpisodeLoader:
        """All validation episodes on every rank, for what has to be chosen alike on all of them."""
        return EpisodeLoader(self.stream("val"), self.episodes["val"], self.eval_batch_size)

    def test_dataloader(self) -> EpisodeLoader:
        """The test episodes."""
        return self._loader("test", self.eval_batch_size * self._ranks()[1])

    def predict_dataloader(self) -> EpisodeLoader:
        """The test episodes."""
        return self.test_dataloader()

    def _example_loader(self) -> EpisodeLoader[Examples]:
        stream, (_, world_size) = ExampleStream(self.examples(), self.seed), self._ranks()
        if self.batch_size > len(stream) or self.batch_size % world_size:
            raise FewshotError(
                f"batch_size {self.batch_size} does not fit {len(stream)} training examples and {world_size} processes;"
                f" set it to a multiple of {world_size} up to {len(stream)}"
            )
        # All batches are whole: what is left of a pass begins the next epoch.
        epoch = len(stream) // self.batch_size * self.batch_size
        return self._numbered(stream, epoch, self.batch_size, repeat=True)

    def _loader(self, stage: Stage, meta_batch_size: int, repeat: bool = False) -> EpisodeLoader:
        return self._numbered(self.stream(stage), self.episodes[stage], meta_batch_size, repeat)

    def _numbered(self, stream: Dataset[Item], number: int, size: int, repeat: bool) -> EpisodeLoader[Item]:
        rank, world_size = self._ranks()
        return EpisodeLoader(
            stream,
            number,
            size,
            repeat=repeat,
            limit=self.trainer.limit_train_batches if self.trainer and repeat else None,
            rank=rank,
            world_size=world_size,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            timeout=self.worker_timeout,
        )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class ClassificationDataModule(EpisodicDataModule):
    """A benchmark of N-way K-shot classification over the classes of a dataset.

    Args:
        root: folder with the data; None means `$FEWSHOT_DATA`, or else the user's cache folder.
        download: fetch missing files into `root`.
        way: classes of an episode, N.
        train_way: way in training; None means `way`.
        val_way: way in validation; None means `way`. Splits whose validation classes are fewer than `way` (16 of Double
            MNIST, mini-ImageNet and CIFAR-FS, for 20-way tests) need it.
        unequal_shots: split the N*K support examples of an episode at random among its classes, at least 1 for each,
            so that `shot` is the average; in all stages.
        ways: smallest and largest way, such as ``[5, 20]``: each episode of all stages draws its own, uniformly. None
            means `way` and `train_way` always.
        shots: smallest and largest shot, likewise. Episodes that differ in size are run one by one.
        **kwargs: arguments of `EpisodicDataModule`.
    """

    can_download: ClassVar[bool] = True

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        way: int = 5,
        train_way: int | None = None,
        val_way: int | None = None,
        unequal_shots: bool = False,
        ways: tuple[int, int] | None = None,
        shots: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, sizes, least in (("ways", ways, 2), ("shots", shots, 1)):
            if sizes is not None and not least <= sizes[0] <= sizes[1]:
                raise FewshotError(
                    f"{name} is {list(sizes)}; give the smallest and the largest, in this order, at least {least}"
                )
        fixed = {"train_way": train_way, "val_way": val_way} if ways else {}
        fixed |= {"train_shot": kwargs.get("train_shot")} if shots else {}
        fixed |= {"unequal_shots": unequal_shots or None} if ways or shots else {}
        if given := [name for name, value in fixed.items() if value is not None]:
            raise FewshotError(f"{given[0]} does not go with {'ways' if ways else 'shots'}; leave one of them out")
        self.ways, self.shots = ways, shots
        if unequal_shots and min(self.shot, self.train_shot) < 2:
            raise FewshotError(
                "unequal_shots is on and an episode has 1 shot: there is nothing to split; set shot >= 2"
            )
        self.unequal_shots = unequal_shots
        if download and not self.can_download:
            raise FewshotError(f"{self.benchmark} has nothing to download; leave out download: true")
        self.root, self.download = data_root(root), download
        self.way, self.train_way = way, way if train_way is None else train_way
        self.val_way = way if val_way is None else val_way
        self._datasets: dict[str, ClassDataset] | None = None

    @abstractmethod
    def load(self) -> dict[str, ClassDataset]:
        """Read the classes of train, val and test."""

    @property
    def split_name(self) -> str:
        """Which of the benchmark's class splits is in use."""
        return "default"

    @property
    def datasets(self) -> dict[str, ClassDataset]:
        """The classes of train, val and test, read once and checked against the episodes asked for."""
        if self._datasets is None:
            datasets = self.load()
            for stage in STAGES:
                self.check(stage, datasets[stage])
            self._datasets = datasets
        return self._datasets

    def check(self, stage: Stage, split: ClassDataset) -> None:
        """Check the stage's classes against the episodes asked for.

        Raises:
            FewshotError: they cannot be drawn.
        """
        way, shot, queries = self.sizes(stage)
        way, shot = self.ways[1] if self.ways else way, self.shots[1] if self.shots else shot
        prefixes = ("train_", "train_") if stage == "train" else ("val_" if stage == "val" else "", "")
        check_split(stage, split.classes, split.counts, way, shot, queries, *prefixes)
        if self.unequal_shots and (fewest := int(split.counts.min())) <= shot + queries:
            raise FewshotError(
                f"unequal_shots has nothing to give in the {stage} split: a class of {fewest} examples has"
                f" {queries} queries and {shot} shots; lower queries or shot"
            )

    def sizes(self, stage: Stage) -> tuple[int, int, int]:
        """The way, shot and queries of a stage's episodes."""
        if stage == "train":
            return self.train_way, self.train_shot, self.train_queries
        return self.val_way if stage == "val" else self.way, self.shot, self.queries

    @property
    def train_classes(self) -> int:
        """How many classes training has, for learners that learn to tell them all apart; reads the data."""
        return len(self.datasets["train"].classes)

    def examples(self) -> ClassDataset:
        """The training classes."""
        return self.datasets["train"]

    @property
    def task(self) -> dict[str, Any]:
        """Classification with this benchmark's ways."""
        if self.ways is not None:
            return {"kind": "classification", "way": None}
        return {"kind": "classification", "way": self.way, "train_way": self.train_way}

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        unequal = {"unequal_shots": True} if self.unequal_shots else {}
        val_way = {"val_way": self.val_way} if self.val_way != self.way else {}
        varying = {
            name: f"{sizes[0]} to {sizes[1]}" for name, sizes in (("way", self.ways), ("shot", self.shots)) if sizes
        }
        return {**super().protocol(), "split": self.split_name, "way": self.way, **val_way, **unequal, **varying}

    def prepare_data(self) -> None:
        """Download and cache, once a machine."""
        _ = self.datasets

    def setup(self, stage: str) -> None:
        """Read the data on every rank."""
        _ = self.datasets

    def tasks(self, stage: Stage) -> TaskDistribution:
        """N-way K-shot tasks over the stage's classes."""
        dataset, (way, shot, queries) = self.datasets[stage], self.sizes(stage)
        if not self.ways and not self.shots:
            return ClassTasks(dataset, way, shot, queries, self.unequal_shots)
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


class FloatImages(EpisodicDataModule):
    """Images are stored as uint8 and converted to float in [0, 1] once a meta-batch, on the device.

    Facts for backbones: `in_channels`, `image_size`, `in_features`; for `fewshot predict`, `preprocessing`.
    """

    in_channels: int
    image_size: int
    bright_ink: ClassVar[bool] = False
    """Whether the images are drawings in bright ink on dark, where files have dark ink on light paper."""

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """Files become images of this size and these channels, in [0, 1]."""
        channels: Literal[1, 3] = 1 if self.in_channels == 1 else 3
        return ImagePreprocessing(self.image_size, channels, invert=self.bright_ink).facts()

    @property
    def in_features(self) -> int:
        """Values of an image, for backbones that flatten it."""
        return self.in_channels * self.image_size**2

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Convert the images (uint8) of a meta-batch, or of plain examples, to float in [0, 1]."""
        return self._precise(map_examples(lambda part: part._replace(inputs=as_float(part.inputs)), batch))

    def _precise(self, batch: Batch) -> Batch:
        """The batch in the Trainer's precision: it has been converted to it before, but what was uint8 then."""
        converted: Batch = self.trainer.precision_plugin.convert_input(batch) if self.trainer else batch
        return converted


class ImageBatches(FloatImages):
    """Images that are augmented in training and normalised, on the device.

    What is drawn for an episode is a function of the seed and its number, whatever the ranks and the interruptions.

    Args:
        augment: random changes of training images, such as ``{padding: 4, flip: true}``; None: none.
        augment_query: the same for the queries alone; None: as `augment`. ``{}`` leaves them as they are.
        normalize: subtract `mean` and divide by `std`, the benchmark's constants for each channel.
        **kwargs: arguments of the next base.
    """

    mean: ClassVar[tuple[float, ...] | None] = None
    """Of the training images in [0, 1], for each channel."""
    std: ClassVar[tuple[float, ...] | None] = None

    def __init__(
        self,
        augment: Augmentation | None = None,
        augment_query: Augmentation | None = None,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if normalize and self.mean is None:
            raise FewshotError(f"{self.benchmark} has no constants to normalise by; leave out normalize: true")
        self.augment, self.normalize = augment, normalize
        self.augment_query = augment if augment_query is None else augment_query

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """Files become images of this size and these channels, in [0, 1] or normalised."""
        facts = super().preprocessing
        if facts is not None and self.normalize:
            facts |= {"mean": self.mean and list(self.mean), "std": self.std and list(self.std)}
        return facts

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result; what was done to the images among them."""
        augmented = {name: vars(how) for name in ("augment", "augment_query") if (how := getattr(self, name))}
        return {**super().protocol(), **augmented, **({"normalize": True} if self.normalize else {})}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Convert the images (uint8) of a meta-batch, or of plain examples, to float; augment them, normalise them."""
        batch = map_examples(lambda part: part._replace(inputs=as_float(part.inputs)), batch)
        if self.trainer and self.trainer.training and self._train_loader is not None:
            batch = self._augmented(batch, self._train_loader.numbers_at_hand)
        if self.normalize:
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
            batch = map_examples(lambda part: part._replace(inputs=_normalized(part.inputs, mean, std)), batch)
        return self._precise(batch)

    def _augmented(self, batch: Batch, numbers: Sequence[int]) -> Batch:
        """Augment the float images of these episodes, or of these plain examples."""
        if self.augment is None and self.augment_query is None:
            return batch
        if isinstance(batch, list):
            return [self._augmented(one, [number]) for one, number in zip(batch, numbers, strict=True)]
        # a fourth number in the seed, so that no episode is drawn with these generators
        stage = len(STAGES) if isinstance(batch, Examples) else 0
        rngs = [np.random.default_rng([self.seed, stage, number, 2]) for number in numbers]
        how = iter((self.augment, self.augment_query))

        def changed(part: Examples) -> Examples:
            augmentation = next(how)
            if augmentation is None:
                return part
            assert isinstance(part.inputs, Tensor)
            images = part.inputs.flatten(0, -4)
            drawn = torch.cat([augmentation.draw(rng, len(images) // len(rngs)) for rng in rngs])
            return part._replace(inputs=augmentation(images, drawn).view(part.inputs.shape))

        return map_examples(changed, batch)


def _normalized(images: Inputs, mean: Tensor, std: Tensor) -> Tensor:
    assert isinstance(images, Tensor)
    return (images - mean.to(images)) / std.to(images)


class ImageDataModule(ImageBatches, ClassificationDataModule):
    """A benchmark of N-way K-shot classification of images.

    Args:
        **kwargs: arguments of `ImageBatches` and `ClassificationDataModule`.
    """
