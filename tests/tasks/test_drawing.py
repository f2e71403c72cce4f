"""Pictures of episodes: what is right is green, what is wrong is red, labels are tinted."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from fewshot.episodes.types import Episode, Examples
from fewshot.tasks.drawing.functions import draw_function
from fewshot.tasks.drawing.images import RIGHT, WRONG, draw_images
from fewshot.tasks.drawing.masks import (
    COLOURS,
    IGNORED_COLOUR,
    STRENGTH,
    draw_masks,
    overlaid,
)


def episode(way: int, queries: int, channels: int = 1) -> Episode:
    labels = torch.arange(way)
    images = torch.rand(way * queries, channels, 6, 6)
    return Episode(
        Examples(torch.rand(way, channels, 6, 6), labels),
        Examples(images, labels.repeat_interleave(queries)),
    )


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_each_query_is_framed_by_whether_it_is_right(channels: int) -> None:
    one = episode(3, 2, channels)
    # the second of class 0 and the second of class 2 are wrong
    predicted = torch.tensor([0, 1, 1, 1, 2, 0])
    figure = draw_images(one, predicted)
    (axis,) = figure.axes
    assert len(axis.images) == 3 + 6
    assert [to_hex(patch.get_edgecolor()) for patch in axis.patches] == [
        RIGHT,
        WRONG,
        RIGHT,
        RIGHT,
        RIGHT,
        WRONG,
    ]
    marks = [text.get_text() for text in axis.texts if text.get_text()[0] in "✓✗"]
    assert marks == ["✓ 1", "✗ 2", "✓ 2", "✓ 2", "✓ 3", "✗ 1"]
    drawn = torch.as_tensor(axis.images[0].get_array())
    # a tensor
    colours = one.support.inputs[0][-3:].permute(1, 2, 0).expand(6, 6, 3)  # type: ignore[index]
    assert torch.equal(drawn, colours)
    figure.canvas.draw()


def test_a_large_episode_is_cut() -> None:
    figure = draw_images(episode(20, 9), torch.zeros(180, dtype=torch.int64), queries=4, classes=6)
    assert len(figure.axes[0].images) == 6 * (1 + 4)


def test_a_function_is_drawn_in_order() -> None:
    x = torch.tensor([[2.0], [0.0], [1.0]])
    one = Episode(Examples(x[:1], x[:1]), Examples(x, 2 * x))
    figure = draw_function(one, {"before adaptation": -x, "after 1 step": 3 * x})
    true, before, after, support = figure.axes[0].lines
    assert np.ravel(true.get_xdata()).tolist() == [0, 1, 2]
    assert np.ravel(true.get_ydata()).tolist() == [0, 2, 4]
    assert np.ravel(before.get_ydata()).tolist() == [0, -1, -2]
    assert np.ravel(after.get_ydata()).tolist() == [0, 3, 6]
    assert (np.ravel(support.get_xdata()).tolist(), np.ravel(support.get_ydata()).tolist()) == (
        [2],
        [2],
    )
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [
        "true",
        "before adaptation",
        "after 1 step",
        "support",
    ]


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
