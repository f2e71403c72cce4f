"""What TensorBoard's PROJECTOR gets of a test episode, and which learners have none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fewshot
from fakes import fake_text_folder
from google.protobuf import text_format  # type: ignore[import-untyped]
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from fewshot import GlyphsDataModule, PrototypicalNetwork
from fewshot.backbones import Conv4
from fewshot.callbacks.projector import on_few_axes, pictures_of, points_of
from fewshot.episodes.types import map_tensors, stack

GLYPHS = ("--data=GlyphsDataModule", "--data.queries=2", "--data.way=4", "--data.shot=3")


def config_of(run: Path) -> ProjectorConfig:
    found = ProjectorConfig()
    text_format.Parse((run / "projector_config.pbtxt").read_text(), found)
    return found


def test_a_run_has_the_points_of_one_episode_with_names_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fewshot("test", tmp_path, *GLYPHS, "--model=ProtoNet", "--model.backbone=Conv4")
    assert "warning" not in capsys.readouterr().out
    (held,) = config_of(run).embeddings
    points = np.loadtxt(run / held.tensor_path, delimiter="\t")
    assert points.shape == (4 * (3 + 2), 20)
    header, *rows = [
        line.split("\t") for line in (run / held.metadata_path).read_text().splitlines()
    ]
    assert header == ["class", "role", "predicted"]
    assert [row[1] for row in rows] == ["support"] * 12 + ["query"] * 8
    data = GlyphsDataModule(way=4, shot=3, queries=2)
    names = data.class_names("test", [0])
    assert names is not None
    assert {row[0] for row in rows} == {row[0] for row in rows[12:]} == set(names[0])
    assert {row[2] for row in rows[12:]} <= set(names[0])
    wide, high = held.sprite.single_image_dim
    with Image.open(run / held.sprite.image_path) as sprite:
        shown = np.asarray(sprite)[:high, :wide, 0] / 255
    image = data.stream("test")[0].support.inputs
    assert isinstance(image, torch.Tensor)
    np.testing.assert_allclose(shown, image[0, 0] / 255, atol=1 / 255)


def test_points_are_the_features_turned() -> None:
    data = GlyphsDataModule(way=3, shot=2, queries=2)
    learner = PrototypicalNetwork(Conv4(data.in_channels, data.image_size), task=data.task).eval()
    one = map_tensors(lambda t: t / 255 if t.dtype == torch.uint8 else t, data.stream("test")[0])
    points, rows, _ = points_of(learner, stack([one]))
    assert isinstance(one.support.inputs, torch.Tensor)
    assert isinstance(one.query.inputs, torch.Tensor)
    with torch.no_grad():
        features = learner.backbone(torch.cat([one.support.inputs, one.query.inputs]))
    assert features.shape[1] > len(points) == len(rows)
    torch.testing.assert_close(points @ points.T, features @ features.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cdist(points, points), torch.cdist(features, features))
    assert {row[0] for row in rows} == {"1", "2", "3"}
    few = torch.randn(9, 4)
    assert on_few_axes(few) is few


def test_large_pictures_get_small_and_grey_ones_colours() -> None:
    large = pictures_of(torch.rand(5, 3, 84, 84))
    assert large is not None
    assert large.shape == (5, 3, 48, 48)
    grey = pictures_of(torch.rand(5, 1, 28, 28))
    assert grey is not None
    assert grey.shape == (5, 3, 28, 28)
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert pictures_of({"tokens": torch.zeros(5, 7)}) is pictures_of(torch.rand(5, 9)) is None


def test_texts_have_names_alone(tmp_path: Path) -> None:
    root = fake_text_folder(tmp_path / "texts")
    data = ("--data=TextFolderDataModule", f"--data.root={root}")
    run = fewshot("test", tmp_path, *data, "--model=ProtoNet", "--model.backbone=BagOfWords")
    (held,) = config_of(run).embeddings
    assert held.metadata_path
    assert not held.HasField("sprite")


def test_a_network_that_adapts_has_no_one_space(tmp_path: Path) -> None:
    run = fewshot("test", tmp_path, *GLYPHS, "--model=MAML", "--model.backbone=Conv4")
    assert not (run / "projector_config.pbtxt").exists()
    assert list(run.glob("events.*"))
