"""PASCAL-5i's folds: the published lists' counts and classes, the same from masks, refusals."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fakes import fake_voc, save_pair

from fewshot.datasets.pascal5i import CLASSES, classes_of, fold_classes, load_pascal5i, read_list
from fewshot.datasets.segmentation import SegmentationDataset
from fewshot.episodes.streams import STAGES
from fewshot.errors import FewshotError

PUBLISHED = {"trn": (2286, 3425, 5883, 2086), "val": (346, 451, 725, 346)}


def test_the_folds_share_out_the_classes() -> None:
    folds = [fold_classes(fold) for fold in range(4)]
    assert [list(fold.values()) for fold in folds] == [
        list(range(5 * i + 1, 5 * i + 6)) for i in range(4)
    ]
    assert [name for fold in folds for name in fold] == list(CLASSES)
    for fold in range(4):
        train, test = classes_of("train", fold, False), classes_of("test", fold, False)
        assert (len(train), len(test)) == (15, 5)
        assert not train.keys() & test.keys()
        assert classes_of("val", fold, False) == train
        assert classes_of("val", fold, True) == test


def test_the_published_lists_have_their_counts_and_are_disjoint(shared_data: Path) -> None:
    lists = shared_data / "splits/pascal5i"
    images: dict[str, set[str]] = {}
    for part, counts in PUBLISHED.items():
        entries = [read_list(lists / part / f"fold{fold}.txt", fold) for fold in range(4)]
        assert tuple(map(len, entries)) == counts
        for fold, found in enumerate(entries):
            assert len(set(found)) == len(found)
            assert set(Counter(value for _, value in found)) == set(fold_classes(fold).values())
        images[part] = {name for found in entries for name, _ in found}
    assert not images["trn"] & images["val"]


def named(dataset: SegmentationDataset) -> dict[str, list[str]]:
    members = zip(dataset.values, dataset.members, strict=True)
    return {name: sorted(dataset.pairs[row][1].stem for row in rows) for name, rows in members}


@pytest.mark.parametrize("fold", range(4))
def test_masks_say_what_the_lists_say(tmp_path: Path, fold: int) -> None:
    root = fake_voc(tmp_path / "VOC2012")
    by_masks = load_pascal5i(tmp_path, fold, 16, 2048)  # the folder above
    by_lists = load_pascal5i(root, fold, 16, 2048, root / "lists")
    for stage in STAGES:
        assert named(by_masks[stage]) == named(by_lists[stage])
        assert list(by_masks[stage].values) == list(classes_of(stage, fold, False))
    years = {
        stage: {pair[1].stem[:4] for pair in dataset.pairs} for stage, dataset in by_lists.items()
    }
    assert years == {"train": {"2007"}, "val": {"2008"}, "test": {"2008"}}
    assert list(load_pascal5i(root, fold, 16, 2048, val_on_test=True)["val"].values) == list(
        fold_classes(fold)
    )


def test_small_objects_do_not_count(tmp_path: Path) -> None:
    root = fake_voc(tmp_path)
    assert [len(rows) for rows in load_pascal5i(root, 0, 16, 2049)["test"].members] == [0] * 5


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        FewshotError, match=r"has no PASCAL-5i: expected JPEGImages.*VOC2012.*Flickr.*SBD"
    ) as error:
        load_pascal5i(tmp_path, 0, 16, 2048)
    assert "\n" not in str(error.value)
    with pytest.raises(FewshotError, match="fold is 4"):
        fold_classes(4)
    root = fake_voc(tmp_path)
    (root / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(FewshotError, match=r"val.txt cannot be read .*it comes with VOC2012"):
        load_pascal5i(root, 0, 16, 2048)
    path = root / "lists/val/fold0.txt"
    path.write_text("2008_000000__01\n2008_000000__17\n")
    with pytest.raises(
        FewshotError, match=r"fold0.txt, line 2: '2008_000000__17' is no image of a class of fold 0"
    ):
        load_pascal5i(root, 0, 16, 2048, root / "lists")
    path.write_text("2009_000000__01\n")
    with pytest.raises(FewshotError, match=r"2009_000000.jpg is missing, which the lists name"):
        load_pascal5i(root, 0, 16, 2048, root / "lists")


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    root = fake_voc(tmp_path)
    save_pair(
        tmp_path / "x.jpg",
        root / "SegmentationClassAug/2007_000003.png",
        np.zeros((64, 63), np.uint8),
    )
    with pytest.raises(
        FewshotError, match=r"2007_000003.png is 63x64 px, its image .*2007_000003.jpg 64x64 px"
    ):
        load_pascal5i(root, 0, 16, 2048)
    by_lists = load_pascal5i(root, 3, 16, 2048, root / "lists")["train"]
    with pytest.raises(FewshotError, match=r"2007_000003.png is 63x64 px"):
        by_lists.read([pair[1].stem for pair in by_lists.pairs].index("2007_000003"))
