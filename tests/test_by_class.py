"""Results by class: against written-out counts, for every kind of episodes, in files and loggers."""

import csv
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from commands import fit, results
from fakes import fake_text_folder
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot import MLP, ClassificationDataModule, Conv4, GlyphsDataModule, PrototypicalNetwork
from fewshot.callbacks.by_class import class_table
from fewshot.callbacks.interruption import Interruption
from fewshot.callbacks.pictures import EpisodePicture
from fewshot.callbacks.results import ResultsWriter
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks, FixedTask, NotaTasks, VaryingTasks
from fewshot.episodes.sampling import draw_varying_episode
from fewshot.episodes.source_stream import SourceStream
from fewshot.episodes.streams import EpisodeStream, VaryingStream
from fewshot.tasks import Classification
from fewshot.tasks.by_class import NONE, class_results
from fewshot.tasks.drawing.images import draw_images
from fewshot.tasks.estimates import estimate

CLASSES = tuple(f"group/c{i}" for i in range(7))


def dataset(counts: tuple[int, ...] = (6, 9, 7, 8, 6, 10, 12)) -> ClassDataset:
    """Examples that tell their class."""
    labels = torch.arange(7).repeat_interleave(torch.tensor(counts))
    return ClassDataset(labels[:, None].float(), np.array(counts), CLASSES)


# ---------------------------------------------------------------------- which classes


def streams() -> dict[str, EpisodeStream]:
    data = dataset()
    unequal = ClassTasks(data, 3, 2, 2, unequal_shots=True)
    unbalanced = ClassTasks(data, 3, 1, 2, query_alpha=0.5)
    rows = partial(draw_varying_episode, starts=data.starts, counts=data.counts)
    varying = VaryingTasks(data, partial(rows, ways=(2, 5), shots=(1, 3), queries=2))
    plain = ClassTasks(data, 3, 1, 2)
    return {
        "plain": EpisodeStream(plain, 3, "test"),
        "unequal shots": EpisodeStream(unequal, 3, "test"),
        "unbalanced queries": EpisodeStream(unbalanced, 3, "test"),
        "varying": EpisodeStream(varying, 3, "test"),
        "none of the above": EpisodeStream(NotaTasks(data, 4, 1, 2, 3), 3, "test"),
        "other sizes": VaryingStream([plain, ClassTasks(data, 5, 1, 1)], 3, "test", 2),
        "sources": SourceStream({"a": plain, "b": varying}, 3, "test", [1, 1]),
        "sources in training": SourceStream({"a": plain, "b": varying}, 3, "train", [1, 3]),
    }


@pytest.mark.parametrize("kind", streams())
def test_the_names_are_those_of_the_classes_that_are_drawn(kind: str) -> None:
    stream = streams()[kind]
    for number in range(20):
        episode, names = stream[number], stream.class_names(number)
        assert names is not None
        assert isinstance(episode.query.inputs, torch.Tensor)
        assert len(names) == len(episode.support.targets.unique())  # type: ignore[no-untyped-call]
        for label, example in zip(episode.query.targets, episode.query.inputs, strict=True):
            if label < len(names):
                assert names[label].endswith(CLASSES[int(example)])


def test_one_task_of_all_has_all_names() -> None:
    support = query = ClassDataset({"x": torch.zeros(7, 2)}, np.ones(7, np.int64), CLASSES)
    assert EpisodeStream(FixedTask(support, query), 0, "test").class_names(5) == CLASSES


# ---------------------------------------------------------------------- what became of them


@pytest.mark.parametrize("nota", [False, True])
def test_results_are_those_counted_one_by_one(nota: bool) -> None:
    rng = np.random.default_rng(0)
    names = ("d", "a", "c", "b", "e")
    classes = {n: tuple(rng.permutation(names)[: 2 + n % 3].tolist()) for n in range(3, 40)}
    rows = [
        (number, label, int(rng.integers(0, len(of) + nota)))
        for number, of in classes.items()
        for label in [*(np.arange(len(of)).repeat(4).tolist()), -1, *([len(of)] * nota)]
    ]
    rng.shuffle(rows)
    found = class_results(np.array(rows), classes)
    assert found.names == (*sorted(names), *([NONE] * nota))
    known = {number: (*of, NONE) for number, of in classes.items()}
    counted: dict[tuple[str, str], int] = {}
    of_episodes: dict[str, dict[int, list[float]]] = {name: {} for name in found.names}
    for number, label, answer in rows:
        if label >= 0:
            pair = known[number][label], known[number][answer]
            counted[pair] = counted.get(pair, 0) + 1
            of_episodes[pair[0]].setdefault(number, []).append(float(label == answer))
    assert {(a, b): n for a, b, n, _ in found.confusion()} == counted
    for name, accuracy, episodes, queries in zip(
        found.names, found.accuracy, found.episodes, found.queries, strict=True
    ):
        values = [sum(of) / len(of) for of in of_episodes[name].values()]
        assert accuracy == pytest.approx(estimate(torch.tensor(values, dtype=torch.float64)))
        assert episodes == len(values)
        assert queries == sum(map(len, of_episodes[name].values()))
    rows_of_a = [row for row in found.confusion() if row[0] == "a"]
    assert [row[2] for row in rows_of_a] == sorted((row[2] for row in rows_of_a), reverse=True)
    assert sum(row[3] for row in rows_of_a) == pytest.approx(1, abs=1e-5)
    lowest = [row[1] for row in found.table()]
    assert lowest == sorted(lowest)


def test_a_class_without_queries_and_one_of_two_episodes_have_no_interval() -> None:
    answers = np.array([(0, 0, 0), (0, 0, 1), (1, 0, 0)])
    found = class_results(answers, {0: ("a", "b"), 1: ("a", "c")})
    rows = {name: of for name, *of in found.table()}
    assert rows["a"][0] == 0.75
    assert np.isnan(rows["a"][1])
    assert [np.isnan(rows[name][0]) for name in "bc"] == [True, True]
    assert found.table()[0][0] == "a"
    assert found.picture() is not None


def test_many_classes_are_drawn_and_printed_in_part() -> None:
    names = tuple(f"class{i:02d}" for i in range(60))
    labels = np.arange(60).repeat(3)
    answers = np.where(np.arange(180) % 7 == 0, 5, labels)
    found = class_results(np.stack([np.zeros(180, int), labels, answers], 1), {0: names})
    (axis,) = found.picture().axes
    assert axis.images[0].get_array().shape == (20, 20)  # type: ignore[union-attr]
    assert "20 of 60 classes" in found.picture().texts[0].get_text()
    assert class_table(found, "%").row_count == 5
    few = class_results(np.stack([np.zeros(9, int), labels[:9], answers[:9]], 1), {0: names[:6]})
    assert class_table(few, "%").row_count == 6
    written = {text.get_text() for text in few.picture().axes[0].texts}
    assert {"class00", "class05", "100", "67", "33"} <= written


# ---------------------------------------------------------------------- what a test leaves


def test_a_test_leaves_them_in_files_and_loggers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fake_text_folder(tmp_path / "texts")
    fit(
        tmp_path,
        *("--model=PrototypicalNetwork", "--model.backbone=BagOfWords"),
        *("--data=TextFolderDataModule", f"--data.root={root}"),
        *("--trainer.logger=fake_loggers.Service", f"--trainer.logger.save_dir={tmp_path}/s"),
        *("--trainer.logger+=BoardLogger", f"--trainer.logger.save_dir={tmp_path}/t"),
        *("--trainer.logger+=CSVLogger", f"--trainer.logger.save_dir={tmp_path}/c"),
        drawn=True,
    )
    run = next(tmp_path.rglob("results.json")).parent
    found = results(run)
    assert set(found["by_class"]) == set(found["classes"]["test"])
    assert sum(of["queries"] for of in found["by_class"].values()) == 3 * 2 * found["queries"]
    right = sum(of["accuracy"] * of["queries"] for of in found["by_class"].values())
    every = sum(of["queries"] for of in found["by_class"].values())
    assert right / every == pytest.approx(found["metrics"]["accuracy"]["mean"])
    with (run / "classes.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    with (run / "confusion.csv").open() as file:
        pairs = list(csv.DictReader(file))
    for name, of in found["by_class"].items():
        assert float(rows[name]["accuracy"]) == of["accuracy"]
        assert of["ci95"] is not None
        shares = [float(pair["share"]) for pair in pairs if pair["class"] == name]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        told = [p["share"] for p in pairs if p["class"] == p["predicted"] == name]
        assert float((told or ["0"])[0]) == pytest.approx(
            of["accuracy"], abs=1e-5
        )  # all episodes have as many
    with Image.open(run / "confusion.png") as picture:
        assert min(picture.size) > 50
    said = capsys.readouterr().out
    name = found["classes"]["test"][0]
    assert name in said
    noted = (tmp_path / "s/project.log").read_text()
    for part in ("table test/classes 2 class", "image test/confusion", f"test/class/{name}_ci95"):
        assert part in noted, part
    metrics = next((tmp_path / "c").rglob("metrics.csv")).read_text()
    assert f"test/class/{name}" in metrics
    (events,) = {path.parent for path in tmp_path.rglob("events.out*")}
    board = EventAccumulator(str(events), size_guidance={"images": 0})
    board.Reload()
    assert "test/confusion" in board.Tags()["images"]
    assert f"| {name} | " in board.Tensors("test/classes")[0].tensor_proto.string_val[0].decode()


class Stops(L.Callback):
    """Send a signal in a test."""

    def on_test_batch_end(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def trainer(tmp_path: Path, *callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        callbacks=[ResultsWriter(), *callbacks],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )


def test_a_test_that_is_stopped_has_those_of_what_it_has_seen(tmp_path: Path) -> None:
    data = GlyphsDataModule(test_episodes=7, eval_batch_size=2, queries=3)
    learner = PrototypicalNetwork(Conv4(data.in_channels, data.image_size, width=4))
    with pytest.raises(SystemExit):
        trainer(tmp_path, Interruption(), Stops()).test(learner, data, verbose=False)
    found = json.loads(next(tmp_path.rglob("results.json")).read_text())
    assert found["partial"] is True
    seen = sum(of["queries"] for of in found["by_class"].values())
    assert seen == found["episodes"] * 15 < 7 * 15
    # the next test begins anew
    trainer(tmp_path).test(learner, data, verbose=False)
    assert learner.answers is not None
    assert len(learner.answers) == 7 * 15


def test_the_picture_of_an_episode_names_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(Classification, "picture", lambda self, view: drawn.append(view))
    data = GlyphsDataModule(test_episodes=2, queries=1)
    learner = PrototypicalNetwork(Conv4(data.in_channels, data.image_size, width=4))
    trainer(tmp_path, EpisodePicture()).test(learner, data, verbose=False)
    (view,) = drawn
    assert view.names == data.stream("test").class_names(0)
    figure = draw_images(view.episode, torch.tensor([0, 1, 2, 3, 0]), names=["ox", *"bcde"])
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"ox", "e", "\N{CHECK MARK} ox", "\N{BALLOT X} ox"} <= texts


class Nameless(ClassificationDataModule):
    """Of which nobody knows what episodes hold."""

    benchmark = "Nameless"

    def load(self) -> dict[str, ClassDataset]:
        return dict.fromkeys(("train", "val", "test"), dataset())

    def class_names(self, *args: Any) -> None:
        return None


def test_classes_without_names_have_none(tmp_path: Path) -> None:
    learner = PrototypicalNetwork(MLP(1))
    data = Nameless(way=3, queries=2, test_episodes=4)
    trainer(tmp_path).test(learner, data, verbose=False)
    assert learner.answers is None
    assert "by_class" not in json.loads(next(tmp_path.rglob("results.json")).read_text())
    assert not list(tmp_path.rglob("confusion*"))
