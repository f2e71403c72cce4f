import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from fewshot.datasets import omniglot
from fewshot.datasets.omniglot import HALVES, load_omniglot, split_characters
from fewshot.datasets.reading.downloads import file_hash
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

FAKE = {
    "images_background": {"Armenian": 2, "Greek": 3, "Tagalog": 1},
    "images_evaluation": {"Angelic": 2, "Kannada": 2},
}


def drawing(seed: int, size: int = 105) -> bytes:
    """A 1-bit PNG, ink 0 on paper 1, which looks different at each rotation."""
    pixels = np.ones((size, size), bool)
    pixels[: 20 + seed % 60, 5 : 15 + seed % 7] = False
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small Omniglot, unpacked, and the counts to match."""
    monkeypatch.setattr(
        omniglot, "HALVES", {"images_background": (3, 6), "images_evaluation": (2, 4)}
    )
    root, seed = tmp_path / "data", 0
    for half, alphabets in FAKE.items():
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                folder = root / half / alphabet / f"character{character:02d}"
                folder.mkdir(parents=True)
                for number in range(1, 21):
                    seed += 1
                    (folder / f"0001_{number:02d}.png").write_bytes(drawing(seed))
    return root


def pack(root: Path, target: Path, prefix: str = "") -> None:
    """Zip the halves of `root` into `target`, in reversed order and with what a Mac adds."""
    target.mkdir(parents=True, exist_ok=True)
    for half in FAKE:
        with zipfile.ZipFile(target / f"{half}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(f"__MACOSX/{prefix}{half}/Greek/character01/._0001_01.png", b"?")
            for path in sorted((root / half).glob("*/*/*.png"), reverse=True):
                file.write(path, f"{prefix}{path.relative_to(root).as_posix()}")


def images(data: ClassDataset) -> torch.Tensor:
    assert isinstance(data.inputs, torch.Tensor)
    return data.inputs


def same(first: dict[str, ClassDataset], second: dict[str, ClassDataset]) -> bool:
    return all(
        first[part].classes == second[part].classes
        and torch.equal(images(first[part]), images(second[part]))
        for part in ("train", "val", "test")
    )


# --- the small copy -------------------------------------------------------------------


def test_a_drawing_is_shrunk_inverted_and_rotated(folders: Path, tmp_path: Path) -> None:
    data = load_omniglot(folders, tmp_path / "cache")
    assert data["val"].classes[:4] == tuple(
        f"Armenian/character01/rot{r}" for r in ("000", "090", "180", "270")
    )
    # sorted over both halves: Angelic is of the evaluation half
    assert list(dict.fromkeys(c.split("/")[0] for c in data["train"].classes)) == [
        "Angelic",
        "Greek",
        "Tagalog",
    ]
    drawings = images(data["val"])
    assert drawings.shape == (2 * 4 * 20, 1, 28, 28)
    assert drawings.dtype == torch.uint8
    assert data["val"].counts.tolist() == [20] * 8
    original = Image.open(folders / "images_background/Armenian/character01/0001_03.png").convert(
        "L"
    )
    for turn in range(4):
        turned = original.rotate(90 * turn).resize((28, 28), Image.Resampling.BILINEAR)
        expected = 255.0 - np.asarray(turned, float)
        assert np.abs(drawings[20 * turn + 2, 0].numpy() - expected).max() <= 1
    assert drawings.max() == 255  # ink


@pytest.mark.parametrize(
    "layout", ["torchvision", "zips", "torchvision zips", "zips with a prefix", "below omniglot"]
)
def test_every_layout_gives_the_same(folders: Path, tmp_path: Path, layout: str) -> None:
    root = tmp_path / "other"
    if layout in ("torchvision", "below omniglot"):
        shutil.copytree(folders, root / ("omniglot" if "below" in layout else "") / "omniglot-py")
    else:
        pack(
            folders,
            root / ("omniglot-py" if "torchvision" in layout else ""),
            "python/" * ("prefix" in layout),
        )
    before = sorted(root.rglob("*"))
    found = load_omniglot(root, tmp_path / "cache", "lake")
    assert same(found, load_omniglot(folders, tmp_path / "cache of the folders", "lake"))
    assert sorted(root.rglob("*")) == before  # nothing is written into the data


def test_a_whole_zip_is_preferred_to_a_half_unpacked_folder(folders: Path, tmp_path: Path) -> None:
    expected = load_omniglot(folders, tmp_path / "first")
    pack(folders, folders)
    shutil.rmtree(folders / "images_background/Greek")
    assert same(load_omniglot(folders, tmp_path / "second"), expected)


def test_the_cache_serves_every_split(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_omniglot(folders, tmp_path / "cache", "lake")
    monkeypatch.setattr(omniglot, "_decode_all", lambda root: pytest.fail("decoded again"))
    data = load_omniglot(folders, tmp_path / "cache", "meta_dataset")
    assert data["train"].classes[0] == "Armenian/character01/rot000"
    assert data["val"].classes == ("Tagalog/character01/rot000",)
    assert [c.split("/")[0] for c in data["test"].classes] == [
        "Angelic",
        "Angelic",
        "Kannada",
        "Kannada",
    ]


# --- the splits -----------------------------------------------------------------------


def test_maml_shuffles_by_its_seed() -> None:
    characters = [f"images_background/A/{number:04d}" for number in range(1623)]
    parts = split_characters(characters, "maml")
    assert [len(parts[part]) for part in ("train", "val", "test")] == [1100, 100, 423]
    assert sorted(index for part in parts.values() for index in part) == list(range(1623))
    assert parts["train"][:4] == [713, 1081, 1577, 509]  # the same on every machine, for ever
    assert split_characters(characters, "maml", 1) == parts
    assert split_characters(characters, "maml", 2) != parts


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(
        FewshotError, match="unknown Omniglot split 'ravi'; use one of vinyals, maml"
    ):
        split_characters([], "ravi")  # type: ignore[arg-type]  # the value under test


# --- what can be wrong ----------------------------------------------------------------


def test_missing_data_names_the_root_the_files_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FewshotError) as caught:
        load_omniglot(tmp_path / "none", tmp_path / "cache")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        str(tmp_path / "none"),
        "images_background.zip",
        "omniglot-py",
        "`download: true`",
    ):
        assert part in message


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", ["truncated", "empty", "size", "folder", "missing", "alphabet"])
def test_damaged_folders_are_named(folders: Path, tmp_path: Path, damage: str) -> None:
    path = folders / "images_background/Greek/character02/0001_07.png"
    if damage == "truncated":
        truncate(path)
        expected = rf"{path} is truncated or corrupt"
    elif damage == "empty":
        path.write_bytes(b"")
        expected = rf"{path} is truncated or corrupt"
    elif damage == "size":
        path.write_bytes(drawing(1, 28))
        expected = rf"{path} is 28x28, expected 105x105"
    elif damage == "folder":
        path.unlink()
        path.mkdir()
        expected = rf"cannot read Omniglot's drawings .*{path}"
    elif damage == "missing":
        path.unlink()
        expected = rf"{path.parent} holds 19 drawings, expected 20"
    else:
        shutil.rmtree(path.parents[1])
        expected = r"images_background holds 2 alphabets and 3 characters, expected 3 and 6"
    with pytest.raises(FewshotError, match=expected):
        load_omniglot(folders, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_damaged_zips_are_named(folders: Path, tmp_path: Path) -> None:
    pack(folders, tmp_path)
    archive = tmp_path / "images_evaluation.zip"
    with zipfile.ZipFile(archive) as file:
        member = file.infolist()[-1]
    start = member.header_offset + 30 + len(member.filename)  # where its bytes begin
    content = bytearray(archive.read_bytes())
    content[start + 20 : start + 24] = b"????"
    archive.write_bytes(content)
    with pytest.raises(FewshotError, match=rf"{archive} is truncated or corrupt"):
        load_omniglot(tmp_path, tmp_path / "cache")
    truncate(archive)
    with pytest.raises(FewshotError, match=rf"{archive} is truncated or corrupt"):
        load_omniglot(tmp_path, tmp_path / "cache")


# --- download -------------------------------------------------------------------------


def test_download_fetches_what_is_missing_or_cut_off(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, served = tmp_path / "root", tmp_path / "served"
    pack(folders, served)
    checksums = {half: file_hash(served / f"{half}.zip", "md5") for half in HALVES}
    monkeypatch.setattr(torchvision.datasets.Omniglot, "zips_md5", checksums)
    monkeypatch.setattr(torchvision.datasets.Omniglot, "download_url_prefix", served.as_uri())
    (root / "omniglot-py").mkdir(parents=True)
    (root / "omniglot-py/images_background.zip").write_bytes(b"PK: an interrupted download")
    found = load_omniglot(root, tmp_path / "cache", download=True)
    assert same(found, load_omniglot(folders, tmp_path / "other"))
    assert sorted(path.name for path in (root / "omniglot-py").iterdir()) == [
        f"{half}.zip" for half in HALVES
    ]
    for archive in served.iterdir():
        archive.unlink()
    assert same(found, load_omniglot(root, tmp_path / "third", download=True)), (
        "what is there is not fetched again"
    )


def test_a_failed_download_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torchvision.datasets.Omniglot, "download_url_prefix", (tmp_path / "nowhere").as_uri()
    )
    with pytest.raises(FewshotError, match=r"could not download .*images_background.zip .*by hand"):
        load_omniglot(tmp_path, tmp_path / "cache", download=True)


# --- the real data --------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The decoded real data."""
    cache = tmp_path_factory.mktemp("omniglot")
    load_omniglot(shared_data / "omniglot", cache)
    yield cache
    shutil.rmtree(cache)


def characters_of(data: ClassDataset) -> set[str]:
    return {name.rpartition("/")[0] for name in data.classes}


def test_vinyals_is_the_published_split(real: Path, shared_data: Path) -> None:
    data = load_omniglot(shared_data / "omniglot", real, "vinyals")
    for part, size in (("train", 1028), ("val", 172), ("test", 423)):
        listed = (shared_data / f"splits/omniglot/vinyals/{part}.txt").read_text().split()
        assert sorted(data[part].classes) == sorted(listed)
        assert len(listed) == 4 * size
        assert images(data[part]).shape == (4 * size * 20, 1, 28, 28)
        torchmeta = json.loads((shared_data / f"splits/omniglot/torchmeta/{part}.json").read_text())
        assert characters_of(data[part]) == {
            f"{alphabet}/{character}"
            for alphabets in torchmeta.values()
            for alphabet, characters in alphabets.items()
            for character in characters
        }


@pytest.mark.parametrize(
    ("split", "sizes"),
    [("maml", (4400, 100, 423)), ("lake", (792, 172, 659)), ("meta_dataset", (883, 81, 659))],
)
def test_the_other_splits_are_disjoint_and_complete(
    real: Path, shared_data: Path, split: omniglot.OmniglotSplit, sizes: tuple[int, int, int]
) -> None:
    data = load_omniglot(shared_data / "omniglot", real, split)
    assert tuple(len(data[part].classes) for part in ("train", "val", "test")) == sizes
    parts = [characters_of(data[part]) for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1623


def test_meta_dataset_is_its_specification(real: Path, shared_data: Path) -> None:
    path = shared_data / "splits/meta_dataset/dataset_specs/omniglot_dataset_spec.json"
    # train, validation, test, in order
    names = list(json.loads(path.read_text())["superclass_names"].values())
    data = load_omniglot(shared_data / "omniglot", real, "meta_dataset")
    for part, alphabets in (("train", names[:25]), ("val", names[25:30]), ("test", names[30:])):
        assert {name.split("/")[0] for name in data[part].classes} == set(alphabets)


def test_real_drawings_are_bright_ink_on_dark_paper(real: Path, shared_data: Path) -> None:
    drawings = images(load_omniglot(shared_data / "omniglot", real, "lake")["test"])
    # the share of ink in the originals
    assert abs(drawings.double().mean().item() / 255 - 0.0843) < 1e-3
    assert (drawings.flatten(1).max(1).values > 127).all()  # no stroke is lost
