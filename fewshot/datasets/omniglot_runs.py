"""Omniglot's 20 published runs of within-alphabet one-shot classification (Lake et al., 2015).

https://github.com/brendenlake/omniglot, ``python/one-shot-classification/all_runs.zip``. Each run
is 20-way 1-shot with 20 queries of another drawer: ``run01/training/class01.png`` ...
``class20.png``, ``run01/test/item01.png`` ..., and ``run01/class_labels.txt`` with a line such as
``run01/test/item01.png run01/training/class08.png`` for each query. The mean error of the runs is
the paper's figure. Train on ``split: lake``: the runs are of the evaluation alphabets.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from fewshot.datasets.reading.decoding import Encoded, unreadable
from fewshot.datasets.reading.downloads import opened_zip
from fewshot.datasets.reading.faults import Faults
from fewshot.episodes.listed import ListedEpisode, ListedExamples
from fewshot.errors import FewshotError

LABELS = "class_labels.txt"
MEMBER = re.compile(
    rf"(?P<run>(.+/)?run\d+)/({LABELS}|(training|test)/[^/.][^/]*\.png)", re.IGNORECASE
)


def read_runs(path: Path) -> tuple[str, list[ListedEpisode]]:
    """The runs in a folder or a zip file, in the order of their names.

    Classes are numbered in the order of the training files' names, queries in that of the lines.

    Returns:
        The sha256 of their files, the same for a folder and a zip file, and the runs.

    Raises:
        FewshotError: naming the first of what is wrong in them, and how many faults there are.
    """
    runs = _by_run(path)
    if not runs:
        raise FewshotError(
            f"{path} holds no run01/{LABELS}; give the folder or the zip file of Omniglot's runs,"
            " or a JSON file of episodes"
        )
    digest, faults = hashlib.sha256(), Faults(path)
    for run, files in runs.items():
        for name, content in files.items():
            digest.update(f"{PurePosixPath(run).name}/{name} {len(content)}\n".encode() + content)
    episodes = [_episode(run, files, faults) for run, files in runs.items()]
    faults.check()
    return digest.hexdigest(), episodes


def _by_run(path: Path) -> dict[str, dict[str, bytes]]:
    """The content of each file of each run by its name in the run, both sorted."""
    contents: dict[str, bytes] = {}
    if path.is_dir():
        try:
            names = [file.relative_to(path).as_posix() for file in path.rglob("*.*")]
            contents = {n: (path / n).read_bytes() for n in names if MEMBER.fullmatch(n)}
        except OSError as error:
            raise FewshotError(f"cannot read the runs ({error}); correct access rights") from error
    else:
        with opened_zip(path) as archive:
            contents = {n: archive.read(n) for n in archive.namelist() if MEMBER.fullmatch(n)}
    runs: dict[str, dict[str, bytes]] = {}
    for name in sorted(contents):
        match = MEMBER.fullmatch(name)
        assert match is not None  # it was chosen so
        run = match["run"]
        runs.setdefault(run, {})[name.removeprefix(f"{run}/")] = contents[name]
    return runs


def _episode(run: str, files: Mapping[str, bytes], faults: Faults) -> ListedEpisode:
    """A run; its faults are noted."""
    images = {name: Encoded(files[name], f"{run}/{name}") for name in files if name != LABELS}
    for name, image in images.items():
        if why := unreadable(image):
            faults.add(f"{run}/{name}", f"is broken, {why}: unpack the archive again")
    classes = [name for name in images if name.startswith("training/")]
    if len(classes) < 2:
        faults.add(f"{run}/training", f"has {len(classes)} images: give it two or more")
    answers = _answers(run, files, faults)
    for name in images:
        if name.startswith("test/") and name not in answers:
            faults.add(f"{run}/{name}", f"has no line in {run}/{LABELS}: add it")
    right = {query: answer for query, answer in answers.items() if answer in classes}
    return ListedEpisode(
        ListedExamples([images[name] for name in classes], list(range(len(classes)))),
        ListedExamples([images[n] for n in right], [classes.index(n) for n in right.values()]),
    )


def _answers(run: str, files: Mapping[str, bytes], faults: Faults) -> dict[str, str]:
    """The training image of each test image, by their names in the run."""
    lines = files.get(LABELS, b"").decode("utf-8-sig", errors="replace").splitlines()
    if not any(line.strip() for line in lines):
        faults.add(f"{run}/{LABELS}", "is missing or empty: unpack the archive again")
    found = {}
    for number, line in enumerate(lines, 1):
        place, words = f"{run}/{LABELS}, line {number}", line.split()
        names = [PurePosixPath(*PurePosixPath(word).parts[1:]).as_posix() for word in words]
        missing = [word for word, name in zip(words, names, strict=True) if name not in files]
        if not words:
            continue
        if len(words) != 2 or [n.partition("/")[0] for n in names] != ["test", "training"]:
            faults.add(place, f"is {line!r:.80}: give it a test and a training image")
        elif missing:
            faults.add(place, f"names {missing[0]}, which is not there: unpack the archive again")
        elif names[0] in found:
            faults.add(place, f"has {words[0]} again: keep one of its lines")
        else:
            found[names[0]] = names[1]
    return found
