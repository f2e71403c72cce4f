"""Test episodes that a file lists: its forms, its faults, and that they are run like drawn ones."""

import csv
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from commands import QUIET, fit, results
from every_learner import NAMES, OF_LANGUAGE_MODELS, SIZES, TinyImages, pair
from fakes import fake_clinc150, fake_image_folder
from PIL import Image

from fewshot import (
    CLINC150DataModule,
    CUBDataModule,
    FewRelDataModule,
    FewshotError,
    ImageFolderDataModule,
    MultiSourceDataModule,
    OmniglotDataModule,
)
from fewshot.cli.catalogue import find
from fewshot.cli.main import main
from fewshot.datamodules import ClassificationDataModule
from fewshot.datasets.episodes_file import read_episodes
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.types import Episode
from fewshot.tasks import Classification

OF_IMAGES = [
    name
    for name in sorted({*NAMES} - OF_LANGUAGE_MODELS)
    if getattr(find(name), "takes", None) in (None, Classification)
]
WAY, RUNS = 4, 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like Omniglot's runs: 1-bit drawings of 105x105, 4-way 1-shot with 4 queries."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    for run in (f"run{number:02d}" for number in range(1, RUNS + 1)):
        answers = rng.permutation(WAY) + 1
        for part, name in (("training", "class"), ("test", "item")):
            (folder / run / part).mkdir(parents=True)
            for i in range(1, WAY + 1):
                paper = np.kron(rng.random((15, 15)) > 0.3, np.ones((7, 7))).astype(bool)
                Image.fromarray(paper).save(folder / run / part / f"{name}{i:02d}.png")
        lines = (
            f"{run}/test/item{i:02d}.png {run}/training/class{answer:02d}.png"
            for i, answer in enumerate(answers, 1)
        )
        (folder / run / "class_labels.txt").write_text("\n".join(lines) + "\n")
        (folder / run / ".DS_Store").write_text("not of the runs")
    return folder


def packed(folder: Path, path: Path) -> Path:
    """A zip file of a folder, below a folder of its own, with what macOS leaves in such files."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.write(file, f"all_runs/{file.relative_to(folder)}")
            below = file.relative_to(folder).parent
            archive.writestr(f"__MACOSX/all_runs/{below}/._{file.name}", b"")
    return path


def drawing(path: Path) -> torch.Tensor:
    """A drawing as `load_omniglot` makes it: grey, 28x28 by a bilinear filter, ink bright."""
    grey = Image.open(path).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    return torch.from_numpy(255 - np.asarray(grey))[None]


def test_omniglots_runs_are_read_from_a_folder_and_a_zip_file(runs: Path, tmp_path: Path) -> None:
    one = OmniglotDataModule(test_episodes=str(runs))
    other = OmniglotDataModule(test_episodes=str(packed(runs, tmp_path / "all_runs.zip")))
    assert one.listed
    assert other.listed
    assert one.listed.sha256 == other.listed.sha256
    for data, number in itertools.product((one, other), range(RUNS)):
        run = runs / f"run{number + 1:02d}"
        support, query = data.stream("test")[number]
        assert isinstance(support.inputs, torch.Tensor)
        assert isinstance(query.inputs, torch.Tensor)
        assert support.inputs.dtype == torch.uint8  # as the benchmark's own, made ready once
        assert support.targets.tolist() == list(range(WAY))
        for i in range(WAY):
            assert torch.equal(support.inputs[i], drawing(run / f"training/class{i + 1:02d}.png"))
            assert torch.equal(query.inputs[i], drawing(run / f"test/item{i + 1:02d}.png"))
        answers = [int(line[-6:-4]) - 1 for line in (run / "class_labels.txt").read_text().split()]
        assert query.targets.tolist() == answers[1::2]


def listing(data: ClassificationDataModule, folder: Path, episodes: int) -> Path:
    """The first drawn test episodes of a benchmark of images, as PNG files and a list of them."""
    entries, stream = [], data.stream("test")
    for number in range(episodes):
        entry: dict[str, list[list[str]]] = {}
        for name, part in zip(("support", "query"), stream[number], strict=True):
            assert isinstance(part.inputs, torch.Tensor)
            entry[name] = []
            for i, (image, label) in enumerate(
                zip(part.inputs, part.targets.tolist(), strict=True)
            ):
                file = f"{number}_{name}_{i}.png"
                Image.fromarray(image[0].numpy()).save(folder / file)
                entry[name].append([file, f"class {label}"])
        entries.append(entry)
    (folder / "episodes.json").write_text(json.dumps({"episodes": entries}))
    return folder / "episodes.json"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn test episodes of the tiny benchmark as a file."""
    return listing(TinyImages(way=3, shot=2, **SIZES), tmp_path_factory.mktemp("tiny"), 3)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_learner_makes_of_a_file_what_it_makes_of_the_drawn_episodes(
    name: str, tiny: Path
) -> None:
    learner, drawn = pair(name, test_episodes=3)
    assert isinstance(drawn, TinyImages)
    listed = TinyImages(way=3, shot=2, **SIZES | {"test_episodes": str(tiny)})
    assert listed.task == drawn.task
    quiet: dict[str, Any] = dict.fromkeys(
        ("enable_progress_bar", "enable_checkpointing", "enable_model_summary", "logger"), False
    )
    found = []
    for data in (drawn, listed):
        outcomes: Any = L.Trainer(accelerator="cpu", **quiet).predict(learner, datamodule=data)
        found.append([outcome for batch in outcomes for outcome in batch])
        assert sum(len(outcome.loss) for outcome in found[-1]) == 3
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.outputs, other.outputs)
        assert torch.equal(one.metrics["accuracy"], other.metrics["accuracy"])


def write(path: Path, *episodes: Any, **others: Any) -> Path:
    path.write_text(json.dumps({"episodes": list(episodes), **others}))
    return path


def test_support_is_ordered_by_class_and_queries_stay_in_order(tmp_path: Path) -> None:
    support = [["a b", "x"], ["c", "y"], ["d e", "x"]]
    query = [["f", "y"], ["g", "x"], ["h", "y"]]
    path = write(tmp_path / "list.json", {"support": support, "query": query})
    (episode,) = read_episodes(path, "text").episodes
    assert episode.support == (["a b", "d e", "c"], [0, 0, 1])
    assert episode.query == (["f", "g", "h"], [1, 0, 1])
    facts = read_episodes(path, "text").facts()
    assert (facts["way"], facts["shot"], facts["queries"], facts["seed"]) == (
        2,
        "1 to 2",
        "1 to 2",
        None,
    )


@pytest.fixture(scope="module")
def clinc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_clinc150(tmp_path_factory.mktemp("clinc"))


@pytest.mark.parametrize("split", ["seed", "all"])
def test_texts_are_listed_as_they_are(split: Any, clinc: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path / "list.json",
        {
            "support": [["please x", "one"], ["please intent_001 x", "two"]],
            "query": [["please unheardof", "two"]],
        },
        {"support": [["x", "one"], ["please", "two"], ["x x", "six"]], "query": [["x x x", "six"]]},
    )
    given: dict[str, Any] = {"way": 150} if split == "all" else {}
    data = CLINC150DataModule(root=str(clinc), split=split, test_episodes=str(path), **given)
    assert data.task["way"] is None  # the episodes differ
    assert data.episodes["test"] == 2
    assert {"way": "2 to 3", "shot": 1, "queries": "0 to 1"}.items() <= data.protocol().items()
    batch = data.stream("test").__getitems__([0, 1])
    assert [len(part.query.targets[0]) for part in batch.parts] == [1, 1]
    tokens = batch.parts[0].query.inputs["tokens"]  # type: ignore[index]
    known = [w if w in data.texts.vocabulary else "" for w in ("please", "unheardof")]
    assert known == ["please", ""]
    assert tokens[0, 0].tolist()[:2] == [data.texts.vocabulary.index("please"), 1]  # 1: unknown
    data.on_before_batch_transfer(batch, 0)


FAULTY = {
    "support": [["a.png", "one"], ["b.png", "one"], ["none.png", "one"], ["text.png", "one"]],
    "query": [["a.png", "one"], ["b.png", "two"], ["b.png"], "b.png", ["c.png", 3]],
}


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    for name in "abc":
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no image")
    path = write(tmp_path / "list.json", FAULTY, {"support": []}, {"support": [], "query": {}})
    with pytest.raises(FewshotError) as caught:
        read_episodes(path, "image")
    told = str(caught.value)
    assert "\n" not in told
    assert "list.json has 13 faults: " in told
    assert told.endswith("; and 8 more")
    for fault in (
        "episodes[0].query[2] is ['b.png']: give it [item, label], two texts",
        "episodes[0].support has the classes ['one']: give it two or more",
        "episodes[0].query[0] asks for 'a.png', which is in its support: take it out of one",
    ):
        assert fault in told, told


@pytest.mark.parametrize(
    ("episode", "told"),
    [
        ({"support": [["a.png", "x"], ["none.png", "y"]], "query": [["b.png", "x"]]}, "not there"),
        ({"support": [["a.png", "x"], ["text.png", "y"]], "query": [["b.png", "x"]]}, "no image"),
        ({"support": [["a.png", "x"], ["b.png", "y"]], "query": []}, r"query is \[\]: give it"),
        (
            {"support": [["a.png", "x"], ["b.png", "y"]], "query": [["c.png", "z"]]},
            "has the label 'z', which its support lacks: add it",
        ),
        ([], r"episodes\[0\] is \[\]: give it support and query"),
    ],
)
def test_a_fault_is_told_when_the_benchmark_is_made(
    episode: Any, told: str, tmp_path: Path
) -> None:
    for name in "abc":
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no image")
    path = write(tmp_path / "list.json", episode)
    with pytest.raises(FewshotError, match=f"list.json has a fault: .*{told}"):
        OmniglotDataModule(test_episodes=str(path))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"episodes": []}', '{"episodes": [], "a": 1}']
)
def test_what_is_no_list_of_episodes_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(FewshotError, match=r"list.json .*support"):
        OmniglotDataModule(test_episodes=str(path))


def spoilt(runs: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Copies of the runs with one thing wrong each, and what is told."""
    for kind, told in (
        ("line", "class_labels.txt, line 2 is 'run02/test/item01.png': give it a test and a tr"),
        ("name", "line 1 names run02/training/class77.png, which is not there: unpack"),
        ("gone", "run02/class_labels.txt is missing or empty: unpack"),
        ("more", "run02/test/item99.png has no line in run02/class_labels.txt: add it"),
        ("twice", "line 5 has run02/test/item01.png again: keep one"),
        ("broken", "run02/training/class01.png is broken, which is no image"),
    ):
        copy = folder / kind
        for file in runs.rglob("*.*"):
            (copy / file.relative_to(runs)).parent.mkdir(parents=True, exist_ok=True)
            (copy / file.relative_to(runs)).write_bytes(file.read_bytes())
        labels = copy / "run02/class_labels.txt"
        lines = labels.read_text().splitlines()
        if kind == "line":
            labels.write_text("\n".join([lines[0], "run02/test/item01.png", *lines[1:]]))
        elif kind == "name":
            first = "run02/test/item01.png run02/training/class77.png"
            labels.write_text("\n".join([first, *lines[1:]]))
        elif kind == "gone":
            labels.unlink()
        elif kind == "more":
            Image.new("1", (105, 105)).save(copy / "run02/test/item99.png")
        elif kind == "twice":
            labels.write_text("\n".join([*lines, lines[0]]))
        else:
            (copy / "run02/training/class01.png").write_text("no image")
        yield copy, told


def test_faults_of_runs_are_told(runs: Path, tmp_path: Path) -> None:
    for folder, told in spoilt(runs, tmp_path):
        with pytest.raises(FewshotError) as caught:
            OmniglotDataModule(test_episodes=str(folder))
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FewshotError, match=r"holds no run01/class_labels.txt; give"):
        OmniglotDataModule(test_episodes=str(tmp_path / "empty"))


def test_who_cannot_take_a_file_says_so(runs: Path, clinc: Path, tmp_path: Path) -> None:
    file: Any = str(runs)
    texts: Any = str(
        write(tmp_path / "t.json", {"support": [["a", "x"], ["b", "y"]], "query": [["c", "x"]]})
    )
    with pytest.raises(FewshotError, match="inputs of FewRel cannot be made"):
        FewRelDataModule(test_episodes=file)
    with pytest.raises(FewshotError, match="holds images, but the benchmark has texts"):
        CLINC150DataModule(test_episodes=file)
    with pytest.raises(FewshotError, match="without queries of no class; set nota_rate"):
        CLINC150DataModule(test_episodes=texts, nota_rate=1, queries=5)
    with pytest.raises(FewshotError, match="without queries of no class; set nota_rate"):
        CLINC150DataModule(test_episodes=texts, split="all", way=150, out_of_scope=True)
    with pytest.raises(FewshotError, match="are taken whole; cut the boxes out"):
        CUBDataModule(test_episodes=file, crop=True)
    with pytest.raises(FewshotError, match="takes its test episodes from a file, which Multi"):
        MultiSourceDataModule({"one": OmniglotDataModule(test_episodes=file)})
    with pytest.raises(FewshotError, match=r"there is no file .*none.json of test episodes"):
        OmniglotDataModule(test_episodes=str(tmp_path / "none.json"))


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_share_the_episodes_of_a_file(workers: int, runs: Path) -> None:
    data = OmniglotDataModule(test_episodes=str(runs))
    expected = [data.stream("test")[number] for number in range(RUNS)]
    seen: dict[int, Episode] = {}
    for rank in range(2):
        loader = EpisodeLoader(
            data.stream("test"),
            data.episodes["test"],
            2,
            rank=rank,
            world_size=2,
            num_workers=workers,
        )
        for batch in loader:
            assert batch.numbers is not None
            for number, one in zip(batch.numbers.tolist(), batch.singles(), strict=True):
                assert number not in seen
                seen[number] = one
    assert sorted(seen) == list(range(RUNS))
    for number, found in seen.items():
        for part, wanted in zip(found, expected[number], strict=True):
            assert torch.equal(part.inputs[0], wanted.inputs)  # type: ignore[arg-type,index]
            assert torch.equal(part.targets[0], wanted.targets)


def test_a_run_is_tested_and_predicts_on_the_episodes_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fake_image_folder(tmp_path / "photos")
    data = ImageFolderDataModule(str(root), image_size=16)
    test = root / "test"
    names = sorted(folder.name for folder in test.iterdir())[:3]
    file = write(
        root / "list.json",
        *(
            {
                "support": [[f"test/{name}/{i}.png", name] for name in names],
                "query": [[f"test/{name}/{i + 5}.png", name] for name in reversed(names)],
            }
            for i in range(4)
        ),
    )
    args = ("--data=ImageFolderDataModule", f"--data.root={root}", "--data.image_size=16")
    learner = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--model.backbone.width=4")
    trained = fit(tmp_path / "run", *args, "--data.queries=2", *learner, f"--episodes={file}")
    found = results(trained)
    facts = {"way": 3, "shot": 1, "queries": 1, "seed": None, "test_episodes": "list.json"}
    assert facts.items() <= found.items()
    assert found["episodes"] == 4
    assert found["metrics"]["accuracy"]["ci95"] is not None
    assert (trained / "episode.png").is_file()
    assert "those of list.json" in " ".join(capsys.readouterr().out.split())
    config = (trained / "config.yaml").read_text()
    assert f"test_episodes: {file}" in config  # said once, where the benchmark has it
    assert "\nepisodes: null" in config
    # the same by the checkpoint, where the benchmark's own images are gone
    for folder in (root / "train", root / "val"):
        folder.rename(tmp_path / folder.name)
    again = (
        *(*args, *learner, *QUIET, f"--ckpt_path={trained / 'checkpoints/best.ckpt'}"),
        f"--episodes={file}",
    )
    assert data.listed is None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["predict", *again, f"--trainer.default_root_dir={tmp_path / 'p'}"]) == 0
    (table,) = (tmp_path / "p").rglob("predictions.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["label"] for row in rows] == ["2", "1", "0"] * 4
    right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    assert right == pytest.approx(found["metrics"]["accuracy"]["mean"])


def test_a_benchmark_without_classes_refuses_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--model=MAML", "--model.backbone=MLP", "--data=SinusoidDataModule")
    assert main(["test", *args, "--episodes=list.json"]) == 2
    assert "SinusoidDataModule draws its test episodes and takes no file" in capsys.readouterr().err
