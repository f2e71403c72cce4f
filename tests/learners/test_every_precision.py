"""Every learner trains in every precision of the CPU, and makes all its tensors on its batch's device."""

import math
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import NAMES, UNTRAINED, pair

import fewshot
from fewshot import Conv4, GlyphsDataModule
from fewshot.episodes import map_tensors
from fewshot.learners import MetaLearner, SimpleShot

SMALL = {"train_episodes": 8, "val_episodes": 2, "test_episodes": 2}


def run(name: str, tmp_path: Any, **arguments: Any) -> MetaLearner:
    """Two meta-steps, a validation and a test."""
    learner, benchmark = pair(name, **SMALL)
    trainer = L.Trainer(
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=2,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        **({"accelerator": "cpu"} | arguments),
    )
    if name not in UNTRAINED:
        trainer.fit(learner, benchmark)
    trainer.test(learner, benchmark, verbose=False)
    assert all(math.isfinite(mean) for mean, _ in learner.estimates["test"].values())
    return learner


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_in_every_precision(name: str, precision: Any, tmp_path: Any) -> None:
    learner = run(name, tmp_path, precision=precision)
    expected = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for p in learner.parameters()} <= {expected}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Baseline", "MAML", "PrototypicalNetwork", "SNAIL"])
def test_300_steps_in_bfloat16_are_as_good_as_in_float32(name: str, tmp_path: Any) -> None:
    """One learner a family, Conv4 of 16 filters on Glyphs, 5-way 5-shot, 300 test episodes."""
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        data = GlyphsDataModule(
            shot=5, queries=5, meta_batch_size=4, train_episodes=1200, val_episodes=2, test_episodes=300
        )
        torch.manual_seed(0)
        facts = {"Baseline": {"train_classes": data.train_classes}, "SNAIL": {"shot": 5}}.get(name, {})
        learner = getattr(fewshot, name)(Conv4(1, data.image_size, width=16), task=data.task, **facts)
        trainer = L.Trainer(
            accelerator="cpu", precision=precision, max_steps=300, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
            num_sanity_val_steps=0, limit_val_batches=0, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(learner, data)
        trainer.test(learner, data, verbose=False)
        found[precision] = learner.estimates["test"]["accuracy"]
    print(f"{name}: " + ", ".join(f"{p} {100 * m:.2f} ± {100 * ci:.2f} %" for p, (m, ci) in found.items()))
    (exact, one), (mixed, other) = found.values()
    assert exact > 0.3, "it has learned something"
    assert abs(mixed - exact) <= math.hypot(one, other)  # the interval of their difference


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_on_a_gpu(name: str, precision: Any, tmp_path: Any) -> None:
    learner = run(name, tmp_path, precision=precision, accelerator="gpu", devices=1)
    assert learner.device.type == "cuda" or name == "GaussianProcess"


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_no_tensor_without_saying_on_which_device(name: str) -> None:
    learner, benchmark = pair(name, **SMALL)
    if isinstance(learner, SimpleShot):
        learner.set_center(iter([torch.rand(8, 1, 4, 4)]))
    for stage in ("train", "val"):
        training = stage == "train"
        if training and (name in UNTRAINED or learner.trains_on == "examples"):
            continue
        meta_batch = next(iter(getattr(benchmark, f"{stage}_dataloader")()))
        meta_batch = map_tensors(lambda tensor: tensor / 255 if tensor.dtype == torch.uint8 else tensor, meta_batch)
        learner.train(training)
        # What says no device lands on the meta device, which has no values and does not mix with the CPU's.
        with torch.device("meta"):
            outcomes = list(learner.run(meta_batch, training=True)) if training else [learner.evaluate(meta_batch)]
            if training:
                torch.autograd.backward([outcome.loss.sum() for outcome in outcomes])
        for outcome in outcomes:
            for tensor in (outcome.loss, outcome.outputs, *outcome.metrics.values()):
                assert tensor.device.type == "cpu"
                assert tensor.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


def test_the_test_of_devices_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from fewshot.learners.metric import prototypical_network

    original = prototypical_network.PrototypicalNetwork.compare
    monkeypatch.setattr(
        prototypical_network.PrototypicalNetwork, "compare", lambda *args: original(*args) + torch.zeros(3)
    )
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        test_it_makes_no_tensor_without_saying_on_which_device("PrototypicalNetwork")
