"""What all benchmarks share: task distributions per stage, seeded loaders, facts for learners."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewshot.arguments import Count, Natural, NonNegative
from fewshot.datamodules.examples import ListsExamples
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.streams import EpisodeStream, ExampleStream, Stage
from fewshot.episodes.types import ExampleBatch, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.hyperparameters import RemembersArguments, describe

FREE = ("root", "download", "num_workers", "worker_timeout", "eval_batch_size", "test_episodes")
"""Arguments that may change when training goes on."""
PLAIN = (type(None), bool, int, float, str, list, tuple)


class EpisodicDataModule(RemembersArguments, ListsExamples, L.LightningDataModule):
    """A benchmark: a distribution over tasks for training, validation and test.

    Learners without meta-learning (`Baseline`, ...) train on plain batches of the training classes'
    labelled examples instead of episodes: `batch_size` a step, and an epoch is one pass over them;
    `train_episodes`, `meta_batch_size` and the training way, shot and queries are not used.
    Validation and test are the same episodes for all learners.

    ```python
    >>> import fewshot
    >>> data = fewshot.SinusoidDataModule(shot=5, eval_batch_size=4, test_episodes=6)
    >>> data.task["kind"], [batch.size for batch in data.test_dataloader()]
    ('regression', [4, 2])
    ```

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
        batch_size: training examples a step, over all ranks, for learners that train without
            episodes.
        worker_timeout: seconds after which a run ends whose `num_workers` processes give nothing;
            0: never.
    """

    benchmark: ClassVar[str]
    """What results call the benchmark."""
    facts: ClassVar[tuple[str, ...]] = ("task", "shot")
    """Attributes that fill the arguments of the same name of a learner and its backbone.

    A benchmark names its own; those of its bases are facts too. One is asked for only where there
    is such an argument, so that it may have to read the data.
    """
    usual_backbone: ClassVar[Mapping[str, Any] | None] = None
    """The network of a command line that names none, as a config has it; None: it must name one."""
    shot: int

    def __init__(
        self,
        shot: Count = 1,
        queries: Count = 15,
        train_shot: Count | None = None,
        train_queries: Count | None = None,
        meta_batch_size: Count = 4,
        eval_batch_size: Count = 8,
        train_episodes: Count = 1000,
        val_episodes: Count = 200,
        test_episodes: Count = 600,
        num_workers: Natural = 0,
        seed: Natural = 0,
        batch_size: Count = 64,
        worker_timeout: NonNegative = 600,
    ) -> None:
        super().__init__()
        self.shot, self.queries = shot, queries
        self.train_shot = shot if train_shot is None else train_shot
        self.train_queries = queries if train_queries is None else train_queries
        self.meta_batch_size, self.eval_batch_size = meta_batch_size, eval_batch_size
        self.episodes = {"train": train_episodes, "val": val_episodes, "test": test_episodes}
        self.num_workers, self.seed, self.batch_size = num_workers, seed, batch_size
        self.worker_timeout = worker_timeout
        self._train_loader: EpisodeLoader[Any] | None = None
        # where a resumed run's training episodes go on
        self._position: dict[str, Any] | None = None

    @classmethod
    def every_fact(cls) -> tuple[str, ...]:
        """The names of the benchmark's facts, those of its bases included."""
        stated = (fact for base in reversed(cls.__mro__) for fact in vars(base).get("facts", ()))
        return tuple(dict.fromkeys(stated))

    @classmethod
    def network_for(cls, arguments: Mapping[str, str | type]) -> Mapping[str, Any] | None:
        """The usual network of a benchmark with these arguments, words and classes."""
        return cls.usual_backbone

    @property
    @abstractmethod
    def task(self) -> dict[str, Any]:
        """The task kind as plain facts, for `fewshot.tasks.make_task`."""

    @abstractmethod
    def tasks(self, stage: Stage) -> TaskDistribution:
        """The distribution that a stage's episodes are drawn from."""

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """How inputs are made of files, as plain facts for `make_preprocessing`; None: of none.

        Checkpoints hold it, so that `fewshot.load` and `fewshot predict` treat a user's files as
        training did.
        """
        return None

    @property
    def balanced_queries(self) -> bool | None:
        """Whether test episodes have as many queries of each class; None: not known."""
        return None

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        return {
            "benchmark": self.benchmark,
            "shot": self.shot,
            "queries": self.queries,
            "seed": self.seed,
        }

    def settings(self) -> dict[str, Any]:
        """The arguments that the episodes of training and validation are functions of, as in use.

        Training goes on from a checkpoint with the same alone. What only says where the files are,
        how fast episodes come or how long a test is may be another.
        """
        in_use = {**self.init_args, **{n: v for n, v in vars(self).items() if isinstance(v, PLAIN)}}
        return {name: _settings(in_use[name]) for name in self.init_args if name not in FREE}

    def references(self, support: Examples, inputs: Inputs) -> dict[str, tuple[Tensor, Tensor]]:
        """What is known of the targets at `inputs` (n, ...), mean and deviation by what it is.

        To compare predictions with; here nothing.
        """
        return {}

    def __str__(self) -> str:  # Lightning's would draw episodes to describe the loaders
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.protocol().items())})"

    def prepare(self) -> None:
        """Do once, for `fewshot prepare`, what takes long: download, decode, check, cache."""
        self.prepare_data()

    def stream(self, stage: Stage) -> EpisodeStream:
        """The endless list of a stage's episodes."""
        return EpisodeStream(self.tasks(stage), self.seed, stage)

    def example_stream(self) -> ExampleStream:
        """The endless list of training examples."""
        return ExampleStream(self.examples(), self.seed)

    def training_tasks_alike(self) -> TaskDistribution | None:
        """Tasks as training's, of validation's sizes, for what training alone knows; or None."""
        return None

    def class_names(
        self, stage: Stage, numbers: Sequence[int]
    ) -> dict[int, tuple[str, ...]] | None:
        """The names by label of the classes of episodes with these numbers.

        Nothing but the choice of the classes is drawn again. None where they have no names.
        """
        stream = self.stream(stage)
        if not numbers or not isinstance(stream, EpisodeStream):
            return None
        found = {number: names for number in numbers if (names := stream.class_names(number))}
        return found if len(found) == len(set(numbers)) else None

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch, but for its numbers, which are read where nobody waits for a device."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        numbers = getattr(batch, "numbers", None)
        return moved if numbers is None else moved._replace(numbers=numbers)

    def train_dataloader(self) -> EpisodeLoader[Any]:
        """What the learner trains on, meta-batches or plain examples, endless, an epoch at a time.

        A resumed run goes on where its checkpoint was written.
        """
        learner = self.trainer.lightning_module if self.trainer else None
        plain = getattr(learner, "trains_on", "episodes") == "examples"
        loader: EpisodeLoader[Any] = (
            self._example_loader()
            if plain
            else self._loader("train", self.meta_batch_size, repeat=True)
        )
        if self._position is not None:
            loader.load_state_dict(self._position)
        elif self._train_loader is not None and self.trainer and self.trainer.current_epoch > 0:
            # reload_dataloaders_every_n_epochs
            loader.load_state_dict(self._train_loader.state_dict())
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

    def _example_loader(self) -> EpisodeLoader[ExampleBatch]:
        stream, (_, world_size) = self.example_stream(), self._ranks()
        if self.batch_size > len(stream) or self.batch_size % world_size:
            raise FewshotError(
                f"batch_size {self.batch_size} does not fit {len(stream)} training examples and"
                f" {world_size} processes; set it to a multiple of {world_size} up to {len(stream)}"
            )
        # All batches are whole: what is left of a pass begins the next epoch.
        epoch = len(stream) // self.batch_size * self.batch_size
        return self._numbered(stream, epoch, self.batch_size, repeat=True)

    def _loader(self, stage: Stage, meta_batch_size: int, repeat: bool = False) -> EpisodeLoader:
        stream = self.stream(stage)  # which may be where their number is found
        number, ranks = self.episodes[stage], self._ranks()[1]
        if number < ranks:
            raise FewshotError(
                f"{stage}_episodes is {number}, too few for {ranks} processes; set it to {ranks} or"
                " more"
            )
        return self._numbered(stream, number, meta_batch_size, repeat)

    def _numbered(
        self, stream: Dataset[Any], number: int, size: int, repeat: bool
    ) -> EpisodeLoader[Any]:
        rank, world_size = self._ranks()
        return EpisodeLoader(
            stream,
            number,
            size,
            repeat=repeat,
            limit=self.trainer.limit_train_batches if self.trainer and repeat else None,
            # set by the Trainer from outside
            again=bool(getattr(self.trainer, "overfit_batches", 0)) and repeat,
            rank=rank,
            world_size=world_size,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            timeout=self.worker_timeout,
        )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _settings(value: Any) -> Any:
    """An argument as plain values, benchmarks among others."""
    if isinstance(value, EpisodicDataModule):
        return value.settings()
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {str(name): _settings(item) for name, item in value.items()}
    return describe(value)
