"""FewRel's files: where they lie, and whether they are the published ones."""

from collections.abc import Sequence
from pathlib import Path

from fewshot.datasets.reading.contents import is_published
from fewshot.errors import FewshotError

URL = "https://github.com/thunlp/FewRel (data/, licence MIT)"
SHA256 = {  # of train_wiki none is known here: its 64 relations of 700 sentences are counted
    "val_wiki": "76bb44c2485b6faed358a3ce040eadafcc8a8835245cd7e6afc1bef672d4a0bf",
    "val_pubmed": "fc0f13b534f6664fe0d8aec231d7590313bc6510d00dbc1b6746147f6a2b46e6",
    "val_nyt": "b519adc61a2bab0f05178e33a3cd8f284338b635629493e9e09616ba81bb428e",
    "val_semeval": "fd79cf35481f6596c23b92cd3ded3265481f3027a4b78d99921104f8fe632eb5",
}
TRAIN_WIKI = [700] * 64


def find_file(root: Path, name: str) -> Path:
    """Where the file `name` lies under `root`.

    Raises:
        FewshotError: it is missing.
    """
    folders = (root, root / "data", root / "fewrel", root / "fewrel/data")
    for folder in folders:
        if (folder / f"{name}.json").is_file():
            return folder / f"{name}.json"
    found = sorted(
        {path.stem for folder in folders for path in folder.glob("*.json")} - {"pid2name"}
    )
    there = f"; there are {', '.join(found)}" if found else ""
    raise FewshotError(
        f"no {name}.json in {root} or its fewrel/data/{there}; fetch it from {URL}, or name another"
    )


def look_at(path: Path, name: str, counts: Sequence[int]) -> None:
    """Say so where the file of `name` is not known to be a published one.

    Args:
        path: the file.
        name: what it shall hold.
        counts: instances of each of its relations.

    Raises:
        FewshotError: it holds another of the published contents.
    """
    if name != "train_wiki" or list(counts) != TRAIN_WIKI:
        is_published(path, SHA256, name, f"fetch it from {URL}")
