"""ORBIT: teachable object recognition, users as tasks."""

from collections.abc import Mapping
from typing import Any, ClassVar

from fewshot.arguments import Count, Way
from fewshot.datamodules.images import FloatImages
from fewshot.datamodules.sources import SourcesDataModule
from fewshot.datasets.orbit import Mode, Spacing, Thing, UserTasks, load_orbit
from fewshot.datasets.preprocessing import ImagePreprocessing
from fewshot.datasets.reading.downloads import data_root
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import MetaBatch
from fewshot.errors import FewshotError

SUPPORT_VIDEOS = {"train": 5, "val": 15, "test": 15}
QUERY_VIDEOS = {"train": 4, "val": None, "test": None}
"""Maximum videos of an object, as in the benchmark's code (in training: tasks of 6+ objects)."""


class ORBITDataModule(SourcesDataModule, FloatImages):
    """ORBIT: a user's own things on the user's own videos.

    A task is a user, the way the user's number of things.

    CLU-VE learns from clean videos (a thing on a plain surface) and is judged on clutter ones,
    CLE-VE on other clean ones. Validation and test take all judged things of a user and their
    videos, training 2 to `train_way`. The result is `accuracy_video`, the accuracy over the frames
    of a video, averaged over the videos, with its interval; the users' stand beside it. Of a query
    video, 200 frames are drawn from those that show the object. Videos of fewer than 50 such frames
    are left out; a thing with no other is none of the task, which is the authors' rule. What is
    said of a frame may depend on it and earlier ones alone: learners whose batch normalisation
    reads the whole query (`batchnorm: transductive`) are refused. Paper: arXiv:2104.03841.

    Args:
        root: the folder of ``train``, ``validation``, ``test`` and ``annotations``, or the one
            above it.
        mode: `CLU-VE` or `CLE-VE`.
        annotations: drop query frames that do not show the object, by ``annotations/``; false takes
            all frames.
        image_size: side of the frames in pixels.
        clip_length: frames of an example, its own and those before it, along the channels (3 *
            clip_length).
        train_way: things of a training task at most.
        support_frames: frames of each support video.
        support_spacing: how these are chosen: at `random`, or `uniform`, at equal distances from
            the video's first to its last.
        query_frames: frames of each query video at validation and test.
        train_query_frames: the same in training.
        val_episodes: validation tasks of each user.
        test_episodes: test tasks of each user.
        **kwargs: arguments of `EpisodicDataModule`, without `shot`, `queries`, `train_shot` and
            `train_queries`.
    """

    benchmark: ClassVar[str] = "ORBIT"
    fixed_arguments = ("shot", "queries", "train_shot", "train_queries")

    def __init__(
        self,
        root: str | None = None,
        mode: Mode = "CLU-VE",
        annotations: bool = True,
        image_size: Count = 224,
        clip_length: Count = 1,
        train_way: Way = 15,
        support_frames: Count = 16,
        support_spacing: Spacing = "random",
        query_frames: Count = 200,
        train_query_frames: Count = 8,
        val_episodes: Count = 5,
        test_episodes: Count = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            shot=1,
            queries=1,
            train_shot=None,
            train_queries=None,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            **kwargs,
        )
        self.support_spacing = support_spacing
        self.root, self.mode, self.annotations, self.image_size = (
            data_root(root),
            mode,
            annotations,
            image_size,
        )
        self.clip_length, self.train_way, self.support_frames = (
            clip_length,
            train_way,
            support_frames,
        )
        self.query_frames, self.train_query_frames = query_frames, train_query_frames
        self.in_channels = 3 * clip_length
        self._users: dict[str, dict[str, list[Thing]]] | None = None
        self._sources: dict[str, dict[str, UserTasks]] = {}

    @property
    def users(self) -> dict[str, dict[str, list[Thing]]]:
        """The users of train, val and test and their things, found once."""
        if self._users is None:
            self._users = load_orbit(self.root, self.mode, self.annotations)
        return self._users

    @property
    def task(self) -> dict[str, Any]:
        """Classification of video frames, each user with a way of their own."""
        return {"kind": "video_classification", "way": None}

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """As of all images; clips are not made of single files."""
        return ImagePreprocessing(self.image_size, 3).facts() if self.clip_length == 1 else None

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        facts: dict[str, Any] = {
            **super().protocol(),
            "split": self.mode,
            "way": None,
            "shot": None,
            "queries": None,
        }
        facts |= {
            "annotations": self.annotations,
            "image_size": self.image_size,
            "clip_length": self.clip_length,
        }
        facts |= {"support_frames": self.support_frames, "query_frames": self.query_frames}
        spaced = self.support_spacing != "random"  # earlier results do not say it
        return facts | ({"support_spacing": self.support_spacing} if spaced else {})

    def sources(self, stage: Stage) -> Mapping[str, UserTasks]:
        """The tasks of each user of a stage.

        Raises:
            FewshotError: a user has fewer than two objects with a video to be judged on.
        """
        if stage not in self._sources:
            training = stage == "train"
            self._sources[stage] = {
                user: UserTasks(
                    things,
                    self.image_size,
                    self.clip_length,
                    training,
                    self.support_frames,
                    self.train_query_frames if training else self.query_frames,
                    self.train_way,
                    SUPPORT_VIDEOS[stage],
                    QUERY_VIDEOS[stage],
                    self.support_spacing,
                )
                for user, things in self.users[stage].items()
            }
            for user, tasks in self._sources[stage].items():
                if (fit := len(tasks.things)) < 2:
                    raise FewshotError(
                        f"the user {user} of {stage} has {fit} objects with a query video of enough"
                        " valid frames, and 2 are a task; leave the user out, or set annotations:"
                        " false"
                    )
        return self._sources[stage]

    def prepare_data(self) -> None:
        """Look for the data, once a machine."""
        _ = self.users

    def setup(self, stage: str) -> None:
        """Find the data on every rank."""
        _ = self.users

    def converted(self, source: str, batch: MetaBatch) -> MetaBatch:
        """A user's task with frames as float in [0, 1]."""
        return FloatImages.on_after_batch_transfer(self, batch, 0)

    def _loader(self, stage: Stage, meta_batch_size: int, repeat: bool = False) -> EpisodeLoader:
        learner = self.trainer.lightning_module if self.trainer else None
        if stage != "train" and getattr(learner, "batchnorm", None) == "transductive":
            raise FewshotError(
                "ORBIT lets a prediction depend on earlier frames alone, but batchnorm is"
                " transductive: later frames change its statistics; set batchnorm: inductive"
            )
        return super()._loader(stage, meta_batch_size, repeat)
