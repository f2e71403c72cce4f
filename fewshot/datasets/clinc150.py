"""CLINC150: 150 intents of 10 domains, 150 short utterances each; Larson et al. 2019 (arXiv:1909.02027).

The episodic use: the classes are split, so ALL utterances of an intent (the original's 100 for training, 20
for validation and 30 for testing) go to the side its intent is on. The out-of-scope lists are not read.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from fewshot.datasets.base import ClassDataset
from fewshot.datasets.files import download as fetch
from fewshot.datasets.pretrained_tokenizer import PretrainedTokenizer
from fewshot.datasets.words import Terms, build_vocabulary, document_frequencies, encode, split_terms, tokenize
from fewshot.errors import FewshotError

URL = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/"
SHA256 = {
    "data_full.json": "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
    "domains.json": "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
}
REMEDY = "delete it and fetch it again with download: true"
PARTS = ("train", "val", "test")
INTENTS = {"train": 50, "val": 50, "test": 50}  # split="seed"
DOMAINS = {"train": 4, "val": 3, "test": 3}  # split="domain": 60/45/45 intents; 50 are not whole domains

Split: TypeAlias = Literal["seed", "domain"]


class Clinc150(NamedTuple):
    """CLINC150 as tensors of ids: ``train``, ``val`` and ``test``, and what the ids mean.

    `vocabulary` is the term of each id (0: padding, 1: unknown; or a tokenizer's own); `document_frequencies` in how
    many training texts each id of the inputs occurs; `documents` how many training texts there are.
    """

    datasets: dict[str, ClassDataset]
    vocabulary: tuple[str, ...]
    document_frequencies: list[int]
    documents: int


def load_clinc150(
    root: Path,
    split: Split = "seed",
    split_seed: int = 0,
    download: bool = False,
    terms: Terms = "words",
    max_length: int = 32,
    min_count: int = 1,
    unknown_ids: int = 0,
    tokenizer: str | None = None,
) -> Clinc150:
    """Read CLINC150 and split its intents into training, validation and test classes.

    The inputs of each dataset are ``tokens`` (n, L) int64, 0 past the text's end, and ``lengths`` (n,) int64. The
    vocabulary comes from the training classes alone, so that what is met at test time is as new as it would be in
    use. With ``min_count=1`` no training text holds an unknown term, so its embedding is never trained;
    ``min_count=2`` trains it on the terms that occur once.

    Args:
        root: holds ``data_full.json``, itself or in ``data/``, ``clinc150/`` or ``clinc150/data/``.
        split: ``seed`` permutes the sorted intents into 50/50/50; ``domain`` permutes the sorted domains of
            ``domains.json`` into 4/3/3, that is 60/45/45 intents.
        split_seed: the permutation is ``numpy.random.default_rng(split_seed).permutation``.
        download: fetch what is missing to ``root/clinc150``.
        terms: what gets an id: ``words``, or the character ``ngrams`` of the words, by which unknown words are
            partly known.
        max_length: words kept of an utterance; the longest has 28.
        min_count: how often a term must occur in the training classes to get an id of its own.
        unknown_ids: ids that the unknown terms are spread over by their hash; 0: one id for all.
        tokenizer: name or folder of a pre-trained language model: the ids are its tokenizer's, and `max_length` counts
            its pieces. None: the ids of `terms`.

    Raises:
        FewshotError: an argument out of range, a missing file, or one that is not CLINC150's.
    """
    for name, value, least in (
        ("split_seed", split_seed, 0),
        ("max_length", max_length, 1),
        ("min_count", min_count, 1),
        ("unknown_ids", unknown_ids, 0),
    ):
        if value < least:
            raise FewshotError(f"{name} is {value}; it must be at least {least}")
    for name, choice, choices in (("split", split, get_args(Split)), ("terms", terms, get_args(Terms))):
        if choice not in choices:
            raise FewshotError(f"{name} is {choice!r}; it must be {' or '.join(map(repr, choices))}")
    if tokenizer is not None and (terms, min_count, unknown_ids) != ("words", 1, 0):
        raise FewshotError(
            f"the tokenizer {tokenizer} has a vocabulary of its own; leave out terms, min_count and unknown_ids"
        )
    pretrained = None if tokenizer is None else PretrainedTokenizer(tokenizer)
    utterances = read_utterances(find_file(root, "data_full.json", download))
    if split == "seed":
        classes = split_groups([[intent] for intent in sorted(utterances)], INTENTS, split_seed)
    else:
        domains = read_domains(find_file(root, "domains.json", download), utterances)
        classes = split_groups([sorted(domains[name]) for name in sorted(domains)], DOMAINS, split_seed)

    def split_text(text: str) -> list[str]:
        return pretrained.split(text, max_length) if pretrained else split_terms(text, terms, max_length)

    texts = {
        part: [split_text(text) for intent in intents for text in utterances[intent]]
        for part, intents in classes.items()
    }
    vocabulary = pretrained.vocabulary if pretrained else build_vocabulary(texts["train"], min_count)
    datasets = {
        part: ClassDataset(
            encode(texts[part], vocabulary, unknown_ids),
            np.array([len(utterances[intent]) for intent in intents], np.int64),
            tuple(intents),
        )
        for part, intents in classes.items()
    }
    frequencies = document_frequencies(texts["train"], vocabulary) + [0] * unknown_ids
    return Clinc150(datasets, vocabulary, frequencies, len(texts["train"]))


def split_groups(groups: Sequence[Sequence[str]], sizes: Mapping[str, int], seed: int) -> dict[str, list[str]]:
    """The classes of each part: the permuted groups dealt out in the order and number of `sizes`."""
    order = iter(np.random.default_rng(seed).permutation(len(groups)).tolist())
    return {part: [name for _ in range(size) for name in groups[next(order)]] for part, size in sizes.items()}


def find_file(root: Path, name: str, download: bool) -> Path:
    """Where the file `name` lies under `root`; fetched to ``root/clinc150`` if it is missing and may be.

    Raises:
        FewshotError: it is missing and may not be fetched.
    """
    for folder in (root, root / "data", root / "clinc150", root / "clinc150/data"):
        if (folder / name).is_file():
            return folder / name
    if not download:
        raise FewshotError(
            f"no {name} in {root} or its clinc150/; set download: true, or fetch {URL}{name}"
            " (CLINC150, licence CC BY 3.0)"
        )
    path = root / "clinc150" / name
    fetch(URL + name, path, SHA256[name])
    return path


def read_utterances(path: Path) -> dict[str, list[str]]:
    """The utterances of each intent of ``data_full.json``, in the file's order.

    Raises:
        FewshotError: the file is not CLINC150's; the first item that is wrong is named.
    """
    data = _read_json(path)
    texts: dict[str, list[str]] = {}
    for part in PARTS:
        items = data.get(part)
        if not isinstance(items, list):
            raise FewshotError(f"{path} has no list {part!r}, as CLINC150's data_full.json has; {REMEDY}")
        for i, item in enumerate(items):
            match item:
                case [str(text), str(intent)] if tokenize(text):
                    texts.setdefault(intent, []).append(text)
                case [str(text), str(intent)]:
                    raise FewshotError(f"{path}: {part}[{i}] of {intent!r} has no word: {text!r:.60}; {REMEDY}")
                case _:
                    raise FewshotError(f"{path}: {part}[{i}] is {item!r:.80}, not [text, intent]; {REMEDY}")
    if len(texts) != (expected := sum(INTENTS.values())):
        raise FewshotError(f"{path} has {len(texts)} intents, CLINC150 has {expected}; {REMEDY}")
    return texts


def read_domains(path: Path, intents: Collection[str]) -> dict[str, list[str]]:
    """The intents of each domain of ``domains.json``, checked to hold each of `intents` once and no other.

    Raises:
        FewshotError: the file is not CLINC150's, or names other intents; the first one is named.
    """
    domains: dict[str, list[str]] = {}
    for domain, names in _read_json(path).items():
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise FewshotError(f"{path}: {domain!r} is {names!r:.80}, not a list of intents; {REMEDY}")
        domains[domain] = names
    if len(domains) != (expected := sum(DOMAINS.values())):
        raise FewshotError(f"{path} has {len(domains)} domains, CLINC150 has {expected}; {REMEDY}")
    named = Counter(name for names in domains.values() for name in names)
    for intent in sorted({*named, *intents}):
        if named[intent] != (expected := int(intent in intents)):
            raise FewshotError(f"{path} names the intent {intent!r} {named[intent]} times, not {expected}; {REMEDY}")
    return domains


def _read_json(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not JSON, or not text at all
        raise FewshotError(f"{path} cannot be read as JSON ({error}); {REMEDY}") from error
    if not isinstance(data, dict):
        raise FewshotError(f"{path} holds a {type(data).__name__}, not an object; {REMEDY}")
    return data
