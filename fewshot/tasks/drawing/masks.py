"""Pictures of a segmentation episode: support with masks, queries with predicted and true masks."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fewshot.episodes.types import Episode
from fewshot.tasks.masks import IGNORED

COLOURS = torch.tensor(
    [
        [0.04, 0.41, 0.85],
        [0.81, 0.13, 0.18],
        [0.10, 0.50, 0.22],
        [0.75, 0.53, 0.00],
        [0.51, 0.31, 0.87],
        [0.75, 0.22, 0.54],
    ]
)
"""Of the labels 1, 2, ..., again and again."""
IGNORED_COLOUR = torch.tensor([0.5, 0.5, 0.5])
STRENGTH = 0.65  # of a label's colour over the image
SIDE = 1.8  # of an image, in inches


def overlaid(image: Tensor, mask: Tensor) -> Tensor:
    """An image (C, H, W) in [0, 1] as (H, W, 3): tinted where labelled, grey where ignored."""
    pixels = image.permute(1, 2, 0).expand(-1, -1, 3).clamp(0, 1)
    colours = COLOURS[(mask - 1).clamp(min=0) % len(COLOURS)]
    colours = torch.where((mask == IGNORED)[..., None], IGNORED_COLOUR, colours)
    tinted = (1 - STRENGTH) * pixels + STRENGTH * colours
    return torch.where((mask > 0)[..., None], tinted, pixels)


def draw_masks(episode: Episode, predicted: Tensor, rows: int = 5) -> Figure:
    """A row per support image (image, mask), then per query (image, predicted mask, true mask).

    Args:
        episode: images (S, C, H, W) and (Q, C, H, W) in [0, 1], masks (S, H, W) and (Q, H, W).
        predicted: masks (Q, H, W).
        rows: support images and queries drawn, each at most.
    """
    support, query = episode.support, episode.query
    assert isinstance(support.inputs, Tensor)
    assert isinstance(query.inputs, Tensor)
    shots, queries = min(len(support.targets), rows), min(len(query.targets), rows)
    untitled = {"support", "its mask", "query", "predicted", "truth"}
    grid: list[list[tuple[str, Tensor]]] = []
    for image, mask in zip(support.inputs[:shots], support.targets[:shots], strict=True):
        grid.append(
            [
                ("support", overlaid(image, torch.zeros_like(mask))),
                ("its mask", overlaid(image, mask)),
            ]
        )
    for image, given, true in zip(
        query.inputs[:queries], predicted[:queries], query.targets[:queries], strict=True
    ):
        masks = {"query": torch.zeros_like(true), "predicted": given, "truth": true}
        grid.append([(title, overlaid(image, mask)) for title, mask in masks.items()])
    height, width = query.inputs.shape[-2:]
    tall = SIDE * height / width
    across, down = 3 * (SIDE + 0.1) + 0.1, (tall + 0.3) * len(grid) + 0.1
    figure = Figure(figsize=(across, down))
    for row, pictures in enumerate(grid):
        for column, (title, pixels) in enumerate(pictures):
            # Each at its place in inches: a layout that matplotlib finds for itself takes longer
            # than the drawing.
            left, bottom = 0.1 + column * (SIDE + 0.1), down - (row + 1) * (tall + 0.3)
            axis = figure.add_axes((left / across, bottom / down, SIDE / across, tall / down))
            axis.imshow(pixels.numpy(), vmin=0, vmax=1)
            axis.axis("off")
            if title in untitled:  # above the first of its kind alone
                untitled.remove(title)
                axis.set_title(title, fontsize=9)
    return figure
