"""Images with masks: read right, drawn right, refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_masks, save_pair
from PIL import Image

from fewshot.datasets.segmentation import (
    SegmentationDataset,
    SegmentationTasks,
    check_classes,
    counted_pixels,
    find_pairs,
    members_by_pixels,
    read_pair,
)
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.tasks.masks import IGNORED


def marked_with(query: Examples) -> list[int]:
    marks = query.marks
    assert marks is not None
    return [int(mark) for mark in marks]


VALUES = {"cat": 3, "dog": 7, "cow": 9}


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationDataset:
    """Six images with all three classes, an ignored value and 255, in own quarters and stripes."""
    pairs = []
    for i in range(6):
        values = np.zeros((16, 24), np.uint8)
        values[:8, :6], values[:8, 6:12], values[:8, 12:18], values[:8, 18:] = 3, 7, 9, 5
        values[12:, i : i + 2], values[15] = 200, 255
        pairs.append((tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"))
        save_pair(*pairs[-1], values)
    members = [np.arange(6) for _ in VALUES]
    return SegmentationDataset(pairs, VALUES, members, 8, ignored=(200,))


def test_masks_are_resized_by_the_nearest_pixel_and_keep_their_values(
    dataset: SegmentationDataset,
) -> None:
    image, values = dataset.read(0)
    assert (image.shape, image.dtype) == ((3, 8, 8), torch.uint8)
    assert values.shape == (8, 8)
    assert set(np.unique(values)) <= {0, 3, 5, 7, 9, 200, 255}
    assert values[0].tolist() == [3, 3, 7, 7, 9, 9, 5, 5]
    assert dataset.read(0)[1] is values  # held in memory


def test_labels_of_support_and_query(dataset: SegmentationDataset) -> None:
    places = {"cat": 0, "cow": 1, "dog": 2}
    tasks = SegmentationTasks(dataset, list(places), way=2, shot=1, queries=2)
    for seed in range(20):
        support, query = tasks.draw(np.random.default_rng(seed))
        assert support.targets.shape == (2, 8, 8)
        assert query.targets.shape == (4, 8, 8)
        assert query.targets.dtype == torch.int64
        names = [list(places)[place] for place in marked_with(query)]
        column = {"cat": 0, "dog": 2, "cow": 4}
        (third,) = set(places) - set(names)
        for label, name in enumerate(names, start=1):
            assert (query.targets[:, 0, column[name]] == label).all()
            # in its own support image a class has its label, in the other's it is ignored
            assert support.targets[label - 1, 0, column[name]] == label
            assert support.targets[2 - label, 0, column[name]] == IGNORED
        for targets in (support.targets, query.targets):
            assert (targets[:, 0, column[third]] == 0).all()  # other classes are background
            assert (targets[:, 0, 6] == 0).all()
            assert (targets == IGNORED).any()


def test_no_image_is_in_an_episode_twice(dataset: SegmentationDataset) -> None:
    tasks = SegmentationTasks(dataset, list(VALUES), way=3, shot=1, queries=1)
    seen: list[int] = []
    read = dataset.read

    def noted(row: int) -> Any:
        seen.append(row)
        return read(row)

    object.__setattr__(dataset, "read", noted)
    for seed in range(10):
        seen.clear()
        tasks.draw(np.random.default_rng(seed))
        assert sorted(seen) == list(range(6))


def test_an_episode_is_a_function_of_its_generator_and_flips_images_with_masks(
    dataset: SegmentationDataset,
) -> None:
    plain, flipped = (
        SegmentationTasks(dataset, list(VALUES), 1, 2, 2, flip) for flip in (False, True)
    )
    one, again = (plain.draw(np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one.query.targets, again.query.targets)
    both = 0
    for seed in range(5):
        batch = flipped.draw(np.random.default_rng(seed))
        for images, masks in ((part.inputs, part.targets) for part in batch):
            assert isinstance(images, torch.Tensor)
            for image, mask in zip(images, masks, strict=True):
                rows = [dataset.read(row)[0] for row in range(6)]
                mirrored = not any(torch.equal(image, row) for row in rows)
                assert not mirrored or any(torch.equal(image.flip(-1), row) for row in rows)
                first, last = mask[0, 0], mask[0, -1]
                # the value 5 is at the right end, background
                assert (first == 0 if mirrored else last == 0).item()
                both += mirrored
    assert 0 < both < 20


def test_pixels_are_counted_once_and_cached(tmp_path: Path, own_data_root: Path) -> None:
    root = fake_masks(tmp_path / "data", 1)
    pairs = find_pairs(root / "images/train", root / "masks/train")
    counts = counted_pixels(pairs)
    assert counts.shape == (6, 256)
    assert counts[:, 0].tolist() == [64 * 40] * 6
    assert sorted(counts[:, 1:7].sum(0).tolist()) == [64 * 40] * 6
    assert np.array_equal(counted_pixels(pairs), counts)
    assert list((own_data_root / "masks").glob("*.npz"))
    rows = members_by_pixels(counts, {"one": 1, "none": 100}, 64 * 40)
    assert [len(row) for row in rows] == [1, 0]
    assert members_by_pixels(counts, {"one": 1}, 64 * 40 + 1)[0].size == 0


@pytest.mark.parametrize("reader", ["read", "count"])
def test_bad_files_are_one_line(tmp_path: Path, reader: str) -> None:
    def refuse(match: str, values: np.ndarray | None = None, image: bytes | None = None) -> None:
        pair = (tmp_path / "a.png", tmp_path / "a_mask.png")
        save_pair(*pair, np.zeros((6, 8), np.uint8))
        if values is not None:
            Image.fromarray(values).save(pair[1])
        if image is not None:
            pair[0].write_bytes(image)
        with pytest.raises(FewshotError, match=match) as error:
            read_pair(*pair, 4) if reader == "read" else counted_pixels([pair])
        assert "\n" not in str(error.value)

    refuse(
        r"a_mask.png is 8x7 px, its image .*a.png 8x6 px; save the mask", np.zeros((7, 8), np.uint8)
    )
    refuse(r"a_mask.png cannot be decoded \(its mode is RGB", np.zeros((6, 8, 3), np.uint8))
    refuse(r"a.png cannot be decoded \(it has 0 bytes\); replace", image=b"")
    refuse(r"a.png cannot be decoded", image=b"no image")


def test_pairs_are_found_by_name(tmp_path: Path) -> None:
    root = fake_masks(tmp_path / "data", 1)
    images, masks = root / "images/train", root / "masks/train"
    (masks / "0.png").unlink()  # an image without a mask is passed over
    assert [mask.stem for _, mask in find_pairs(images, masks)] == ["1", "2", "3", "4", "5"]
    (images / "3.jpg").unlink()
    with pytest.raises(
        FewshotError, match=r"the mask .*3.png has no image 3\.\* in .*train; add it or delete"
    ):
        find_pairs(images, masks)
    with pytest.raises(FewshotError, match="is no folder that can be read"):
        find_pairs(images, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FewshotError, match="holds no masks"):
        find_pairs(images, tmp_path / "empty")


def test_splits_that_cannot_fill_an_episode_are_refused(dataset: SegmentationDataset) -> None:
    check_classes("test", dataset, 3, 1, 1)
    with pytest.raises(
        FewshotError, match="test split has 3 classes, too few for way 4; set way <= 3"
    ):
        check_classes("test", dataset, 4, 1, 1)
    with pytest.raises(
        FewshotError, match=r"class 'cat' of the test split has 6 images.*= 8; lower"
    ):
        check_classes("test", dataset, 2, 3, 1)
    with pytest.raises(FewshotError, match="shot is 0; set shot >= 1"):
        check_classes("test", dataset, 1, 0, 1)
