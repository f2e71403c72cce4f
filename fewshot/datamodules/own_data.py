"""What benchmarks of your own data share: splits and episodes that are fitted to what there is."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from lightning.pytorch.utilities import rank_zero_info

from fewshot.arguments import Count, Natural, NonNegative, Way
from fewshot.datamodules.classification import ClassificationDataModule
from fewshot.datasets.fitting import Fit, Noun, Wanted, fit
from fewshot.datasets.fitting_words import refusal, summary
from fewshot.datasets.reading.downloads import data_root
from fewshot.errors import FewshotError

Auto: TypeAlias = Literal["auto"]
Fractions: TypeAlias = tuple[NonNegative, NonNegative, NonNegative]


class Found(Protocol):
    """What was read of your own data."""

    @property
    def given(self) -> Mapping[str, Sequence[str]] | None:
        """The classes of train, val and test, where they are told."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many examples each class has."""

    def faults(self, classes: Sequence[str]) -> list[str]:
        """What is wrong with examples of some classes that cannot be read."""


class OwnDataModule(ClassificationDataModule):
    """Your own examples as a benchmark. What is ``auto`` is fitted to them; what you set holds.

    Args:
        root: the folder, or the file.
        classes: the class names of train, val and test. None: as the data say, or drawn.
        fractions: shares of the classes (or examples) that train, validate and test.
        split_seed: seeds which ones they are.
        queries: query examples a class.
        way: classes of an episode.
        shot: support examples a class.
        split_by: what is drawn, ``classes`` or the examples of each.
        min_examples: leave out classes with fewer examples.
        skip_broken: leave out examples that cannot be read; otherwise they are told and refused.
        **kwargs: arguments of the next base.
    """

    can_download: ClassVar[bool] = False
    noun: ClassVar[Noun]
    """What an example is called."""

    def __init__(
        self,
        root: str,
        classes: Mapping[str, list[str]] | None = None,
        fractions: Fractions | Auto = "auto",
        split_seed: Natural = 0,
        queries: Count | Auto = "auto",
        way: Way | Auto = "auto",
        shot: Count | Auto = "auto",
        split_by: str = "auto",
        min_examples: Count | None = None,
        skip_broken: bool = False,
        **kwargs: Any,
    ) -> None:
        self.root, self.classes, self.fractions = data_root(root), classes, fractions
        self.split_seed, self.split_by, self.min_examples = split_seed, split_by, min_examples
        self.skip_broken = skip_broken
        self._fitted: tuple[Any, Fit] | None = None
        most = {name: (kwargs.get(f"{name}s") or (None, None))[1] for name in ("way", "shot")}
        own = ("train_way", "val_way", "train_shot", "train_queries")
        self.wanted = Wanted(
            way=most["way"] or _told(way),
            shot=most["shot"] or _told(shot),
            queries=_told(queries),
            **{name: kwargs.get(name) for name in own},
            fractions=None if fractions == "auto" else fractions,
            split_by=split_by,
            split_seed=split_seed,
            min_examples=min_examples,
            unequal=bool(kwargs.get("unequal_shots")),
            tests=not isinstance(kwargs.get("test_episodes"), str),
            noun=self.noun,
            nota_rates=_nota_rates(kwargs),
        )
        asked = {"way": way, "shot": shot, "queries": queries}
        sizes = self._sizes() if "auto" in asked.values() else {}
        kwargs |= {name: sizes[name] if size == "auto" else size for name, size in asked.items()}
        super().__init__(root=root, **kwargs)

    @abstractmethod
    def examine(self) -> Found:
        """Read the data."""

    @property
    @abstractmethod
    def is_split(self) -> bool:
        """Whether the data say which classes train, validate and test."""

    def _sizes(self) -> dict[str, int]:
        """The way, shot and queries that the data allow."""
        try:
            found = self.fitted()[1]
        except FewshotError:
            if self.wanted.tests:
                raise
            # the test episodes of a file need no other data: training says what is wrong with them
            return {"way": 5, "shot": 1, "queries": 15}
        return {"way": found.way, "shot": found.shot, "queries": found.queries}

    def fitted(self) -> tuple[Any, Fit]:
        """What `examine` gave and what it allows, read once.

        Raises:
            FewshotError: it does not allow what is asked for, or has examples that cannot be read.
        """
        if self._fitted is None:
            data = self.examine()
            found = fit(data.counts, self.wanted, data.given)
            used = sorted({name for of in found.rows.values() for name in of})
            broken = data.faults([n for n in data.counts if n not in found.left_out])
            if found.faults or (broken and not self.skip_broken):
                raise FewshotError(self.refusal(data, [] if self.skip_broken else broken))
            if "auto" in map(self.init_args.get, ("way", "shot", "queries", "fractions")):
                rank_zero_info(
                    summary(str(self.root), data.counts, found, data.faults(used), self.noun)
                )
            self._fitted = data, found
        return self._fitted

    def refusal(self, data: Any, broken: Sequence[str]) -> str:
        """All that stands against what is asked for, and what works, in one line."""
        return refusal(str(self.root), data.counts, self.wanted, data.given, broken)

    @property
    def split_name(self) -> str:
        """How the classes were split."""
        if self.classes is not None:
            return "given classes"
        if self.is_split:
            return "split folders"
        by = f"{self.noun}s, " if self.fitted()[1].by == "examples" else ""
        return f"{by}drawn, split_seed {self.split_seed}"

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the classes of each split among them."""
        classes = {split: list(dataset.classes) for split, dataset in self.datasets.items()}
        return {**super().protocol(), "classes": classes}

    # the base's would read the examples for the protocol, and list every class
    def __str__(self) -> str:
        return f"{type(self).__name__}(root={self.root}, way={self.way}, shot={self.shot})"


def _nota_rates(given: Mapping[str, Any]) -> tuple[float, float]:
    """The rates of test and training among arguments; benchmarks of texts take them."""
    rate, of_training = given.get("nota_rate", 0.0), given.get("train_nota_rate")
    return rate, rate if of_training is None else of_training


def _told(value: int | Auto) -> int | None:
    return None if value == "auto" else value
