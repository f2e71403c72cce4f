from pathlib import Path

import pytest
import torch
from PIL import Image

from fewshot.datamodules.image_folder import ImageFolderDataModule
from fewshot.errors import FewshotError


@pytest.fixture
def animals(tmp_path: Path) -> str:
    for number in range(9):
        for example in range(4):
            path = tmp_path / f"animals/{number}/{example}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 6), 20 * number + example).save(path)
    return str(tmp_path / "animals")


def test_an_episode_holds_the_images_of_its_classes(animals: str) -> None:
    module = ImageFolderDataModule(
        animals, 8, fractions=(0.4, 0.3, 0.3), way=2, queries=3, test_episodes=5
    )
    assert (module.in_channels, module.image_size, module.in_features) == (3, 8, 192)
    episode = next(iter(module.test_dataloader()))
    query = episode.stacked.query.inputs
    assert isinstance(query, torch.Tensor)
    assert query.shape == (5, 6, 3, 8, 8)
    classes = query[:, :, 0, 0, 0].view(5, 2, 3) // 20
    assert (classes == classes[..., :1]).all()  # the queries of a class side by side
    assert {str(number) for number in set(classes.flatten().tolist())} <= set(
        module.datasets["test"].classes
    )


def test_the_protocol_can_draw_the_split_again(animals: str) -> None:
    module = ImageFolderDataModule(
        animals, 8, 1, fractions=(0.4, 0.3, 0.3), split_seed=5, way=2, queries=2
    )
    facts = module.protocol()
    assert facts["split"] == "drawn, split_seed 5"
    classes = facts["classes"]
    again = ImageFolderDataModule(animals, 8, 1, classes=classes, way=2, queries=2).protocol()
    assert again["split"] == "given classes"
    assert again["classes"] == facts["classes"]


def test_split_folders_are_named_in_the_protocol(animals: str, tmp_path: Path) -> None:
    for number, split in enumerate(["train", "train", "val", "val", "test", "test"]):
        (tmp_path / "split" / split).mkdir(parents=True, exist_ok=True)
        Path(animals, str(number)).rename(tmp_path / "split" / split / str(number))
    module = ImageFolderDataModule(str(tmp_path / "split"), 8, way=2, queries=2)
    assert module.protocol()["split"] == "split folders"
    assert module.protocol()["classes"] == {
        "train": ["0", "1"],
        "val": ["2", "3"],
        "test": ["4", "5"],
    }


def test_to_print_it_reads_nothing(tmp_path: Path) -> None:
    module = ImageFolderDataModule(str(tmp_path / "none"), way=5, shot=1, queries=15)
    assert str(module) == f"ImageFolderDataModule(root={tmp_path / 'none'}, way=5, shot=1)"


def test_there_is_nothing_to_download(animals: str) -> None:
    with pytest.raises(FewshotError, match="ImageFolder has nothing to download"):
        ImageFolderDataModule(animals, download=True)


def test_too_few_images_are_an_error(animals: str) -> None:
    with pytest.raises(FewshotError, match=r"a class needs 16 images .*'0' \(4\)"):
        ImageFolderDataModule(
            animals, 8, fractions=(0.4, 0.3, 0.3), way=2, shot=1, queries=15
        ).setup("fit")
