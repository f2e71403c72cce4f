"""FewGLUE: language understanding from 32 examples.

Not episodic, but adapted to over several seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Count, Natural
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datasets.fewglue import UNLABELLED, Row, mirror_image, read_fewglue
from fewshot.datasets.fewglue_patterns import TASKS
from fewshot.datasets.fewglue_published import lower_choices, published
from fewshot.datasets.reading.downloads import data_root
from fewshot.datasets.reading.pattern_encoding import NO_PIECE, PatternEncoder
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.episodes.distributions import Stacked, TaskDistribution
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError


class FewGLUEDataModule(EpisodicDataModule):
    """FewGLUE: tasks of SuperGLUE from 32 training examples, judged on its validation set.

    Paper: arXiv:2009.07118.

    An episode is the task itself: the support is the training examples, then the unlabelled ones
    (label -1), the query is SuperGLUE's validation set (`dev32` where the learner is validated).
    Episode i orders the support by seed i, from which the learner takes its own randomness, so that
    `test_episodes` is the number of seeds and a result's mean and deviation are over seeds. Nothing
    is trained before: `fewshot test`.

    Facts for backbones: `vocab_size`, `tokenizer`.

    Args:
        tokenizer: the masked language model, by name or folder, whose ids are made.
        subset: the task.
        root: folder with the data; None means `$FEWSHOT_DATA`, or else the user's cache folder.
        max_length: pieces of a text, the pattern's and the special ones included; the longest texts
            are cut.
        shot: training examples, in all; fewer than the file's 32 are drawn by the seed.
        unlabeled: unlabelled examples, drawn by the seed; None takes all of the file, 0 none.
        published_patterns: the patterns of the authors' code: its words (`Yes`, where false says
            `yes`), blanks and marks, a fifth pattern of CB and a fourth of MultiRC, and COPA's
            choices with a small first letter. Not for WSC, whose noun it writes itself.
        mirrored: of COPA, take each training and unlabelled example twice, the second time with its
            choices exchanged, as the authors' code does. `shot` counts both as one, `unlabeled` as
            two.
        test_episodes: seeds of a test.
        val_episodes: seeds of a validation.
        eval_batch_size: seeds in memory at once.
        **kwargs: arguments of `EpisodicDataModule`; those of training have no use here.

    Raises:
        FewshotError: a file that is missing or wrong, or an argument out of range.
    """

    benchmark: ClassVar[str] = "FewGLUE"
    facts: ClassVar[tuple[str, ...]] = ("vocab_size", "tokenizer")
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {
        "class_path": "fewshot.MaskedLanguageModel"
    }
    tokenizer: str

    def __init__(
        self,
        tokenizer: str,
        subset: Literal["BoolQ", "CB", "COPA", "MultiRC", "RTE", "ReCoRD", "WSC", "WiC"] = "RTE",
        root: str | None = None,
        max_length: Count = 256,
        shot: Count = 32,
        unlabeled: Natural | None = None,
        published_patterns: bool = False,
        mirrored: bool = False,
        test_episodes: Count = 3,
        val_episodes: Count = 1,
        eval_batch_size: Count = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            shot,
            test_episodes=test_episodes,
            val_episodes=val_episodes,
            eval_batch_size=eval_batch_size,
            **kwargs,
        )
        if published_patterns and subset == "WSC":
            raise FewshotError(
                "published_patterns has none for WSC, whose noun the authors' code writes itself;"
                " set it to false"
            )
        if mirrored and subset != "COPA":
            raise FewshotError(
                f"mirrored exchanges the two choices of COPA, which {subset} does not have; set it"
                " to false"
            )
        self.published_patterns, self.mirrored = published_patterns, mirrored
        self.subset, self.tokenizer, self.root, self.max_length = (
            subset,
            tokenizer,
            data_root(root),
            max_length,
        )
        self.unlabeled = unlabeled
        self._encoder: PatternEncoder | None = None
        self._parts: dict[str, Examples] = {}
        self._questions: dict[str, Tensor] = {}

    @property
    def encoder(self) -> PatternEncoder:
        """Makes ids of the examples."""
        if self._encoder is None:
            self._encoder = PatternEncoder(PretrainedTokenizer(self.tokenizer), self.max_length)
        return self._encoder

    @property
    def vocab_size(self) -> int:
        """How many ids the tokenizer has."""
        return len(self.encoder.tokenizer)

    @property
    def task(self) -> dict[str, Any]:
        """SuperGLUE's metrics of the task."""
        if self.subset not in TASKS:
            read_fewglue(self.root, self.subset, "train")  # says why there is none
        way, measures = TASKS[self.subset].way, TASKS[self.subset].metrics
        if way is None:
            return {"kind": "reading"}
        return {"kind": "understanding", "way": way, "measures": list(measures)}

    def part(self, part: Literal["train", "unlabeled", "dev32", "val"]) -> Examples:
        """The examples of a file, read once."""
        if part not in self._parts:
            rows = read_fewglue(self.root, self.subset, part)
            task = published(self.subset) if self.published_patterns else TASKS[self.subset]
            if self.published_patterns and self.subset == "COPA":
                rows = [lower_choices(row) for row in rows]
            if self.mirrored and part in ("train", "unlabeled"):
                rows += [mirror_image(row) for row in rows]
            self._parts[part] = Examples(self.encoder.encode(rows, task), _targets(rows, task.way))
            self._questions[part] = torch.tensor([row.question for row in rows])
        return self._parts[part]

    def tasks(self, stage: Stage) -> TaskDistribution:
        """The task, its support in an order of each seed's own."""
        if stage == "train":
            raise FewshotError(
                "FewGLUE has nothing to train on but each episode's support; use `fewshot test`"
            )
        train = self.part("train")
        questions = self._questions["train"]
        if self.shot > (most := len(questions.unique())):  # type: ignore[no-untyped-call]
            raise FewshotError(
                f"shot is {self.shot}, but {self.subset} has {most} training examples; lower shot"
            )
        # of no unlabelled examples the file is not even looked for
        unlabelled = self.part("train" if self.unlabeled == 0 else "unlabeled")
        if self.unlabeled and self.unlabeled > len(unlabelled.targets):
            raise FewshotError(
                f"unlabeled is {self.unlabeled}, but {self.subset} has {len(unlabelled.targets)};"
                " leave it out for all"
            )
        query = self.part("val" if stage == "test" else "dev32")
        names = tuple(map(str, TASKS[self.subset].labels))
        return _Adaptation(train, questions, self.shot, unlabelled, self.unlabeled, query, names)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result."""
        names = ("tokenizer", "max_length", "unlabeled", "published_patterns", "mirrored")
        facts = {name: getattr(self, name) for name in names}
        queries = len(self._parts["val"].targets) if "val" in self._parts else None
        unlabelled = self._parts["unlabeled"].targets if "unlabeled" in self._parts else ()
        facts["unlabeled"] = len(unlabelled) if self.unlabeled is None else self.unlabeled
        return {**super().protocol(), "split": self.subset, "queries": queries, **facts}

    def setup(self, stage: str) -> None:
        """Refuse learners of other tasks, and read the data."""
        learner = self.trainer.lightning_module if self.trainer else None
        if learner is not None and getattr(learner, "trains_on", "nothing") != "nothing":
            raise FewshotError(
                f"{type(learner).__name__} does not read FewGLUE's patterns; choose PET or"
                " FineTuneText"
            )
        if stage != "fit":
            self.tasks("val" if stage == "validate" else "test")


def _targets(rows: Sequence[Row], way: int | None) -> Tensor:
    """What a task kind makes of it: labels and questions in one number.

    Where the way differs, each choice's worth.
    """
    if way is None:
        targets = torch.full((len(rows), max(len(row.choices) for row in rows), 2), -1.0)
        for target, row in zip(targets, rows, strict=True):
            target[: len(row.worth)] = torch.tensor(row.worth).view(-1, 2)
        return targets
    return torch.tensor([-1 if row.label < 0 else row.label + way * row.question for row in rows])


class _Adaptation(Stacked):
    """One task, repeated: `shot` training `questions`, then some unlabelled ones; one query.

    Its labels have `names`, none where an example brings its own choices.
    """

    def __init__(
        self,
        train: Examples,
        questions: Tensor,
        shot: int,
        unlabelled: Examples,
        number: int | None,
        query: Examples,
        names: tuple[str, ...],
    ) -> None:
        self.train, self.questions, self.shot = train, questions.numpy(), shot
        self.unlabelled, self.number, self.query = unlabelled, number, query
        self.names = names

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The names of the task's labels."""
        return self.names

    def draw(self, rng: np.random.Generator) -> Episode:
        """The support in random order, the query as it is."""
        chosen = rng.permutation(np.unique(self.questions))[: self.shot]
        rows = rng.permutation(np.flatnonzero(np.isin(self.questions, chosen)))
        unlabelled_rows = rng.permutation(len(self.unlabelled.targets))[: self.number]
        parts = _rows(self.train, rows), _rows(self.unlabelled, unlabelled_rows)
        inputs = {
            name: joined([part[name] for part, _ in parts], FILLERS[name]) for name in parts[0][0]
        }
        return Episode(
            Examples(inputs, joined([targets for _, targets in parts], UNLABELLED)), self.query
        )


def _rows(examples: Examples, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
    assert isinstance(examples.inputs, dict)
    chosen = torch.from_numpy(rows)
    return {name: value[chosen] for name, value in examples.inputs.items()}, examples.targets[
        chosen
    ]


FILLERS = {"tokens": 0, "lengths": 0, "places": 0, "answers": NO_PIECE}


def joined(parts: Sequence[Tensor], filler: float) -> Tensor:
    """Tensors one after the other, those that are smaller in another dimension filled up."""
    sizes = [max(part.shape[i] for part in parts) for i in range(1, parts[0].dim())]
    grown = [
        [(0, size - own) for own, size in zip(part.shape[1:], sizes, strict=True)] for part in parts
    ]
    pads = [[n for pair in reversed(pairs) for n in pair] for pairs in grown]
    return torch.cat(
        [F.pad(part, pad, value=filler) for part, pad in zip(parts, pads, strict=True)]
    )
