"""CLINC150: 150 intents of 10 domains, 150 short utterances each.

Larson et al. 2019 (arXiv:1909.02027).

Where the classes are split, ALL utterances of an intent (the original's 100 for training, 20 for
validation and 30 for testing) go to the side its intent is on. Where they are not, the original's
parts are kept.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from fewshot.datasets.reading.contents import find_content, is_published
from fewshot.datasets.reading.downloads import download as fetch
from fewshot.datasets.reading.downloads import file_hash
from fewshot.datasets.reading.json_files import place, read_object
from fewshot.datasets.reading.texts import (
    TermSplitter,
    TextData,
    TextOptions,
    draw_texts,
    encode_texts,
    split_groups,
)
from fewshot.datasets.reading.words import tokenize
from fewshot.errors import FewshotError, check_at_least, check_choice

URL = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/"
SHA256 = {
    "data_full.json": "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
    "data_small.json": "050e17476e6b4fa88f8518edaf09921c8f5e3a86dc8b63615361102a20b2ac01",
    "data_imbalanced.json": "4886730b20c51eece26aa392ecae2717bfe9908680419e96255351c6148eb4cc",
    "data_oos_plus.json": "bfcca9ae515623541dc1983c94c4ed7cae9d26b42ae47d74b972e51bb6f7a21f",
    "domains.json": "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
}
REMEDY = "delete it and fetch it again with download: true"
PARTS = ("train", "val", "test")
INTENTS = {"train": 50, "val": 50, "test": 50}  # split="seed"
# split="domain": 60/45/45 intents; 50 are not whole domains
DOMAINS = {"train": 4, "val": 3, "test": 3}

OUT_OF_SCOPE = "oos"  # what the original calls utterances of no intent

Split: TypeAlias = Literal["seed", "domain", "all"]
Variant: TypeAlias = Literal["full", "small", "imbalanced", "oos_plus"]
VARIANTS = {name: SHA256[f"data_{name}.json"] for name in get_args(Variant)}


def load_clinc150(
    root: Path,
    split: Split = "seed",
    split_seed: int = 0,
    download: bool = False,
    options: TextOptions | None = None,
    shot: int = 10,
    fold: int = 0,
    out_of_scope: bool = False,
    variant: Variant = "full",
) -> TextData:
    """Read CLINC150 and split it into training, validation and test.

    The inputs of each dataset are ``tokens`` (n, L) int64, 0 past the text's end, and ``lengths``
    (n,) int64. The vocabulary comes from the training utterances alone, so that what is met at test
    time is as new as it would be in use. With ``min_count=1`` no training text holds an unknown
    term, so its embedding is never trained; ``min_count=2`` trains it on the terms that occur once.

    Args:
        root: holds ``data_<variant>.json``, itself or in ``data/``, ``clinc150/`` or
            ``clinc150/data/``; a file of another name is taken if it has the published content.
        split: ``seed`` permutes the sorted intents into 50/50/50; ``domain`` permutes the sorted
            domains of ``domains.json`` into 4/3/3, that is 60/45/45 intents; ``all`` has all 150
            intents everywhere and splits their utterances: `shot` of the original's for training,
            and the original's for validation and test.
        split_seed: the permutation is ``numpy.random.default_rng(split_seed).permutation``.
        download: fetch what is missing to ``root/clinc150``.
        options: how texts become ids; None means all defaults.
        shot: training utterances of an intent, for ``split="all"``.
        fold: which of them, drawn by ``numpy.random.default_rng(fold)``.
        out_of_scope: read the out-of-scope utterances too, as the parts ``val_none`` and
            ``test_none`` of one class.
        variant: the published set: ``full``; ``small`` (50 training utterances an intent);
            ``imbalanced`` (25, 50, 75 or 100); ``oos_plus`` (250 training utterances out of scope,
            where the others have 100; none of these is read). Validation and test are the same.

    Raises:
        FewshotError: an argument out of range, a missing file, or one that is not CLINC150's.
    """
    check_choice("split", split, get_args(Split))
    check_choice("variant", variant, get_args(Variant))
    check_at_least(0, split_seed=split_seed, fold=fold)
    splitter = TermSplitter(options or TextOptions())
    path = find_file(root, f"data_{variant}.json", download, variant)
    is_published(path, VARIANTS, variant, REMEDY)
    utterances = read_utterances(path)
    parts: dict[str, dict[str, list[str]]]
    if split == "all":
        parts = {
            part: {intent: utterances[intent][part] for intent in sorted(utterances)}
            for part in PARTS
        }
        parts["train"] = draw_texts(parts["train"], shot, fold)
    else:
        if split == "seed":
            classes = split_groups([[intent] for intent in sorted(utterances)], INTENTS, split_seed)
        else:
            domains = read_domains(find_file(root, "domains.json", download), utterances)
            classes = split_groups(
                [sorted(domains[name]) for name in sorted(domains)], DOMAINS, split_seed
            )
        parts = {
            part: {
                intent: [text for texts in utterances[intent].values() for text in texts]
                for intent in intents
            }
            for part, intents in classes.items()
        }
    if out_of_scope:
        parts |= {
            f"{part}_none": {OUT_OF_SCOPE: texts} for part, texts in read_out_of_scope(path).items()
        }
    return encode_texts(splitter.split_parts(parts), splitter)


def find_file(root: Path, name: str, download: bool, variant: Variant | None = None) -> Path:
    """Where the file `name` lies under `root`.

    Fetched to ``root/clinc150`` if it is missing and may be. The file of a `variant` may have
    another name.

    Raises:
        FewshotError: it is missing and may not be fetched.
    """
    folders = (root, root / "data", root / "clinc150", root / "clinc150/data")
    if variant is not None:
        found = find_content(folders, name, VARIANTS, variant)
    else:
        found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is not None:
        return found
    if not download:
        raise FewshotError(
            f"no {name} in {root} or its clinc150/; set download: true, or fetch {URL}{name}"
            " (CLINC150, licence CC BY 3.0)"
        )
    path = root / "clinc150" / name
    fetch(URL + name, path, SHA256[name])
    return path


def is_known(root: Path, variant: Variant) -> bool:
    """Whether the file that is read for a `variant` has its published content."""
    path = find_file(root, f"data_{variant}.json", False, variant)
    return file_hash(path, "sha256") == VARIANTS[variant]


def read_utterances(path: Path) -> dict[str, dict[str, list[str]]]:
    """The utterances of each intent of a set's file, by the original's part, in file order.

    Raises:
        FewshotError: the file is not CLINC150's; the first item that is wrong is named.
    """
    data = read_object(path, REMEDY)
    texts: dict[str, dict[str, list[str]]] = {}
    for part in PARTS:
        for text, intent in _items(path, data, part):
            texts.setdefault(intent, {name: [] for name in PARTS})[part].append(text)
    if len(texts) != (expected := sum(INTENTS.values())):
        raise FewshotError(f"{path} has {len(texts)} intents, CLINC150 has {expected}; {REMEDY}")
    return texts


def read_out_of_scope(path: Path) -> dict[str, list[str]]:
    """The out-of-scope utterances of a set's file for validation and test.

    Raises:
        FewshotError: the file is not CLINC150's; the first item that is wrong is named.
    """
    data = read_object(path, REMEDY)
    return {
        part: [text for text, _ in _items(path, data, f"oos_{part}")] for part in ("val", "test")
    }


def _items(path: Path, data: Mapping[str, object], part: str) -> Iterator[tuple[str, str]]:
    items = data.get(part)
    if not isinstance(items, list):
        raise FewshotError(
            f"{path} has no list {part!r}, as CLINC150's data_full.json has; {REMEDY}"
        )
    for i, item in enumerate(items):
        match item:
            case [str(text), str(intent)] if tokenize(text):
                yield text, intent
            case [str(text), str(intent)]:
                raise FewshotError(
                    f"{place(path, part, i)} of {intent!r} has no word: {text!r:.60}; {REMEDY}"
                )
            case _:
                raise FewshotError(
                    f"{place(path, part, i)} is {item!r:.80}, not [text, intent]; {REMEDY}"
                )


def read_domains(path: Path, intents: Collection[str]) -> dict[str, list[str]]:
    """Each domain's intents in ``domains.json``, checked to hold each of `intents` exactly once.

    Raises:
        FewshotError: the file is not CLINC150's, or names other intents; the first one is named.
    """
    domains: dict[str, list[str]] = {}
    for domain, names in read_object(path, REMEDY).items():
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise FewshotError(
                f"{path}: {domain!r} is {names!r:.80}, not a list of intents; {REMEDY}"
            )
        domains[domain] = names
    if len(domains) != (expected := sum(DOMAINS.values())):
        raise FewshotError(f"{path} has {len(domains)} domains, CLINC150 has {expected}; {REMEDY}")
    named = Counter(name for names in domains.values() for name in names)
    for intent in sorted({*named, *intents}):
        if named[intent] != (expected := int(intent in intents)):
            raise FewshotError(
                f"{path} names the intent {intent!r} {named[intent]} times, not {expected};"
                f" {REMEDY}"
            )
    return domains
