"""The network of a command line that names none: the benchmark's usual one, or the learner's."""

import json
from pathlib import Path

import pytest
import yaml
from commands import fit
from every_learner import MASKS, graph, masks

from fewshot.cli.aliases import canonical
from fewshot.cli.catalogue import benchmarks, find, learners, networks
from fewshot.cli.configs import located
from fewshot.cli.needs import with_backbone
from fewshot.hyperparameters import parameter_names

SEGMENTS = ("--data=SegmentationFolderDataModule", "--data.image_size=16", "--data.min_pixels=16")
WIKI = ("--data=WikiOneDataModule", "--data.dimensions=8", "--data.embedding_epochs=1")


@pytest.mark.parametrize(
    ("learner", "data", "named", "arguments"),
    [
        ("PrototypicalNetwork", ("--data=GlyphsDataModule", "--data.queries=2"), "Conv4", {}),
        ("MAML", ("--data=SinusoidDataModule",), "MLP", {"hidden": [40, 40]}),
        ("CNP", ("--data=SinusoidDataModule",), "Pixels", {}),
        ("RL2", ("--data=BanditDataModule", "--data.pulls=4"), "Pixels", {}),
        ("MAML", ("--data=NavigationDataModule", "--data.horizon=3"), "MLP", {"hidden": [64, 64]}),
        ("PANet", SEGMENTS, "Conv4", {"pooled_blocks": 2}),
        ("MetaR", WIKI, "EntityVectors", {}),
        ("GMatching", WIKI, "NeighbourEncoder", {}),
        ("PrototypicalNetwork", ("--data=TextFolderDataModule",), "WeightedBag", {"dropout": 0.3}),
    ],
)
def test_a_command_line_without_a_backbone_trains_the_usual_one(
    learner: str,
    data: tuple[str, ...],
    named: str,
    arguments: dict[str, object],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if data is SEGMENTS:
        data = (*data, f"--data.root={masks()}", f"--data.classes={json.dumps(MASKS)}")
    if data is WIKI:
        data = (*data, f"--data.root={graph()}")
    if "TextFolder" in data[0]:
        words = tmp_path / "words"
        words.mkdir()
        for i in range(8):
            lines = [f"word{i} number {j}" for j in range(20)]
            (words / f"{i}.txt").write_text("\n".join(lines))
        data = (*data, f"--data.root={words}")
    small = ("--data.meta_batch_size=1", "--trainer.max_steps=1")
    run = fit(tmp_path, f"--model={learner}", *data, *small)
    (line,) = (line for line in caplog.messages if line.startswith("no backbone is named: "))
    assert line.startswith(f"no backbone is named: {named}")
    held = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["backbone"]
    assert held["class_path"] == f"fewshot.{named}"
    assert arguments.items() <= held.get("init_args", {}).items()


def test_arguments_without_a_name_are_of_the_usual_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = ("--data=SinusoidDataModule", "--data.meta_batch_size=1")
    run = fit(tmp_path, "--model.class_path=MAML", *data, "--model.backbone.hidden=[8]")
    held = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["backbone"]
    assert held["init_args"]["hidden"] == [8]
    assert "no backbone is named: MLP; --model.backbone takes another" in caplog.messages


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [("a.png", "", "Conv4"), ("a.txt", "a line", "WeightedBag"), ("benchmark", "Glyphs", "Conv4")],
)
@pytest.mark.parametrize("data", ["SelfLabelledDataModule", "CACTUsDataModule"])
def test_without_labels_it_is_of_the_kind_of_the_examples(
    data: str, file: str, content: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(content)
    said = content if file == "benchmark" else str(tmp_path)
    key = "benchmark" if file == "benchmark" else "unlabelled"
    args = canonical(["fit", "--model=MAML", f"--data={data}", f"--data.{key}={said}"])
    assert f"fewshot.{named}" in with_backbone(args)[2]


@pytest.mark.parametrize(
    "args",
    [
        ["--model=MAML", "--data=GlyphsDataModule", "--model.backbone", "ResNet12"],
        ["--config=glyphs/maml_5way1shot", "--model=ANIL"],
        ["--model=ThompsonSampling", "--data=BanditDataModule"],
        ["--model=MAML", "--data=MultiSourceDataModule"],
        ["--data=GlyphsDataModule"],
        ["--model=MAML", "--data=SelfLabelledDataModule"],
    ],
)
def test_what_is_named_or_not_needed_stays(args: list[str]) -> None:
    args = located(["fit", *args])
    assert with_backbone(args) == args


def test_the_usual_ones_are_of_the_catalogue_and_take_their_arguments() -> None:
    usual = [getattr(entry.cls, "usual_backbone", None) for entry in (*benchmarks(), *learners())]
    assert len([each for each in usual if each]) > 20
    for each in filter(None, usual):
        assert each["class_path"].removeprefix("fewshot.") in {entry.name for entry in networks()}
        cls = find(each["class_path"])
        assert cls is not None
        assert each.get("init_args", {}).keys() <= {*parameter_names(cls)}
