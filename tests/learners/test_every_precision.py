"""Every learner trains in every CPU precision and makes all its tensors on its batch's device."""

import math
from functools import partial
from statistics import mean, variance
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import (
    CONVOLUTIONS,
    MASKS,
    NAMES,
    OF_LANGUAGE_MODELS,
    TRAINED,
    UNTRAINED,
    benchmarks,
    graph,
    masks,
    pair,
    tiny_backbone,
)
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from fewshot import (
    Conv4,
    GaussianProcessDataModule,
    GlyphsDataModule,
    SegmentationFolderDataModule,
    WikiOneDataModule,
)
from fewshot.datamodules import EpisodicDataModule
from fewshot.datamodules.images import FloatImages
from fewshot.episodes.types import flatten, map_tensors
from fewshot.learners import MetaLearner, SimpleShot

SMALL: dict[str, Any] = {"train_episodes": 8, "val_episodes": 2, "test_episodes": 2}


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


def enough_to_learn(name: str) -> list[EpisodicDataModule]:
    """One benchmark a kind of task, on which 300 steps show; 200 test episodes."""
    sizes: dict[str, Any] = {
        "meta_batch_size": 2,
        "train_episodes": 600,
        "val_episodes": 2,
        "test_episodes": 200,
    }
    if name in OF_LANGUAGE_MODELS:
        return [*benchmarks(name, **sizes)]
    return [
        GlyphsDataModule(way=5, shot=5, queries=5, batch_size=32, eval_batch_size=4, **sizes),
        GaussianProcessDataModule(
            shot=10, **sizes | {"meta_batch_size": 16, "train_episodes": 4800}
        ),
        SegmentationFolderDataModule(
            str(masks()), MASKS, image_size=16, min_pixels=16, shot=2, queries=1, **sizes
        ),
        WikiOneDataModule(
            str(graph()), dimensions=8, embedding_epochs=2, **sizes | {"test_episodes": 10}
        ),
    ]


def small_backbone(name: str, benchmark: EpisodicDataModule) -> nn.Module:
    """Conv4 of 16 filters for images."""
    if isinstance(benchmark, FloatImages):
        sizes = {"output": "mean", **CONVOLUTIONS.get(name, {"downsample": "stride"})}
        return Conv4(benchmark.in_channels, benchmark.image_size, width=16, **sizes)
    return tiny_backbone(name, benchmark)


IN_ONE_STEP = {"inner_lr": 0.4, "inner_steps": 1}
LEARNING: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("ADML", "ANIL", "BOIL", "FOMAML", "MAML", "ProtoMAML"), IN_ONE_STEP),
    "CAVIA": {"film_after": "blocks.2.1", "inner_lr": 1.0, "inner_steps": 2},
    "IMAML": {"inner_lr": 0.1, "inner_steps": 8, "proximal": 2.0, "cg_damping": 1.0},
    "MAMLPlusPlus": {"inner_lr": 0.4, "inner_steps": 2, "cosine_schedule": False},
    "MANN": {"hidden": 64, "slots": 32},
    "MetaSGD": {"initial_rates": (0.2, 0.6)},
    "Reptile": {"inner_optimizer": "adam", "inner_lr": 0.001, "inner_steps": 3},
    "SNAIL": {"filters": 32, "keys": (16, 16, 16), "values": (16, 16, 16)},
}
"""Arguments by which a learner learns within 300 steps."""


def trained(name: str, precision: Any, seed: int, folder: Any) -> float:
    """The score of a learner after 300 steps."""
    # The rate falls to zero, so that two runs do not end at different points of a random walk.
    given = {"lr_scheduler": partial(CosineAnnealingLR, T_max=300), **LEARNING.get(name, {})}
    learner, benchmark = pair(name, seed, enough_to_learn(name), small_backbone, given)
    trainer = L.Trainer(
        accelerator="cpu", precision=precision, max_steps=300, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, limit_val_batches=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(learner, benchmark)
    trainer.test(learner, benchmark, verbose=False)
    return learner.estimates["test"][learner.task.monitor[0]].mean


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_300_steps_in_bfloat16_are_no_worse_than_in_float32(name: str, tmp_path: Any) -> None:
    """Rounding sends a training another way, as another seed does.

    So each is trained from three seeds.
    """
    exact, mixed = (
        [trained(name, p, seed, tmp_path) for seed in range(3)] for p in ("32-true", "bf16-mixed")
    )
    means, variances = zip(
        *((mean(scores), variance(scores)) for scores in (exact, mixed)), strict=True
    )
    # Student's t, 4 degrees
    difference, interval = means[1] - means[0], 2.776 * math.sqrt(sum(variances) / 3)
    print(f"{name}: float32 {means[0]:.4f}, bfloat16 {difference:+.4f} ± {interval:.4f}")
    assert difference >= -interval


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
        meta_batch = next(iter(getattr(benchmark, f"{stage}_dataloader")())).parts[0]
        meta_batch = map_tensors(
            lambda tensor: tensor / 255 if tensor.dtype == torch.uint8 else tensor, meta_batch
        )
        learner.train(training)
        # What says no device lands on the meta device, which has no values and does not mix with
        # the CPU's.
        with torch.device("meta"):
            outcomes = (
                list(learner.run(meta_batch, training=True))
                if training
                else [learner.evaluate(meta_batch)]
            )
            if training:
                torch.autograd.backward([outcome.loss.sum() for outcome in outcomes])
        for outcome in outcomes:
            for tensor in (outcome.loss, outcome.outputs, *outcome.metrics.values()):
                assert tensor.device.type == "cpu"
                assert (tensor.isfinite() | tensor.isneginf()).all()  # the score of no candidate
        assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_its_batches_can_be_pinned(name: str) -> None:
    """On the way to a GPU every value needs its own memory, which an expanded tensor lacks."""
    _, benchmark = pair(name, **SMALL)
    stages = ["val", "test"] if name in UNTRAINED else ["train", "val", "test"]
    for stage in stages:
        for tensor in flatten(next(iter(getattr(benchmark, f"{stage}_dataloader")())))[0]:
            assert (
                not isinstance(tensor, Tensor) or torch._debug_has_internal_overlap(tensor) != 1
            ), stage


def test_the_test_of_devices_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from fewshot.learners.metric import prototypical_network

    original = prototypical_network.PrototypicalNetwork.compare
    monkeypatch.setattr(
        prototypical_network.PrototypicalNetwork,
        "compare",
        lambda *args: original(*args) + torch.zeros(3),
    )
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        test_it_makes_no_tensor_without_saying_on_which_device("PrototypicalNetwork")
