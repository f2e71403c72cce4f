"""mini-ImageNet, tiered-ImageNet and CUB: every file form, the published splits, every refusal."""

import csv
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import colour, fake_cub, fake_mini_imagenet, fake_tiered_imagenet

from fewshot.datasets import mini_imagenet, tiered_imagenet
from fewshot.datasets.cub import CubSplit, load_cub, split_kinds
from fewshot.datasets.imagenet_classes import MINI, TIERED, classes
from fewshot.datasets.mini_imagenet import MINI_IMAGENET
from fewshot.datasets.reading.npz import npz_member
from fewshot.datasets.tiered_imagenet import TIERED_IMAGENET
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import gather
from fewshot.errors import FewshotError

PARTS = ("train", "val", "test")
SIZE = 4


@pytest.fixture(scope="module")
def cub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_cub(tmp_path_factory.mktemp("cub"), images=2)


def images(dataset: ClassDataset) -> np.ndarray:
    found = gather(dataset.inputs, torch.arange(int(dataset.counts.sum())))
    assert isinstance(found, torch.Tensor)
    return found.numpy()


def check(datasets: dict[str, ClassDataset], number: int) -> None:
    """Every image is the one that its class, and its place in it, say."""
    for dataset in datasets.values():
        assert dataset.counts.tolist() == [number] * len(dataset.classes)
        found = images(dataset)
        assert (found == found[:, :, :1, :1]).all()
        expected = [colour(c, i) for c in range(len(dataset.classes)) for i in range(number)]
        got = found[:, :, 0, 0].astype(int)
        assert (got[:, :2] == np.array(expected)[:, :2]).all()
        assert (np.sort(got[:, 2].reshape(-1, number)) == np.arange(number)).all()


# --- the forms ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "cache_pkl", "category_pickle", "folders"])
@pytest.mark.parametrize("place", ["", "mini-imagenet"])
def test_every_form_of_mini_imagenet(tmp_path: Path, form: str, place: str) -> None:
    fake_mini_imagenet(tmp_path / "root" / place, form, images=2)
    found, datasets = MINI_IMAGENET.load(tmp_path / "root", tmp_path / "cache", SIZE, verify=False)
    assert found == form
    check(datasets, 2)
    if form == "category_pickle":  # it knows numbers alone
        assert datasets["val"].classes[:2] == ("val000", "val001")
    else:
        assert {part: list(data.classes) for part, data in datasets.items()} == classes(MINI)
    assert (tmp_path / "cache" / f"{form}-{SIZE}px" / "index.json").is_file()


@pytest.mark.parametrize("form", ["png_pkl", "npz", "compressed npz", "folders"])
def test_every_form_of_tiered_imagenet(tmp_path: Path, form: str) -> None:
    fake_tiered_imagenet(tmp_path / "root", form.rpartition(" ")[2], 2, "compressed" in form)
    found, datasets = TIERED_IMAGENET.load(
        tmp_path / "root", tmp_path / "cache", SIZE, verify=False
    )
    assert found == form.rpartition(" ")[2]
    check(datasets, 2)
    assert tuple(len(datasets[part].classes) for part in PARTS) == (351, 97, 160)
    if form == "folders":
        assert {part: list(data.classes) for part, data in datasets.items()} == classes(TIERED)


def test_an_uncompressed_npz_is_mapped_and_not_read(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    np.savez(tmp_path / "file.npz", other=np.zeros(7), images=array)
    found = npz_member(tmp_path / "file.npz", "images")
    assert isinstance(found, np.memmap)
    assert (found == array).all()


# --- the splits -----------------------------------------------------------------------


def test_mini_imagenets_classes_are_the_published_ones(shared_data: Path) -> None:
    for part, names in classes(MINI).items():
        with (shared_data / "splits/mini_imagenet/ravi" / f"{part}.csv").open() as file:
            labels = [row["label"] for row in csv.DictReader(file)]
        assert names == sorted(set(labels))
        assert len(labels) == mini_imagenet.IMAGES * len(names)


def test_tiered_imagenets_classes_are_the_published_ones(shared_data: Path) -> None:
    above: dict[str, set[str]] = {}
    for part, names in classes(TIERED).items():
        with (shared_data / "splits/tiered_imagenet" / f"{part}.csv").open() as file:
            pairs = [(row[0], row[1]) for row in csv.reader(file) if row]
        assert names == sorted(name for name, _ in pairs)
        above[part] = {parent for _, parent in pairs}
    # no superclass is in two splits
    assert sum(map(len, above.values())) == len(set.union(*above.values())) == 34


@pytest.mark.parametrize("split", ["closer_look", "meta_dataset", "feat"])
def test_cubs_kinds_are_the_published_ones(shared_data: Path, split: CubSplit) -> None:
    lists = shared_data / "splits"
    names: dict[str, set[str]] = {}
    for part in PARTS:
        if split == "closer_look":
            names[part] = set(json.loads((lists / "cub/torchmeta" / f"{part}.json").read_text()))
        elif split == "meta_dataset":
            specified = json.loads((lists / "meta_dataset/splits/cu_birds_splits.json").read_text())
            names[part] = set(specified["valid" if part == "val" else part])
        else:
            lines = (lists / "cub/feat" / f"{part}.csv").read_text().splitlines()[1:]
            names[part] = {line.split(",")[1].strip() for line in lines}
    assert split_kinds(split) == {
        part: sorted(int(name[:3]) - 1 for name in found) for part, found in names.items()
    }


@pytest.mark.parametrize(
    "table", [classes(MINI), classes(TIERED), *(split_kinds(s) for s in ("closer_look", "feat"))]
)
def test_splits_are_disjoint(table: dict[str, list[object]]) -> None:
    assert len({name for names in table.values() for name in names}) == sum(
        map(len, table.values())
    )


# --- CUB ------------------------------------------------------------------------------


def test_birds_with_and_without_their_box(cub: Path, tmp_path: Path) -> None:
    for split, sizes in (
        ("closer_look", (100, 50, 50)),
        ("meta_dataset", (140, 30, 30)),
        ("feat", (100, 50, 50)),
    ):
        whole = load_cub(cub, tmp_path / "cache", split, False, SIZE, verify=False)  # type: ignore[arg-type]
        crop = load_cub(cub, tmp_path / "cache", split, True, SIZE, verify=False)  # type: ignore[arg-type]
        assert tuple(len(crop[part].classes) for part in PARTS) == sizes
        for part in PARTS:
            kinds = np.repeat([int(name[:3]) for name in crop[part].classes], 2)
            # the box and nothing else
            assert (images(crop[part]) == kinds[:, None, None, None]).all()
            seen = images(whole[part])
            assert (seen.min((1, 2, 3)) < kinds / 2 + 1).all()
            assert (seen.max((1, 2, 3)) > kinds / 2 - 1).all()
    stores = sorted(
        path.parent.relative_to(tmp_path / "cache").as_posix()
        for path in tmp_path.rglob("index.json")
    )
    # one for all splits
    assert stores == [f"{way}/photographs-{SIZE}px" for way in ("crop", "whole")]


CubEdit = tuple[Callable[[Path], object], str]


@pytest.mark.parametrize(
    "case",
    [
        (lambda f: shutil.rmtree(f / "images"), "has images.txt, but no images; add it"),
        (
            lambda f: (f / "images/007.Bird_7/Bird_7_0001.png").unlink(),
            "names .*Bird_7_0001.png, which is not there",
        ),
        (
            lambda f: (f / "images/007.Bird_7/Bird_7_0001.png").write_bytes(b""),
            r"Bird_7_0001.png .*it has 0 bytes",
        ),
        (
            lambda f: (f / "images.txt").write_text("1 a b\n"),
            "images.txt is no table of 2 columns .line 1 is '1 a b'",
        ),
        (lambda f: (f / "images.txt").write_text("x a\n"), "images.txt is no table of 2 columns"),
        (
            lambda f: (f / "bounding_boxes.txt").write_text("1 0 0 5 5\n"),
            "has no box for photograph 2",
        ),
        (
            lambda f: (f / "bounding_boxes.txt").write_text("1 a b c d\n"),
            "has no box for photograph 1",
        ),
        (
            lambda f: (f / "images.txt").write_text(
                "".join((f / "images.txt").read_text().splitlines(True)[:-2])
            ),
            "has 199 kinds of birds, CUB has 200",
        ),
    ],
    ids=lambda case: case[1][:40],
)
def test_a_damaged_cub_is_one_line(cub: Path, tmp_path: Path, case: CubEdit) -> None:
    shutil.copytree(cub, tmp_path / "root")
    edit, message = case
    edit(tmp_path / "root/CUB_200_2011")
    with pytest.raises(FewshotError, match=message) as caught:
        load_cub(tmp_path / "root", tmp_path / "cache", crop=True, image_size=SIZE, verify=False)
    assert "\n" not in str(caught.value)


# --- what can be wrong ----------------------------------------------------------------


def test_missing_data_name_their_source_files_and_licence(tmp_path: Path) -> None:
    for load, parts in (
        (
            MINI_IMAGENET.load,
            (
                "images/",
                "train.csv",
                "mini-imagenet-cache-",
                "category_split",
                "meta-learning-lstm",
            ),
        ),
        (
            TIERED_IMAGENET.load,
            ("train_images_png.pkl", "_images.npz", "train_labels.pkl", "few-shot-ssl-public"),
        ),
        (load_cub, ("CUB_200_2011/", "images.txt", "bounding_boxes.txt", "vision.caltech.edu")),
    ):
        with pytest.raises(FewshotError) as caught:
            load(tmp_path / "none", tmp_path / "cache")
        for part in (str(tmp_path / "none"), "non-commercial research", *parts):
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["csv", "cache_pkl", "category_pickle", "folders"])
def test_a_part_is_taken_only_where_the_user_says_so(tmp_path: Path, form: str) -> None:
    root = fake_mini_imagenet(tmp_path / "root", form, images=1)
    with pytest.raises(
        FewshotError,
        match="has 1 images, mini-ImageNet's have 600; complete it, or set verify: false",
    ):
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE)
    MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)
    with pytest.raises(FewshotError, match="has 1 images"):  # nor does the store hide it
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE)


def test_numbers_of_images_are_checked_everywhere(cub: Path, tmp_path: Path) -> None:
    fake_tiered_imagenet(tmp_path / "root", "npz", 1)
    with pytest.raises(
        FewshotError, match="the train split has 351 images, tiered-ImageNet's has 448695"
    ):
        TIERED_IMAGENET.load(tmp_path / "root", tmp_path / "cache", SIZE)
    with pytest.raises(FewshotError, match="has 400 photographs, CUB has 11788"):
        load_cub(cub, tmp_path / "cache", image_size=SIZE)
    assert sum(tiered_imagenet.IMAGES.values()) == 779_165


@pytest.mark.parametrize("form", ["csv", "cache_pkl", "folders"])
def test_a_missing_class_is_named(tmp_path: Path, form: str) -> None:
    root, name = fake_mini_imagenet(tmp_path / "root", form, images=1), classes(MINI)["val"][3]
    if form == "folders":
        shutil.rmtree(root / "val" / name)
    elif form == "csv":
        lines = (root / "val.csv").read_text().splitlines(True)
        (root / "val.csv").write_text("".join(line for line in lines if name not in line))
    else:
        content = pickle.loads((root / "mini-imagenet-cache-val.pkl").read_bytes())
        del content["class_dict"][name]
        (root / "mini-imagenet-cache-val.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(
        FewshotError, match=f"has no image of the val class '{name}'; add its images"
    ):
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)


def test_a_class_of_another_split_is_named(tmp_path: Path) -> None:
    root = fake_mini_imagenet(tmp_path / "root", images=1)
    name = classes(MINI)["train"][0]
    shutil.copytree(root / "train" / name, root / "test" / name)
    with pytest.raises(
        FewshotError, match=f"has the test class '{name}', which is not in the split"
    ):
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)


PICKLES: dict[str, tuple[str, Callable[[dict[str, object]], object], str]] = {
    "no images": (
        "cache_pkl",
        lambda c: c.pop("image_data"),
        "does not hold image_data and class_dict .*KeyError",
    ),
    "no list": (
        "cache_pkl",
        lambda c: c.update(class_dict=[1]),
        "does not hold image_data and class_dict",
    ),
    "floats": (
        "cache_pkl",
        lambda c: c.update(image_data=np.zeros((2, 4, 4, 3))),
        "images are float64 .2, 4, 4, 3",
    ),
    "a row too far": (
        "cache_pkl",
        lambda c: c.update(class_dict={"n01855672": [999]}),
        "IndexError",
    ),
    "no data": ("category_pickle", lambda c: c.pop("data"), "does not hold data and labels"),
    "few labels": ("category_pickle", lambda c: c.update(labels=[1, 2]), "16 images, 2 labels"),
    "few classes": (
        "category_pickle",
        lambda c: c.update(labels=[1] * 16),
        "has 1 val classes, the split has 16",
    ),
}


@pytest.mark.parametrize("damage", PICKLES)
def test_other_pickles_are_refused(tmp_path: Path, damage: str) -> None:
    form, edit, message = PICKLES[damage]
    root = fake_mini_imagenet(tmp_path / "root", form, images=1)
    path = root / mini_imagenet.FORMS[form]["val"]
    content = pickle.loads(path.read_bytes())
    edit(content)
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(FewshotError, match=message) as caught:
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)
    assert "\n" not in str(caught.value)


TIERED_EDITS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no labels": (
        "npz",
        lambda r: (r / "val_labels.pkl").unlink(),
        "has train_images.npz, but no val_labels.pkl",
    ),
    "other labels": (
        "npz",
        lambda r: (r / "val_labels.pkl").write_bytes(pickle.dumps({})),
        "no label_specific",
    ),
    "few labels": (
        "png_pkl",
        lambda r: (r / "val_labels.pkl").write_bytes(pickle.dumps({"label_specific": [1]})),
        r"\(1,\) labels of 97 images",
    ),
    "no list": (
        "png_pkl",
        lambda r: (r / "val_images_png.pkl").write_bytes(pickle.dumps(7)),
        "no list of PNG images",
    ),
    "no image": (
        "png_pkl",
        lambda r: (r / "val_images_png.pkl").write_bytes(pickle.dumps([b"?"] * 97)),
        r"val_images_png.pkl\[\d+\] cannot be decoded",
    ),
    "no archive": (
        "npz",
        lambda r: (r / "val_images.npz").write_bytes(b"?"),
        "val_images.npz is truncated or corrupt",
    ),
    "other array": (
        "npz",
        lambda r: np.savez(r / "val_images.npz", x=np.zeros(1)),
        "has no array 'images'",
    ),
    "floats": (
        "npz",
        lambda r: np.savez(r / "val_images.npz", images=np.zeros(1)),
        "its images are float64",
    ),
    "objects": (
        "npz",
        lambda r: np.savez(r / "val_images.npz", images=np.array([None], object)),
        "cannot be read .it holds objects",
    ),
}


@pytest.mark.parametrize("damage", TIERED_EDITS)
def test_a_damaged_tiered_imagenet_is_one_line(tmp_path: Path, damage: str) -> None:
    form, edit, message = TIERED_EDITS[damage]
    root = fake_tiered_imagenet(tmp_path / "root", form, 1)
    edit(root)
    with pytest.raises(FewshotError, match=message) as caught:
        TIERED_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)
    assert "\n" not in str(caught.value)


def test_files_that_are_incomplete_name_what_is_missing(tmp_path: Path) -> None:
    root = fake_mini_imagenet(tmp_path / "root", "cache_pkl", images=1)
    (root / "mini-imagenet-cache-test.pkl").unlink()
    with pytest.raises(
        FewshotError, match=r"has mini\S+train.pkl, but no mini-imagenet-cache-test.pkl; add"
    ):
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)


def test_a_list_that_names_a_missing_image(tmp_path: Path) -> None:
    root = fake_mini_imagenet(tmp_path / "root", "csv", images=1)
    path = next((root / "images").iterdir())
    path.unlink()
    with pytest.raises(FewshotError, match=f"{path} cannot be decoded"):
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)
    (root / "train.csv").write_text("name,class\na,b\n")
    with pytest.raises(FewshotError, match=r"train.csv is no table of filename,label"):
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)


def test_a_store_does_not_stand_in_for_the_data(tmp_path: Path) -> None:
    root = fake_mini_imagenet(tmp_path / "root", "folders", images=1)
    MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)
    shutil.rmtree(root)
    with pytest.raises(FewshotError, match="does not hold mini-ImageNet"):
        MINI_IMAGENET.load(root, tmp_path / "cache", SIZE, verify=False)
    with pytest.raises(FewshotError, match="image_size is 0"):
        MINI_IMAGENET.load(root, tmp_path / "cache", 0)
