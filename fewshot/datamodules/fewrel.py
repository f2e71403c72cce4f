"""FewRel: which relation a sentence states between two entities, from few sentences."""

from collections.abc import Mapping
from typing import Any, ClassVar

from fewshot.arguments import Count, Natural
from fewshot.datamodules.text import TextDataModule
from fewshot.datasets.fewrel import FewRel, load_fewrel
from fewshot.datasets.reading.texts import TextData


class FewRelDataModule(TextDataModule):
    """FewRel: relations between two entities of a sentence, 1.0 (Wikipedia) and 2.0 (PubMed).

    Paper: arXiv:1810.10147.

    The test relations of FewRel 1.0 are hidden. Who has no access to them names another file for
    `test`, such as ``val_wiki``, or ``val_pubmed`` for the transfer to another domain (FewRel 2.0,
    arXiv:1910.07124), and results say which. Take care then that validation does not choose by the
    test's relations: `val_relations` holds some of the training relations out instead.

    Inputs are ``tokens``, ``lengths`` and the entities' places ``head`` and ``tail``. Words are
    lower-cased. Training instances whose entity pair or sentence is in validation or test are left
    out, as are repeated ones.

    Args:
        train: the training relations' file, without ``.json``.
        val: the validation relations' file; not read where `val_relations` is set.
        test: the test relations' file; it must be said.
        val_relations: training relations that are held out for validation.
        split_seed: which ones.
        markers: set terms of their own around the two mentions (arXiv:1906.03158).
        max_length: words kept of a sentence, a window with both mentions.
        queries: query examples a class.
        **kwargs: arguments of `TextDataModule`; `nota_rate` for FewRel 2.0's none of the above.
    """

    benchmark: ClassVar[str] = "FewRel"
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {
        "class_path": "fewshot.RelationCNN",
        "init_args": {"dropout": 0.5},
    }
    can_download: ClassVar[bool] = False
    preprocessing = items = None  # a text file does not say where the two entities are

    def __init__(
        self,
        train: str = "train_wiki",
        val: str = "val_wiki",
        test: str | None = None,
        val_relations: Natural = 0,
        split_seed: Natural = 0,
        markers: bool = False,
        max_length: Count = 128,
        queries: Count = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_length=max_length, queries=queries, **kwargs)
        self.train, self.val, self.test = train, val, test
        self.val_relations, self.split_seed, self.markers = val_relations, split_seed, markers
        self._fewrel: FewRel | None = None

    @property
    def fewrel(self) -> FewRel:
        """The data with what is to be said of them, read once."""
        if self._fewrel is None:
            names = self.train, self.val, self.test
            self._fewrel = load_fewrel(
                self.root, *names, self.val_relations, self.split_seed, self.markers, self.options
            )
        return self._fewrel

    def read(self) -> TextData:
        """Read FewRel."""
        return self.fewrel.texts

    @property
    def split_name(self) -> str:
        """The files, and how many training relations validate."""
        held = (
            f", {self.val_relations} relations of it held out (seed {self.split_seed})"
            if self.val_relations
            else ""
        )
        return f"{self.train}{held}, tested on {self.test}"

    def protocol(self) -> dict[str, Any]:
        """The facts beside every result: what training, validation and test consist of."""
        return {
            **super().protocol(),
            "markers": self.markers,
            **{f"{k}_data": v for k, v in self.fewrel.facts.items()},
        }
