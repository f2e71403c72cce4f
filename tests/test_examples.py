"""Labelled examples for training without episodes: one list whatever workers, ranks and stops."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fewshot.backbones import MLP
from fewshot.datamodules import ImageDataModule, SinusoidDataModule
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.streams import ExampleStream
from fewshot.episodes.types import ExampleBatch, Examples, MetaBatch
from fewshot.errors import FewshotError
from fewshot.learners import Baseline, PrototypicalNetwork

COUNTS = (5, 7, 6, 9, 6)  # 33 examples


@pytest.fixture
def dataset(class_dataset: Callable[..., ClassDataset]) -> ClassDataset:
    return class_dataset(counts=COUNTS)


@pytest.fixture
def stream(dataset: ClassDataset) -> ExampleStream:
    return ExampleStream(dataset, seed=3)


def keys(batch: ExampleBatch) -> list[tuple[bytes, int]]:
    """The bytes and the label of each example."""
    examples = batch.examples
    assert isinstance(examples.inputs, Tensor)
    pairs = zip(examples.inputs, examples.targets.tolist(), strict=True)
    return [(image.numpy().tobytes(), label) for image, label in pairs]


def all_of(dataset: ClassDataset) -> set[tuple[bytes, int]]:
    """Every example with its label, class by class."""
    assert isinstance(dataset.inputs, Tensor)
    labels = [label for label, n in enumerate(dataset.counts) for _ in range(n)]
    return {
        (image.numpy().tobytes(), label)
        for image, label in zip(dataset.inputs, labels, strict=True)
    }


def examples_loader(
    stream: ExampleStream, *args: Any, **kwargs: Any
) -> EpisodeLoader[ExampleBatch]:
    """A loader of plain examples."""
    return EpisodeLoader(stream, *args, **kwargs)


def handed_out(loader: EpisodeLoader[ExampleBatch], batches: int) -> list[tuple[bytes, int]]:
    """The examples of the next batches, through the ends of passes."""

    def endless() -> Iterator[ExampleBatch]:
        while True:
            yield from loader

    return [key for batch in islice(endless(), batches) for key in keys(batch)]


def test_a_pass_has_each_example_once_with_the_label_of_its_class(
    stream: ExampleStream, dataset: ClassDataset
) -> None:
    drawn = keys(stream.__getitems__(range(33)))
    assert set(drawn) == all_of(dataset)
    assert len(stream) == len(drawn) == len(set(drawn))
    again = keys(stream.__getitems__(range(33, 66)))
    assert set(again) == set(drawn)
    assert again != drawn, "every pass has an order of its own"


def test_an_example_is_given_by_seed_and_number(
    stream: ExampleStream, dataset: ClassDataset
) -> None:
    one = keys(stream.__getitems__([40, 2, 35, 66]))
    assert one == [key for number in (40, 2, 35, 66) for key in keys(stream[number])]
    assert keys(ExampleStream(dataset, 3).__getitems__([40, 2, 35, 66])) == one
    other = keys(ExampleStream(dataset, 4).__getitems__(range(33)))
    assert other != keys(stream.__getitems__(range(33)))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_go_through_the_list_whatever_the_workers(
    stream: ExampleStream, workers: int
) -> None:
    loader = examples_loader(stream, 32, 8, repeat=True, num_workers=workers)
    assert handed_out(loader, 9) == keys(stream.__getitems__(range(72)))


def test_ranks_share_each_batch_without_overlap(stream: ExampleStream) -> None:
    ranks = [examples_loader(stream, 32, 8, repeat=True, rank=r, world_size=2) for r in range(2)]
    one, two = (handed_out(loader, 4) for loader in ranks)
    whole = keys(stream.__getitems__(range(32)))
    assert (one, two) == (whole[0::2], whole[1::2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_in_the_middle_of_a_pass(stream: ExampleStream, workers: int) -> None:
    first, second = (
        examples_loader(stream, 32, 8, repeat=True, num_workers=workers) for _ in range(2)
    )
    handed_out(first, 3)
    second.load_state_dict(first.state_dict())
    assert [len(keys(batch)) for batch in second] == [8], "the rest of the pass"
    assert handed_out(second, 1) == keys(stream.__getitems__(range(32, 40)))


def test_examples_count_and_convert_like_episodes(stream: ExampleStream) -> None:
    batch = stream.__getitems__(range(7))
    assert (batch.size, batch.unit) == (7, "examples")
    assert batch.numbers is not None
    assert batch.numbers.tolist() == list(range(7))
    doubled = batch.map(lambda part: Examples(part.inputs, part.targets * 2)).examples
    assert doubled.targets.tolist() == [2 * n for n in batch.examples.targets.tolist()]


# ---------------------------------------------------------------- a benchmark gives what its learne


class Images(ImageDataModule):
    """Random images: the same classes in every split."""

    benchmark = "Images"
    can_download = False
    in_channels, image_size = 1, 8
    dataset: ClassDataset

    def load(self) -> dict[str, ClassDataset]:
        return dict.fromkeys(("train", "val", "test"), self.dataset)


@pytest.fixture
def benchmark(dataset: ClassDataset) -> Callable[..., Images]:
    def make(**kwargs: Any) -> Images:
        arguments = {
            "way": 3,
            "queries": 2,
            "batch_size": 8,
            "val_episodes": 2,
            "test_episodes": 2,
            **kwargs,
        }
        data = Images(train_episodes=4, meta_batch_size=2, **arguments)
        data.dataset = dataset
        return data

    return make


class Recorder(Callback):
    """Notes what training sees; saves after a step, and then fails, where told to."""

    def __init__(self, save: tuple[int, Path] | None = None) -> None:
        self.seen: list[Any] = []
        self.save = save

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append(batch)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.save is not None and trainer.global_step == self.save[0]:
            trainer.save_checkpoint(self.save[1])
            raise InterruptedError("on purpose")


def train(learner: Any, data: L.LightningDataModule, recorder: Recorder, **kwargs: Any) -> None:
    resume = kwargs.pop("ckpt_path", None)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[recorder],
        **{"max_epochs": 2, **kwargs},
    )  # fmt: skip
    trainer.fit(learner, data, ckpt_path=resume, weights_only=True)


def baseline(data: Images) -> Baseline:
    torch.manual_seed(0)
    return Baseline(MLP(64, (6,)), task=data.task, train_classes=data.train_classes)


def test_the_learner_chooses(benchmark: Callable[..., Images]) -> None:
    data, recorder = benchmark(), Recorder()
    train(baseline(data), data, recorder)
    assert all(isinstance(batch, ExampleBatch) for batch in recorder.seen)
    assert len(recorder.seen) == 8, "two epochs of 33 // 8 batches"
    stream = ExampleStream(data.dataset, data.seed)
    expected = stream.__getitems__(range(64)).examples
    labels = torch.cat([batch.examples.targets for batch in recorder.seen])
    assert torch.equal(labels, expected.targets)
    assert isinstance(expected.inputs, Tensor)
    images = torch.cat([batch.examples.inputs for batch in recorder.seen])
    # converted, as the images of episodes are
    torch.testing.assert_close(images, expected.inputs / 255)
    recorder = Recorder()
    train(PrototypicalNetwork(MLP(64, (6,)), task=data.task), benchmark(), recorder)
    assert all(isinstance(batch, MetaBatch) for batch in recorder.seen)
    assert [batch.size for batch in recorder.seen] == [2, 2, 2, 2]


@pytest.mark.parametrize("step", [3, 4, 6])
def test_resumed_training_is_bit_identical(
    step: int, benchmark: Callable[..., Images], tmp_path: Path
) -> None:
    whole = baseline(benchmark())
    train(whole, benchmark(), Recorder())
    with pytest.raises(InterruptedError, match="on purpose"):
        train(baseline(benchmark()), benchmark(), Recorder((step, tmp_path / "saved.ckpt")))
    torch.manual_seed(1)
    resumed, recorder = Baseline(MLP(64, (6,)), task=benchmark().task, train_classes=5), Recorder()
    train(resumed, benchmark(), recorder, ckpt_path=tmp_path / "saved.ckpt")
    assert len(recorder.seen) == 8 - step
    assert all(
        torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True)
    )


def test_an_epoch_can_be_cut_short(benchmark: Callable[..., Images]) -> None:
    data, recorder = benchmark(), Recorder()
    train(baseline(data), data, recorder, limit_train_batches=3)
    targets = ExampleStream(data.dataset, data.seed).__getitems__(range(48)).examples.targets
    found = torch.cat([batch.examples.targets for batch in recorder.seen])
    assert torch.equal(found, targets), "and nothing is skipped"


def test_every_training_example_once_in_order(
    benchmark: Callable[..., Images], dataset: ClassDataset
) -> None:
    batches = list(benchmark().training_examples())
    assert [batch.size for batch in batches] == [8, 8, 8, 8, 1]
    drawn = [key for batch in batches for key in keys(batch)]
    assert (len(drawn), set(drawn)) == (33, all_of(dataset))
    assert [label for _, label in drawn] == np.repeat(np.arange(5), COUNTS).tolist()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "batch_size is 0; set batch_size >= 1"),
        (
            34,
            (
                "batch_size 34 does not fit 33 training examples and 1 processes; set it to a"
                " multiple of 1 up to 33"
            ),
        ),
    ],
)
def test_sizes_that_do_not_fit_are_errors(
    size: int, message: str, benchmark: Callable[..., Images]
) -> None:
    with pytest.raises(FewshotError, match=message):
        train(baseline(benchmark()), benchmark(batch_size=size), Recorder())


def test_processes_that_do_not_share_a_batch_are_an_error(
    benchmark: Callable[..., Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = benchmark(batch_size=9)
    monkeypatch.setattr(data, "_ranks", lambda: (0, 2))
    with pytest.raises(
        FewshotError,
        match=r"batch_size 9 does not fit 33 training examples and 2 processes; .* of 2 up",
    ):
        train(baseline(benchmark()), data, Recorder())


def test_a_benchmark_without_classes_is_an_error(benchmark: Callable[..., Images]) -> None:
    data = SinusoidDataModule()
    with pytest.raises(
        FewshotError,
        match="SinusoidDataModule has no classes, but the learner needs labelled examples",
    ):
        train(baseline(benchmark()), data, Recorder(), num_sanity_val_steps=0)


def test_another_number_of_classes_is_an_error(benchmark: Callable[..., Images]) -> None:
    learner = Baseline(MLP(64, (6,)), task=benchmark().task, train_classes=4)
    with pytest.raises(
        FewshotError, match="train_classes is 4, but the benchmark has 5; set it to 5"
    ):
        train(learner, benchmark(), Recorder())


def test_episodes_are_no_examples(benchmark: Callable[..., Images]) -> None:
    data = benchmark()
    with pytest.raises(
        FewshotError, match=r"Baseline trains on Examples .*, but the loader gives MetaBatch"
    ):
        next(baseline(data).training_outcomes(next(iter(data.val_dataloader()))))
