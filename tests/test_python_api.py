"""The library from Python: the lines of the README, and networks of one's own."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

import fewshot
from fewshot import (
    MAML,
    Conv4,
    FewshotError,
    GlyphsDataModule,
    MetaLearner,
    PrototypicalNetwork,
    SinusoidDataModule,
)
from fewshot.episodes.types import episode


class Own(nn.Module):
    """A network that knows nothing of this library."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.out_features = nn.Linear(1, width), width

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.layer(inputs))


def trainer(root: Path) -> L.Trainer:
    return L.Trainer(
        max_epochs=1,
        default_root_dir=root,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def equal(one: MetaLearner, other: MetaLearner) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_five_lines(tmp_path: Path) -> None:
    data = GlyphsDataModule(
        way=5,
        queries=2,
        train_way=8,
        meta_batch_size=2,
        train_episodes=4,
        val_episodes=2,
        test_episodes=3,
    )
    learner = PrototypicalNetwork(Conv4(data.in_channels, width=4), task=data.task)
    run = trainer(tmp_path)
    run.fit(learner, data)
    (logged,) = run.test(learner, data, verbose=False)
    assert logged["test/accuracy"] == pytest.approx(learner.estimates["test"]["accuracy"].mean)
    checkpoint = run.checkpoint_callback
    assert checkpoint is not None
    path = checkpoint.best_model_path  # type: ignore[attr-defined]  # a ModelCheckpoint
    loaded = PrototypicalNetwork.load_from_checkpoint(path)
    assert equal(loaded, learner)
    assert isinstance(loaded.backbone, Conv4)
    (again,) = trainer(tmp_path / "again").test(loaded, data, verbose=False)
    assert again == logged


def test_adapt_and_predict_by_hand() -> None:
    data = GlyphsDataModule(way=3, shot=2, queries=1)
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    learner = PrototypicalNetwork(Conv4(1, width=4), task=data.task).eval()
    support, query = episode(batch.stacked, 0)
    outputs = learner.predict(learner.adapt(support), query.inputs)
    assert outputs.shape == (3, 3)


@pytest.fixture
def own(tmp_path: Path) -> tuple[MAML, str]:
    """A learner with a network of one's own, trained, and its checkpoint."""
    data = SinusoidDataModule(train_episodes=50, val_episodes=3, test_episodes=3)
    torch.manual_seed(0)
    learner = MAML(Own(5), task=data.task)
    before = learner.state_dict()["backbone.layer.weight"].clone()
    run = trainer(tmp_path)
    run.fit(learner, data)
    assert not torch.equal(before, learner.state_dict()["backbone.layer.weight"])
    path = tmp_path / "own.ckpt"
    run.save_checkpoint(path)
    return learner, str(path)


def test_a_network_of_ones_own_is_asked_for(own: tuple[MAML, str]) -> None:
    with pytest.raises(
        FewshotError,
        match=r"does not hold the arguments of backbone .*Own; pass backbone=<the module>",
    ):
        MAML.load_from_checkpoint(own[1])


def test_a_network_of_ones_own_is_loaded(own: tuple[MAML, str]) -> None:
    learner, path = own
    loaded = MAML.load_from_checkpoint(path, backbone=Own(5))
    assert equal(loaded, learner)
    assert loaded.inner_lr == learner.inner_lr
    with pytest.raises(
        FewshotError, match=r"layer.weight is \(5, 1\) in the checkpoint, \(7, 1\) in this learner"
    ):
        MAML.load_from_checkpoint(path, backbone=Own(7))


def test_another_learners_checkpoint(own: tuple[MAML, str]) -> None:
    with pytest.raises(
        FewshotError, match="the checkpoint holds a MAML, not a PrototypicalNetwork"
    ):
        PrototypicalNetwork.load_from_checkpoint(own[1])


def test_a_network_without_out_features() -> None:
    with pytest.raises(FewshotError, match="backbone ReLU has no integer attribute"):
        PrototypicalNetwork(nn.ReLU(), task={"kind": "classification", "way": 5})


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="there is no checkpoint"):
        MAML.load_from_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("backbone", ["Conv4", "ResNet12", "MLP"])
@pytest.mark.parametrize("learner", [PrototypicalNetwork, MAML])
def test_images_as_a_stream_holds_them_are_refused_with_the_remedy(
    learner: type[MetaLearner], backbone: str
) -> None:
    data = GlyphsDataModule(way=3, queries=2)
    of: dict[str, dict[str, Any]] = {
        "Conv4": {"in_channels": 1, "image_size": data.image_size, "width": 4},
        "ResNet12": {"in_channels": 1, "image_size": data.image_size, "widths": (4, 4, 4, 4)},
        "MLP": {"in_features": data.in_features},
    }
    network = getattr(fewshot, backbone)(**of[backbone])
    module = learner(network, task=data.task)
    support, _ = data.stream("test")[0]
    with pytest.raises(FewshotError, match=rf"^{backbone} reads floats, .* torch.uint8.* / 255$"):
        module.adapt(support)
