import hashlib
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from fewshot.datasets import glyph_rendering, glyphs
from fewshot.datasets.glyph_rendering import FACES, SIDE, draw, font_file, render_class, vary
from fewshot.datasets.glyphs import (
    ALIKE,
    SCRIPTS,
    load_glyphs,
    render_glyphs,
    script_of,
    similarity,
    split_characters,
)
from fewshot.datasets.reading.downloads import Arrays
from fewshot.errors import FewshotError

EVERY = 50


def few_characters() -> dict[str, tuple[str, ...]]:
    return {split: characters[::EVERY] for split, characters in split_characters().items()}


def test_another_process_chooses_the_same_classes_and_draws_the_same_bytes() -> None:
    code = (
        "import hashlib\n"
        "from fewshot.datasets.glyphs import render_glyphs, split_characters\n"
        "splits = split_characters()\n"
        f"arrays = render_glyphs({{split: splits[split][::{EVERY}] for split in splits}})\n"
        "print(ascii(splits))\n"
        "print(*(hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in sorted(arrays)))"
    )
    other = os.environ | {
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=other,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    arrays = render_glyphs(few_characters())
    hashes = [hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in sorted(arrays)]
    assert out.splitlines() == [ascii(split_characters()), " ".join(hashes)]


def test_an_image_depends_on_its_character_alone() -> None:
    first, second = split_characters()["test"][:2]
    together = render_glyphs({"test": (first, second)})["test_images"]
    assert np.array_equal(render_glyphs({"test": (second,)})["test_images"], together[20:])
    assert not np.array_equal(
        vary(np.stack([draw("A", FACES[0])]), 1), vary(np.stack([draw("A", FACES[0])]), 2)
    )


def test_splits_are_disjoint_in_characters_and_scripts() -> None:
    splits = split_characters()
    sizes = {split: len(characters) for split, characters in splits.items()}
    assert sizes["train"] >= 500
    assert sizes["val"] >= 60
    assert sizes["test"] >= 100
    for one, two in combinations(splits, 2):
        assert not set(splits[one]) & set(splits[two])
        assert not set(SCRIPTS[one]) & set(SCRIPTS[two])
    for split, characters in splits.items():
        assert {script_of(character) for character in characters} == set(SCRIPTS[split])


def reference_outline(character: str) -> torch.Tensor:
    """A drawing that shares no code with the package: cropped to ink, longer side 32, blurred."""
    font = ImageFont.truetype(str(font_file(FACES[0])), 160)
    image = Image.new("L", (480, 480))
    ImageDraw.Draw(image).text((120, 120), character, fill=255, font=font)
    ink = image.crop(image.getbbox())
    scale = 32 / max(ink.size)
    ink = ink.resize(
        (max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BOX
    )
    image = Image.new("L", (40, 40))
    image.paste(ink, ((40 - ink.width) // 2, (40 - ink.height) // 2))
    return torch.from_numpy(np.array(image)).float()


def test_no_two_classes_look_alike() -> None:
    kept = [character for characters in split_characters().values() for character in characters]
    outlines = torch.stack([reference_outline(character) for character in kept])
    blurred = torch.nn.functional.avg_pool2d(outlines[:, None], 5, 1).flatten(1).double()
    vectors = blurred / blurred.norm(dim=1, keepdim=True)
    cosines = (vectors @ vectors.T).fill_diagonal_(0)
    assert cosines.max() < 0.975, [kept[i] for i in divmod(int(cosines.argmax()), len(kept))]


@pytest.mark.parametrize("same", ["A\u0391\u0410", "cC\u03f2\u0441", "o\u0585\u043e", "h\u0570"])
def test_characters_of_one_shape_become_one_class(same: str) -> None:
    kept = {character for characters in split_characters().values() for character in characters}
    assert (similarity(same) > ALIKE).all()
    assert len(kept & set(same)) <= 1
    assert similarity("AB")[0, 1] < ALIKE


def test_images_have_omniglots_form() -> None:
    arrays = render_glyphs(few_characters())
    for split, characters in few_characters().items():
        images, counts, names = (
            arrays[f"{split}_{part}"] for part in ("images", "counts", "names")
        )
        assert images.dtype == np.uint8
        assert images.shape == (20 * len(characters), 1, SIDE, SIDE)
        assert counts.tolist() == [20] * len(characters)
        assert len(names) == len(characters)
        assert len(np.unique(images, axis=0)) == len(images)  # no example twice
        edge = np.concatenate(
            [images[:, 0, 0], images[:, 0, -1], images[:, 0, :, 0], images[:, 0, :, -1]]
        )
        assert np.median(edge) < 30
        pixels = images.astype(np.uint8)  # as they are; a type checker is not told
        assert (pixels.reshape(len(images), -1).max(1) > 200).all()
        assert pixels.mean() < 100


def test_raw_pixels_are_neither_enough_nor_useless() -> None:
    images = np.stack([render_class(character) for character in split_characters()["test"][::3]])
    pixels = images.reshape(*images.shape[:2], -1).astype(np.float64)
    rng = np.random.default_rng(0)
    right = []
    for _ in range(200):
        classes = rng.choice(len(pixels), 5, replace=False)
        examples = rng.permutation(20)[:6]
        support, query = pixels[classes, examples[0]], pixels[classes][:, examples[1:]]
        distance = ((query[:, :, None] - support) ** 2).sum(-1)  # (way, queries, way)
        right.append((distance.argmin(-1) == np.arange(5)[:, None]).mean())
    assert 0.5 < np.mean(right) < 0.75


def test_names_are_unique_and_say_script_and_code_point(
    tmp_path: Path, drawings: list[int]
) -> None:
    splits = load_glyphs(tmp_path)
    assert list(splits) == ["train", "val", "test"]
    names = [name for dataset in splits.values() for name in dataset.classes]
    assert len(set(names)) == len(names)
    assert glyphs.class_name("\u03b1") == "Greek/U+03B1 GREEK SMALL LETTER ALPHA"
    for split, dataset in splits.items():
        assert {name.split("/")[0] for name in dataset.classes} <= set(SCRIPTS[split])
        assert isinstance(dataset.inputs, torch.Tensor)
        assert dataset.inputs.dtype == torch.uint8
        assert len(dataset.inputs) == dataset.counts.sum()


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Few characters instead of all, and one entry each time that they are rendered."""
    made: list[int] = []

    def render_few() -> Arrays:
        made.append(1)
        return render_glyphs(few_characters())

    monkeypatch.setattr(glyphs, "render_glyphs", render_few)
    return made


def test_the_cache_is_used_and_a_truncated_one_is_rebuilt(
    tmp_path: Path, drawings: list[int]
) -> None:
    first = load_glyphs(tmp_path)
    (cache,) = (tmp_path / "glyphs").glob("*.npz")
    assert cache.name.startswith(f"v{glyphs.FORMAT}-freetype")
    again = load_glyphs(tmp_path)
    assert len(drawings) == 1
    cache.write_bytes(cache.read_bytes()[:1000])
    rebuilt = load_glyphs(tmp_path)
    assert len(drawings) == 2
    for split, dataset in first.items():
        for other in (again, rebuilt):
            assert isinstance(dataset.inputs, torch.Tensor)
            assert isinstance(other[split].inputs, torch.Tensor)
            assert torch.equal(dataset.inputs, torch.as_tensor(other[split].inputs))
            assert dataset.classes == other[split].classes


def test_a_missing_font_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(FewshotError, match=r"DejaVuSans\.ttf is missing; reinstall matplotlib"):
        glyph_rendering.fonts_version()
