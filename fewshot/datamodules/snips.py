"""SNIPS: what people ask of a voice assistant; 7 intents from few utterances."""

from typing import Any, ClassVar

from fewshot.datamodules.text import TextDataModule
from fewshot.datasets.reading.texts import TextData
from fewshot.datasets.snips import Split, load_snips
from fewshot.errors import check_at_least


class SNIPSDataModule(TextDataModule):
    """SNIPS: 7 intents of a voice assistant, some 2000 English utterances each.

    Paper: arXiv:1805.10190.

    It has no class split that all use, so results name theirs. ``all``: one task of the 7 intents,
    with `shot` training utterances each for support and the validation files' 700 for queries.
    Training sees the support alone; another `fold` is another support, and `fewshot summary` gives
    mean and deviation over folds. ``seed``: episodes of unseen intents, 3/2/2 of them, so 2-way at
    most.

    Args:
        split: ``all``, or ``seed`` with 3/2/2 drawn intents.
        split_seed: seeds the draw.
        fold: which support is drawn, for ``split: all``; validation then takes 100 others of each
            intent.
        way: classes of an episode; all 7 for ``split: all``.
        queries: query examples a class; ``split: all`` takes all.
        **kwargs: arguments of `TextDataModule`. `max_length` counts words (the longest utterance
            has 35).
    """

    benchmark: ClassVar[str] = "SNIPS"
    can_download: ClassVar[bool] = False

    def __init__(
        self,
        split: Split = "all",
        split_seed: int = 0,
        fold: int = 0,
        way: int = 7,
        queries: int = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(way=way, queries=queries, **kwargs)
        check_at_least(0, fold=fold)
        self.split, self.split_seed, self.fold = split, split_seed, fold
        if split == "all":
            self.take_whole()

    def read(self) -> TextData:
        """Read SNIPS."""
        return load_snips(
            self.root, self.split, self.split_seed, self.options, self.shot, self.fold
        )

    @property
    def split_name(self) -> str:
        """The split with its seed, or the fold."""
        return (
            f"all, fold {self.fold}"
            if self.whole
            else f"{self.split}, split_seed {self.split_seed}"
        )
