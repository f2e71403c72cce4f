"""`fewshot check PATH`: what your own images or texts are, and the command that they take."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot.cli.options import Options
from fewshot.datasets.fitting import Wanted, fit, names_of, remedy
from fewshot.datasets.fitting_words import naming, options, refusal, summary, to_add
from fewshot.datasets.inspection import Inspection, inspect
from fewshot.datasets.reading.decoding import REMEDY
from fewshot.datasets.reading.folders import passed_over
from fewshot.datasets.text_folder import OwnTexts, TextForm, holds_texts, mended, read_own_texts
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

WAYS, SHOTS = (2, 3, 5, 10, 20), (1, 5)
SHOWN = 5


def check(args: Sequence[str]) -> None:
    """Run the command."""
    parser = Options(
        "check",
        "Say what your own images or texts are, which episodes they can serve, and which command to"
        " run. Image files are told by their heads: one that is cut off is found when it is"
        " decoded.",
    )
    parser.add_argument(
        "folder",
        metavar="PATH",
        help="a folder for each class, or train, val and test of them; of texts <class>.txt with a"
        " text a line, or a CSV, TSV or JSONL file",
    )
    root = Path(parser.read(args).folder).expanduser()
    lines = of_texts(root) if holds_texts(root) else of_images(root, inspect(root))
    for line in lines:
        print(printable(line))


@dataclass(frozen=True)
class Examples:
    """What was found, as far as episodes depend on it.

    Args:
        root: the folder or the file.
        counts: examples of each class.
        given: the classes of train, val and test, where they are told.
        wrong: what is wrong with examples that cannot be read.
        mended: the arguments with which these are no fault.
        wanted: nothing but what an example is called.
        config: that of the command.
    """

    root: Path
    counts: Mapping[str, int]
    given: Mapping[str, Sequence[str]] | None
    wrong: Sequence[str]
    mended: Mapping[str, object]
    wanted: Wanted
    config: str


def of_images(root: Path, found: Inspection) -> Iterator[str]:
    """The lines to print of a folder of images.

    Raises:
        FewshotError: after these, where no command works.
    """
    wrong = list(found.unreadable)
    skip = {"skip_broken": "true"} if wrong else {}
    examples = Examples(
        root, found.counts, found.given, wrong, skip, Wanted(), "image_folder/protonet"
    )
    yield from _classes(examples)
    sizes = Counter({f"{width} x {height}": n for (width, height), n in found.sizes.items()})
    for title, counter in (("sizes", sizes), ("modes", found.modes), ("formats", found.formats)):
        yield f"  {title}: {_most_common(counter)}"
    if found.others:
        yield f"  {passed_over(found.others)}"
    if wrong:
        yield f"  {len(wrong)} cannot be read: {names_of(wrong)}"
    if found.duplicates:
        same = [_alike(root, of) for of in found.duplicates]
        yield f"  in several classes: {_number(len(same), 'image')}: {names_of(same)}"
    yield from _protocols(examples)
    yield from _command(examples)


def of_texts(root: Path) -> Iterator[str]:
    """The lines to print of texts.

    Raises:
        FewshotError: after these, where no command works.
    """
    form = TextForm(words=True)
    asked = read_own_texts(root, form)
    wrong = asked.every_fault()
    found, arguments = mended(asked, form)
    examples = Examples(
        *(root, found.counts, found.given, wrong, arguments),
        *(Wanted(noun="text"), "text_folder/protonet"),
    )
    yield from _classes(examples)
    yield f"  words: {_lengths(found)}"
    yield from (f"  {note}" for note in (*found.notes, *found.repeats()))
    if wrong:
        told = [fault.removesuffix(f"; {REMEDY} it") for fault in wrong]
        yield f"  {_number(len(wrong), 'line')} cannot be read: {names_of(told)}"
    yield from _protocols(examples)
    yield from _command(examples)


def _classes(found: Examples) -> Iterator[str]:
    counts = found.counts
    number = _number(sum(counts.values()), found.wanted.noun)
    yield f"{found.root}: {_number(len(counts), 'class', 'es')}, {number}"
    order = sorted(counts, key=lambda name: counts[name])
    yield f"  fewest: {names_of([f'{name} ({counts[name]})' for name in order])}"
    yield f"  most: {names_of([f'{name} ({counts[name]})' for name in order[::-1][:SHOWN]])}"


def _lengths(found: OwnTexts) -> str:
    """The shortest, the middle and the longest text."""
    words = sorted(len(text.split()) for texts in found.texts.values() for text in texts) or [0]
    return f"{words[0]} to {words[-1]} a text, half of them up to {words[len(words) // 2]}"


def _protocols(found: Examples) -> Iterator[str]:
    """The usual episodes that the examples can serve, with the most queries up to 15."""
    for shot in SHOTS:
        tries = {way: fit(found.counts, Wanted(way=way, shot=shot), found.given) for way in WAYS}
        able = [f"{way}-way ({f.queries} queries)" for way, f in tries.items() if not f.faults]
        yield f"  {shot}-shot: {', '.join(able) or 'no'}"


def _command(found: Examples) -> Iterator[str]:
    place, wanted = str(found.root), found.wanted
    fitted = fit(found.counts, wanted, found.given)
    changes = remedy(found.counts, wanted, found.given) if fitted.faults else {}
    if changes is None:
        command = naming(place, found.counts, found.given, found.wrong, wanted.noun)
        if command is None:
            raise FewshotError(refusal(place, found.counts, wanted, found.given, found.wrong))
        yield f"  {'; '.join(fitted.faults)}"
        yield f"  {to_add(wanted)}; naming {wanted.nouns} by these needs no training"
        yield from ("run:", f"  {command}")
        return
    if fitted.faults:
        yield f"  {'; '.join(fitted.faults)}"
        least = changes.get("min_examples")
        assert least is None or isinstance(least, int)
        by = str(changes.get("split_by", "auto"))
        changed = Wanted(min_examples=least, split_by=by, noun=wanted.noun)
        fitted = fit(found.counts, changed, found.given)
    yield f"  {summary(place, found.counts, fitted, noun=wanted.noun)}"
    more = options({**found.mended, **changes})
    yield "run:"
    yield f"  fewshot fit --config {found.config} --data.root {shlex.quote(place)} {more}".rstrip()


def _alike(root: Path, files: Sequence[Path]) -> str:
    shown = [str(path.relative_to(root)) for path in files[:SHOWN]]
    more = [f"{len(files) - SHOWN} more"] if len(files) > SHOWN else []
    return " = ".join(shown + more)


def _number(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"


def _most_common(counter: Counter[str]) -> str:
    shown = [f"{value} ({number})" for value, number in counter.most_common(SHOWN)]
    more = [f"and {len(counter) - SHOWN} more"] if len(counter) > SHOWN else []
    return ", ".join(shown + more) or "none"
