"""Views of images against torchvision's functions, and what is drawn for them."""

import numpy as np
import torch
from torchvision.transforms.v2 import functional as T

from fewshot.engine.views import Views

IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def drawn(
    views: Views, seed: int = 0, images: int = 6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return views.draw(np.random.default_rng(seed), images)


def test_shifts_are_whole_pixels_in_both_directions() -> None:
    views = Views(shift=2)
    numbers = views.draw(np.random.default_rng(0), 400)
    images = IMAGES[:1].expand(400, -1, -1, -1)
    seen, black = set(), torch.nn.functional.pad(IMAGES[0], (2,) * 4)
    windows = {(y, x): black[:, y : y + 12, x : x + 12] for y in range(5) for x in range(5)}
    for view in views(images, numbers):
        (place,) = [at for at, of in windows.items() if torch.allclose(view, of, atol=1e-5)]
        seen.add(place)
    assert len(seen) == 25


def test_crops_are_those_of_a_resized_window() -> None:
    views = Views(area=0.25)
    uniform = torch.full((1, 7), 0.5)
    uniform[:, 0], uniform[:, 1] = 0.0, 0.5  # the smallest, square, in the middle
    changed = views(IMAGES[:1], (uniform, drawn(views, images=1)[1], drawn(views, images=1)[2]))
    inner = IMAGES[:1, :, 3:9, 3:9]
    expected = T.resize(inner, [12, 12], antialias=False)
    assert torch.allclose(changed[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5)


def test_crops_stay_inside_and_have_the_area() -> None:
    maps = Views(area=0.2).places(torch.rand(500, 7), (12, 12))
    corners = maps.abs()[:, :, :2].sum(-1) + maps[:, :, 2].abs()
    assert corners.max() <= 1 + 1e-5
    area = maps[:, 0, 0] * maps[:, 1, 1]
    assert 0.19 < area.min() < 0.25
    assert area.max() > 0.9


def test_flips_and_turns() -> None:
    uniform = torch.full((2, 7), 0.5)
    uniform[0, 3] = 0.0
    views = Views(flip=True)
    mirrored, same = views(
        IMAGES[:2], (uniform, drawn(views, images=2)[1], drawn(views, images=2)[2])
    )
    assert torch.allclose(mirrored, IMAGES[0].flip(-1), atol=1e-5)
    assert torch.allclose(same, IMAGES[1], atol=1e-5)
    uniform[:, 2] = 1.0
    turned = Views(rotate=90)(
        IMAGES[:1], (uniform[:1], drawn(views, images=1)[1], drawn(views, images=1)[2])
    )[0]
    assert any(torch.allclose(turned, IMAGES[0].rot90(k, (1, 2)), atol=1e-4) for k in (1, 3))


def test_erased_pixels_are_black_in_all_channels() -> None:
    views = Views(erase=0.25)
    changed = views(IMAGES, drawn(views))
    black = (changed == 0).all(1)
    assert torch.equal(black, (changed == 0).any(1))
    assert 0.15 < black.float().mean() < 0.35


def test_draws_are_a_function_of_the_generator() -> None:
    views = Views(area=0.5, erase=0.2, brightness=0.3)
    assert torch.equal(views(IMAGES, drawn(views)), views(IMAGES, drawn(views)))
    assert not torch.equal(views(IMAGES, drawn(views)), views(IMAGES, drawn(views, 1)))
