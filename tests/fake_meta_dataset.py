"""Generated stand-ins for Meta-Dataset's sources: each one's own layout, a few images a class."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewshot.datasets.omniglot import HALVES, META_DATASET_VAL
from fewshot.extras import require

FLAT = ("aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "vgg_flower", "traffic_sign", "mscoco")
SPLITS = {"aircraft": (6, 5, 7), "traffic_sign": (0, 0, 6), "mscoco": (0, 5, 6)}
IMAGES = 4  # of each class, one more of every third class
WORDNET = {"TRAIN": 12, "VALID": 6, "TEST": 5}


def class_names(source: str) -> list[str]:
    """The classes of a flat source, in the order of its specification."""
    number = sum(SPLITS.get(source, (5, 5, 5)))
    forms = {
        "cu_birds": "{0:03d}.Bird_{0}",
        "fungi": "{0:04d}.Fungus no {0}",
        "vgg_flower": "{0:03d}.flower {0}",
        "traffic_sign": "{0:02d}.Sign ({0} km/h)",
    }
    first = 0 if source in ("traffic_sign", "fungi") else 1
    names = [forms.get(source, source + " {0}").format(i) for i in range(first, first + number)]
    # the order is not that of the names
    return names if source == "traffic_sign" else names[::2] + names[1::2]


def counts(source: str) -> dict[str, int]:
    """How many images each class of a flat source has."""
    return {name: IMAGES + (i % 3 == 0) for i, name in enumerate(class_names(source))}


def write_spec(folder: Path, source: str) -> None:
    """The specification of a flat source, as it is published."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = dict(zip(("TRAIN", "VALID", "TEST"), SPLITS.get(source, (5, 5, 5)), strict=True))
    numbers = counts(source)
    content = {
        "name": source,
        "classes_per_split": splits,
        "images_per_class": {str(i): number for i, number in enumerate(numbers.values())},
        "class_names": {str(i): name for i, name in enumerate(numbers)},
        "file_pattern": "{}.tfrecords",
        "__class__": "DatasetSpecification",
    }
    (folder / f"{source}_dataset_spec.json").write_text(json.dumps(content))


def write_wordnet_spec(folder: Path) -> None:
    """ImageNet's: in each split a root above two nodes, which share a leaf."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs: dict[str, list[dict[str, Any]]] = {}
    images: dict[str, dict[str, int]] = {}
    number = 0
    for split, size in WORDNET.items():
        leaves = [f"n{number + i:08d}" for i in range(size)]
        number += size
        children = {
            f"{split}0": [f"{split}1", f"{split}2"],
            f"{split}1": leaves[:-1],
            f"{split}2": leaves[1:],
        }
        children |= {leaf: [] for leaf in leaves}
        graphs[split] = [
            {"wn_id": node, "children_ids": below, "parents_ids": []}
            for node, below in children.items()
        ]
        images[split] = dict.fromkeys(leaves, IMAGES)
    content = {
        "name": "ilsvrc_2012",
        "split_subgraphs": graphs,
        "images_per_class": images,
        "class_names": {},
        "__class__": "HierarchicalDatasetSpecification",
    }
    (folder / "ilsvrc_2012_dataset_spec.json").write_text(json.dumps(content))


def picture(rng: np.random.Generator) -> Image.Image:
    """Noise, wider than high."""
    return Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))


def save(path: Path, rng: np.random.Generator) -> None:
    """An image file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(rng).save(path)


def fake_ilsvrc_2012(folder: Path, rng: np.random.Generator) -> None:
    leaves = [f"n{i:08d}" for i in range(sum(WORDNET.values()))]
    for leaf in leaves:
        for i in range(IMAGES):
            save(folder / leaf / f"{leaf}_{i}.JPEG", rng)
    save(folder / leaves[0] / f"{leaves[0]}_99.JPEG", rng)
    skipped = f"# comment\n{leaves[0]}/{leaves[0]}_99.JPEG  # bird.jpg\n"
    (folder / "ImageNet_CUBirds_duplicates.txt").write_text(skipped)


def fake_aircraft(folder: Path, rng: np.random.Generator) -> None:
    names: list[str] = []
    boxes: list[str] = []
    for variant, number in counts("aircraft").items():
        for _ in range(number):
            name = f"{len(names):07d}"
            save(folder / "data" / "images" / f"{name}.jpg", rng)
            names.append(f"{name} {variant}\n")
            boxes.append(f"{name} 2 3 20 15\n")
    (folder / "data" / "images_box.txt").write_text("".join(boxes))
    (folder / "data" / "images_variant_trainval.txt").write_text("".join(names[::2]))
    (folder / "data" / "images_variant_test.txt").write_text("".join(names[1::2]))


def fake_folders(folder: Path, source: str, rng: np.random.Generator, suffix: str = ".jpg") -> None:
    for name, number in counts(source).items():
        below = f"{int(name[:2]):05d}" if source == "traffic_sign" else name
        for i in range(number):
            save(folder / below / f"{i:05d}{suffix}", rng)
        (folder / below / "GT.csv").write_text("no image")


def fake_quickdraw(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for name, number in counts("quickdraw").items():
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (number, 784), np.uint8))


def fake_fungi(folder: Path, rng: np.random.Generator) -> None:
    files = [
        (name, f"images/{name[:4]}/{i}.JPG")
        for name, number in counts("fungi").items()
        for i in range(number)
    ]
    categories = [{"id": int(name[:4]), "name": name[5:]} for name in counts("fungi")]
    for part, numbers in (("train", range(0, len(files), 2)), ("val", range(1, len(files), 2))):
        images = [{"id": i, "file_name": files[i][1]} for i in numbers]
        annotations = [{"image_id": i, "category_id": int(files[i][0][:4])} for i in numbers]
        for i in numbers:
            save(folder / files[i][1], rng)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{part}.json").write_text(json.dumps(content))


def fake_vgg_flower(folder: Path, rng: np.random.Generator) -> None:
    labels = [int(name[:3]) for name, number in counts("vgg_flower").items() for _ in range(number)]
    for i in range(len(labels)):
        save(folder / "jpg" / f"image_{i + 1:05d}.jpg", rng)
    require("scipy", "vision").io.savemat(
        folder / "imagelabels.mat", {"labels": np.array([labels])}
    )


def fake_mscoco(folder: Path, rng: np.random.Generator) -> None:
    names = class_names("mscoco")
    annotations = [
        {"image_id": i % 3, "category_id": 7 * c, "bbox": [2.5, 3.0, 10.0, 8.0]}
        for c, (name, number) in enumerate(counts("mscoco").items())
        for i in range(number)
    ]
    for i in range(3):
        save(folder / "train2017" / f"{i:012d}.jpg", rng)
    content = {
        "images": [{"id": i, "width": 24, "height": 20} for i in range(3)],
        "categories": [{"id": 7 * c, "name": name} for c, name in enumerate(names)],
        "annotations": annotations,
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Omniglot's readers accept 36 and 6 characters: all of them would take seconds to pack."""
    monkeypatch.setitem(HALVES, "images_background", (6, 36))
    monkeypatch.setitem(HALVES, "images_evaluation", (1, 6))


def fake_omniglot_zips(folder: Path) -> None:
    """Both halves with as many characters as the readers expect.

    Every character has one drawing.
    """
    folder.mkdir(parents=True)
    for half, (alphabets, characters) in HALVES.items():
        names = [*META_DATASET_VAL, *(f"Alphabet{i:02d}" for i in range(alphabets))][:alphabets]
        if half == "images_evaluation":
            names = [f"Test{i:02d}" for i in range(alphabets)]
        with zipfile.ZipFile(folder / f"{half}.zip", "w") as archive:
            for number in range(characters):
                pixels = np.random.default_rng(number).random((7, 7)) > 0.5
                content = io.BytesIO()
                Image.fromarray(np.kron(pixels, np.ones((15, 15), bool))).save(content, "PNG")
                alphabet, place = names[number % alphabets], number // alphabets + 1
                for drawing in range(20):
                    name = (
                        f"{half}/{alphabet}/character{place:02d}/{number:04d}_{drawing + 1:02d}.png"
                    )
                    archive.writestr(name, content.getvalue())


def fake_sources(root: Path) -> Path:
    """All sources but Omniglot, with their specifications."""
    rng = np.random.default_rng(0)
    for source in FLAT:
        write_spec(root / "dataset_specs", source)
    write_wordnet_spec(root / "dataset_specs")
    fake_ilsvrc_2012(root / "ILSVRC2012_img_train", rng)
    fake_aircraft(root / "fgvc-aircraft-2013b", rng)
    fake_folders(root / "CUB_200_2011" / "images", "cu_birds", rng)
    fake_folders(root / "dtd" / "images", "dtd", rng)
    fake_quickdraw(root / "quickdraw", rng)
    fake_fungi(root / "fungi", rng)
    fake_vgg_flower(root / "vgg_flower", rng)
    fake_folders(root / "GTSRB" / "Final_Training" / "Images", "traffic_sign", rng, ".ppm")
    fake_mscoco(root / "mscoco", rng)
    return root


def fake_meta_dataset(root: Path) -> Path:
    """All ten sources with their specifications."""
    fake_omniglot_zips(root / "omniglot")
    return fake_sources(root)
