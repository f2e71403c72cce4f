"""FewGLUE's files: where they lie, and whether they are the published ones."""

from pathlib import Path

from fewshot.datasets.reading.contents import is_published
from fewshot.errors import FewshotError

FOLDERS = ("FewGLUE", "FewGLUE_32dev", "")
BLOBS = {
    "BoolQ/dev32": "30e778afd6bf52445f2fc77346be543abe5374ac",
    "BoolQ/train": "750126f2cea98bd68a9a6dafa874c783c86a63a4",
    "BoolQ/unlabeled": "e55215b1ce4f66eafdee8ca2f07809c1dd5c4f18",
    "BoolQ/val": "41e857c4c966dc94f6ed869d54617519c00fa7d5",
    "CB/dev32": "caa7da0b3f06dcf4c5d12505d3f29d8c812c37bd",
    "CB/train": "733fa9214f87b2e313a3cc06d9aba1c90762e7c8",
    "CB/unlabeled": "e286a0bdad8c8cf2b0ed244fa8d1eba68e7e3b1f",
    "CB/val": "034b5579179c88ef8e968f1e336790d25a8df78d",
    "COPA/dev32": "6aa8074451d751547ba0b2d969496d1119aa8546",
    "COPA/train": "990be18bfb06fda2a7eeebcfdf634338d176d687",
    "COPA/unlabeled": "bd32e3524f9e70eddca63533e90c3b7abf78ed52",
    "COPA/val": "605be5f4aa544e0fa7dada6063f517794b32c3be",
    "MultiRC/dev32": "31531a45185c6492a1141519016b75a1e410a089",
    "MultiRC/train": "a81d5876daa7d86eb2ccf632664979479290d08c",
    "MultiRC/unlabeled": "03f2de44ed099c7d1e7751d531517202ecdbde18",
    "MultiRC/val": "33274637e02b0b0fdbdcee303f0406fbff27b4ed",
    "RTE/dev32": "6006ef9178b57769c4980346a4e9a3a7e9cc525f",
    "RTE/train": "eecfe296e2cc59e3b2e0361f7e8c669afdb38064",
    "RTE/unlabeled": "a9b4d4afefccb29d1de4c5868aefd4e2ae5c022b",
    "RTE/val": "3710a96aaa3bae26ef449cc2bacdcc5d0ea09944",
    "ReCoRD/dev32": "fab3ea1c1a4cab1ae08894c7fe38cd94662996af",
    "ReCoRD/train": "8337d352a22c83f7d8b14cc1b1c92c266c570f2e",
    "ReCoRD/unlabeled": "efb79bd133bed8cc5c6751669679f1a3cc68ac14",
    "ReCoRD/val": "a9c4a5a36598f78a8e0deb5b977d3a5c81df608f",
    "WSC/dev32": "742d3454b88e7ee12e1e58028f67c46581bf8ad6",
    "WSC/train": "b002161d2651da9acfaf4209b2ba607c92c5a7b6",
    "WSC/unlabeled": "f7270aa1e41d74282f2b09326fc3c0506454fb25",
    "WSC/val": "a16023bc3e96222c5200476572074746fbda6300",
    "WiC/dev32": "218794d19cec4f53e3daa98e877cd57dda251520",
    "WiC/train": "092f1d5996267d4fcda51ef4c35d0c664a36083e",
    "WiC/unlabeled": "50f3ac8d2ec5de43707cb380792f27c1ae4e74af",
    "WiC/val": "03cb78139bb4b5da1ed8c519b5fef40d6056e6e0",
}
"""What git calls the published files: in github.com/timoschick/fewglue, commit f52d951; ``dev32``
and ``val`` in github.com/THUDM/P-tuning, commit f4225d4. ``train`` is the same in both."""


def find_file(root: Path, task: str, part: str) -> Path:
    """Where a task's file lies under `root`; one line says so where it is not the published one.

    Raises:
        FewshotError: it is missing, or holds another of the published contents.
    """
    places = [
        root / folder / sub / task / f"{part}.jsonl"
        for folder in ("", "fewglue")
        for sub in FOLDERS
    ]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        extra = "; for no unlabelled examples set data.unlabeled: 0" if part == "unlabeled" else ""
        raise FewshotError(
            f"{places[0]} is missing; fetch it, or set root to the folder that holds it{extra}"
        )
    is_published(path, BLOBS, f"{task}/{part}", "fetch it again", "git-blob")
    return path
