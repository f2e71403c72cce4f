"""Pictures of segmentation episodes and written masks: labels are tinted, the rest unchanged."""

import csv
from pathlib import Path

import numpy as np
import torch
from commands import fewshot
from fakes import fake_camvid
from PIL import Image

from fewshot.callbacks.masks import COLOURS, IGNORED_COLOUR, STRENGTH, draw_masks, overlaid
from fewshot.episodes.types import Episode, Examples

PANET = (
    "--model=PANet",
    "--model.backbone=Colours",
    "--data=CamVidDataModule",
    "--data.image_size=16",
)


def test_labelled_pixels_have_their_labels_colour() -> None:
    image = torch.rand(3, 2, 2)
    drawn = overlaid(image, torch.tensor([[0, 1], [2, 255]]))
    pixels = image.permute(1, 2, 0)
    assert torch.equal(drawn[0, 0], pixels[0, 0])
    for place, colour in (((0, 1), COLOURS[0]), ((1, 0), COLOURS[1]), ((1, 1), IGNORED_COLOUR)):
        torch.testing.assert_close(drawn[place], (1 - STRENGTH) * pixels[place] + STRENGTH * colour)
    assert overlaid(torch.rand(1, 2, 2), torch.zeros(2, 2, dtype=torch.int64)).shape == (2, 2, 3)


def test_the_picture_has_support_with_masks_and_queries_with_both() -> None:
    masks = torch.randint(0, 3, (4, 6, 8))
    images = torch.rand(4, 3, 6, 8)
    predicted = torch.randint(0, 3, (2, 6, 8))
    episode = Episode(Examples(images[:2], masks[:2]), Examples(images[2:], masks[2:]))
    figure = draw_masks(episode, predicted)
    shown = [torch.as_tensor(np.asarray(axis.images[0].get_array())) for axis in figure.axes]
    assert len(shown) == 2 * 2 + 2 * 3
    nothing = torch.zeros_like(masks[0])
    expected = [overlaid(images[i], mask) for i in range(2) for mask in (nothing, masks[i])]
    expected += [
        overlaid(images[2 + i], mask)
        for i in range(2)
        for mask in (nothing, predicted[i], masks[2 + i])
    ]
    for one, other in zip(shown, expected, strict=True):
        assert torch.equal(one, other)
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == [
        *("support", "its mask"),
        *("query", "predicted", "truth"),
    ]
    assert len(draw_masks(episode, predicted, rows=1).axes) == 5


def test_a_test_leaves_a_picture_and_a_prediction_its_masks(tmp_path: Path) -> None:
    options = (*PANET, f"--data.root={fake_camvid(tmp_path / 'data')}")
    run = fewshot("test", tmp_path, *options)
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
