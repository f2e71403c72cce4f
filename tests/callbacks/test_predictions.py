"""The table of predictions and the files beside it."""

import csv
from pathlib import Path

import numpy as np
from commands import fewshot
from fakes import fake_camvid
from PIL import Image

PANET = (
    "--model=PANet",
    "--model.backbone=Colours",
    "--data=CamVidDataModule",
    "--data.image_size=16",
)


def test_a_test_leaves_a_picture_and_a_prediction_its_masks(tmp_path: Path) -> None:
    options = (*PANET, f"--data.root={fake_camvid(tmp_path / 'data')}")
    run = fewshot("test", tmp_path, *options, drawn=True)
    with Image.open(run / "episode.png") as picture:
        assert min(picture.size) > 200
    run = fewshot("predict", tmp_path, *options)
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["episode"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        with Image.open(run / row["mask"]) as mask:
            assert set(np.unique(np.asarray(mask))) <= {0, 1}
            assert mask.size == (16, 16)
        assert 0 < int(row["pixels"]) <= 256
        assert 0 <= float(row["right"]) <= 1
