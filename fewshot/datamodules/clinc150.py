"""CLINC150: what people ask of a voice assistant; intent classification from few utterances."""

from typing import Any, ClassVar

from fewshot.datamodules.intents import IntentDataModule
from fewshot.datasets.clinc150 import Split, Variant, is_known, load_clinc150
from fewshot.datasets.reading.texts import TextData
from fewshot.errors import FewshotError


class CLINC150DataModule(IntentDataModule):
    """CLINC150: 150 intents of 10 domains, 150 short English utterances each.

    Paper: arXiv:1909.02027.

    Two protocols. Class splits (``seed``, ``domain``): episodes of unseen intents; which classes
    train is drawn, so results on two `split_seed` do not compare. ``split: all`` with ``way: 150``:
    one task of all intents, with `shot` of the original's training utterances each for support, and
    its validation or test utterances for queries. Training sees the support alone; another `fold`
    is another support, and `fewshot summary` gives mean and deviation over folds. The vocabulary
    comes from the training utterances alone.

    Args:
        split: ``seed`` draws 50/50/50 intents; ``domain`` draws 4/3/3 whole domains, 60/45/45
            intents, so that the test's subjects are new too; ``all`` has all 150 intents in
            training, validation and test.
        out_of_scope: add the original's out-of-scope utterances to the queries of validation and
            test (100 and 1000), to be told as none of the intents; for ``split: all``.
        variant: the published set: ``full``, ``small``, ``imbalanced`` or ``oos_plus``, known by
            its checksum whatever the file is called. Results say which, and where a file is none
            of them.
        **kwargs: arguments of `IntentDataModule`. `max_length` counts words (the longest utterance
            has 28).
    """

    benchmark: ClassVar[str] = "CLINC150"
    split: Split

    def __init__(
        self,
        split: Split = "seed",
        out_of_scope: bool = False,
        variant: Variant = "full",
        **kwargs: Any,
    ) -> None:
        self.out_of_scope = out_of_scope
        super().__init__(split=split, **kwargs)
        self.variant: Variant = variant
        if out_of_scope and not self.whole:
            raise FewshotError(
                f"out_of_scope is on and split is {split}; set split: all, or nota_rate for"
                " episodes"
            )

    def read(self) -> TextData:
        """Read CLINC150."""
        return load_clinc150(
            self.root,
            self.split,
            self.split_seed,
            self.download,
            self.options,
            self.shot,
            self.fold,
            self.out_of_scope,
            self.variant,
        )

    @property
    def asks_for_none(self) -> bool:
        """Whether there are queries of none of the classes."""
        return self.out_of_scope or super().asks_for_none

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result."""
        facts: dict[str, Any] = {"out_of_scope": True} if self.out_of_scope else {}
        if self.variant != "full":  # of which results have always been
            facts["variant"] = self.variant
        if not is_known(self.root, self.variant):
            facts["content"] = "not known to be the published one"
        return {**super().protocol(), **facts}
