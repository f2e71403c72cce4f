"""R2D2 takes the checkpoints of version 0.1.0, which had one number more that could not learn."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import TinyImages
from torch import Tensor, nn

from fewshot.backbones import MLP
from fewshot.episodes.types import Examples
from fewshot.learners import R2D2

WAY = 3
TASK = {"kind": "classification", "way": WAY}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


class WithBias(R2D2):
    """The learner of version 0.1.0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bias = nn.Parameter(torch.tensor(0.3))

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        return super().compare(predictor, features) + self.bias

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super(R2D2, self).on_load_checkpoint(checkpoint)


WithBias.__name__ = "R2D2"  # which a checkpoint says


def make(cls: type[R2D2], **kwargs: Any) -> R2D2:
    torch.manual_seed(0)
    return cls(MLP(16, (3,)), **{"task": TASK, **kwargs}).double()


def content(learner: R2D2, arguments: Any) -> dict[str, Any]:
    return {
        "fewshot": {"learner": "R2D2"},
        "hyper_parameters": dict(arguments),
        "state_dict": learner.state_dict(),
    }


@pytest.mark.parametrize("rule", [None, "minimum", "learned", "probability"])
def test_a_checkpoint_with_a_bias_says_the_same_without(rule: Any) -> None:
    nota = {} if rule is None else {"task": {**TASK, "nota": True}, "nota": rule}
    old = make(WithBias, **nota)
    if rule == "learned":  # the one rule that a bias is something to
        old.none.slope.data.fill_(0.4)
        old.none.offset.data.fill_(-0.2)
    held = content(old, make(R2D2, **nota).hparams)
    assert list(held["state_dict"])[:3] == ["log_penalty", "scale", "bias"]
    labels = torch.arange(WAY).repeat(2)
    support, query = (Examples(torch.randn(6, 16, dtype=torch.float64), labels) for _ in range(2))
    for _ in range(2):  # what was read is as good the second time
        loaded = R2D2.from_content(held).double()
        said = [
            one.predict(one.adapt(support), query.inputs).log_softmax(-1) for one in (old, loaded)
        ]
        torch.testing.assert_close(said[1], said[0], rtol=1e-6, atol=1e-6)
        assert "bias" not in loaded.state_dict()


def test_training_goes_on_from_one(tmp_path: Path) -> None:
    def fit(cls: type[R2D2], epochs: int, ckpt_path: Path | None) -> tuple[L.Trainer, R2D2]:
        trainer = L.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, default_root_dir=tmp_path, precision="64-true",
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, use_distributed_sampler=False,
        )  # fmt: skip
        learner = make(cls)
        data = TinyImages(
            way=WAY, shot=2, queries=3, meta_batch_size=4, train_episodes=40, val_episodes=5
        )
        trainer.fit(learner, data, ckpt_path=ckpt_path)
        return trainer, learner

    file = tmp_path / "old.ckpt"
    fit(WithBias, 1, None)[0].save_checkpoint(file)
    held = torch.load(file, weights_only=True)
    assert len(held["optimizer_states"][0]["state"]) == len(held["state_dict"])
    expected = fit(WithBias, 2, file)[1].state_dict()
    for name, value in fit(R2D2, 2, file)[1].state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)
        assert not torch.equal(value, held["state_dict"][name])
