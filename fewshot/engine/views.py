"""Views of images for learning without labels: random crops, shifts, erased pixels, colours.

What is drawn for an image is a function of the random generator alone. Shapes: n images, C
channels, H height, W width.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Natural, NonNegative, Part, Share
from fewshot.engine.augmentation import Augmentation
from fewshot.errors import FewshotError
from fewshot.hyperparameters import ChecksArguments

GEOMETRY = 7  # numbers drawn for where a view lies
ERASING = 1 << 32  # seeds of the erased pixels


@dataclass(frozen=True)
class Views(ChecksArguments):
    """What is drawn for a view of an image; the defaults change nothing.

    Args:
        area: smallest share of the image that is cut out and brought to its size, drawn uniformly
            up to 1; with another shape where it is below 1 (3/4 to 4/3, as ResNets are trained).
        rotate: degrees that the image is turned by, at most, either way.
        shift: pixels that the image is moved by, at most, in each direction; black comes in.
        flip: mirror every other image, left to right.
        erase: share of the pixels that become black.
        brightness: the image times a factor from [max(0, 1 - brightness), 1 + brightness].
        contrast: the same, of the distance to the mean grey value.
        saturation: the same, of the distance to the grey image.
    """

    area: Part = 1.0
    rotate: NonNegative = 0.0
    shift: Natural = 0
    flip: bool = False
    erase: Share = 0.0
    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0

    def __post_init__(self) -> None:
        """Refuse views that change nothing: a query would be its own support."""
        if all(
            value == type(self).__dataclass_fields__[name].default
            for name, value in vars(self).items()
        ):
            raise FewshotError(
                "views change nothing, so that each query is its own support; set area, shift,"
                " erase or another of them"
            )

    def draw(self, rng: np.random.Generator, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """What to do to n images: where they lie (n, 7), colours (n, 6), a seed each (n,)."""
        uniform = torch.from_numpy(rng.random((images, GEOMETRY)).astype(np.float32))
        colours = self._colours.draw(rng, images)
        return uniform, colours, torch.from_numpy(rng.integers(0, ERASING, images))

    @property
    def _colours(self) -> Augmentation:
        return Augmentation(
            brightness=self.brightness, contrast=self.contrast, saturation=self.saturation
        )

    def __call__(self, images: Tensor, drawn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Views of float images (n, C, H, W) in [0, 1]."""
        uniform, colours, seeds = drawn
        if self.area < 1 or self.rotate or self.shift or self.flip:
            grid = F.affine_grid(
                self.places(uniform, images.shape[-2:]), list(images.shape), align_corners=False
            )
            images = F.grid_sample(images, grid.to(images), align_corners=False)
        if self.erase:
            images = images * self._kept(seeds, images.shape[-2:])[:, None]
        return self._colours(images, colours)

    def places(self, uniform: Tensor, size: tuple[int, ...]) -> Tensor:
        """Affine maps (n, 2, 3) from a view's coordinates in [-1, 1] to the image's.

        Args:
            uniform: numbers in [0, 1), (n, 7): area, shape, turn, mirrored, place, shift.
            size: H and W.
        """
        area = self.area + (1 - self.area) * uniform[:, 0]
        shape = (4 / 3) ** (2 * uniform[:, 1] - 1) if self.area < 1 else torch.ones_like(area)
        width = (area * shape).sqrt().clamp(max=1)
        height = (area / shape).sqrt().clamp(max=1)
        signed = 2 * uniform - 1
        turn = torch.deg2rad(self.rotate * signed[:, 2])
        mirror = torch.where(uniform[:, 3] < 0.5, -1.0, 1.0) if self.flip else torch.ones(())
        # one number for both directions would move along the diagonal alone
        across, down = signed[:, 4], signed[:, 5]
        moved = [
            self._moved(uniform[:, 6], divisor, side)
            for divisor, side in zip((1, 2 * self.shift + 1), (size[1], size[0]), strict=True)
        ]
        x = torch.stack(
            [width * mirror * turn.cos(), -height * turn.sin(), across * (1 - width) + moved[0]], 1
        )
        y = torch.stack(
            [width * mirror * turn.sin(), height * turn.cos(), down * (1 - height) + moved[1]], 1
        )
        return torch.stack([x, y], 1)

    def _moved(self, uniform: Tensor, divisor: int, side: int) -> Tensor:
        """A whole number of pixels in -shift..shift, as a part of half the image's side.

        Both directions come from one of (2 shift + 1)^2 places: its quotient and its remainder.
        """
        steps = 2 * self.shift + 1
        place = (uniform * steps**2).long().clamp(max=steps**2 - 1)
        return 2 * (place // divisor % steps - self.shift) / side

    def _kept(self, seeds: Tensor, size: tuple[int, ...]) -> Tensor:
        """1 where a pixel stays and 0 where it is erased, (n, H, W)."""
        masks = [np.random.default_rng(seed).random(size) >= self.erase for seed in seeds.tolist()]
        return torch.from_numpy(np.stack(masks)).float()
