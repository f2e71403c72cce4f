"""Pictures of episodes: what is right is green, what is wrong is red."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SINUSOID, fit
from matplotlib.colors import to_hex
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from fewshot.callbacks.pictures import RIGHT, WRONG, draw_function, draw_images
from fewshot.episodes import Episode, Examples


def episode(way: int, queries: int, channels: int = 1) -> Episode:
    labels = torch.arange(way)
    images = torch.rand(way * queries, channels, 6, 6)
    return Episode(
        Examples(torch.rand(way, channels, 6, 6), labels), Examples(images, labels.repeat_interleave(queries))
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_each_query_is_framed_by_whether_it_is_right(channels: int) -> None:
    one = episode(3, 2, channels)
    predicted = torch.tensor([0, 1, 1, 1, 2, 0])  # the second of class 0 and the second of class 2 are wrong
    figure = draw_images(one, predicted)
    (axis,) = figure.axes
    assert len(axis.images) == 3 + 6
    assert [to_hex(patch.get_edgecolor()) for patch in axis.patches] == [RIGHT, WRONG, RIGHT, RIGHT, RIGHT, WRONG]
    marks = [text.get_text() for text in axis.texts if text.get_text()[0] in "✓✗"]
    assert marks == ["✓ 1", "✗ 2", "✓ 2", "✓ 2", "✓ 3", "✗ 1"]
    drawn = torch.as_tensor(axis.images[0].get_array()).reshape(6, 6, channels)
    assert torch.equal(drawn, one.support.inputs[0].permute(1, 2, 0))  # type: ignore[index]  # a tensor
    figure.canvas.draw()


def test_a_large_episode_is_cut() -> None:
    figure = draw_images(episode(20, 9), torch.zeros(180, dtype=torch.int64), queries=4, classes=6)
    assert len(figure.axes[0].images) == 6 * (1 + 4)


def test_a_function_is_drawn_in_order() -> None:
    x = torch.tensor([[2.0], [0.0], [1.0]])
    figure = draw_function(Episode(Examples(x[:1], x[:1]), Examples(x, 2 * x)), 3 * x)
    true, predicted, support = figure.axes[0].lines
    assert np.ravel(true.get_xdata()).tolist() == [0, 1, 2]
    assert np.ravel(true.get_ydata()).tolist() == [0, 2, 4]
    assert np.ravel(predicted.get_ydata()).tolist() == [0, 3, 6]
    assert (np.ravel(support.get_xdata()).tolist(), np.ravel(support.get_ydata()).tolist()) == ([2], [2])


def test_a_run_has_pictures_and_curves(tmp_path: Path) -> None:
    run = fit(tmp_path, *SINUSOID, "--trainer.log_every_n_steps=1")
    with Image.open(run / "episode.png") as picture:
        assert min(picture.size) > 200
    events = EventAccumulator(str(run))
    events.Reload()
    assert "val/episode" in events.Tags()["images"]
    assert {"train/loss", "train/mse", "val/mse", "val/mse_ci95", "test/mse"} <= set(events.Tags()["scalars"])
