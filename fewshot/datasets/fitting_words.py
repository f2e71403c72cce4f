"""What is said of your own images or texts: what they allow, or what is wrong and what works."""

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fewshot.datasets.fitting import FEWEST, Fit, Noun, Wanted, fit, names_of, remedy
from fewshot.datasets.reading.decoding import REMEDY, told_at_once
from fewshot.datasets.reading.folders import SPLITS
from fewshot.datasets.reading.kinds import NETWORKS
from fewshot.files.tables import printable

PIECES: Mapping[Noun, str] = {"image": "files", "text": "lines"}
"""What an example that cannot be read is a piece of."""


def summary(
    place: str,
    counts: Mapping[str, int],
    found: Fit,
    broken: Sequence[str] = (),
    noun: Noun = "image",
) -> str:
    """What was fitted to a folder, in one line.

    Args:
        place: the folder, or the file.
        counts: examples of each class.
        found: what it allows.
        broken: what is wrong with examples that are left out.
        noun: what an example is called.
    """
    kept = {name: n for name, n in counts.items() if any(name in of for of in found.rows.values())}
    fewest, most = min(kept.values()), max(kept.values())
    examples = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    each = {split: len(found.rows[split]) for split in SPLITS}
    if found.by == "examples":
        split = (
            "too few to train on some and test on others: all train, validate and test, with"
            f" different {noun}s, so the test tells how well these classes are told apart, not new"
            " ones"
        )
    else:
        split = f"{each['train']} train, {each['val']} validate, {each['test']} test"
    notes = [f"{len(kept)} classes of {examples} {noun}s: {split}", found.episodes]
    if found.left_out:
        notes.append(f"left out as too small: {names_of([repr(name) for name in found.left_out])}")
    middle = sorted(kept.values())[len(kept) // 2]
    if fewest <= middle // 2 and found.queries < 15:
        small = min(kept, key=lambda name: kept[name])
        notes.append(
            f"the class {printable(small)!r} decides, as it has {fewest} {noun}s:"
            " min_examples leaves small ones out"
        )
    if broken:
        notes.append(f"left out: {told_at_once(broken, PIECES[noun]).rpartition('; ' + REMEDY)[0]}")
    return printable(f"{place}: {'; '.join(notes)}")


def refusal(
    place: str,
    counts: Mapping[str, int],
    wanted: Wanted,
    given: Mapping[str, Sequence[str]] | None,
    broken: Sequence[str],
    mended: Mapping[str, object] = MappingProxyType({"skip_broken": "true"}),
) -> str:
    """Everything that stands against what is asked for, and what works, in one line.

    Args:
        place: the folder, or the file.
        counts: examples of each class that can be read.
        wanted: what is asked for.
        given: the classes of train, val and test, where they are told.
        broken: what is wrong with examples that cannot be read.
        mended: the arguments with which these are no fault.
    """
    faults = list(fit(counts, wanted, given).faults)
    skip = mended if broken else {}
    if broken:
        faults.append(told_at_once(broken, PIECES[wanted.noun]))
    works = remedy(counts, wanted, given)
    if works is not None:
        return printable(f"{place}: {'; '.join(faults)}; {_what_works({**skip, **works})}")
    if command := naming(place, counts, given, broken, wanted.noun):
        faults.append(f"what works without training: {command}")
    return printable(f"{place}: {'; '.join(faults)}; {to_add(wanted)}")


def to_add(wanted: Wanted) -> str:
    """What is missing for training, where no arguments help."""
    many, few = FEWEST + len(SPLITS) * wanted.outside, 2 + wanted.outside
    return (
        f"to train add {wanted.nouns}, until {many} classes have 2 or more each, or {few} classes 6"
    )


def naming(
    place: str,
    counts: Mapping[str, int],
    given: Mapping[str, Sequence[str]] | None,
    broken: Sequence[str],
    noun: Noun,
) -> str | None:
    """The command that names others by a few examples as they are; None where it would not.

    Args:
        place: the folder, or the file.
        counts: examples of each class that can be read.
        given: the classes of train, val and test, where they are told.
        broken: what is wrong with examples that cannot be read.
        noun: what an example is called.
    """
    if given is not None or broken or len(counts) < 2 or not all(counts.values()):
        return None
    network = NETWORKS[noun]
    return f"fewshot predict --backbone {network} --support {shlex.quote(place)} --query NEW"


def options(values: Mapping[str, object]) -> str:
    """Arguments of the benchmark as options of the command line."""
    return " ".join(
        f"--data.{name}={'null' if value is None else value}" for name, value in values.items()
    )


def _what_works(values: Mapping[str, object]) -> str:
    return f"what works: add {options(values)} to the command"
