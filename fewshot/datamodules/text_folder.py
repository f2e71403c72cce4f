"""Your own texts as a benchmark."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_only

from fewshot.arguments import Count, Natural, Way
from fewshot.datamodules.own_data import Auto, Fractions, OwnDataModule
from fewshot.datamodules.text import TextDataModule
from fewshot.datasets.fitting import Noun
from fewshot.datasets.fitting_words import refusal
from fewshot.datasets.reading.texts import TermSplitter, TextData, encode_texts
from fewshot.datasets.text_folder import OwnTexts, TextForm, mended, read_own_texts
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

log = logging.getLogger(__name__)


class TextFolderDataModule(OwnDataModule, TextDataModule):
    """TextFolder: your own texts, ``root/<class>.txt`` with a text a line, or one table.

    A class may be a folder of such files, and ``root/{train,val,test}`` may hold classes each. A
    table is a CSV, TSV or JSONL file whose columns have names; one line says which are taken. Empty
    lines are passed over. What stands in several classes is told and left.

    What is ``auto`` is fitted to the texts when the object is made, and said in one line; what you
    set holds: see `ImageFolderDataModule`, whose rules are the same. Where nothing fits, or lines
    cannot be read, one message lists every fault and the arguments that work. `fewshot check PATH`
    says all that before. Paper: none, the texts are yours.

    Args:
        root: the folder, or the table.
        text_column: of a table, the column of the texts; None: `text`, `sentence`, `utterance` or
            what else it is usually called, or the only other.
        label_column: the same of the labels: `label`, `class`, `intent`, ...
        encoding: of files that are not in UTF-8, such as ``cp1252``; None: their lines are told and
            refused.
        max_length: words kept of a text.
        tokenizer: as of `TextDataModule`; without one, a text must have a letter or a digit.
        classes: the class names of train, val and test. None: as the split folders say, or drawn
            where there are none.
        fractions: shares of the classes (or texts) that train, validate and test.
        split_seed: seeds which ones they are.
        queries: query examples a class.
        way: classes of an episode.
        shot: support examples a class.
        split_by: what is drawn, ``classes`` or the ``texts`` of each.
        min_examples: leave out classes with fewer texts.
        skip_broken: leave out lines that cannot be read; otherwise they are told and refused.
        **kwargs: arguments of `TextDataModule`.
    """

    benchmark: ClassVar[str] = "TextFolder"
    noun: ClassVar[Noun] = "text"

    def __init__(
        self,
        root: str,
        text_column: str | None = None,
        label_column: str | None = None,
        encoding: str | None = None,
        max_length: Count = 64,
        tokenizer: str | None = None,
        classes: Mapping[str, list[str]] | None = None,
        fractions: Fractions | Auto = "auto",
        split_seed: Natural = 0,
        queries: Count | Auto = "auto",
        way: Way | Auto = "auto",
        shot: Count | Auto = "auto",
        split_by: Literal["auto", "classes", "texts"] = "auto",
        min_examples: Count | None = None,
        skip_broken: bool = False,
        **kwargs: Any,
    ) -> None:
        self.text_column, self.label_column, self.encoding = text_column, label_column, encoding
        self.form = TextForm(text_column, label_column, encoding, words=tokenizer is None)
        super().__init__(
            root=root,
            max_length=max_length,
            tokenizer=tokenizer,
            classes=classes,
            fractions=fractions,
            split_seed=split_seed,
            queries=queries,
            way=way,
            shot=shot,
            split_by=split_by,
            min_examples=min_examples,
            skip_broken=skip_broken,
            **kwargs,
        )

    def examine(self) -> OwnTexts:
        """The texts; what is to be said of them is said.

        Raises:
            FewshotError: they cannot be read, or the columns of a table must be told.
        """
        found = read_own_texts(self.root, self.form, self.classes)
        if found.needed:
            wrong = [] if self.skip_broken else found.every_fault()
            raise FewshotError(self.refusal(found, [*found.notes[:1], *wrong]))
        _tell(str(self.root), [*found.notes, *found.repeats()])
        return found

    def refusal(self, data: OwnTexts, broken: Sequence[str]) -> str:
        """All that stands against what is asked for, and what works, in one line."""
        better, arguments = mended(data, self.form, self.classes) if broken else (data, {})
        if self.skip_broken:
            arguments.pop("skip_broken", None)
        return refusal(str(self.root), better.counts, self.wanted, better.given, broken, arguments)

    @property
    def is_split(self) -> bool:
        """Whether there are folders of train, val and test."""
        return self.fitted()[0].given is not None

    def read(self) -> TextData:
        """The texts of train, val and test, as ids of the training texts' words."""
        texts, found = self.fitted()
        splitter = TermSplitter(self.options)
        parts = {split: texts.of(rows) for split, rows in found.rows.items()}
        self._tell_cut(parts)
        return encode_texts(splitter.split_parts(parts), splitter)

    def _tell_cut(self, parts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        every = [
            len(text.split()) for of in parts.values() for texts in of.values() for text in texts
        ]
        most = self.options.max_length
        if long := sum(number > most for number in every):
            told = f"{long} of {len(every)} texts have more words than max_length {most}"
            _tell(str(self.root), [f"{told} (up to {max(every)}): their beginning is read"])


@rank_zero_only
def _tell(place: str, notes: Sequence[str]) -> None:
    for note in notes:
        log.warning("%s: %s", printable(place), note)
