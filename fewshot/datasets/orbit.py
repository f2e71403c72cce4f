"""ORBIT: videos of their own things by people who are blind or have low vision (arXiv:2104.03841).

``{train,validation,test}/<user>/<object>/{clean,clutter}/<video>/<video>-00001.jpg`` and, for the
frames on which an object is not to be seen, ``annotations/{train,validation,test}/<video>.json``,
from a frame's file to its facts.
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.datasets.reading.decoding import read_image
from fewshot.episodes.distributions import Stacked
from fewshot.episodes.streams import STAGES, Stage
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError

Mode: TypeAlias = Literal["CLE-VE", "CLU-VE"]
Spacing: TypeAlias = Literal["random", "uniform"]
FOLDERS: dict[Stage, str] = {"train": "train", "val": "validation", "test": "test"}
SOURCE = (
    "expected train/, validation/ and test/ with <user>/<object>/{clean,clutter}/<video>/*.jpg, and"
    " annotations/; get orbit_benchmark_224 and its annotations at doi.org/10.25383/city.14294597"
    " (CC BY 4.0: name its authors)"
)
LEAST_VALID = 50
"""Valid frames from which on a video is judged."""
SUPPORT_CLEAN = 5
"""Clean videos of an object that are support in CLE-VE, where it has more."""


class Video(NamedTuple):
    """A folder of frames."""

    path: Path
    annotations: Path | None
    """Where it is said on which frames the object is; None: it is on all."""


class Thing(NamedTuple):
    """An object of a user, and the videos to learn it from and to find it in."""

    name: str
    support: list[Video]
    query: list[Video]


def load_orbit(
    root: Path, mode: Mode, with_annotations: bool = True
) -> dict[str, dict[str, list[Thing]]]:
    """The objects of each user of train, val and test.

    CLU-VE learns from the clean videos and is judged on the clutter ones; CLE-VE learns from the
    first five clean videos of an object (all but one, where there are fewer) and is judged on the
    others.

    Args:
        root: the folder of ``train``, ``validation`` and ``test``, or one that has it as
            ``orbit_benchmark_224`` or ``orbit_benchmark_84``.
        mode: of evaluation.
        with_annotations: drop frames of query videos on which the object is not to be seen.

    Returns:
        train, val and test: users, and their objects that have a support video, sorted by name.

    Raises:
        FewshotError: a folder is missing, a video has no frames, or a user has fewer than two
            objects or no query.
    """
    if mode not in ("CLE-VE", "CLU-VE"):
        raise FewshotError(
            f"mode is {mode!r}; ORBIT has CLE-VE (clean videos) and CLU-VE (clutter videos)"
        )
    folder = _find(root)
    found: dict[str, dict[str, list[Thing]]] = {}
    for stage in STAGES:
        notes = folder / "annotations" / FOLDERS[stage] if with_annotations else None
        users = {}
        for user in _folders(folder / FOLDERS[stage]):
            things = [_thing(path, mode, notes) for path in _folders(user)]
            users[user.name] = [thing for thing in things if thing.support]
            _check(user, users[user.name], mode)
        found[stage] = users
    return found


def _find(root: Path) -> Path:
    for folder in (root, root / "orbit_benchmark_224", root / "orbit_benchmark_84"):
        if all((folder / name).is_dir() for name in FOLDERS.values()):
            return folder
    raise FewshotError(f"{root} has no ORBIT: {SOURCE}")


def _folders(folder: Path) -> list[Path]:
    try:
        found = sorted(
            path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
    except OSError as error:
        raise FewshotError(f"{folder} cannot be read ({error.strerror}); {SOURCE}") from error
    return found


def _thing(path: Path, mode: Mode, notes: Path | None) -> Thing:
    videos: dict[str, list[Video]] = {}
    for kind in ("clean", "clutter"):
        folders = _folders(path / kind) if (path / kind).is_dir() else []
        for folder in folders:
            if not any(name.endswith(".jpg") for name in os.listdir(folder)):
                raise FewshotError(
                    f"the video {folder} has no frames (*.jpg); extract it again or delete the"
                    " folder"
                )
        videos[kind] = [
            Video(folder, notes and notes / f"{folder.name}.json") for folder in folders
        ]
    clean = videos["clean"]
    if mode == "CLU-VE":
        return Thing(path.name, clean, videos["clutter"])
    split = min(SUPPORT_CLEAN, len(clean) - 1)
    return Thing(path.name, clean[: max(split, 0)], clean[max(split, 0) :])


def _check(user: Path, things: list[Thing], mode: Mode) -> None:
    if len(things) < 2:
        raise FewshotError(
            f"the user {user} has {len(things)} objects with videos to learn from; 2 are needed"
        )
    if not any(thing.query for thing in things):
        raise FewshotError(
            f"the user {user} has no video that {mode} judges; leave the user out, or choose"
            " another mode"
        )


@lru_cache(512)  # a list of hundreds of names each
def frames_of(video: Video) -> list[str]:
    """The files of a video's frames in the order of time."""
    return sorted(name for name in os.listdir(video.path) if name.endswith(".jpg"))


@lru_cache(4096)
def valid_places(video: Video) -> list[int]:
    """The places of the frames on which the object is to be seen, as far as the annotations say.

    Raises:
        FewshotError: the annotations are missing, or do not have a frame.
    """
    frames = frames_of(video)
    if video.annotations is None:
        return list(range(len(frames)))
    try:
        notes = json.loads(video.annotations.read_text())
        missing = [bool(notes[frame]["object_not_present_issue"]) for frame in frames]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewshotError(
            f"{video.annotations} does not say on which frames of {video.path} the object is"
            f" ({error}); get the annotations, or set annotations: false to take all frames"
        ) from error
    return [place for place, gone in enumerate(missing) if not gone]


def past_clip(place: int, length: int) -> list[int]:
    """The places of a clip that ends at a frame: it and those before it.

    The first place is repeated where there are too few.
    """
    return [max(0, earlier) for earlier in range(place - length + 1, place + 1)]


class UserTasks(Stacked):
    """The tasks of one user: to tell the user's things apart in other videos.

    Args:
        things: the user's objects.
        image_size: side of the frames in pixels.
        clip_length: frames of an example, one after the other along its channels, the last one the
            latest.
        training: draw 2 ... `most_things` objects and some of their videos; else take all objects
            that have a video to be judged on, and their videos.
        support_frames: of each support video.
        query_frames: of each query video, drawn at random.
        most_things: the largest way in training.
        support_videos: of an object at most.
        query_videos: the same for the queries; None takes all.
        support_spacing: how support frames are chosen, `random` or `uniform`: at equal distances
            from the first to the last.
    """

    def __init__(
        self,
        things: list[Thing],
        image_size: int,
        clip_length: int,
        training: bool,
        support_frames: int,
        query_frames: int,
        most_things: int,
        support_videos: int,
        query_videos: int | None,
        support_spacing: Spacing = "random",
    ) -> None:
        self.support_spacing = support_spacing
        self.image_size, self.clip_length, self.training = image_size, clip_length, training
        self.support_frames, self.query_frames = support_frames, query_frames
        self.support_videos, self.query_videos, self.most_things = (
            support_videos,
            query_videos,
            most_things,
        )
        if not training:
            things = [
                thing._replace(query=[v for v in thing.query if _is_judged(v)]) for thing in things
            ]
        # An object that is never asked for would only be told apart from others: the authors' tasks
        # are of those that have a video to be judged on.
        self.things = [thing for thing in things if thing.query]

    def draw(self, rng: np.random.Generator) -> Episode:
        """One task: frames uint8 (S, 3 * clip_length, size, size), labels 0..N-1.

        Queries marked with their video.
        """
        support: list[tuple[Tensor, int, int]] = []
        query: list[tuple[Tensor, int, int]] = []
        video = 0
        for label, place in enumerate(self._chosen(rng)):
            thing = self.things[place]
            for one in self._videos(rng, thing.support, self.support_videos):
                support += [(clip, label, 0) for clip in self._clips(one, self._learned(rng, one))]
            for one in self._videos(rng, thing.query, self.query_videos):
                places = list(range(len(frames_of(one)))) if self.training else valid_places(one)
                chosen = rng.choice(places, min(self.query_frames, len(places)), replace=False)
                query += [(clip, label, video) for clip in self._clips(one, chosen)]
                video += 1
        clips, labels, _ = zip(*support, strict=True)
        asked, targets, videos = zip(*query, strict=True)
        return Episode(
            Examples(torch.stack(clips), torch.tensor(labels)),
            Examples(torch.stack(asked), torch.tensor(targets), torch.tensor(videos)),
        )

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The names of a task's things by label."""
        return tuple(self.things[place].name for place in self._chosen(rng))

    def _chosen(self, rng: np.random.Generator) -> list[int]:
        """The places of a task's things by label; drawn before all else."""
        way = len(self.things)
        if self.training:
            way = int(rng.integers(2, min(self.most_things, way) + 1))
        places: list[int] = rng.permutation(len(self.things))[:way].tolist()
        return places

    def _videos(
        self, rng: np.random.Generator, videos: list[Video], most: int | None
    ) -> list[Video]:
        most = len(videos) if most is None else min(most, len(videos))
        number = int(rng.integers(1, most + 1)) if self.training else most
        return [videos[i] for i in sorted(rng.choice(len(videos), number, replace=False).tolist())]

    def _learned(self, rng: np.random.Generator, video: Video) -> NDArray[np.int64]:
        """The places of the frames of a support video."""
        there = len(frames_of(video))
        number = min(self.support_frames, there)
        if self.support_spacing == "uniform":
            return uniform_places(there, number)
        return rng.choice(there, number, replace=False)

    def _clips(self, video: Video, chosen: NDArray[np.int64]) -> list[Tensor]:
        """Clips that end at the chosen places, in time order."""
        frames = frames_of(video)
        clips = (
            [video.path / frames[i] for i in past_clip(end, self.clip_length)]
            for end in sorted(chosen.tolist())
        )
        return [torch.cat([self._frame(path) for path in clip]) for clip in clips]

    def _frame(self, path: Path) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(read_image(path, self.image_size, 3)))


def uniform_places(there: int, number: int) -> NDArray[np.int64]:
    """`number` of `there` places at equal distances, rounded, from the first to the last.

    >>> uniform_places(10, 4).tolist(), uniform_places(10, 1).tolist()
    ([0, 3, 6, 9], [0])
    """
    return np.linspace(0, there - 1, number).round().astype(np.int64)


def _is_judged(video: Video) -> bool:
    return len(valid_places(video)) >= LEAST_VALID
