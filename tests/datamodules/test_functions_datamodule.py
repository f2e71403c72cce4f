from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot.datamodules import HarmonicDataModule, SinusoidAndLineDataModule, SinusoidDataModule
from fewshot.datamodules.functions import FunctionDataModule
from fewshot.datasets.functions import Harmonic, Sinusoid, SinusoidAndLine
from fewshot.errors import FewshotError

BENCHMARKS = {
    SinusoidDataModule: ("Sinusoid", Sinusoid),
    HarmonicDataModule: ("Harmonic", Harmonic),
    SinusoidAndLineDataModule: ("SinusoidAndLine", SinusoidAndLine),
}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_hands_out_its_family_of_functions(benchmark: type[FunctionDataModule]) -> None:
    name, family = BENCHMARKS[benchmark]
    data = benchmark(
        shot=3, queries=7, train_shot=2, train_queries=4, meta_batch_size=5, eval_batch_size=6
    )
    assert data.task == {"kind": "regression", "targets": 1}
    assert data.in_features == 1
    facts = {"benchmark": name, "shot": 3, "queries": 7, "seed": 0}
    assert facts.items() <= data.protocol().items()
    assert data.tasks("train") == family(2, 4)
    assert data.tasks("val") == data.tasks("test") == family(3, 7)
    train = next(iter(data.train_dataloader())).stacked
    test = next(iter(data.test_dataloader())).stacked
    assert isinstance(train.support.inputs, Tensor)
    assert train.support.inputs.shape == (5, 2, 1)
    assert train.query.targets.shape == (5, 4, 1)
    assert test.support.targets.shape == (6, 3, 1)
    expected = data.stream("test")[4].query.targets
    assert expected.shape == (7, 1)
    assert torch.equal(test.query.targets[4], expected)


def test_the_papers_sizes_are_the_defaults() -> None:
    data = SinusoidDataModule()
    assert (data.shot, data.train_queries, data.queries, data.meta_batch_size) == (10, 10, 100, 25)
    assert len(data.train_dataloader()) == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shot": 0}, "shot is 0; set shot >= 1"),
        ({"queries": 0}, "queries is 0; set queries >= 1"),
        ({"train_queries": -1}, "train_queries is -1; set train_queries >= 1"),
        ({"val_episodes": 0}, "val_episodes is 0; set val_episodes >= 1"),
        ({"train_shots": (5, 3)}, r"train_shots is \[5, 3\]; give the smallest and the largest"),
        ({"train_shots": (0, 3)}, r"train_shots\[0\] is 0; set train_shots\[0\] >= 1"),
        (
            {"train_shots": (1, 3), "train_shot": 2},
            r"train_shots is \[1, 3\]; .*, and leave out train_shot",
        ),
    ],
)
def test_bad_sizes_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        SinusoidDataModule(**arguments)


def test_the_supports_of_training_differ_from_meta_batch_to_meta_batch() -> None:
    data = SinusoidDataModule(
        shot=3, queries=7, train_queries=4, train_shots=(2, 4), meta_batch_size=5, train_episodes=50
    )
    sizes = [batch.stacked.support.targets.shape for batch in data.train_dataloader()]
    assert {size[1] for size in sizes} == {2, 3, 4}
    assert {size[0] for size in sizes} == {5}
    assert {batch.stacked.query.targets.shape[1] for batch in data.train_dataloader()} == {4}
    assert {batch.stacked.support.targets.shape[1] for batch in data.test_dataloader()} == {3}
