"""Several benchmarks in one run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import fewshot, fit, results
from fakes import fake_clinc150, fake_image_folder

from fewshot.datamodules import (
    GlyphsDataModule,
    ImageFolderDataModule,
    MultiSourceDataModule,
    SinusoidAndLineDataModule,
    SinusoidDataModule,
)
from fewshot.datamodules.multi_source import resized
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.source_stream import SourceStream
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError

MODEL = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--model.backbone.width=4")


def glyphs(**arguments: Any) -> GlyphsDataModule:
    return GlyphsDataModule(queries=2, **arguments)


def drawn(data: MultiSourceDataModule, stage: Any, numbers: list[int]) -> Any:
    stream = data.stream(stage)
    assert isinstance(stream, SourceStream)
    return [stream.draw(number) for number in numbers]


def images(part: Examples) -> torch.Tensor:
    assert isinstance(part.inputs, torch.Tensor)
    return part.inputs


def test_sources_take_turns_in_the_test() -> None:
    data = MultiSourceDataModule(
        {"one": glyphs(way=3), "two": glyphs(way=4, shot=2)}, test_episodes=3
    )
    batches = list(data.test_dataloader())
    names = [name for batch in batches for name in batch.sources or ()]
    assert names == ["one", "two"] * 3
    assert data.source_of("test", torch.arange(6)) == names
    converted = data.on_after_batch_transfer(batches[0], 0).parts
    assert [tuple(images(one.support).shape) for one in converted[:2]] == [
        (1, 3, 1, 28, 28),
        (1, 8, 1, 28, 28),
    ]
    assert images(converted[0].support).dtype == torch.float32
    assert data.task == {"kind": "classification", "way": None}
    assert MultiSourceDataModule({"one": glyphs(), "two": glyphs()}).task["way"] == 5


def test_ranks_share_the_episodes() -> None:
    data = MultiSourceDataModule({"one": glyphs(), "two": glyphs(), "three": glyphs()})
    found: dict[int, str] = {}
    for rank in (0, 1):
        loader: EpisodeLoader[Any] = EpisodeLoader(
            data.stream("test"), 6, 4, rank=rank, world_size=2
        )
        found.update(
            (number, name)
            for batch in loader
            for number, name in zip(batch.numbers.tolist(), batch.sources, strict=True)
        )
    assert [found[number] for number in range(6)] == data.source_of("test", torch.arange(6))


def test_an_episode_does_not_depend_on_the_other_sources() -> None:
    one, two = glyphs(way=3), glyphs(way=4)
    both = drawn(MultiSourceDataModule({"one": one, "two": two}), "test", [1, 3, 5])
    alone = drawn(MultiSourceDataModule({"two": two}), "test", [0, 1, 2])
    for (name, first), (other, second) in zip(both, alone, strict=True):
        assert name == other == "two"
        assert torch.equal(first.query.inputs, second.query.inputs)
    assert not torch.equal(both[0][1].query.inputs, both[1][1].query.inputs)


def test_training_follows_the_weights() -> None:
    data = MultiSourceDataModule({"a": glyphs(), "b": glyphs(), "c": glyphs()}, weights=[1, 0, 3])
    names = [name for name, _ in drawn(data, "train", list(range(2000)))]
    assert "b" not in names
    assert names.count("c") / 2000 == pytest.approx(0.75, abs=0.04)
    assert list(data.sources("test")) == ["a", "b", "c"]


def test_images_are_brought_to_one_size(tmp_path: Path) -> None:
    folder = ImageFolderDataModule(
        str(fake_image_folder(tmp_path / "root")), image_size=12, way=3, queries=2
    )
    with pytest.raises(
        FewshotError,
        match=r"the same in_channels, but grey has 1, mine has 3; set data.in_channels",
    ):
        MultiSourceDataModule({"grey": glyphs(), "mine": folder}, image_size=16)
    data = MultiSourceDataModule({"grey": glyphs(), "mine": folder}, image_size=16, in_channels=3)
    assert (data.in_channels, data.image_size, data.in_features) == (3, 16, 768)
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert {tuple(images(one.query).shape[-3:]) for one in batch.parts} == {(3, 16, 16)}
    random = torch.rand(2, 3, 3, 8, 8)
    assert torch.equal(resized(random, 8, 3), random)
    assert torch.allclose(resized(random, 8, 1), random.mean(2, keepdim=True))
    assert torch.equal(resized(random[:, :, :1], 8, 3)[:, :, 2], random[:, :, 0])


def test_functions_of_several_families(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "data: {class_path: MultiSourceDataModule, init_args: {benchmarks: {"
        "waves: {class_path: SinusoidDataModule, init_args: {shot: 5}},"
        "sums: {class_path: HarmonicDataModule, init_args: {shot: 7}}}}}\n"
    )
    run = fit(tmp_path, "--model=MAML", "--model.backbone=MLP", f"--config={config}")
    result = results(run)
    assert set(result["sources"]) == {"waves", "sums"}
    assert "mse" in result["sources"]["waves"]
    assert result["benchmarks"]["sums"]["shot"] == 7
    assert result["shot"] is None


def test_texts_of_one_vocabulary(tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path / "root")
    source = (
        f"{{class_path: CLINC150DataModule, init_args: {{root: {root}, queries: 2, shot: SHOT}}}}"
    )
    config = tmp_path / "config.yaml"
    config.write_text(
        "data: {class_path: MultiSourceDataModule, init_args: {benchmarks: {"
        f"one: {source.replace('SHOT', '1')}, two: {source.replace('SHOT', '2')}}}}}}}\n"
    )
    run = fewshot(
        "test",
        tmp_path,
        "--model=PrototypicalNetwork",
        "--model.backbone=BagOfWords",
        f"--config={config}",
    )
    assert set(results(run)["sources"]) == {"one", "two"}


@pytest.mark.parametrize(
    ("benchmarks", "more", "message"),
    [
        ({}, {}, "name one benchmark or more"),
        ({"a": glyphs()}, {"weights": [1.0, 2.0]}, "2.0] for 1 benchmarks; give each one"),
        ({"a": glyphs()}, {"weights": [0.0]}, "some above 0"),
        (
            {"a": glyphs(), "b": SinusoidDataModule()},
            {},
            "a is classification, b is regression; leave some out",
        ),
        ({"a": MultiSourceDataModule({"a": glyphs()})}, {}, "none of which has several sources"),
    ],
)
def test_refusals(benchmarks: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        MultiSourceDataModule(benchmarks, **more)


def test_the_facts_of_functions_agree() -> None:
    data = MultiSourceDataModule(
        {"waves": SinusoidDataModule(), "both": SinusoidAndLineDataModule()}
    )
    assert data.in_features == 1
    assert list(data.weights()) == [1, 1]
