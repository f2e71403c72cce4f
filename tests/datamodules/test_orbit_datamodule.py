"""ORBIT: users as tasks, both modes, frames of the past alone, accuracy by video, every refusal."""

import json
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from commands import fewshot, results
from fakes import fake_orbit
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewshot.datamodules import ORBITDataModule
from fewshot.datasets.orbit import Mode, load_orbit, past_clip, uniform_places, valid_places
from fewshot.datasets.reading.decoding import read_image
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.tasks import VideoClassification, make_task


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_orbit(
        tmp_path_factory.mktemp("orbit") / "orbit_benchmark_224", things=3, clean=7, frames=53
    )


def own_notes(root: Path, name: str, gone: int) -> None:
    """Say that the object is not on the first frames of a video."""
    path = root / f"annotations/test/{name}.json"
    notes = json.loads(path.read_text())
    for frame in sorted(notes)[:gone]:
        notes[frame]["object_not_present_issue"] = True
    path.write_text(json.dumps(notes))


def test_the_published_users_are_disjoint_and_as_many_as_the_reference_says(
    shared_data: Path,
) -> None:
    users = json.loads((shared_data / "splits/orbit/orbit_benchmark_mode_splits.json").read_text())
    assert {mode: len(names) for mode, names in users.items()} == {
        "train": 44,
        "validation": 6,
        "test": 17,
    }
    assert len({name for names in users.values() for name in names}) == 67


def test_clean_videos_are_learned_from_and_clutter_or_held_out_clean_ones_judged(
    root: Path,
) -> None:
    clean, clutter = (load_orbit(root.parent, mode)["test"]["P004"] for mode in get_args(Mode))
    for thing in clutter:
        assert [video.path.parent.name for video in thing.support] == ["clean"] * 7
        assert [video.path.parent.name for video in thing.query] == ["clutter"]
    for thing in clean:
        assert [video.path.name[-1] for video in thing.support] == list("01234")
        assert [video.path.name[-1] for video in thing.query] == list("56")
        assert all(video.path.parent.name == "clean" for video in thing.support + thing.query)


def test_with_fewer_clean_videos_all_but_one_are_support(tmp_path: Path) -> None:
    things = load_orbit(fake_orbit(tmp_path, users=1, clean=2), "CLE-VE")["test"]["P002"]
    assert [(len(thing.support), len(thing.query)) for thing in things] == [(1, 1), (1, 1)]


@given(st.integers(0, 500), st.integers(1, 20))
def test_a_clip_never_looks_ahead(place: int, length: int) -> None:
    clip = past_clip(place, length)
    assert len(clip) == length
    assert clip[-1] == max(clip) == place
    assert all(0 <= later - earlier <= 1 for earlier, later in pairwise(clip))
    assert clip[0] == max(0, place - length + 1)


def test_the_latest_frame_of_an_example_is_the_last_of_its_channels(root: Path) -> None:
    module = ORBITDataModule(str(root), image_size=8, clip_length=3, query_frames=60)
    assert (module.in_channels, module.in_features) == (9, 9 * 64)
    episode = module.stream("test")[0]
    images, videos = episode.query.inputs, episode.query.marks
    assert isinstance(images, Tensor)
    assert isinstance(videos, Tensor)
    assert images.shape[1:] == (9, 8, 8)
    first = images[videos == 0]
    assert len(first) == 53  # all of them, in the order of time
    assert torch.equal(first[0, :3], first[0, 6:])  # nothing was before the first
    for later, clip in enumerate(first[2:], start=2):
        assert torch.equal(
            clip, torch.cat([first[place, 6:] for place in (later - 2, later - 1, later)])
        )


def images(part: Examples) -> Tensor:
    assert isinstance(part.inputs, Tensor)
    return part.inputs


def test_a_task_takes_all_things_of_a_user_and_all_valid_frames(root: Path) -> None:
    module = ORBITDataModule(
        str(root), image_size=8, support_frames=2, query_frames=20, test_episodes=2
    )
    loader = module.test_dataloader()
    # as they come, with their sources
    batches = list(loader)
    assert [user for batch in batches for user in batch.sources or ()] == [
        "P004",
        "P005",
    ] * 2  # 2 tasks of each user
    episode = batches[0].parts[0]
    assert images(episode.support).shape == (1, 3 * 7 * 2, 3, 8, 8)
    assert images(episode.query).shape == (1, 3 * 20, 3, 8, 8)
    for one in (part for batch in batches for part in batch.parts):
        videos, labels = one.query.marks, one.query.targets
        assert isinstance(videos, Tensor)
        # a video has one label
        assert len(set(zip(videos[0].tolist(), labels[0].tolist(), strict=True))) == 3
    converted = module.on_after_batch_transfer(batches[0], 0).parts[0]
    torch.testing.assert_close(images(converted.query), images(episode.query).float() / 255)


def test_training_tasks_differ_in_way(tmp_path: Path) -> None:
    module = ORBITDataModule(
        str(fake_orbit(tmp_path, things=5, clean=2)), image_size=8, train_way=4
    )
    ways = []
    for number in range(40):
        support, query = module.stream("train")[number]
        ways.append(int(support.targets.max()) + 1)
        assert set(query.targets.tolist()) == set(support.targets.tolist()) == set(range(ways[-1]))
    assert set(ways) == {2, 3, 4}
    assert module.task == {"kind": "video_classification", "way": None}


def test_frames_without_the_object_are_dropped_from_queries_alone(tmp_path: Path) -> None:
    root = fake_orbit(tmp_path, users=1, clutter=2, frames=52)
    own_notes(root, "P002--thing0--clutter--0", 2)
    own_notes(root, "P002--thing1--clutter--0", 3)  # 49 are left: not judged
    own_notes(root, "P002--thing1--clean--0", 4)
    module = ORBITDataModule(str(root), image_size=8, query_frames=100)
    things = module.sources("test")["P002"].things
    assert [len(thing.query) for thing in things] == [2, 1]
    assert valid_places(things[0].query[0]) == list(range(2, 52))
    episode = module.sources("test")["P002"].draw(np.random.default_rng(0))
    videos = episode.query.marks
    assert videos is not None
    assert sorted(torch.bincount(videos).tolist()) == [50, 52, 52]
    assert len(episode.support.targets) == 2 * 3 * 4  # clean frames are never filtered
    every = ORBITDataModule(str(root), image_size=8, annotations=False).sources("test")["P002"]
    assert [len(thing.query) for thing in every.things] == [2, 2]


def test_objects_without_a_judged_video_are_none_of_the_task(tmp_path: Path) -> None:
    root = fake_orbit(tmp_path, users=1, things=3, frames=52)
    own_notes(root, "P002--thing1--clutter--0", 3)  # 49 are left: not judged
    tasks = ORBITDataModule(str(root), image_size=8, query_frames=5).sources("test")["P002"]
    assert [thing.name for thing in tasks.things] == ["thing0", "thing2"]
    episode = tasks.draw(np.random.default_rng(0))
    for part in (episode.support, episode.query):  # they are no distractors either
        assert set(part.targets.tolist()) == {0, 1}
    every = ORBITDataModule(str(root), image_size=8, annotations=False).sources("test")["P002"]
    assert len(every.things) == 3
    own_notes(root, "P002--thing0--clutter--0", 3)
    valid_places.cache_clear()
    with pytest.raises(FewshotError, match=r"user P002 of test has 1 objects .*, and 2 are a task"):
        ORBITDataModule(str(root), image_size=8).sources("test")


def test_support_frames_are_drawn_or_at_equal_distances(root: Path) -> None:
    def support(**options: Any) -> list[Tensor]:
        module = ORBITDataModule(str(root), image_size=8, query_frames=2, **options)
        tasks = module.sources("test")["P004"]
        return [images(tasks.draw(np.random.default_rng(seed)).support) for seed in (0, 1)]

    def frames(part: Tensor) -> list[bytes]:
        return sorted(image.numpy().tobytes() for image in part)

    one, other = support(support_frames=2, support_spacing="uniform")
    assert frames(one) == frames(other), "whatever is drawn besides"
    drawn, again = support(support_frames=2)
    assert frames(drawn) != frames(again)
    # of videos of four frames the first and the last
    every = frames(support(support_frames=4)[0])
    assert len(one) == len(every) // 2
    paths = sorted((root / "test/P004").glob("*/clean/*/*.jpg"))
    ends = [read_image(path, 8, 3) for path in paths if path.stem[-1] in "14"]
    assert frames(one) == sorted(np.ascontiguousarray(image).tobytes() for image in ends)
    assert uniform_places(53, 3).tolist() == [0, 26, 52]
    assert uniform_places(2, 2).tolist() == [0, 1]
    with pytest.raises(FewshotError, match="support_spacing is 'even'"):
        support(support_spacing="even")
    spaced = ORBITDataModule(str(root), support_spacing="uniform").protocol()
    assert spaced["support_spacing"] == "uniform"


def test_an_episode_is_a_function_of_its_number(root: Path) -> None:
    first, second = (
        ORBITDataModule(str(root), image_size=8, query_frames=5).stream("test")[3] for _ in range(2)
    )
    assert torch.equal(first.query.inputs, second.query.inputs)  # type: ignore[arg-type]  # tensors


def test_the_accuracy_is_by_video_with_its_interval() -> None:
    task = make_task({"kind": "video_classification", "way": None})
    assert isinstance(task, VideoClassification)
    generator = torch.Generator().manual_seed(0)
    columns: dict[str, list[Tensor]] = {}
    accuracies: list[float] = []
    for frames in ((10, 3, 7), (50,), (4, 4)):
        targets = torch.randint(0, 3, (sum(frames),), generator=generator)
        logits = torch.randn(sum(frames), 3, generator=generator)
        marks = torch.repeat_interleave(torch.arange(len(frames)), torch.tensor(frames))
        right = (logits.argmax(-1) == targets).double()
        accuracies += [float(part.mean()) for part in torch.split(right, list(frames))]
        row = task.marks(Examples(torch.zeros(1, 1), targets[None], marks[None]), logits[None])
        row |= {name: value[None] for name, value in task.metrics(logits, targets).items()}
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    found = task.estimates({name: torch.cat(values) for name, values in columns.items()})
    assert found["accuracy_video"].mean == pytest.approx(np.mean(accuracies))
    assert found["accuracy_video"].ci95 == pytest.approx(
        2.5705818 * np.std(accuracies, ddof=1) / math.sqrt(6),
        rel=1e-4,  # Student's, of 5
    )
    assert found["accuracy"].mean != pytest.approx(np.mean(accuracies))
    assert set(found) == {"accuracy_video", "accuracy"}


def test_unmarked_episodes_are_one_video() -> None:
    task = VideoClassification(2)
    targets = torch.tensor([[0, 1, 1]])
    logits = torch.eye(2)[torch.tensor([[0, 1, 0]])]
    found = task.estimates(task.marks(Examples(torch.zeros(1, 3), targets), logits))[
        "accuracy_video"
    ]
    assert found.mean == pytest.approx(2 / 3)
    assert math.isnan(found.ci95)


def test_a_run_from_end_to_end(root: Path, tmp_path: Path) -> None:
    options = [
        "--data.root",
        str(root),
        "--data.image_size=16",
        "--data.query_frames=5",
        "--data.meta_batch_size=2",
    ]
    learner = ["--model=PrototypicalNetwork", "--model.backbone=Conv4", "--model.backbone.width=4"]
    run = fewshot(
        "fit", tmp_path, "--data=ORBITDataModule", *options, *learner, "--trainer.max_epochs=1"
    )
    result = results(run)
    assert (result["benchmark"], result["split"], result["episodes"]) == ("ORBIT", "CLU-VE", 6)
    assert set(result["sources"]) == {"P004", "P005"}
    users = [result["sources"][user]["accuracy_video"]["mean"] for user in ("P004", "P005")]
    assert result["metrics"]["accuracy_video"]["mean"] == pytest.approx(np.mean(users))
    things = {f"{user}/thing{i}" for user in ("P004", "P005") for i in range(3)}
    assert set(result["by_class"]) == things
    assert {of["episodes"] for of in result["by_class"].values()} == {3}
    assert (run / "confusion.csv").is_file()


def test_things_have_the_names_under_which_they_are_drawn(root: Path) -> None:
    module = ORBITDataModule(str(root), image_size=8, support_frames=2, query_frames=4)
    orders, colours = set(), dict[str, list[Tensor]]()
    for number in range(0, 12, 2):  # of one user
        episode, names = module.stream("test")[number], module.stream("test").class_names(number)
        assert names is not None
        orders.add(names)
        for label, name in enumerate(names):
            of_thing = images(episode.query)[episode.query.targets == label].float()
            colours.setdefault(name, []).append(of_thing.mean((0, 2, 3)))
    assert len(orders) > 1
    assert len(colours) == 3
    spread = max(float((a - b).abs().max()) for of in colours.values() for a in of for b in of)
    means = [torch.stack(of).mean(0) for of in colours.values()]
    apart = min(float((a - b).abs().max()) for a in means for b in means if a is not b)
    assert spread < apart / 2


def test_the_past_alone_may_be_used(root: Path) -> None:
    module = ORBITDataModule(str(root), image_size=8)
    trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(batchnorm="transductive"), global_rank=0, world_size=1
    )
    module.trainer = trainer  # type: ignore[assignment]  # as far as it is read
    with pytest.raises(FewshotError, match=r"earlier frames alone.*set batchnorm: inductive"):
        module.test_dataloader()
    trainer.lightning_module.batchnorm = "inductive"
    assert len(module.test_dataloader()) == math.ceil(2 * 50 / 8)


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    def refused(match: str, **kwargs: Any) -> None:
        with pytest.raises(FewshotError, match=match) as error:
            ORBITDataModule(str(tmp_path), image_size=8, **kwargs).sources("test")
        assert "\n" not in str(error.value)

    refused(
        r"has no ORBIT: expected train/, validation/ and test/.*annotations/.*city.14294597 \(CC"
        r" BY 4.0"
    )
    refused("mode is 'VE'", mode="VE")
    refused("clip_length is 0; set clip_length >= 1", clip_length=0)
    refused("train_way is 1: an episode needs at least 2 classes; set train_way >= 2", train_way=1)
    root = fake_orbit(tmp_path, users=1)
    empty = root / "test/P002/thing0/clutter/P002--thing0--clutter--0"
    notes = root / "annotations/test/P002--thing1--clutter--0.json"
    content = notes.read_text()
    notes.unlink()
    refused(r"P002--thing1--clutter--0.json does not say on which frames .*set annotations: false")
    notes.write_text("{}")
    refused(r"P002--thing1--clutter--0.json does not say on which frames")
    notes.write_text(content)
    for thing in (0, 1):
        own_notes(root, f"P002--thing{thing}--clutter--0", 1)
    valid_places.cache_clear()
    refused(r"the user P002 of test has 0 objects with a query video of enough valid frames")
    for frame in empty.iterdir():
        frame.unlink()
    refused(r"the video .*P002--thing0--clutter--0 has no frames \(\*.jpg\); extract it again")
