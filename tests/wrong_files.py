"""Wrong configs and folders of images, the same ones every time, and what messages must show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from wrong_inputs import GLYPHS, SHORT, Case

CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "MAML",
        "init_args": {
            "inner_lr": 0.01,
            "inner_steps": 1,
            "backbone": {"class_path": "MLP", "init_args": {"hidden": [4]}},
            "optimizer": {"class_path": "Adam", "init_args": {"lr": 0.001}},
        },
    },
    "data": {"class_path": "SinusoidDataModule", "init_args": {"shot": 2, "queries": 3}},
    "trainer": {"max_steps": 1},
    "seed_everything": 0,
}
JUNK: tuple[Any, ...] = ([], {}, "nonsense", -7, [[]], {"a": 1}, "!")
BROKEN = ("model: [", "a: b: c", "\t- x", "- model", "3", "'", "{model", "model: &a *b", "? ?", "")


def configs(folder: Path) -> Iterator[Case]:
    """Configs with a key of another name, or a value of another kind, and what is no YAML."""

    def written(text: str) -> tuple[str, ...]:
        path = folder / f"{len(list(folder.iterdir()))}.yaml"
        path.write_text(text)
        return ("fit", *SHORT, f"--config={path}")

    for text in BROKEN:
        yield Case(written(text), ".yaml" if text else "")
    for place in list(places(CONFIG)):
        for junk in JUNK:
            if place[-1] not in ("class_path", "init_args") and not _fits(place, junk):
                yield Case(written(changed(place, place[-1], junk)), "")
        yield Case(written(changed(place, f"{place[-1]}q")), f"{place[-1]}q")


def _fits(place: tuple[str, ...], junk: object) -> bool:
    """Whether it means something there: an empty mapping says nothing, a text may be a name."""
    return junk in ({}, []) or (place[-1] == "seed_everything" and junk == -7)


def places(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all keys of a config."""
    for key in tree if isinstance(tree, dict) else ():
        yield (*path, key)
        yield from places(tree[key], (*path, key))


def changed(place: tuple[str, ...], name: str, *value: Any) -> str:
    """The config with another name for one key, and another value if one is given."""
    content = yaml.safe_load(yaml.safe_dump(CONFIG))
    owner = content
    for key in place[:-1]:
        owner = owner[key]
    old = owner.pop(place[-1])
    owner[name] = value[0] if value else old
    return str(yaml.safe_dump(content))


# ---------------------------------------------------------------------- folders of images


def folders(root: Path) -> Iterator[Case]:
    """Folders of images that are none, or have too few of something, and odd questions to one."""

    def asks(folder: Path, *more: str) -> tuple[str, ...]:
        data = ("--data=ImageFolderDataModule", f"--data.root={folder}", "--data.image_size=16")
        return ("fit", *GLYPHS[:2], *data, *SHORT, "--data.way=2", *more)

    def images(name: str, classes: int, number: int, splits: tuple[str, ...] = ("",)) -> Path:
        for split in splits:
            for cls in range(classes):
                folder = root / name / split / f"{split}{cls}"
                folder.mkdir(parents=True)
                for i in range(number):
                    pixels = np.full((8, 8, 3), 20 * cls + i, np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        return root / name

    whole = ("train", "val", "test")
    yield Case(asks(root / "missing"), "missing")
    (root / "file").write_text("x")
    yield Case(asks(root / "file"), "file")
    (root / "empty").mkdir()
    yield Case(asks(root / "empty"), "empty")
    (root / "hollow/class0").mkdir(parents=True)
    yield Case(asks(root / "hollow"), "class0")
    yield Case(asks(images("one", 1, 5)), "1 class")
    yield Case(asks(images("few", 9, 1)), "1")
    yield Case(asks(images("lone", 3, 5, ("train",))), "val")
    yield Case(asks(images("half", 3, 5, ("train", "val"))), "test")
    broken = images("broken", 3, 5, whole)
    (broken / "train/train1/2.png").write_bytes(b"no image")
    yield Case(asks(broken), "2.png")
    cut = images("cut", 3, 5, whole)
    (cut / "val/val0/0.png").write_bytes((cut / "val/val0/1.png").read_bytes()[:40])
    yield Case(asks(cut), "0.png")
    texts = images("texts", 3, 5, whole)
    for path in (texts / "test").rglob("*.png"):
        path.rename(path.with_suffix(".txt"))
    yield Case(asks(texts), "test")
    good = images("good", 3, 5, whole)
    for option, value, shows in (
        ("way", "4", "4"),
        ("way", "1", "1"),
        ("shot", "5", "5"),
        ("queries", "9", "9"),
        ("image_size", "0", "0"),
        ("image_size", "big", "big"),
        ("channels", "2", "2"),
        ("train_way", "9", "9"),
        ("train_queries", "90", "90"),
        ("split", "odd", "split"),
    ):
        yield Case(asks(good, f"--data.{option}={value}"), shows)
