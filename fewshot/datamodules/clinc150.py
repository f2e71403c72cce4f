"""CLINC150: what people ask of a voice assistant; intent classification from few utterances."""

from functools import cached_property
from typing import Any, ClassVar

from fewshot.datamodules.base import ClassificationDataModule
from fewshot.datasets.base import ClassDataset
from fewshot.datasets.clinc150 import Clinc150, Split, load_clinc150
from fewshot.datasets.pretrained_tokenizer import PretrainedTokenizer
from fewshot.datasets.words import Terms
from fewshot.episodes import Batch, Examples, map_examples
from fewshot.preprocessing import TextPreprocessing


class CLINC150DataModule(ClassificationDataModule):
    """CLINC150: 150 intents of 10 domains, 150 short English utterances each. Paper: arXiv:1909.02027.

    Which classes train is drawn: results on two `split_seed` do not compare. The vocabulary comes from the training
    classes alone. Facts for backbones: `vocab_size`, `document_frequencies`, `documents`; they read the data; and
    `tokenizer`.

    Args:
        split: ``seed`` draws 50/50/50 intents; ``domain`` draws 4/3/3 whole domains, 60/45/45 intents, so that the
            test's subjects are new too.
        split_seed: seeds the draw.
        terms: what gets an id: ``words``, or the character ``ngrams`` of the words, by which unknown words are
            partly known.
        max_length: words kept of an utterance; the longest has 28.
        min_count: how often a term must occur in the training classes to get an id of its own.
        unknown_ids: ids that the unknown terms are spread over by their hash; 0: one id for all.
        tokenizer: name or folder of a pre-trained language model, whose tokenizer's ids its network
            (`HuggingFaceEncoder`) reads; `max_length` then counts its pieces. None: the ids of `terms`.
        queries: query examples a class.
        **kwargs: arguments of `ClassificationDataModule`.
    """

    benchmark: ClassVar[str] = "CLINC150"
    tokenizer: str | None

    def __init__(
        self,
        split: Split = "seed",
        split_seed: int = 0,
        terms: Terms = "words",
        max_length: int = 32,
        min_count: int = 1,
        unknown_ids: int = 0,
        tokenizer: str | None = None,
        queries: int = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(queries=queries, **kwargs)
        self.split, self.split_seed, self.terms = split, split_seed, terms
        self.max_length, self.min_count, self.unknown_ids = max_length, min_count, unknown_ids
        self.tokenizer = tokenizer
        self._texts: Clinc150 | None = None

    @property
    def texts(self) -> Clinc150:
        """The data, read once."""
        if self._texts is None:
            self._texts = load_clinc150(
                self.root,
                self.split,
                self.split_seed,
                self.download,
                self.terms,
                self.max_length,
                self.min_count,
                self.unknown_ids,
                self.tokenizer,
            )
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

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """Texts become the ids of the training classes' vocabulary, or of the tokenizer."""
        pretrained = None if self.tokenizer is None else PretrainedTokenizer(self.tokenizer)
        return TextPreprocessing(
            self.terms,
            self.max_length,
            () if pretrained else self.texts.vocabulary,
            self.unknown_ids,
            self.tokenizer,
            pretrained.json if pretrained else None,
        ).facts()

    @property
    def split_name(self) -> str:
        """The split with its seed."""
        return f"{self.split}, split_seed {self.split_seed}"

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, what a text is turned into among them."""
        facts = ("terms", "max_length", "min_count", "unknown_ids", "tokenizer")
        return {**super().protocol(), **{name: getattr(self, name) for name in facts}}

    def load(self) -> dict[str, ClassDataset]:
        """The utterances of train, val and test."""
        return self.texts.datasets

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Cut the padding down to the longest text of the batch; here, where no device is waited for."""
        parts = (batch,) if isinstance(batch, Examples) else batch
        longest = max(int(part.inputs["lengths"].max()) for part in parts if isinstance(part.inputs, dict))
        return map_examples(lambda part: part._replace(inputs=_cut(part, longest)), batch)


def _cut(part: Examples, places: int) -> dict[str, Any]:
    assert isinstance(part.inputs, dict)
    return {**part.inputs, "tokens": part.inputs["tokens"][..., :places]}
