"""Which episodes your own images or texts allow: their splits, way, shot and queries.

Pure functions of the number of examples of each class. What is asked for holds; the rest is the
best that the classes allow:

- Six classes or more are split into train, val and test by class: val gets 16 % and test 20 % of
  them, and at least `way` each. The way is a quarter of the classes, from 2 to 5.
- Fewer cannot be told apart in three groups. All of them train, validate and test, with different
  examples: val and test get a quarter of those of each class each. The way is all, up to 5.
- Half of the smallest class is support, up to 5; the others are queries, up to 15.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from fewshot.datasets.reading.folders import SPLITS
from fewshot.datasets.splitting import draw_split, shared_out
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

Fractions: TypeAlias = tuple[float, float, float]
Rows: TypeAlias = Mapping[str, Mapping[str, Sequence[int]]]
Noun: TypeAlias = Literal["image", "text"]
MOST_WAY, MOST_SHOT, MOST_QUERIES = 5, 5, 15  # mini-ImageNet's usual episodes
FEWEST = 6  # classes of which train, val and test get two each
VAL, TEST = 0.16, 0.2  # of mini-ImageNet's 100 classes
SHOWN = 5  # classes in a message


@dataclass(frozen=True)
class Wanted:
    """What is asked for; None is what the classes decide.

    Args:
        way: N. shot: K. queries: Q.
        train_way: way in training; None means `way`. The others likewise.
        fractions: shares of train, val and test.
        split_by: what is split: ``classes``, or the ``images`` or ``texts`` of each; ``auto``.
        split_seed: seeds which ones they are.
        min_examples: classes with fewer examples are left out.
        unequal: the shots of a class differ, so that it needs one example more, and 2 shots at
            least.
        tests: test episodes are drawn from the test split, not told otherwise.
        noun: what an example is called.
        nota_rates: queries of none of the classes, for each of the others. Where there are some, a
            split has a class more than an episode.
    """

    way: int | None = None
    shot: int | None = None
    queries: int | None = None
    train_way: int | None = None
    val_way: int | None = None
    train_shot: int | None = None
    train_queries: int | None = None
    fractions: Fractions | None = None
    split_by: str = "auto"
    split_seed: int = 0
    min_examples: int | None = None
    unequal: bool = False
    tests: bool = True
    noun: Noun = "image"
    nota_rates: tuple[float, ...] = ()

    @property
    def outside(self) -> int:
        """Classes of a split that an episode leaves out, at least."""
        return int(any(self.nota_rates))

    @property
    def nouns(self) -> str:
        """What examples are called."""
        return f"{self.noun}s"


@dataclass(frozen=True)
class Fit:
    """What the classes allow, or why they do not.

    Args:
        way: N. shot: K. queries: Q.
        rows: which examples of each class each split has, by their places in the class.
        by: what was split: classes or their examples; given, where the classes were told.
        left_out: classes with fewer examples than `min_examples`.
        faults: what stands against it, each in words.
    """

    way: int
    shot: int
    queries: int
    rows: Rows
    by: Literal["classes", "examples", "given"]
    left_out: tuple[str, ...]
    faults: tuple[str, ...]

    def counts(self, split: str) -> list[int]:
        """How many examples each class of a split has."""
        return [len(rows) for rows in self.rows[split].values()]

    @property
    def episodes(self) -> str:
        """The episodes in words."""
        queries = "1 query" if self.queries == 1 else f"{self.queries} queries"
        return f"{self.way}-way {self.shot}-shot, {queries} a class"


def fit(
    counts: Mapping[str, int],
    wanted: Wanted,
    given: Mapping[str, Sequence[str]] | None = None,
) -> Fit:
    """The splits and the episodes that classes allow.

    Args:
        counts: examples of each class.
        wanted: what is asked for.
        given: the classes of train, val and test, where they are told.
    """
    least = wanted.min_examples or 0
    left_out = tuple(name for name, number in counts.items() if number < least)
    empty = [n for n, number in counts.items() if not number and n not in left_out]
    faults = [f"no {wanted.noun} is in {names_of([repr(n) for n in empty])}"] if empty else []
    kept = {n: number for n, number in counts.items() if number and n not in left_out}
    by: Literal["classes", "examples", "given"] = "classes"
    classes: Mapping[str, Sequence[str]] | None = None
    if given is not None:
        by, classes = "given", {s: [n for n in of if n in kept] for s, of in given.items()}
    elif wanted.split_by == wanted.nouns or (
        wanted.split_by == "auto" and len(kept) < FEWEST + len(SPLITS) * wanted.outside
    ):
        by = "examples"
    else:
        classes = _by_classes(kept, wanted, faults)
    if by == "examples":
        rows: Rows = _by_examples(kept, wanted)
    else:  # where no split is possible, what else is wrong with the classes is told too
        of_splits = classes or dict.fromkeys(SPLITS, sorted(kept))
        rows = {s: {n: range(kept[n]) for n in of} for s, of in of_splits.items()}
    drawn = {split: of for split, of in rows.items() if split != "test" or wanted.tests}
    most_ways = [number - wanted.outside for number in _own_way(drawn, wanted).values()]
    way = wanted.way or max(2, min([MOST_WAY, *most_ways]))
    if by == "examples" or classes is not None:
        _check_way(drawn, wanted, way, by, faults)
    shot, queries = _examples(kept, drawn, wanted, by, faults)
    return Fit(way, shot, queries, rows, by, left_out, tuple(faults))


def remedy(
    counts: Mapping[str, int],
    wanted: Wanted,
    given: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, object] | None:
    """Arguments with which classes that do not fit do; None where no arguments help.

    As little as possible is changed: small classes are left out before anything that is asked for
    is, and not more than half of the classes where that helps.
    """
    examples = ("queries", "train_queries"), ("shot", "queries", "train_shot", "train_queries")
    of_stages = ("train_way", "val_way")
    ways = ("way", *of_stages)
    sizes: tuple[tuple[str, ...], ...] = (
        (), *examples, of_stages, ways, (*ways, *examples[1]), (*ways, *examples[1], "fractions")
    )  # fmt: skip
    left: list[dict[str, Any]] = [dict.fromkeys(names) for names in sizes]
    bases = [replace(wanted, **none) for none in left]
    bases.append(replace(bases[-1], split_by=wanted.nouns))
    least = (wanted.min_examples, *sorted({2, *counts.values()} - {0, 1}))
    for most_left_out in (len(counts) // 2, len(counts)):
        for tried in (replace(base, min_examples=n) for base in bases for n in least):
            found = fit(counts, tried, given)
            if not found.faults and len(found.left_out) <= most_left_out:
                return {
                    name: "auto" if value is None and name in AUTO else value
                    for name, value in vars(tried).items()
                    if value != getattr(wanted, name)
                }
    return None


AUTO = ("way", "shot", "queries", "fractions")
"""Arguments that `auto` leaves to the classes; the others are left to them by null."""


def _by_classes(
    kept: Mapping[str, int], wanted: Wanted, faults: list[str]
) -> dict[str, list[str]] | None:
    """The classes of each split; None where there are too few, which is a fault."""
    number = len(kept)
    if wanted.fractions is not None:
        try:
            drawn = draw_split(list(kept), wanted.fractions, wanted.split_seed)
            return {split: sorted(of) for split, of in drawn.items()}
        except FewshotError as error:
            faults.append(str(error).partition(";")[0])
            return None
    best = max(2, min(MOST_WAY, number // 4))
    for way in range(best, 1, -1) if wanted.way is None else [wanted.way]:
        needs = (wanted.train_way or way, wanted.val_way or way, way)
        to_train, to_val, to_test = (needed + wanted.outside for needed in needs)
        shares = max(to_val, round(VAL * number)), max(to_test, round(TEST * number))
        for val, test in (shares, (to_val, to_test)):
            if val + test + to_train <= number:
                parts = shared_out(list(kept), val, test, wanted.split_seed)
                return {split: sorted(part) for split, part in zip(SPLITS, parts, strict=True)}
    faults.append(
        f"there {_are(number)}, of {to_train + to_val + to_test} different ones {to_train} train,"
        f" {to_val} validate and {to_test} test"
    )
    return None


def _by_examples(kept: Mapping[str, int], wanted: Wanted) -> dict[str, dict[str, list[int]]]:
    spare, shot, queries = wanted.unequal, wanted.shot or 1 + wanted.unequal, wanted.queries or 1
    least = shot + queries + spare
    to_train = (wanted.train_shot or shot) + (wanted.train_queries or queries) + spare
    rows: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
    for name, number in sorted(kept.items()):
        if wanted.fractions is None:
            val = test = max(least, min(number // 4, (number - to_train) // 2))
        else:
            val, test = (max(1, round(number * share)) for share in wanted.fractions[1:])
        # places as texts of equal length, so that their order is theirs
        places = [f"{place:09d}" for place in range(number)]
        val, test = min(val, number), min(test, max(0, number - val))
        parts = shared_out(places, val, test, f"{wanted.split_seed} {name}")
        for split, part in zip(SPLITS, parts, strict=True):
            rows[split][name] = sorted(map(int, part))
    return rows


def _own_way(rows: Rows, wanted: Wanted) -> dict[str, int]:
    """How many classes there are in each split whose way is not told."""
    told = {"train": wanted.train_way, "val": wanted.val_way}
    return {split: len(of) for split, of in rows.items() if told.get(split) is None}


def _check_way(rows: Rows, wanted: Wanted, way: int, by: str, faults: list[str]) -> None:
    """Note the splits that have too few classes for an episode."""
    needs = {"train": wanted.train_way or way, "val": wanted.val_way or way, "test": way}
    if by == "examples":  # the classes of one are those of all
        needs = {"train": max(needs.values())}
    for split, needed in needs.items():
        if split in rows and (number := len(rows[split])) < needed + wanted.outside:
            where = "" if by == "examples" else f"in {split} "
            more = " and one outside of it" if wanted.outside else ""
            faults.append(f"{where}there {_are(number)}, an episode needs {needed}{more}")


def _are(number: int) -> str:
    return "is 1 class" if number == 1 else f"are {number} classes"


def _examples(
    kept: Mapping[str, int],
    rows: Rows,
    wanted: Wanted,
    by: str,
    faults: list[str],
) -> tuple[int, int]:
    """The shot and the queries that the smallest class of the splits has examples for."""
    spare, fewest_shots = int(wanted.unequal), 1 + wanted.unequal
    numbers = [len(of) for split in rows.values() for of in split.values()]
    room = min(numbers, default=0) - spare
    shot, queries = wanted.shot, wanted.queries
    if shot is None:
        most = room // 2 if queries is None else room - queries
        shot = max(fewest_shots, min(MOST_SHOT, most))
    if queries is None:
        queries = _whole(min(MOST_QUERIES, room - shot), wanted.nota_rates, room + spare)
    train_shot, train_queries = wanted.train_shot or shot, wanted.train_queries or queries
    told = dict.fromkeys(rows, f"shot {shot} + queries {queries}")
    needs = dict.fromkeys(rows, shot + queries + spare)
    needs["train"] = train_shot + train_queries + spare
    if (train_shot, train_queries) != (shot, queries):
        told["train"] = f"train_shot {train_shot} + train_queries {train_queries}"
    used = {name for split in rows.values() for name in split}
    small = sorted(
        n for n in used if any(len(rows[s].get(n, range(10**9))) < needs[s] for s in rows)
    )
    if small:
        where = " in each of train, val and test" if by == "examples" else ""
        worst = max(needs, key=lambda split: needs[split])
        faults.append(
            f"a class needs {needs[worst]} {wanted.nouns}{where} ({told[worst]}), fewer are in"
            f" {names_of([f'{n!r} ({kept[n]})' for n in small])}"
        )
    return shot, queries


def _whole(most: int, rates: Sequence[float], limit: int) -> int:
    """The largest of 1..`most` of which each rate makes a whole number up to `limit`, or `most`."""
    fine = (n for n in range(most, 0, -1) if all(r * n == round(r * n) <= limit for r in rates))
    return next(fine, max(1, most))


def names_of(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return printable(", ".join([*names[:SHOWN], *more]))
