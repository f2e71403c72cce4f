"""Your own texts: a file of lines for each class, or one table of texts and labels."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.datasets.fitting import names_of
from fewshot.datasets.reading.folders import SPLITS, counted, find_split_folders, is_visible
from fewshot.datasets.reading.kinds import kind_of
from fewshot.datasets.reading.text_files import NO_UTF8, SHOWN, no_text, read_lines, told
from fewshot.datasets.reading.text_tables import ENDINGS, TextTable, is_table, read_table
from fewshot.datasets.splitting import check_given
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

FORMS = (
    "give <class>.txt or <class>/*.txt with a text a line, train, val and test folders of them, or"
    f" one table ({', '.join(ENDINGS)}) with a column of texts and one of labels"
)


class TextForm(NamedTuple):
    """How texts are read.

    Args:
        text_column: of a table, the column of the texts; None: what is usually called so.
        label_column: of a table, the column of the labels; None: what is usually called so.
        encoding: of files that are not in UTF-8; None: their lines are faults.
        words: a text without a letter or a digit is a fault.
    """

    text_column: str | None = None
    label_column: str | None = None
    encoding: str | None = None
    words: bool = False


USUAL = TextForm()
WINDOWS = "cp1252"


@dataclass(frozen=True)
class OwnTexts:
    """The texts of a folder or a table.

    Args:
        root: the folder or the file.
        given: the classes of train, val and test, where they are told; None: they are to be drawn.
        texts: of each class, in the order of the lines. A class of a split folder is called
            ``train/<class>``.
        broken: what is wrong with lines of a class; of lines of none under "".
        notes: what is to be said of it.
        needed: arguments without which it cannot be read.
        by_split: classes are called ``train/<class>`` and so on.
    """

    root: Path
    given: Mapping[str, Sequence[str]] | None
    texts: Mapping[str, Sequence[str]]
    broken: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()
    needed: Mapping[str, str] = field(default_factory=dict)
    by_split: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many texts each class has."""
        return {name: len(texts) for name, texts in self.texts.items()}

    def faults(self, classes: Sequence[str]) -> list[str]:
        """What is wrong with lines of some classes, and with those of none."""
        return [fault for name in ("", *classes) for fault in self.broken.get(name, ())]

    def every_fault(self) -> list[str]:
        """What is wrong with any line."""
        return self.faults([name for name in self.broken if name])

    def bare(self, name: str) -> str:
        """A class's own name."""
        return name.partition("/")[2] if self.by_split else name

    def of(self, rows: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
        """The texts at these places of each class, by the classes' own names."""
        return {
            self.bare(name): [self.texts[name][place] for place in places]
            for name, places in rows.items()
        }

    def repeats(self) -> list[str]:
        """What is to be said of texts that stand in several classes, or several times in one."""
        classes: dict[str, set[str]] = defaultdict(set)
        again = 0
        for name, texts in self.texts.items():
            for text, number in Counter(texts).items():
                classes[text].add(name)
                again += number - 1
        several = {text: sorted(of) for text, of in classes.items() if len(of) > 1}
        shown = [f"{_short(text)} ({', '.join(of)})" for text, of in several.items()]
        notes = [f"{_texts(len(several))} in several classes: {names_of(shown)}"] if several else []
        return notes + ([f"{_texts(again)} in the same class again"] if again else [])


def _texts(number: int) -> str:
    return "1 text is" if number == 1 else f"{number} texts are"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def holds_texts(root: Path) -> bool:
    """Whether a path holds texts rather than images: by its files. A file of no kind may."""
    found = kind_of(root)
    return found == "text" or (found is None and root.is_file())


def read_own_texts(
    root: Path,
    form: TextForm = USUAL,
    classes: Mapping[str, Sequence[str]] | None = None,
) -> OwnTexts:
    """Read ``root/<class>.txt``, ``root/<class>/*.txt``, those in split folders, or a table.

    Args:
        root: the folder, or the table, or a folder that holds one table.
        form: how.
        classes: the class names of train, val and test; others are not looked at.

    Raises:
        FewshotError: a folder or a file is missing or cannot be read, or its form is none of these.
    """
    table = root if root.is_file() else _only_table(root)
    if table is not None:
        found = _of_table(root, table, form)
    elif split_folders := _split_folders(root):
        parts = {split: _of_folder(split_folders[split], form) for split in SPLITS}
        check_given(root, {split: list(part.texts) for split, part in parts.items()})
        found = OwnTexts(
            root,
            {split: [f"{split}/{name}" for name in part.texts] for split, part in parts.items()},
            {f"{split}/{n}": of for split, part in parts.items() for n, of in part.texts.items()},
            {f"{split}/{n}": of for split, part in parts.items() for n, of in part.broken.items()},
            tuple(note for part in parts.values() for note in part.notes),
            by_split=True,
        )
    else:
        found = _of_folder(root, form)
    return found if classes is None else _chosen(found, classes)


def mended(
    found: OwnTexts, form: TextForm, classes: Mapping[str, Sequence[str]] | None = None
) -> tuple[OwnTexts, dict[str, Any]]:
    """The texts without what is wrong with them, and the arguments that give these.

    Files that are wholly text in Windows' encoding are read so; else lines are left out.
    """
    arguments: dict[str, Any] = dict(found.needed)
    faults = found.every_fault()
    if not faults:
        return found, arguments
    if form.encoding is None and any(NO_UTF8 in fault for fault in faults):
        again = read_own_texts(found.root, form._replace(encoding=WINDOWS, **arguments), classes)
        if not again.every_fault():
            return again, {**arguments, "encoding": WINDOWS}
    return found, {**arguments, "skip_broken": "true"}


def class_files(folder: Path) -> tuple[dict[str, list[Path]], Counter[str]]:
    """The files of each class, and how many others are passed over, by their endings.

    Raises:
        FewshotError: the folder cannot be read, or holds no class.
    """
    files: dict[str, list[Path]] = {}
    others: Counter[str] = Counter()
    for path in _entries(folder):
        if path.is_dir():
            inside = _entries(path)
            name, of = path.name, [p for p in inside if p.suffix.lower() == ".txt"]
            others.update(_endings([p for p in inside if p not in of]))
        elif path.suffix.lower() == ".txt":
            name, of = path.stem, [path]
        else:
            others.update(_endings([path]))
            continue
        if name in files:
            raise FewshotError(
                f"{folder} has both {name}.txt and a folder {name}; keep one of them"
            )
        files[name] = of
    if not any(files.values()):
        passed = f" but {counted(others)}" if others else ""
        raise FewshotError(f"{folder} holds no classes{passed}; {FORMS}")
    return dict(sorted(files.items())), others


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if is_visible(path.name))
    except OSError as error:
        raise FewshotError(
            f"{folder} is no folder that can be read ({error.strerror}); correct it"
        ) from error


def _endings(paths: Sequence[Path]) -> list[str]:
    return [path.suffix.lower() or "no ending" for path in paths]


def _only_table(root: Path) -> Path | None:
    """The table that a folder holds instead of files of lines."""
    entries = _entries(root)
    tables = [path for path in entries if is_table(path) and path.is_file()]
    lines = [path for path in entries if path.is_dir() or path.suffix.lower() == ".txt"]
    if not tables or len(lines) > 1:
        return None
    if len(tables) > 1:
        raise FewshotError(
            f"{root} holds {len(tables)} tables ({names_of([path.name for path in tables])});"
            f" give one of them, such as {tables[0]}"
        )
    return tables[0]


def _split_folders(root: Path) -> dict[str, Path] | None:
    return find_split_folders(root) if any(path.is_dir() for path in _entries(root)) else None


def _of_folder(folder: Path, form: TextForm) -> OwnTexts:
    texts: dict[str, list[str]] = {}
    broken: dict[str, list[str]] = {}
    files, others = class_files(folder)
    for name, paths in files.items():
        texts[name] = []
        for path in paths:
            for line in read_lines(path, form.encoding):
                if why := no_text(line.text, form.words):
                    broken.setdefault(name, []).append(told(path, line, why))
                else:
                    texts[name].append(line.text)
    notes = (f"passed over {counted(others)}, which are no .txt",) if others else ()
    return OwnTexts(folder, None, texts, broken, notes)


def _of_table(root: Path, path: Path, form: TextForm) -> OwnTexts:
    if not is_table(path):
        raise FewshotError(f"{path} is no table of texts; {FORMS}")
    table = read_table(path, form.text_column, form.label_column, form.encoding, form.words)
    labels = sorted({*table.texts, *table.faults} - {""})
    texts = {label: table.texts.get(label, []) for label in labels}
    notes = (*table.not_named(), taken(table))
    return OwnTexts(root, None, texts, table.faults, notes, table.needed)


def taken(table: TextTable) -> str:
    """Which columns were taken."""
    label = "" if table.label_column is None else f", the labels of {table.label_column!r}"
    return printable(f"the texts are those of the column {table.text_column!r}{label}")


def _chosen(found: OwnTexts, classes: Mapping[str, Sequence[str]]) -> OwnTexts:
    """The texts of some classes alone."""
    if set(classes) != set(SPLITS):
        raise FewshotError(
            f"classes are given for {', '.join(classes)}; give them for train, val and test"
        )
    bare = {found.bare(name): name for name in found.texts}
    given = {split: sorted(set(classes[split])) for split in SPLITS}
    names = [name for of in given.values() for name in of]
    for name in names:
        if name not in bare:
            near = difflib.get_close_matches(name, bare, 1, cutoff=0)
            raise FewshotError(f"{found.root} has no class {name!r}; did you mean {near[0]!r}?")
    check_given(found.root, given)
    texts = {name: found.texts[bare[name]] for name in names}
    broken = {name: found.broken[key] for name in names if (key := bare[name]) in found.broken}
    broken |= {"": found.broken[""]} if "" in found.broken else {}
    return OwnTexts(found.root, given, texts, broken, found.notes, found.needed)
