"""SNIPS: what people ask of a voice assistant, 7 intents; Coucke et al. 2018 (arXiv:1805.10190).

The custom intent engines of June 2017: some 2000 utterances an intent for training
(``train_<intent>_full.json``) and 100 for validation. One of the files is Latin-1, the others are
UTF-8.
"""

from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from fewshot.datasets.reading.contents import is_published
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

INTENTS = (
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)
SIZES = {"train": 3, "val": 2, "test": 2}  # split="seed"
FOLDER = "2017-06-custom-intent-engines"
ENCODINGS = ("utf-8", "latin-1")
SOURCE = "https://github.com/sonos/nlu-benchmark (licence CC0)"
REMEDY = f"mend it, or fetch it again from {SOURCE}"
SHA256 = {  # of an intent's training and validation file
    "AddToPlaylist": (
        "fee1b4645352e70ed8a40f1f87c3b53fc3bf75f8ebc82252a22b82c107e75b01",
        "14cc9ee49ae477b1452632a6e835498cf4c32da397b16967c82abb3e50403e83",
    ),
    "BookRestaurant": (
        "7677e82cd6e9a8191f0a4502568c786278c984900b4796d3628e46f1abf73ef4",
        "4f7258ccc768b777b2eb8916532db9aa50dbd058ddf1ffb0dc59218963e7442a",
    ),
    "GetWeather": (
        "86f414b2ad8a993134d85d16e25e5d337beae47cef993c0af2a5f440405c60f6",
        "60c095e193655d6ca92be220fed3926ca25e18cd70c85664145efe25d80993af",
    ),
    "PlayMusic": (
        "901ddbe9781d1fdb8196e789c543f80df3d29ca6e237da64947905adcc0312e4",
        "922212775e26259d5bffeaf79b6048d070ca017d229df00b2cc9800f71c75d20",
    ),
    "RateBook": (
        "bb43e4b74134300d5766f6b420d0357a63402987a225f6dc92c806c9c040ce04",
        "c1f8b4114da0bb5e8afd78a8062766e18b2eabb0e717539598db01b09d04619b",
    ),
    "SearchCreativeWork": (
        "87b3432de48c71c205aa5238b41d9e3f2d70bdfcd0bea2427544fb9e4bd5e5bb",
        "8a5e830eddb185d3e4a9d27ded140a145d04766bdce0e58834676ede32d13e77",
    ),
    "SearchScreeningEvent": (
        "5447e9440c02e2fb08c3ae16b9f58a4d1332b4bc77fd34691402b02aa4399765",
        "81e1445713e03c7c3e615353c5f3fee05f369fe9834100b9b9735900a96b9498",
    ),
}
HELD_OUT = 100  # training utterances of an intent that validate, where no intents do

Split: TypeAlias = Literal["all", "seed"]


def load_snips(
    root: Path,
    split: Split = "all",
    split_seed: int = 0,
    options: TextOptions | None = None,
    shot: int = 5,
    fold: int = 0,
) -> TextData:
    """Read SNIPS and split it into training, validation and test.

    The inputs of each dataset are ``tokens`` (n, L) int64, 0 past the text's end, and ``lengths``
    (n,) int64. The vocabulary comes from the training utterances alone. Utterances of an intent's
    training file that stand there before, or in its validation file, are left out.

    Args:
        root: holds the intents' folders, itself or in ``2017-06-custom-intent-engines/``, or in
            ``snips/`` and there.
        split: ``all`` has all 7 intents everywhere: `shot` utterances of the training file for
            training, 100 others of it for validation, and the validation file for test. ``seed``
            permutes the intents into 3/2/2.
        split_seed: the permutation is ``numpy.random.default_rng(split_seed).permutation``.
        options: how texts become ids; None means all defaults.
        shot: training utterances of an intent, for ``split="all"``.
        fold: which of them, drawn by ``numpy.random.default_rng(fold)``.

    Raises:
        FewshotError: an argument out of range, a missing file, or one that is not SNIPS's.
    """
    check_choice("split", split, get_args(Split))
    check_at_least(0, split_seed=split_seed, fold=fold)
    splitter = TermSplitter(options or TextOptions())
    folder = find_folder(root)
    _look(folder)
    validation_texts = {
        intent: read_utterances(folder / intent / f"validate_{intent}.json", intent)
        for intent in INTENTS
    }
    training_texts = {
        intent: read_utterances(folder / intent / f"train_{intent}_full.json", intent)
        for intent in INTENTS
    }
    training_texts = {
        intent: [t for t in dict.fromkeys(texts) if t not in validation_texts[intent]]
        for intent, texts in training_texts.items()
    }
    parts: dict[str, dict[str, list[str]]]
    if split == "all":
        drawn = draw_texts(training_texts, shot + HELD_OUT, fold)
        parts = {
            "train": {intent: texts[:shot] for intent, texts in drawn.items()},
            "val": {intent: texts[shot:] for intent, texts in drawn.items()},
            "test": validation_texts,
        }
    else:
        parts = {
            part: {intent: training_texts[intent] + validation_texts[intent] for intent in intents}
            for part, intents in split_groups(
                [[intent] for intent in INTENTS], SIZES, split_seed
            ).items()
        }
    return encode_texts(splitter.split_parts(parts), splitter)


def _look(folder: Path) -> None:
    """Say so where a file is not known to be the published one; of several, of the first."""
    for intent, checksums in SHA256.items():
        names = f"train_{intent}_full", f"validate_{intent}"
        known = dict(zip(names, checksums, strict=True))
        for path in (folder / intent / f"{name}.json" for name in names):
            if path.is_file() and not is_published(path, known, path.stem, REMEDY):
                return


def find_folder(root: Path) -> Path:
    """The folder with the intents' folders.

    Raises:
        FewshotError: there is none.
    """
    for folder in (root, root / FOLDER, root / "snips", root / "snips" / FOLDER):
        if (folder / INTENTS[0]).is_dir():
            return folder
    raise FewshotError(
        f"no {FOLDER}/{INTENTS[0]} in {root} or its snips/; fetch {FOLDER} from {SOURCE}"
    )


def read_utterances(path: Path, intent: str) -> list[str]:
    """The utterances of a file, in its order.

    Raises:
        FewshotError: the file is missing or not SNIPS's; the first item that is wrong is named.
    """
    items = read_object(path, REMEDY, ENCODINGS).get(intent)
    if not isinstance(items, list):
        raise FewshotError(f"{path} has no list {intent!r}; {REMEDY}")
    texts = []
    for i, item in enumerate(items):
        text = _joined(item)
        if text is None or not tokenize(text):
            wrong = (
                f"is {item!r:.80}, no pieces of text"
                if text is None
                else f"has no word: {text!r:.60}"
            )
            raise FewshotError(f"{place(path, intent, i, encodings=ENCODINGS)} {wrong}; {REMEDY}")
        texts.append(text)
    return texts


def _joined(item: Any) -> str | None:
    """The utterance whose pieces an item holds; None where it holds none."""
    pieces = item.get("data") if isinstance(item, dict) else None
    if not isinstance(pieces, list) or not all(
        isinstance(p, dict) and isinstance(p.get("text"), str) for p in pieces
    ):
        return None
    return "".join(piece["text"] for piece in pieces)
