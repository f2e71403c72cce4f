"""SNIPS: what people ask of a voice assistant; 7 intents from few utterances."""

from typing import Any, ClassVar

from fewshot.arguments import Way
from fewshot.datamodules.intents import IntentDataModule
from fewshot.datasets.reading.texts import TextData
from fewshot.datasets.snips import Split, load_snips


class SNIPSDataModule(IntentDataModule):
    """SNIPS: 7 intents of a voice assistant, some 2000 English utterances each.

    Paper: arXiv:1805.10190.

    It has no class split that all use, so results name theirs. ``all``: one task of the 7 intents,
    with `shot` training utterances each for support and the validation files' 700 for queries;
    validation takes 100 other utterances of each intent. Training sees the support alone; another
    `fold` is another support, and `fewshot summary` gives mean and deviation over folds. ``seed``:
    episodes of unseen intents, 3/2/2 of them, so 2-way at most.

    Args:
        split: ``all``, or ``seed`` with 3/2/2 drawn intents.
        way: classes of an episode; all 7 for ``split: all``.
        **kwargs: arguments of `IntentDataModule`. `max_length` counts words (the longest utterance
            has 35).
    """

    benchmark: ClassVar[str] = "SNIPS"
    can_download: ClassVar[bool] = False
    split: Split

    def __init__(self, split: Split = "all", way: Way = 7, **kwargs: Any) -> None:
        super().__init__(split=split, way=way, **kwargs)

    def read(self) -> TextData:
        """Read SNIPS."""
        return load_snips(
            self.root, self.split, self.split_seed, self.options, self.shot, self.fold
        )
