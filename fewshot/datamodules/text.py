"""What text benchmarks share: term ids, padding, facts for text encoders, queries of no class."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from fewshot.arguments import Count, Natural, NonNegative
from fewshot.datamodules.classification import ClassificationDataModule
from fewshot.datasets.episodes_file import ItemKind
from fewshot.datasets.preprocessing import TextPreprocessing
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.datasets.reading.texts import TextData, TextOptions
from fewshot.datasets.reading.words import Terms
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import FixedTask, NotaTasks, TaskDistribution
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import WIDTHS, Examples, TrainingBatch
from fewshot.errors import FewshotError


class TextDataModule(ClassificationDataModule):
    """A benchmark of texts by class.

    Facts for backbones: `vocab_size`, `document_frequencies`, `documents`.

    They read the data; `tokenizer` and `vectors` do not. `vocabulary` goes with `vectors`.

    Args:
        terms: what gets an id: ``words``, or the character ``ngrams`` of the words, by which
            unknown words are partly known.
        max_length: words kept of a text.
        min_count: how often a term must occur in the training classes to get an id of its own.
        unknown_ids: ids that the unknown terms are spread over by their hash; 0: one id for all.
        tokenizer: name or folder of a pre-trained language model, whose tokenizer's ids its network
            (`HuggingFaceEncoder`) reads; `max_length` then counts its pieces. None: the ids of
            `terms`.
        vectors: a text file of word vectors, such as GloVe's: its words get ids too, and backbones
            that take `vectors` begin with them. None: random vectors.
        nota_rate: r adds ``r * queries`` queries of other classes to every episode, to be told as
            none of the above; so 5-way episodes have 1 in 6, 2 in 7 and 1 in 2 of them at rates 1,
            2 and 5.
        train_nota_rate: the same for training episodes; None means `nota_rate`.
        **kwargs: arguments of `ClassificationDataModule`.
    """

    facts: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "tokenizer",
        "document_frequencies",
        "documents",
        "vectors",
        "vocabulary",
    )
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {
        "class_path": "fewshot.WeightedBag",
        "init_args": {"out_features": 1024, "dropout": 0.3},
    }
    tokenizer: str | None
    vectors: str | None
    items: ClassVar[ItemKind | None] = "text"
    whole: bool = False
    """Whether one task has all classes: training texts as support, all others as queries."""

    def __init__(
        self,
        terms: Terms = "words",
        max_length: Count = 32,
        min_count: Count = 1,
        unknown_ids: Natural = 0,
        tokenizer: str | None = None,
        vectors: str | None = None,
        nota_rate: NonNegative = 0.0,
        train_nota_rate: NonNegative | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.options = TextOptions(terms, max_length, min_count, unknown_ids, tokenizer, vectors)
        self.tokenizer, self.vectors = tokenizer, vectors
        self.nota_rate = nota_rate
        self.train_nota_rate = nota_rate if train_nota_rate is None else train_nota_rate
        for name, rate, queries in (
            ("nota_rate", self.nota_rate, self.queries),
            ("train_nota_rate", self.train_nota_rate, self.train_queries),
        ):
            if rate < 0 or rate * queries != round(rate * queries):
                raise FewshotError(
                    f"{name} is {rate}, which with {queries} queries a class asks for"
                    f" {rate * queries:g} others; set a rate that gives a whole number"
                )
        drawn_otherwise = self.unequal_shots or self.ways or self.shots or self.query_alpha
        if drawn_otherwise and (self.nota_rate or self.train_nota_rate):
            raise FewshotError(
                "nota_rate does not go with unequal_shots, ways, shots or query_alpha; leave one"
                " out"
            )
        if self.label_assignment == "fixed" and self.train_nota_rate:
            raise FewshotError(
                "train_nota_rate does not go with label_assignment: fixed; leave one out"
            )
        self._texts: TextData | None = None
        if self.listed and self.asks_for_none:
            raise FewshotError(
                f"{self.listed.name} lists test episodes without queries of no class; set nota_rate"
                " to 0 (out_of_scope to false)"
            )

    def take_whole(self) -> None:
        """Have one task of all classes instead of episodes of some."""
        if self.query_alpha is not None:
            raise FewshotError(
                "split all has one task, whose queries are all there are; leave query_alpha out"
            )
        if self.nota_rate or self.train_nota_rate:
            raise FewshotError(
                "split all leaves no class outside of its task for nota_rate; set nota_rate: 0"
            )
        self.whole = True
        self.episodes |= {"val": 1} if self.listed else {"val": 1, "test": 1}

    @abstractmethod
    def read(self) -> TextData:
        """Read the texts."""

    @property
    def texts(self) -> TextData:
        """The data, read once."""
        if self._texts is None:
            self._texts = self.read()
        return self._texts

    @property
    def vocab_size(self) -> int:
        """How many ids there are, padding (0) and unknown (1) or a tokenizer's own included."""
        return len(self.document_frequencies)

    @property
    def document_frequencies(self) -> list[int]:
        """In how many training texts each id occurs."""
        return self.texts.document_frequencies

    @property
    def documents(self) -> int:
        """How many training texts there are."""
        return self.texts.documents

    @property
    def vocabulary(self) -> list[str] | None:
        """The word of each id, which the file of word vectors is read by.

        None where there is no file.
        """
        return None if self.vectors is None else list(self.texts.vocabulary)

    @cached_property
    def preprocessing(self) -> dict[str, Any] | None:
        """Texts become the ids of the training classes' vocabulary, or of the tokenizer."""
        pretrained = None if self.tokenizer is None else PretrainedTokenizer(self.tokenizer)
        return TextPreprocessing(
            self.options.terms,
            self.options.max_length,
            () if pretrained else self.texts.vocabulary,
            self.options.unknown_ids,
            self.tokenizer,
            pretrained.json if pretrained else None,
        ).facts()

    @property
    def task(self) -> dict[str, Any]:
        """Classification with this benchmark's ways, and whether there are queries of no class."""
        nota = {"nota": True} if self.asks_for_none else {}
        return {**super().task, **nota}

    @property
    def asks_for_none(self) -> bool:
        """Whether there are queries of none of the classes."""
        return self.nota_rate > 0

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, what a text is turned into among them."""
        nota = {"nota_rate": self.nota_rate} if self.nota_rate else {}
        facts = {
            name: value
            for name, value in self.options._asdict().items()
            if name != "vectors" or value is not None
        }
        whole = {"queries": "all"} if self.whole and not self.listed else {}
        return {**super().protocol(), **whole, **nota, **facts}

    def load(self) -> dict[str, ClassDataset]:
        """The texts of train, val and test."""
        return self.texts.datasets

    def check(self, stage: Stage, split: ClassDataset) -> None:
        """Check the stage's classes against the episodes asked for.

        Raises:
            FewshotError: they cannot be drawn.
        """
        if self.whole:
            if self.way != len(split.classes):
                raise FewshotError(
                    f"split all has {len(split.classes)} classes in its one task, way is"
                    f" {self.way}; set way: {len(split.classes)}"
                )
            return
        super().check(stage, split)
        none_queries = self.none_queries(stage)
        if none_queries and len(split.classes) <= self.sizes(stage)[0]:
            raise FewshotError(
                f"the {stage} split has {len(split.classes)} classes, all of them in an episode of"
                " that way: none is left for nota_rate; lower way, or set nota_rate: 0"
            )
        if none_queries > (fewest := int(split.counts.min())):
            raise FewshotError(
                f"nota_rate asks for {none_queries} queries of other classes, a class of the"
                f" {stage} split has {fewest} examples; lower nota_rate or queries"
            )

    def none_queries(self, stage: Stage) -> int:
        """Queries of no class in the stage's episodes."""
        rate, queries = (
            self.train_nota_rate if stage == "train" else self.nota_rate,
            self.sizes(stage)[2],
        )
        return round(rate * queries)

    def tasks(self, stage: Stage) -> TaskDistribution:
        """N-way K-shot tasks over the stage's classes, or the one task of all."""
        if self.whole and stage != "train":
            return FixedTask(
                self.datasets["train"], self.datasets[stage], self.datasets.get(f"{stage}_none")
            )
        if none_queries := self.none_queries(stage):
            return NotaTasks(self.datasets[stage], *self.sizes(stage), none_queries)
        if self.whole:
            super().check(stage, self.datasets[stage])
        return super().tasks(stage)

    def parts(self, stage: Stage) -> Sequence[ClassDataset]:
        """The stage's classes; of one task of all classes the training texts, and those of none."""
        parts = super().parts(stage)
        if not self.whole or not parts or stage == "train":
            return parts
        names = ("train", stage, f"{stage}_none")
        return [self.datasets[name] for name in names if name in self.datasets]

    def examples_a_batch(self, stage: Stage, plain: bool = False) -> int:
        """Those of its episodes; one task of all classes asks for each."""
        if self.whole and stage != "train":
            return self.number_of_examples(stage)
        return super().examples_a_batch(stage, plain)

    def on_before_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """Cut the padding down to the longest text of the batch, and a few places.

        Here, where no device is waited for.
        """
        return batch.map_parts(_trimmed)


def _trimmed(parts: list[Examples], _: Tensor | None) -> list[Examples]:
    """Texts that are read together, without the padding behind the longest of them."""
    longest = max(
        int(part.inputs["lengths"].max()) for part in parts if isinstance(part.inputs, dict)
    )
    places = (longest + WIDTHS - 1) // WIDTHS * WIDTHS
    return [part._replace(inputs=_cut(part, places)) for part in parts]


def _cut(part: Examples, places: int) -> dict[str, Any]:
    assert isinstance(part.inputs, dict)
    return {**part.inputs, "tokens": part.inputs["tokens"][..., :places]}
