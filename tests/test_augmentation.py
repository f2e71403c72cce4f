"""Augmentation by image: against torchvision's, and a function of seed and episode alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from commands import fit, results
from torch import Tensor

from fewshot import Augmentation, Conv4, Examples, FewshotError, PrototypicalNetwork
from fewshot.datamodules import ImageDataModule
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.loader import EpisodeLoader

ALL = Augmentation(padding=3, flip=True, brightness=0.4, contrast=0.5, saturation=0.6)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 3, 10, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation",
    [
        ALL,
        Augmentation(padding=4),
        Augmentation(flip=True),
        Augmentation(brightness=1.5),
        Augmentation(contrast=0.3),
        Augmentation(saturation=2.0),
    ],
    ids=str,
)
def test_each_image_is_changed_as_torchvision_does(
    augmentation: Augmentation, channels: int, images: Tensor
) -> None:
    images = images[:, :channels]
    drawn = augmentation.draw(np.random.default_rng(1), len(images))
    changed = augmentation(images, drawn)
    for image, found, (top, left, mirrored, *factors) in zip(
        images, changed, drawn.tolist(), strict=True
    ):
        expected = F.crop(
            F.pad(image, [augmentation.padding] * 4), int(top), int(left), *image.shape[1:]
        )
        expected = F.horizontal_flip(expected) if mirrored else expected
        expected = F.adjust_brightness(expected, factors[0])
        expected = F.adjust_contrast(expected, factors[1])
        expected = F.adjust_saturation(expected, factors[2])
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert len(torch.unique(drawn, dim=0)) > (1 if augmentation == Augmentation(flip=True) else 20)


def test_the_defaults_change_nothing(images: Tensor) -> None:
    nothing = Augmentation()
    drawn = nothing.draw(np.random.default_rng(0), 40)
    assert drawn.tolist() == [[0, 0, 0, 1, 1, 1]] * 40
    assert torch.equal(nothing(images, drawn), images)


def test_draws_are_uniform_and_reach_their_ends() -> None:
    drawn = Augmentation(padding=2, flip=True, brightness=0.4, contrast=2.0).draw(
        np.random.default_rng(0), 20_000
    )
    for corner in drawn[:, :2].T:
        shares = torch.bincount(corner.long()) / 20_000
        torch.testing.assert_close(shares, torch.full((5,), 0.2), rtol=0, atol=0.015)
    assert drawn[:, 2].mean() == pytest.approx(0.5, abs=0.015)
    for factor, low, high in (
        (drawn[:, 3], 0.6, 1.4),
        (drawn[:, 4], 0.0, 3.0),
        (drawn[:, 5], 1.0, 1.0),
    ):
        assert low <= factor.min() <= low + 0.01
        assert high - 0.01 <= factor.max() <= high
        assert factor.mean() == pytest.approx((low + high) / 2, abs=0.03)


def test_what_is_drawn_does_not_depend_on_what_else_is_in_use() -> None:
    flip, both = (
        Augmentation(flip=True, padding=padding).draw(np.random.default_rng(3), 9)
        for padding in (0, 4)
    )
    assert torch.equal(flip[:, 2:], both[:, 2:])


@pytest.mark.parametrize("name", ["padding", "brightness", "contrast", "saturation"])
def test_negative_strengths_are_errors(name: str) -> None:
    with pytest.raises(FewshotError, match=f"{name} is -1; set {name} >= 0"):
        Augmentation(**{name: -1})  # type: ignore[arg-type]  # mypy sees a bool


# --- in a benchmark -------------------------------------------------------------------


@pytest.fixture
def benchmark(class_dataset: Callable[..., ClassDataset]) -> type[ImageDataModule]:
    class Pictures(ImageDataModule):
        benchmark = "Pictures"
        can_download = False
        in_channels, image_size = 3, 16
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

        def load(self) -> dict[str, ClassDataset]:
            parts = ("train", "val", "test")
            return {
                part: class_dataset(counts=(8,) * 6, channels=3, size=16, seed=i)
                for i, part in enumerate(parts)
            }

    return Pictures


class Recorder(PrototypicalNetwork):
    """Keeps the batches that it is given."""

    def __init__(self) -> None:
        super().__init__(Conv4(3, 16, width=4), task={"kind": "classification", "way": 3})
        self.trained: list[Any] = []
        self.validated: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.trained.append(batch.stacked)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(batch.stacked)
        super().validation_step(batch, batch_idx)


SIZES: dict[str, Any] = {
    "way": 3,
    "shot": 2,
    "queries": 3,
    "meta_batch_size": 2,
    "train_episodes": 6,
    "val_episodes": 2,
}


def trained(
    data: ImageDataModule,
    root: Path,
    epochs: int = 1,
    callbacks: Sequence[L.Callback] = (),
    **options: Any,
) -> Recorder:
    learner = Recorder()
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=root, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(learner, data, **options)
    return learner


def inputs(part: Examples) -> Tensor:
    assert isinstance(part.inputs, Tensor)
    return part.inputs


def test_training_alone_is_augmented_and_each_part_as_asked(
    benchmark: type[ImageDataModule], tmp_path: Path
) -> None:
    flip = Augmentation(flip=True)
    plain = trained(benchmark(**SIZES), tmp_path)
    learner = trained(benchmark(augment=ALL, augment_query=flip, **SIZES), tmp_path)
    for one, other in zip(plain.validated, learner.validated, strict=True):
        assert torch.equal(inputs(one.query), inputs(other.query))
    for before, after in zip(plain.trained, learner.trained, strict=True):
        same = (inputs(before.query) == inputs(after.query)).all((2, 3, 4))
        mirrored = (inputs(before.query).flip(-1) == inputs(after.query)).all((2, 3, 4))
        assert (same | mirrored).all()
        assert same.any()
        assert mirrored.any()
        assert not (inputs(before.support) == inputs(after.support)).all((2, 3, 4)).any()
    left_alone = trained(benchmark(augment=ALL, augment_query=Augmentation(), **SIZES), tmp_path)
    assert torch.equal(inputs(left_alone.trained[2].query), inputs(plain.trained[2].query))
    assert torch.equal(inputs(left_alone.trained[2].support), inputs(learner.trained[2].support))


def test_an_episode_is_augmented_by_its_number_alone(
    benchmark: type[ImageDataModule], tmp_path: Path
) -> None:
    whole = trained(benchmark(augment=ALL, **SIZES), tmp_path).trained
    again = trained(benchmark(augment=ALL, num_workers=1, **SIZES), tmp_path).trained
    assert all(
        torch.equal(inputs(a.support), inputs(b.support)) for a, b in zip(whole, again, strict=True)
    )
    single = trained(benchmark(augment=ALL, **{**SIZES, "meta_batch_size": 1}), tmp_path).trained
    for number, episode in enumerate(single):
        assert torch.equal(inputs(episode.query)[0], inputs(whole[number // 2].query)[number % 2])
    other = trained(benchmark(augment=ALL, seed=1, **SIZES), tmp_path).trained
    assert not torch.equal(inputs(other[0].support), inputs(whole[0].support))
    # rank 1 of 2 has the second episode of each meta-batch
    data = benchmark(augment=ALL, **SIZES)
    data.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.trainer.training = True
    loader: EpisodeLoader = EpisodeLoader(
        data.stream("train"), 6, 2, repeat=True, rank=1, world_size=2
    )
    for share, meta_batch in zip(loader, whole, strict=True):
        augmented = data.on_after_batch_transfer(share, 0).stacked
        assert torch.equal(inputs(augmented.query)[0], inputs(meta_batch.query)[1])


class SavedAtTheSecondStep(L.Callback):
    """Writes a checkpoint in the middle of the first epoch."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/part.ckpt")


def test_a_resumed_run_goes_on_with_the_same_changes(
    benchmark: type[ImageDataModule], tmp_path: Path
) -> None:
    whole = trained(benchmark(augment=ALL, **SIZES), tmp_path, 2, [SavedAtTheSecondStep()]).trained
    checkpoint: dict[str, Any] = {"ckpt_path": tmp_path / "part.ckpt", "weights_only": True}
    rest = trained(benchmark(augment=ALL, **SIZES), tmp_path, 2, **checkpoint).trained
    assert len(rest) == 4
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(inputs(one.support), inputs(other.support))
        assert torch.equal(inputs(one.query), inputs(other.query))


def test_images_are_normalised_by_the_benchmarks_constants(
    benchmark: type[ImageDataModule],
) -> None:
    batch = benchmark(**SIZES).stream("val").__getitems__([0])
    plain, normalized = (
        benchmark(normalize=on, **SIZES).on_after_batch_transfer(batch, 0).stacked.query
        for on in (False, True)
    )
    expected = F.normalize(inputs(plain), [0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    torch.testing.assert_close(inputs(normalized), expected)
    assert benchmark(normalize=True).protocol()["normalize"] is True
    benchmark.mean = None
    with pytest.raises(
        FewshotError, match="Pictures has no constants to normalise by; leave out normalize: true"
    ):
        benchmark(normalize=True)


def test_the_command_line_takes_it_and_the_results_record_it(tmp_path: Path) -> None:
    model = ("--model", "Baseline", "--model.backbone", "Conv4", "--model.backbone.width=4")
    data = ("--data", "GlyphsDataModule", "--data.augment.padding=2", "--data.augment.flip=true")
    run = fit(tmp_path, *model, *data, "--trainer.limit_train_batches=2")
    assert results(run)["augment"] == {
        "padding": 2, "flip": True, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "probability": 1.0
    }  # fmt: skip


def test_a_probability_leaves_the_other_images_as_they_are() -> None:
    rng = np.random.default_rng(0)
    images = torch.rand(2000, 3, 6, 6)
    always = Augmentation(padding=2, flip=True, brightness=0.5)
    often = Augmentation(padding=2, flip=True, brightness=0.5, probability=0.7)
    same = (images == often(images, often.draw(rng, 2000))).flatten(1).all(1)
    assert 0.26 < same.float().mean() < 0.34
    drawn = [one.draw(np.random.default_rng(1), 50) for one in (always, often)]
    kept = (drawn[1] != torch.tensor([2.0, 2, 0, 1, 1, 1])).any(1)
    assert torch.equal(drawn[0][kept], drawn[1][kept])
