"""`fewshot cache`: which caches there are, how large, and how they go."""

import argparse
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fewshot.cli.options import Options
from fewshot.errors import FewshotError
from fewshot.files.caches import Cache, caches, removed, to_go
from fewshot.files.places import caches_in_use, data_root
from fewshot.files.sizes import measured, shown_size, size_of
from fewshot.files.tables import printable

AGES = {"h": 3600, "d": 86400, "w": 7 * 86400}
AGO = ((86400, "day"), (3600, "hour"), (60, "minute"))


def cache(args: Sequence[str]) -> None:
    """Run the command."""
    parser = Options(
        "cache",
        "List what is kept to be found again: features of frozen networks, decoded images, arrays"
        " made of data. All of it is made again when it is asked for; data are never touched, nor"
        " what a running process uses.",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove the least recently used, until the rest is within --max_size and --max_age",
    )
    parser.add_argument("--max_size", type=size, metavar="SIZE", help="of all, such as 5GB")
    parser.add_argument(
        "--max_age", type=age, metavar="AGE", help="since the last use, such as 12h, 30d or 8w"
    )
    parser.add_argument(
        "--remove",
        nargs="+",
        metavar="NAME",
        help="remove these, as the list names them; 'features/*' is all of a kind",
    )
    parser.add_argument("--dry_run", action="store_true", help="say only what would be removed")
    given = vars(parser.read(args))
    root = data_root(None)
    found, used = caches(root), caches_in_use()
    going = _going(root, found, used, given)
    if going is None:
        show(root, found, used)
        return
    dry, freed = "dry_run" in given, 0
    for one in going if dry else removed(going):
        freed += one.size
        verb = "would remove" if dry else "removed"
        print(f"{verb} {_name(root, one)} ({shown_size(one.size)})")
    verb = "would be freed" if dry else "freed"
    left = sum(one.size for one in found) - freed
    print(f"{shown_size(freed)} {verb}, {shown_size(left)} left in {printable(str(root))}")


def _going(
    root: Path, found: Sequence[Cache], used: set[Path], given: dict[str, object]
) -> list[Cache] | None:
    """The caches that the options have removed; None where they ask for none.

    Raises:
        FewshotError: they contradict each other, or name what there is not or what is in use.
    """
    most, oldest, names = given.get("max_size"), given.get("max_age"), given.get("remove")
    bounds = [name for name in ("max_size", "max_age") if name in given]
    if bounds and "prune" not in given:
        raise FewshotError(f"--{bounds[0]} is a bound of --prune; add --prune")
    if "prune" in given and not bounds:
        raise FewshotError("--prune has no bound; add --max_size 5GB or --max_age 30d")
    if "prune" in given and names is not None:
        raise FewshotError("--prune and --remove are two ways to choose; leave one of them out")
    if names is not None:
        assert isinstance(names, list)
        return _named(root, found, used, names)
    if "prune" not in given:
        if "dry_run" in given:
            raise FewshotError("--dry_run is of --prune and --remove; add one of them")
        return None
    assert isinstance(most, float | None)
    assert isinstance(oldest, float | None)
    return to_go(found, most, None if oldest is None else time.time() - oldest, used)


def _named(
    root: Path, found: Sequence[Cache], used: set[Path], names: Sequence[str]
) -> list[Cache]:
    known, chosen = {_name(root, one): one for one in found}, dict[str, Cache]()
    for pattern in names:
        matching = {name: one for name, one in known.items() if fnmatchcase(name, pattern)}
        if not matching:
            raise FewshotError(f"no cache in {root} is {pattern!r}; `fewshot cache` lists them")
        chosen |= matching
    if busy := [name for name, one in chosen.items() if one.path.resolve() in used]:
        raise FewshotError(f"{', '.join(busy)} is in use by a running process; wait until it ends")
    return list(chosen.values())


def show(root: Path, found: Sequence[Cache], used: set[Path]) -> None:
    """Print the caches, those used last on top."""
    total = shown_size(sum(one.size for one in found))
    number = f"{len(found)} cache{'' if len(found) == 1 else 's'}"
    print(f"{printable(str(root))}: {number}, {total}")
    rows = [
        (
            _name(root, one),
            one.kind,
            shown_size(one.size),
            "in use" if one.path.resolve() in used else since(time.time() - one.used),
        )
        for one in reversed(found)
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for name, kind, size, when in rows:
        print(f"  {name:{widths[0]}}  {kind:{widths[1]}}  {size:>{widths[2]}}  {when}")


def _name(root: Path, one: Cache) -> str:
    return printable(one.path.relative_to(root).as_posix())


def since(seconds: float) -> str:
    """How long ago something was.

    >>> since(5), since(3700), since(200_000)
    ('just now', '1 hour ago', '2 days ago')
    """
    for of_unit, unit in AGO:
        if (number := int(seconds // of_unit)) > 0:
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return "just now"


def size(text: str) -> float:
    """Bytes, of a number with a unit, for argparse."""
    return _given(text, size_of(text), "5GB or 200MB")


def age(text: str) -> float:
    """Seconds, of a number of hours, days or weeks, for argparse.

    >>> age("2d")
    172800.0
    """
    return _given(text, measured(text.lower(), AGES), "12h, 30d or 8w")


def _given(text: str, value: float | None, such_as: str) -> float:
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number with a unit; give {such_as}")
    return value
