"""`fewshot check FOLDER`: what a folder of your own images holds, and the command that it takes."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewshot.cli.options import Options
from fewshot.datasets.fitting import Wanted, fit, names_of, remedy
from fewshot.datasets.fitting_words import options, refusal, summary
from fewshot.datasets.inspection import Inspection, inspect
from fewshot.datasets.reading.folders import passed_over
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

WAYS, SHOTS = (2, 3, 5, 10, 20), (1, 5)
CONFIG = "image_folder/protonet"
SHOWN = 5


def check(args: Sequence[str]) -> None:
    """Run the command."""
    parser = Options(
        "check",
        "Say what a folder of your own images holds, which episodes it can serve, and which command"
        " to run. Files are told by their heads: one that is cut off is found when it is decoded.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="a folder for each class, or train, val and test of them"
    )
    root = Path(parser.read(args).folder).expanduser()
    found = inspect(root)
    for line in report(root, found):
        print(printable(line))


def report(root: Path, found: Inspection) -> Iterator[str]:
    """The lines to print.

    Raises:
        FewshotError: after these, where no command works.
    """
    counts = found.counts
    images = _number(sum(counts.values()), "image")
    yield f"{root}: {_number(len(counts), 'class', 'es')}, {images}"
    order = sorted(counts, key=lambda name: counts[name])
    yield f"  fewest: {names_of([f'{name} ({counts[name]})' for name in order])}"
    yield f"  most: {names_of([f'{name} ({counts[name]})' for name in order[::-1][:SHOWN]])}"
    sizes = Counter({f"{width} x {height}": n for (width, height), n in found.sizes.items()})
    for title, counter in (("sizes", sizes), ("modes", found.modes), ("formats", found.formats)):
        yield f"  {title}: {_most_common(counter)}"
    if found.others:
        yield f"  {passed_over(found.others)}"
    if found.unreadable:
        yield f"  {len(found.unreadable)} cannot be read: {names_of(found.unreadable)}"
    if found.duplicates:
        same = [" = ".join(str(path.relative_to(root)) for path in of) for of in found.duplicates]
        yield f"  in several classes: {_number(len(same), 'image')}: {names_of(same)}"
    yield from _protocols(found)
    yield from _command(root, found)


def _protocols(found: Inspection) -> Iterator[str]:
    """The usual episodes that the folder can serve, with the most queries up to 15."""
    for shot in SHOTS:
        tries = {way: fit(found.counts, Wanted(way=way, shot=shot), found.given) for way in WAYS}
        able = [f"{way}-way ({f.queries} queries)" for way, f in tries.items() if not f.faults]
        yield f"  {shot}-shot: {', '.join(able) or 'no'}"


def _command(root: Path, found: Inspection) -> Iterator[str]:
    wanted, wrong = Wanted(), list(found.unreadable)
    fitted = fit(found.counts, wanted, found.given)
    changes = remedy(found.counts, wanted, found.given) if fitted.faults else {}
    if changes is None:
        raise FewshotError(refusal(str(root), found.counts, wanted, found.given, wrong))
    if fitted.faults:
        yield f"  {'; '.join(fitted.faults)}"
        least = changes.get("min_examples")
        assert least is None or isinstance(least, int)
        by = str(changes.get("split_by", "auto"))
        fitted = fit(found.counts, Wanted(min_examples=least, split_by=by), found.given)
    yield f"  {summary(str(root), found.counts, fitted)}"
    more = options(({"skip_broken": "true"} if wrong else {}) | changes)
    yield "run:"
    yield f"  fewshot fit --config {CONFIG} --data.root {shlex.quote(str(root))} {more}".rstrip()


def _number(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"


def _most_common(counter: Counter[str]) -> str:
    shown = [f"{value} ({number})" for value, number in counter.most_common(SHOWN)]
    more = [f"and {len(counter) - SHOWN} more"] if len(counter) > SHOWN else []
    return ", ".join(shown + more) or "none"
