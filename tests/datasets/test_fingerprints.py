"""A cache answers for the files that it was made from, whatever is cached and of whatever files."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_meta_dataset import fake_folders, write_spec
from fakes import fake_camvid, fake_cub, fake_mini_imagenet, fake_wiki_one
from PIL import Image

from fewshot import WikiOneDataModule
from fewshot.datasets import omniglot
from fewshot.datasets.cub import load_cub
from fewshot.datasets.meta_dataset import found_sources, load_source
from fewshot.datasets.mini_imagenet import MINI_IMAGENET
from fewshot.datasets.omniglot import load_omniglot
from fewshot.datasets.reading.fingerprints import fingerprint_of
from fewshot.datasets.segmentation import counted_pixels, find_pairs
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import gather
from fewshot.errors import FewshotError

# --- the fingerprint ------------------------------------------------------------------


def test_a_fingerprint_is_of_places_sizes_and_times(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("a/1", "a/2", "b/c/3"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    first = fingerprint_of([root], root)
    listed = sorted(path for path in root.rglob("*") if path.is_file())
    assert fingerprint_of(listed, root) == first, "a folder stands for the files in it"
    assert fingerprint_of([root], root, "format 2") != first
    (root / ".hidden").touch()
    assert fingerprint_of([root], root) == first
    shutil.copytree(root, tmp_path / "copy")  # keeps the times
    assert fingerprint_of([tmp_path / "copy"], tmp_path / "copy") == first
    (root / "a/round").symlink_to("..")
    assert fingerprint_of([root], root) == first, "a link back is not followed for ever"

    def changed(change: Callable[[Path], object]) -> bool:
        shutil.rmtree(tmp_path / "copy")
        shutil.copytree(root, tmp_path / "copy", symlinks=True)
        change(tmp_path / "copy")
        return fingerprint_of([tmp_path / "copy"], tmp_path / "copy") != first

    assert not changed(lambda copy: None)
    assert changed(lambda copy: (copy / "a/1").write_text("A/1")), "of the same size"
    assert changed(lambda copy: (copy / "a/1").write_text("longer"))
    assert changed(lambda copy: (copy / "a/1").rename(copy / "a/0"))
    assert changed(lambda copy: (copy / "b/c/3").unlink())
    assert changed(lambda copy: (copy / "b/c/4").touch())
    with pytest.raises(FewshotError, match=r"gone cannot be looked at \(No such file"):
        fingerprint_of([root / "gone"], root)


# --- the caches -----------------------------------------------------------------------


def of_classes(datasets: Mapping[str, ClassDataset]) -> str:
    """A digest of all images of train, val and test."""
    digest = hashlib.sha256()
    for split in sorted(datasets):
        dataset = datasets[split]
        images = gather(dataset.inputs, torch.arange(int(dataset.counts.sum())))
        assert isinstance(images, torch.Tensor)
        digest.update(images.numpy().tobytes())
    return digest.hexdigest()


def recolour(path: Path) -> None:
    """Another image in the place of one, of the same size."""
    with Image.open(path) as image:
        changed = Image.new(image.mode, image.size, 1)
    changed.save(path)


def make_omniglot(root: Path) -> None:
    halves = {"images_background": ("Armenian", "Greek"), "images_evaluation": ("Kannada", "Oriya")}
    for half, alphabets in halves.items():
        for name in alphabets:
            (root / half / name / "character01").mkdir(parents=True)
            for i in range(20):
                drawing = Image.new("1", (105, 105), i % 2)
                drawing.save(root / half / name / "character01" / f"0001_{i:02d}.png")


def make_omniglot_zips(root: Path) -> None:
    make_omniglot(root)
    for half in ("images_background", "images_evaluation"):
        shutil.make_archive(str(root / half), "zip", root, half)
        shutil.rmtree(root / half)


def rezip(path: Path) -> None:
    """Another drawing in an archive."""
    shutil.unpack_archive(path, path.with_suffix(".d"))
    recolour(next(path.with_suffix(".d").rglob("*_00.png")))
    shutil.make_archive(str(path.with_suffix("")), "zip", path.with_suffix(".d"))
    shutil.rmtree(path.with_suffix(".d"))


def make_dtd(root: Path) -> None:
    fake_folders(root / "dtd/images", "dtd", np.random.default_rng(0))
    write_spec(root / "specs", "dtd")


def load_dtd(root: Path, cache: Path) -> str:
    folder = found_sources(root, ["dtd"])["dtd"]
    splits = load_source("dtd", folder, root / "specs", cache, 8)
    return of_classes({name: split.dataset for name, split in splits.items()})


def load_masks(root: Path, cache: Path) -> str:
    pairs = find_pairs(root / "train", root / "trainannot")
    return hashlib.sha256(counted_pixels(pairs).tobytes()).hexdigest()


def load_wiki(root: Path, cache: Path, part: str = "entity_vectors") -> str:
    data = WikiOneDataModule(str(root), dimensions=8, embedding_epochs=1)
    return hashlib.sha256(Path(getattr(data, part)).read_bytes()).hexdigest()


def renumber(path: Path) -> None:
    """Two names exchange their ids."""
    ids = json.loads(path.read_text())
    one, other = list(ids)[:2]
    ids[one], ids[other] = ids[other], ids[one]
    path.write_text(json.dumps(ids))


def make_graph_with_vectors(root: Path) -> None:
    fake_wiki_one(root)
    np.savetxt(root / "entity2vec.TransE", np.ones((60, 2)))


def one_less(path: Path) -> None:
    """Another vector of the first entity."""
    np.savetxt(path, np.loadtxt(path) - 1)


Case = tuple[Callable[[Path], object], Callable[[Path, Path], str], str, Callable[[Path], object]]
CASES: dict[str, Case] = {
    "omniglot": (
        make_omniglot,
        lambda root, cache: of_classes(load_omniglot(root, cache, "lake")),
        "images_background/Greek/character01/0001_00.png",
        recolour,
    ),
    "omniglot zips": (
        make_omniglot_zips,
        lambda root, cache: of_classes(load_omniglot(root, cache, "lake")),
        "images_background.zip",
        rezip,
    ),
    "mini-ImageNet": (
        lambda root: fake_mini_imagenet(root, "folders", images=1),
        lambda root, cache: of_classes(MINI_IMAGENET.load(root, cache, 4, verify=False)[1]),
        "train/*/*.*",
        recolour,
    ),
    "CUB": (
        lambda root: fake_cub(root, images=1),
        lambda root, cache: of_classes(load_cub(root, cache, image_size=4, verify=False)),
        "CUB_200_2011/images/*/*.png",
        recolour,
    ),
    "Meta-Dataset": (make_dtd, load_dtd, "dtd/images/*/00001.jpg", recolour),
    "masks": (fake_camvid, load_masks, "trainannot/*.png", recolour),
    "vectors of a graph": (fake_wiki_one, load_wiki, "ent2ids", renumber),
    "vectors of a file": (make_graph_with_vectors, load_wiki, "entity2vec.TransE", one_less),
    "neighbours": (
        fake_wiki_one,
        lambda root, cache: load_wiki(root, cache, "neighbours"),
        "ent2ids",
        renumber,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_cache_answers_for_its_files_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another root once gave is not given, nor what a file held before."""
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(
        omniglot, "HALVES", {"images_background": (2, 2), "images_evaluation": (2, 2)}
    )
    make, load, pattern, change = CASES[name]
    root, cache = tmp_path / "root", tmp_path / "cache"
    make(root)
    first = load(root, cache)
    assert load(root, cache) == first
    with pytest.raises(FewshotError, match=str(tmp_path / "nowhere")):
        load(tmp_path / "nowhere", cache)
    file = min(root.glob(pattern))
    before = file.read_bytes()
    change(file)
    assert load(root, cache) != first, "a file was changed"
    file.write_bytes(before)
    assert load(root, cache) == first, "and back"
