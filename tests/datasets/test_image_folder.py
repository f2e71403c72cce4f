import io
import os
import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.datasets.image_folder import load_image_folder, split_table
from fewshot.datasets.reading import progress
from fewshot.datasets.reading.decoding import read_image
from fewshot.datasets.splitting import draw_split
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.errors import FewshotError

NAMES = ("ant", "bee", "cat", "dog", "elk")


def save(path: Path, value: int = 0, size: tuple[int, int] = (10, 10), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, **options)
    return path


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Five classes; image i of class c is grey 10 c + i."""
    for c, name in enumerate(NAMES):
        for i in range(2 + c % 2):
            save(tmp_path / "animals" / name / f"{i}.png", 10 * c + i)
    return tmp_path / "animals"


def values(data: ClassDataset) -> list[int]:
    """The grey of each image."""
    images = stored(data)
    assert (images == images[:, :1, :1, :1]).all()
    return [int(value) for value in images[:, 0, 0, 0]]


def stored(data: ClassDataset) -> torch.Tensor:
    assert isinstance(data.inputs, LazyInputs)
    return data.inputs.take(np.arange(len(data.inputs)))


GIVEN = {"train": ["dog", "ant"], "val": ["cat"], "test": ["bee"]}

# --- layouts and splits ---------------------------------------------------------------


def test_classes_as_given_are_sorted_and_complete(animals: Path) -> None:
    data = load_image_folder(animals, 4, 3, classes=GIVEN)
    assert split_table(data) == {"train": ["ant", "dog"], "val": ["cat"], "test": ["bee"]}
    assert values(data["train"]) == [0, 1, 30, 31, 32]
    assert values(data["val"]) == [20, 21]
    assert values(data["test"]) == [10, 11, 12]
    assert data["train"].counts.tolist() == [2, 3]
    assert stored(data["train"]).shape == (5, 3, 4, 4)
    assert stored(data["train"]).dtype == torch.uint8
    grey = load_image_folder(animals, 4, 1, classes=GIVEN)["val"]
    assert stored(grey).shape == (2, 1, 4, 4)


def test_classes_are_drawn_by_seed_and_the_table_draws_them_again(animals: Path) -> None:
    data = load_image_folder(animals, 4, split_seed=3)
    assert {split: len(dataset.classes) for split, dataset in data.items()} == {
        "train": 3,
        "val": 1,
        "test": 1,
    }
    assert sorted(name for names in split_table(data).values() for name in names) == list(NAMES)
    again = load_image_folder(animals, 4, classes=split_table(data))
    assert all(values(again[split]) == values(data[split]) for split in data)
    assert (
        len({str(split_table(load_image_folder(animals, 4, split_seed=seed))) for seed in range(9)})
        > 4
    )


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders(animals: Path, tmp_path: Path, val: str) -> None:
    root = tmp_path / "split"
    for split, name in (("train", "ant"), ("train", "dog"), (val, "cat"), ("test", "bee")):
        (root / split).mkdir(parents=True, exist_ok=True)
        (animals / name).rename(root / split / name)
    data = load_image_folder(root, 4)
    assert split_table(data) == {"train": ["ant", "dog"], "val": ["cat"], "test": ["bee"]}
    assert values(data["test"]) == [10, 11, 12]


def test_a_class_may_be_called_train(animals: Path) -> None:
    (animals / "ant").rename(animals / "train")
    data = load_image_folder(animals, 4)
    assert sorted(name for names in split_table(data).values() for name in names) == [
        *NAMES[1:],
        "train",
    ]


def test_nested_folders_count_and_hidden_files_do_not(animals: Path) -> None:
    ant = animals / "ant"
    save(ant / "more/deep/2.PNG", 2)
    save(ant / ".hidden.png", 9)
    save(ant / ".cache/3.png", 9)
    (ant / "._0.png").write_bytes(b"a Mac's")
    (ant / "notes.txt").write_text("no image")
    (ant / "more/loop").symlink_to(ant, target_is_directory=True)
    (animals / ".git").mkdir()
    (animals / "README.md").write_text("no class")
    assert values(load_image_folder(animals, 4, classes=GIVEN)["train"])[:4] == [0, 1, 2, 30]


@pytest.mark.parametrize(
    ("classes", "sizes"), [(3, (1, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2)), (100, (60, 20, 20))]
)
def test_draw_split_shares_out_every_class(classes: int, sizes: tuple[int, int, int]) -> None:
    names = [f"{number:03d}" for number in range(classes)]
    parts = draw_split(names[::-1], (0.6, 0.2, 0.2), 7)  # the order on the disk does not matter
    assert parts == draw_split(names, (0.6, 0.2, 0.2), 7)
    assert tuple(map(len, parts.values())) == sizes
    order = names.copy()
    random.Random(7).shuffle(order)
    assert [name for part in parts.values() for name in part] == order


# --- images ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm"]
)
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    image = read_image(save(tmp_path / f"0.{suffix}", 100), 5, 3)
    assert image.shape == (3, 5, 5)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("wide", [True, False])
def test_the_middle_of_the_longer_side_is_kept(tmp_path: Path, wide: bool) -> None:
    pixels = np.zeros((30, 90), np.uint8)
    pixels[:, 30:60] = np.arange(30)[:, None] * 5  # the middle
    pixels = pixels if wide else pixels.T
    Image.fromarray(pixels).save(tmp_path / "0.png")
    middle = pixels[:, 30:60] if wide else pixels[30:60]
    assert (read_image(tmp_path / "0.png", 30, 1)[0] == middle).all()
    small = np.asarray(Image.fromarray(middle).resize((15, 15), Image.Resampling.BILINEAR))
    assert (
        np.abs(
            read_image(tmp_path / "0.png", 15, 1)[0][1:-1, 1:-1].astype(int) - small[1:-1, 1:-1]
        ).max()
        <= 1
    )


def test_a_large_jpeg_is_what_it_is_at_full_decoding(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(blocks).resize((240, 180), Image.Resampling.BICUBIC).save(
        tmp_path / "0.jpg", quality=95
    )
    with Image.open(tmp_path / "0.jpg") as image:
        full = image.crop((30, 0, 210, 180)).resize((30, 30), Image.Resampling.BILINEAR)
    difference = read_image(tmp_path / "0.jpg", 30, 3).astype(int) - np.asarray(full).transpose(
        2, 0, 1
    )
    assert np.abs(difference).mean() < 1


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    Image.fromarray(pixels).save(tmp_path / "0.png", exif=exif)
    assert (read_image(tmp_path / "0.png", 8, 1)[0] == np.rot90(pixels, -1)).all()


def test_colours_become_channels_or_grey(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (200, 100, 0)).save(tmp_path / "0.png")
    assert read_image(tmp_path / "0.png", 4, 3)[:, 0, 0].tolist() == [200, 100, 0]
    assert read_image(tmp_path / "0.png", 4, 1)[:, 0, 0].tolist() == [
        round(0.299 * 200 + 0.587 * 100)
    ]


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "transparent colour"])
def test_transparency_is_laid_on_white(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "0.png"
    left = {"RGBA": (40, 40, 40, 255), "LA": (40, 255)}
    if kind in left:
        image = Image.new(kind, (4, 4), (0,) * len(left[kind]))
        image.paste(left[kind], (0, 0, 2, 4))
        image.save(path)
    else:
        image = Image.new("P" if kind == "palette" else "L", (4, 4), 1)
        image.paste(0, (0, 0, 2, 4))
        if kind == "palette":
            image.putpalette([40, 40, 40, 0, 0, 0])
            image.save(path, transparency=b"\xff\x00")
        else:
            image.paste(40, (0, 0, 2, 4))
            image.save(path, transparency=1)
    assert read_image(path, 4, 3)[:, 0].tolist() == [[40, 40, 255, 255]] * 3
    assert read_image(path, 4, 1)[0, 0].tolist() == [40, 40, 255, 255]


def test_bilevel_and_cmyk(tmp_path: Path) -> None:
    Image.new("1", (4, 4), 1).save(tmp_path / "0.png")
    assert read_image(tmp_path / "0.png", 4, 3)[:, 0, 0].tolist() == [255] * 3
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "1.tif")
    assert read_image(tmp_path / "1.tif", 4, 3)[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_full_range(tmp_path: Path, suffix: str) -> None:
    pixels = np.array([[0, 257], [128 * 257, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / f"0.{suffix}")
    assert read_image(tmp_path / f"0.{suffix}", 2, 1)[0].tolist() == [[0, 1], [128, 255]]


@pytest.mark.parametrize(
    ("dtype", "reason"), [("float32", "no known range"), ("int32", "exceed 16 bits")]
)
def test_pixels_of_unknown_range_are_an_error(tmp_path: Path, dtype: str, reason: str) -> None:
    Image.fromarray(np.full((4, 4), 70000, dtype)).save(tmp_path / "0.tif")
    with pytest.raises(FewshotError, match=f"0.tif cannot be decoded .*{reason}"):
        read_image(tmp_path / "0.tif", 4, 1)


def test_many_images_show_their_progress(
    animals: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_image_folder(animals, 4, classes=GIVEN)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "PROGRESS_FROM", 4)
    data = load_image_folder(animals, 5, classes=GIVEN)
    captured = capsys.readouterr()
    assert "packing images" in captured.err
    assert captured.out == ""
    assert values(data["train"]) == [0, 1, 30, 31, 32]


# --- what can be wrong ----------------------------------------------------------------


def fails(expected: str, root: Path, **arguments: Any) -> None:
    with pytest.raises(FewshotError, match=expected) as caught:
        load_image_folder(root, 4, **arguments)
    assert "\n" not in str(caught.value)


def test_bad_roots_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails("nowhere is no folder that can be read .*No such file", tmp_path / "nowhere")
    fails(f"{tmp_path} holds no folders; expected a folder of images for each class", tmp_path)
    fails(
        r"image.png is no folder that can be read .*Not a directory", save(tmp_path / "image.png")
    )

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    fails(rf"{tmp_path} is no folder that can be read \(Permission denied\)", tmp_path)


def test_unreadable_class_folders_are_errors(
    animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    fails(rf"{animals / 'bee'} cannot be read \(Permission denied\)", animals, classes=GIVEN)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "no image"])
def test_damaged_images_are_named(animals: Path, suffix: str, damage: str) -> None:
    path = animals / f"bee/damaged.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "empty": b"", "no image": b"text"}[damage]
    )
    reason = "it has 0 bytes" if damage == "empty" else ""
    fails(rf"{path} cannot be decoded .*{reason}.*replace or delete it", animals, classes=GIVEN)


def test_a_class_without_images_is_named(animals: Path) -> None:
    (animals / "fly").mkdir()
    (animals / "fly/notes.txt").write_text("none yet")
    fails(rf"{animals / 'fly'} holds no image", animals)
    load_image_folder(animals, 4, classes=GIVEN)  # a class that is not used does no harm


def split_root(root: Path, *folders: str) -> Path:
    for folder in folders:
        save(root / folder / "0.png")
    return root


def test_split_folders_must_be_three_and_disjoint(tmp_path: Path) -> None:
    fails("has no folder 'val'", split_root(tmp_path / "1", "train/ant", "test/bee"))
    fails("has no folder 'test'", split_root(tmp_path / "2", "train/ant", "valid/bee"))
    fails("has no folder 'val'", split_root(tmp_path / "3", "train/ant"))
    folders = ("train/ant", "val/bee", "test/cat")
    fails("has both val and valid", split_root(tmp_path / "4", *folders, "valid/dog"))
    fails("has the folder 'tset' beside", split_root(tmp_path / "5", *folders, "tset/dog"))
    fails(
        "class 'ant' stands in train and in test", split_root(tmp_path / "6", *folders, "test/ant")
    )
    root = split_root(tmp_path / "7", *folders[:2])
    (root / "test").mkdir()
    fails(f"{root / 'test'} holds no folders", root)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"test": ["bees"]}, "no class folder 'bees'; did you mean 'bee'?"),
        ({"test": ["ant", "bee"]}, "the class 'ant' stands in train and in test"),
        ({"test": []}, "the split test has no classes"),
        (
            {"tset": ["elk"]},
            "classes are given for train, val, test, tset; give them for train, val and test",
        ),
    ],
)
def test_wrong_classes_are_errors(
    animals: Path, change: dict[str, list[str]], expected: str
) -> None:
    fails(expected.replace("?", r"\?"), animals, classes=GIVEN | change)


@pytest.mark.parametrize(
    "fractions", [(0.6, 0.4, 0.0), (0.6, 0.2, 0.1), (1.2, -0.4, 0.2), (0.5, 0.5)]
)
def test_wrong_fractions_are_errors(animals: Path, fractions: tuple[float, ...]) -> None:
    fails("give three positive shares that add up to 1", animals, fractions=fractions)


def test_too_few_classes_are_errors(animals: Path, tmp_path: Path) -> None:
    fails("leave none of 5 classes to train", animals, fractions=(0.1, 0.3, 0.6))
    fails(r"only 2 class folders \(ant, bee\)", split_root(tmp_path / "two", "ant", "bee"))


@pytest.mark.parametrize(("size", "channels"), [(0, 3), (8, 2)])
def test_wrong_sizes_are_errors(animals: Path, size: int, channels: Literal[1, 3]) -> None:
    with pytest.raises(FewshotError, match=f"image_size {size}, channels {channels}"):
        load_image_folder(animals, size, channels)


def test_a_bomb_is_an_error_that_names_it(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    fails("0.png cannot be decoded .*decompression bomb", animals, classes=GIVEN)


def test_an_image_is_read_from_what_it_is_not_from_its_name(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("L", (4, 4), 7).save(content, "PNG")
    (tmp_path / "0.jpg").write_bytes(content.getvalue())
    assert (read_image(tmp_path / "0.jpg", 4, 1) == 7).all()
