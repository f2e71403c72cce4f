from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.datamodules.omniglot import OmniglotDataModule
from fewshot.datasets.omniglot import HALVES, cache_file
from fewshot.datasets.reading.downloads import cached_arrays
from fewshot.errors import FewshotError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of 12 characters; its originals are empty."""
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    names = [
        f"images_background/{alphabet}/character0{i}"
        for alphabet in ("Armenian", "Greek")
        for i in (1, 2, 3)
    ]
    names += [f"images_evaluation/Kannada/character0{i}" for i in range(1, 7)]
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 28, 28), np.uint8)
    for half in HALVES:
        (tmp_path / f"{half}.zip").write_bytes(b"")
    cached_arrays(
        cache_file(tmp_path, tmp_path / "omniglot"),
        lambda: {"images": images, "characters": np.array(names)},
    )
    return tmp_path


def test_an_episode_holds_drawings_as_they_are_cached(data: Path) -> None:
    module = OmniglotDataModule(way=5, shot=5, train_shot=1, meta_batch_size=2, train_episodes=2)
    assert (module.in_channels, module.image_size, module.in_features) == (1, 28, 784)
    batch = next(iter(module.train_dataloader()))
    support = batch.stacked.support.inputs
    assert isinstance(support, torch.Tensor)
    assert support.shape == (2, 5, 1, 28, 28)
    assert support.dtype == torch.uint8
    test = next(iter(module.test_dataloader()))
    assert isinstance(test.stacked.query.inputs, torch.Tensor)
    assert test.stacked.query.inputs.shape == (8, 75, 1, 28, 28)
    floats = module.on_after_batch_transfer(batch, 0).stacked.support.inputs
    assert isinstance(floats, torch.Tensor)
    assert torch.allclose(floats, support / 255)


def test_the_protocol_names_the_split(data: Path) -> None:
    facts = {
        "benchmark": "Omniglot",
        "split": "vinyals",
        "way": 5,
        "shot": 1,
        "queries": 15,
        "seed": 0,
    }
    assert facts.items() <= OmniglotDataModule().protocol().items()
    assert (
        OmniglotDataModule(split="maml", split_seed=4).protocol()["split"] == "maml, split_seed 4"
    )
    assert len(OmniglotDataModule(split="lake", way=3).datasets["val"].classes) == 3


def test_too_many_queries_are_an_error(data: Path) -> None:
    with pytest.raises(FewshotError, match=r"has 20 examples, too few for .*shot 6"):
        OmniglotDataModule(shot=6).setup("fit")


def test_missing_data_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "none"))
    with pytest.raises(FewshotError, match="none does not hold Omniglot"):
        OmniglotDataModule().prepare_data()


def test_a_cache_does_not_stand_in_for_a_root(data: Path) -> None:
    OmniglotDataModule().prepare_data()
    with pytest.raises(FewshotError, match="nowhere does not hold Omniglot: expected"):
        OmniglotDataModule(root=str(data / "nowhere")).prepare_data()
