import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from fakes import fake_mnist

from fewshot.datasets import mnist
from fewshot.datasets.mnist import SIZE, load_mnist
from fewshot.datasets.multi_digit import Compositions, load_multi_digit, random_below, split_numbers
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import gather
from fewshot.errors import FewshotError

SIDES = {2: 64, 3: 84}
PINNED = [298032, 303649, 302985]  # sums of three images of the generated digits


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_mnist(tmp_path_factory.mktemp("mnist"))


def images(dataset: ClassDataset, rows: list[int]) -> np.ndarray:
    found = gather(dataset.inputs, torch.tensor(rows))
    assert isinstance(found, torch.Tensor)
    return found.numpy()


@pytest.mark.parametrize(("digits", "folder"), [(2, "doublemnist"), (3, "triplemnist")])
def test_the_rule_gives_the_published_lists(shared_data: Path, digits: int, folder: str) -> None:
    for part, numbers in split_numbers(digits).items():
        published = json.loads((shared_data / "splits" / folder / f"{part}.json").read_text())
        assert [f"{number:0{digits}d}" for number in numbers] == sorted(published)


@pytest.mark.parametrize("digits", [2, 3])
def test_the_splits_share_out_all_numbers(digits: int) -> None:
    parts = split_numbers(digits)
    assert {part: len(numbers) for part, numbers in parts.items()} == {
        part: share * 10 ** (digits - 2)
        for part, share in (("train", 64), ("val", 16), ("test", 20))
    }
    assert sorted(number for numbers in parts.values() for number in numbers) == list(
        range(10**digits)
    )


@pytest.mark.parametrize("digits", [2, 3])
def test_an_image_shows_the_digits_of_its_class_in_their_columns(root: Path, digits: int) -> None:
    size = SIDES[digits]
    data = load_multi_digit(root, digits, size, verify=False)["train"]
    known = load_mnist(root, verify=False)
    drawn = {
        image.tobytes(): digit
        for digit, image in zip(np.repeat(range(10), known.counts), known.images, strict=True)
    }
    places = []
    for row in range(0, len(data.classes) * 1000, 397 * 10 ** (digits - 2)):
        (image,) = images(data, [row])[0]
        name = data.classes[row // 1000]
        total = 0
        for i, digit in enumerate(name):
            left, right = i * size // digits, (i + 1) * size // digits
            # every drawing of the generated MNIST has a bright pixel in each corner
            ys, xs = np.nonzero(image[:, left:right] == 255)
            window = image[ys.min() :, left + xs.min() :][:SIZE, :SIZE]
            assert drawn[np.ascontiguousarray(window).tobytes()] == int(digit)
            places.append((ys.min(), xs.min()))
            total += int((window > 0).sum())
        assert (image > 0).sum() == total  # and nothing else
    tops, lefts = (np.unique(values).tolist() for values in zip(*places, strict=True))
    assert lefts == ([0, 1, 2, 3] if digits == 2 else [0])
    assert (min(tops), max(tops)) == (0, size - SIZE - 1)


def test_an_image_is_a_function_of_its_class_and_number(root: Path) -> None:
    data = load_multi_digit(root, 2, 64, verify=False)
    rows = [5, 1005, 63999, 5, 31234]
    together = images(data["train"], rows)
    for row, image in zip(rows, together, strict=True):
        assert (images(data["train"], [row])[0] == image).all()
    # neither the other classes nor how many images a class has change it
    few = load_multi_digit(root, 2, 64, images_per_class=10, verify=False)["train"]
    assert (images(few, [15])[0] == together[1]).all()
    chosen = data["train"].select([31, 0])
    assert isinstance(chosen.inputs, Compositions)
    assert (images(chosen, [234, 1005]) == together[[4, 0]]).all()
    assert len(np.unique(together.reshape(5, -1), axis=0)) == 4


def test_the_images_stay_the_same_for_ever(root: Path) -> None:
    data = load_multi_digit(root, 3, 84, verify=False)["test"]
    assert images(data, [0, 77, 199_999]).sum((1, 2, 3)).tolist() == PINNED


def test_random_numbers_are_uniform_and_their_addresses_independent() -> None:
    drawn = random_below(np.arange(0, 400_000, 4), 37)
    assert [drawn.min().item(), drawn.max().item()] == [0, 36]
    expected = 100_000 / 37
    # chi-squared, 36 degrees, p = 0.001
    assert ((np.bincount(drawn) - expected) ** 2 / expected).sum() < 67.99
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(drawn, random_below(np.arange(1, 400_000, 4), 37))[0, 1]) < 0.02


# --- MNIST ----------------------------------------------------------------------------


def test_digits_are_sorted_and_complete(root: Path) -> None:
    digits = load_mnist(root, verify=False)
    assert digits.images.shape == (120, SIZE, SIZE)
    assert digits.counts.tolist() == [12] * 10
    assert (digits.images[:, 14, 14] == np.repeat(np.arange(10), 12)).all()


@pytest.mark.parametrize("place", ["MNIST/raw", "mnist/MNIST/raw", "mnist", "raw", ""])
@pytest.mark.parametrize("pack", [True, False])
def test_files_are_found_where_people_have_them(
    root: Path, tmp_path: Path, place: str, pack: bool
) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for path in (root / "MNIST/raw").iterdir():
        content = gzip.decompress(path.read_bytes())
        name = path.stem + ".gz" * pack
        (tmp_path / place / name).write_bytes(gzip.compress(content) if pack else content)
    assert (
        load_mnist(tmp_path, verify=False).images == load_mnist(root, verify=False).images
    ).all()


def test_a_missing_file_names_its_source_place_and_licence(tmp_path: Path) -> None:
    with pytest.raises(FewshotError) as caught:
        load_mnist(tmp_path / "none")
    for part in (
        str(tmp_path / "none"),
        "train-images-idx3-ubyte",
        "MNIST/raw",
        "download: true",
        "CC BY-SA",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_is_torchvisions(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(folder: Path, download: bool) -> None:
        assert download
        (folder / "MNIST").parent.mkdir(parents=True, exist_ok=True)
        (folder / "MNIST").symlink_to(root / "MNIST")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    assert len(load_mnist(tmp_path / "new", download=True, verify=False).images) == 120
    load_mnist(tmp_path / "new", download=True, verify=False)  # what is there is not fetched again

    def fail(folder: Path, download: bool) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    with pytest.raises(FewshotError, match=r"could not download MNIST \(no network\)"):
        load_mnist(tmp_path / "other", download=True)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "empty": (IMAGES, lambda _: b"", f"{IMAGES} is no idx file"),
    "other numbers": (LABELS, lambda c: b"\0\0\x0b\1" + c[4:], f"{LABELS} is no idx file of bytes"),
    "another size": (IMAGES, lambda c: c[:12] + b"\0\0\0\x1b" + c[16:], f"{IMAGES} is no idx file"),
    "short": (IMAGES, lambda c: c[:-1], f"{IMAGES} is truncated or too long for its 100 items"),
    "long": (LABELS, lambda c: c + b"\0", f"{LABELS} is truncated or too long"),
    "a label too few": (
        LABELS,
        lambda c: c[:4] + b"\0\0\0\x63" + c[8:-1],
        "hold 100 images and 99 labels",
    ),
    "a label of 10": (LABELS, lambda c: c[:-1] + b"\x0a", "labels are .*10.*, not 0 to 9"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_not_mnists_are_refused(root: Path, tmp_path: Path, damage: str) -> None:
    name, edit, message = DAMAGES[damage]
    for path in (root / "MNIST/raw").iterdir():
        content = gzip.decompress(path.read_bytes())
        (tmp_path / path.stem).write_bytes(edit(content) if path.stem == name else content)
    with pytest.raises(FewshotError, match=message) as caught:
        load_mnist(tmp_path, verify=False)
    assert str(caught.value).endswith("delete it and fetch it again with download: true")


def test_a_truncated_archive_is_refused(root: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes((root / "MNIST/raw" / path.name).read_bytes())
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(FewshotError, match=f"{path} is truncated or corrupt"):
        load_mnist(tmp_path)


def test_other_digits_are_taken_only_where_the_user_says_so(root: Path) -> None:
    with pytest.raises(FewshotError, match=r"is not MNIST's \(its sha256 differs\).*verify: false"):
        load_mnist(root)


def test_the_real_digits(shared_data: Path) -> None:
    digits = load_mnist(shared_data / "mnist")
    assert digits.images.shape == (70_000, SIZE, SIZE)
    assert digits.counts.tolist() == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    assert digits.images.max() == 255
    assert set(mnist.SHA256) == {path.stem for path in (shared_data / "mnist/MNIST/raw").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images_per_class": 0}, "images_per_class is 0; set it to 1"),
        ({"images_per_class": 2**20 + 1}, "images_per_class is 1048577"),
        ({"size": 55}, "2 digits of 28 pixels do not fit size 55; set it >= 56"),
    ],
)
def test_arguments_out_of_range_are_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        load_multi_digit(tmp_path, **({"digits": 2, "size": 64} | arguments))
