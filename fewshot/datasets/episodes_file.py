"""Test episodes that a file lists: published runs, or a list that several papers test on.

The file is JSON::

    {"episodes": [{"support": [["images/a1.png", "cat"], ["images/b1.png", "cow"]],
                   "query":   [["images/a2.png", "cat"], ["images/b2.png", "cow"]]}]}

Each example is an item and its label. An item is an image's path, relative to the file's folder, or
a text. Labels are any words; classes are numbered as they first occur in an episode's support.
Episodes may differ in way, in shots and in queries. Omniglot's published runs are read from their
own archive: see `fewshot.datasets.omniglot_runs`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from fewshot.datasets.omniglot_runs import read_runs
from fewshot.datasets.reading.decoding import unreadable
from fewshot.datasets.reading.downloads import file_hash
from fewshot.datasets.reading.faults import Faults
from fewshot.datasets.reading.json_files import read_object
from fewshot.episodes.listed import ListedEpisode, ListedExamples
from fewshot.errors import FewshotError

ItemKind: TypeAlias = Literal["image", "text"]
PARTS = ("support", "query")
FORM = 'give {"episodes": [{"support": [[item, label], ...], "query": [[item, label], ...]}, ...]}'


class EpisodesFile(NamedTuple):
    """The episodes of a file, and what results say of it."""

    name: str
    sha256: str
    episodes: list[ListedEpisode]

    @property
    def way(self) -> int | None:
        """N, where all episodes have the same."""
        ways = {episode.way for episode in self.episodes}
        return ways.pop() if len(ways) == 1 else None

    def facts(self) -> dict[str, Any]:
        """What stands beside results: sizes, and which file; no seed has drawn these episodes."""
        return {
            "way": _extent(episode.way for episode in self.episodes),
            "shot": _extent(n for one in self.episodes for n in one.sizes(one.support)),
            "queries": _extent(n for one in self.episodes for n in one.sizes(one.query)),
            "seed": None,
            "test_episodes": self.name,
            "test_episodes_sha256": self.sha256,
        }


def read_episodes(path: Path, kind: ItemKind) -> EpisodesFile:
    """The episodes of a JSON file, or of Omniglot's published runs (a folder or a zip file).

    Args:
        path: the file or folder.
        kind: what an item is.

    Raises:
        FewshotError: naming the first of what is wrong in it, and how many faults there are.
    """
    if path.is_dir() or path.suffix.lower() == ".zip":
        if kind != "image":
            raise FewshotError(
                f"{path} holds images, but the benchmark has texts; give a JSON file"
            )
        return EpisodesFile(path.name, *read_runs(path))
    if not path.is_file():
        raise FewshotError(
            f"there is no file {path} of test episodes; correct the path, or give their number"
        )
    content, faults = read_object(path, FORM), Faults(path)
    item = _text if kind == "text" else _ImageFinder(path.parent, faults)
    entries = content.get("episodes")
    if not isinstance(entries, list) or not entries or len(content) > 1:
        raise FewshotError(f"{path} has no list of episodes under its one key; {FORM}")
    episodes = [
        _episode(entry, f"episodes[{number}]", item, faults) for number, entry in enumerate(entries)
    ]
    faults.check()
    return EpisodesFile(path.name, file_hash(path, "sha256"), [one for one in episodes if one])


def _episode(
    entry: Any, place: str, item: Callable[[str, str], Any], faults: Faults
) -> ListedEpisode | None:
    """An episode of the file; None where it has none of the form of one."""
    if not isinstance(entry, Mapping) or set(entry) != set(PARTS):
        faults.add(place, f"is {entry!r:.60}: give it support and query, and nothing else")
        return None
    parts = [_pairs(entry[part], f"{place}.{part}", faults) for part in PARTS]
    classes = list(dict.fromkeys(label for _, label in parts[0].values()))
    if len(classes) < 2:
        faults.add(f"{place}.support", f"has the classes {classes}: give it two or more")
    known = {text for text, _ in parts[0].values()}
    for where, (text, label) in parts[1].items():
        if label not in classes:
            faults.add(where, f"has the label {label!r}, which its support lacks: add it there")
        if text in known:
            faults.add(where, f"asks for {text!r}, which is in its support: take it out of one")
    support, query = (
        ListedExamples(
            [item(text, where) for where, (text, _) in part],
            [classes.index(label) if label in classes else -1 for _, (_, label) in part],
        )
        # support by class, as drawn episodes have it; queries stay in the file's order
        for part in (
            sorted(parts[0].items(), key=lambda pair: classes.index(pair[1][1])),
            list(parts[1].items()),
        )
    )
    return ListedEpisode(support, query, tuple(classes))


def _pairs(entries: Any, place: str, faults: Faults) -> dict[str, tuple[str, str]]:
    """The items and labels of a part by their places in the file, those that are any."""
    if not isinstance(entries, list) or not entries:
        faults.add(place, f"is {entries!r:.60}: give it a list of [item, label]")
        return {}
    found = {}
    for number, entry in enumerate(entries):
        if (
            isinstance(entry, list)
            and len(entry) == 2
            and all(isinstance(word, str) and word.strip() for word in entry)
        ):
            found[f"{place}[{number}]"] = (entry[0], entry[1])
        else:
            faults.add(f"{place}[{number}]", f"is {entry!r:.60}: give it [item, label], two texts")
    return found


def _text(text: str, place: str) -> str:
    return text


class _ImageFinder:
    """From an item to its image's path; files that are no images are told once."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.folder, self.faults, self.known = folder, faults, set[Path]()

    def __call__(self, item: str, place: str) -> Path:
        path = self.folder / item
        if path not in self.known and (why := unreadable(path)):
            self.faults.add(place, f"names {path}, {why}: correct the path or the file")
        self.known.add(path)
        return path


def _extent(numbers: Iterable[int]) -> int | str:
    """The number, or the smallest and the largest."""
    least, most = min(found := list(numbers)), max(found)
    return least if least == most else f"{least} to {most}"
