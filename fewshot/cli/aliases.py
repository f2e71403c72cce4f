"""Other names of commands and classes: ``train``, ``ProtoNet``, ``maml++``, ``Glyphs``.

A class answers to its name without ``DataModule``, to the title of its docstring, and to the
`aliases` that its file states; how a name is spelt (capitals, blanks, hyphens) does not matter.
"""

import functools
import re
from collections.abc import Mapping, Sequence

from fewshot.cli.catalogue import Entry, benchmarks, learners, networks
from fewshot.cli.commands import COMMANDS
from fewshot.errors import closest, nearest
from fewshot.lazy import public_names

COMMAND_ALIASES = {"train": "fit", "eval": "test", "evaluate": "test", "ls": "list"}
KINDS = {
    "model": learners,
    "data": benchmarks,
    "benchmark": benchmarks,  # of a benchmark without labels
    "backbone": networks,
}


def canonical(args: Sequence[str]) -> list[str]:
    """A command line with the names that are meant in the place of others."""
    words = list(args)
    if words and words[0] not in COMMANDS:
        words[0] = COMMAND_ALIASES.get(words[0].lower(), words[0])
    for number, word in enumerate(words):
        if not word.startswith("--"):
            continue
        option, equals, value = word[2:].partition("=")
        kind = option.removesuffix(".help").removesuffix(".class_path").rpartition(".")[2]
        if option.partition(".")[0] not in ("model", "data") or kind not in KINDS:
            continue
        if equals:
            words[number] = f"--{option}={meant(kind, value)}"
        elif number + 1 < len(words):
            words[number + 1] = meant(kind, words[number + 1])
    return words


def meant(kind: str, word: str) -> str:
    """The class of a kind (`KINDS`) that a word means; the word itself where it means none."""
    if word in public_names("fewshot") or not re.fullmatch(r"[\w+ -]+", word):
        return word
    if any(word in entry.short_names for entry in KINDS[kind]()):
        return word
    return _table(kind).get(plain(word), word)


def names(entry: Entry) -> list[str]:
    """What a class may be called besides its name."""
    title = entry.doc.partition(":")[0] if ": " in entry.doc.splitlines()[0] else entry.name
    return [entry.name.removesuffix("DataModule"), title, *entry.aliases]


@functools.cache
def _table(kind: str) -> Mapping[str, str]:
    entries = KINDS[kind]()
    found = {plain(name): entry.name for entry in entries for name in names(entry)}
    return found | {plain(entry.name): entry.name for entry in entries}


def plain(name: str) -> str:
    """A name without what people spell differently."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))


def unknown(kind: str, word: str) -> str:
    """What is said of a word that is no class of a kind: the nearest by any name, or by meaning."""
    entries = KINDS[kind]()
    known = [name for entry in entries for name in (entry.name, *entry.short_names)]
    called = {name: entry.name for entry in entries for name in names(entry)}
    told = f"{word!r} is no known class"
    near = closest(word, known) or called.get(closest(word, called, cutoff=0.75) or "")
    if near:
        return f"{told}; did you mean {near!r}?"
    if like := by_meaning(kind, word):
        return f"{told}; what it may mean: {', '.join(like)}"
    return told + nearest(word, known)


def by_meaning(kind: str, word: str) -> list[str]:
    """The classes of a kind whose docstrings speak of what a word means."""
    if len(word) < 4:
        return []
    pattern = re.compile(rf"\b{re.escape(word.lower())}")
    return [entry.name for entry in KINDS[kind]() if pattern.search(entry.doc.lower())]
