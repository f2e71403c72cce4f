"""Intents of a voice assistant: episodes of unseen ones, or one task of all."""

from typing import Any

from fewshot.arguments import Count, Natural
from fewshot.datamodules.text import TextDataModule


class IntentDataModule(TextDataModule):
    """Intents under a class split, or in one task of all of them.

    ``split: all`` is the one task, with `shot` training utterances of each intent for support.
    Training sees the support alone; another `fold` is another support, and `fewshot summary` gives
    mean and deviation over folds.

    Args:
        split: the class split, or ``all``; each benchmark lists its own.
        split_seed: seeds the draw of the classes.
        fold: which support is drawn, for ``split: all``.
        queries: query examples a class; ``split: all`` takes all.
        **kwargs: arguments of `TextDataModule`.
    """

    split: str

    def __init__(
        self,
        split: str,
        split_seed: Natural = 0,
        fold: Natural = 0,
        queries: Count = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(queries=queries, **kwargs)
        self.split, self.split_seed, self.fold = split, split_seed, fold
        if split == "all":
            self.take_whole()

    @property
    def split_name(self) -> str:
        """The split with its seed, or the fold."""
        if self.whole:
            return f"all, fold {self.fold}"
        return f"{self.split}, split_seed {self.split_seed}"
