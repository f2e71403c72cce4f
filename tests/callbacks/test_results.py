"""The table that a test prints."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
from every_learner import TinyImages
from rich.console import Console

from fewshot import MLP, PTMAP, FewshotError, PrototypicalNetwork
from fewshot.callbacks.results import results
from fewshot.callbacks.results_table import results_table

RESULT: dict[str, Any] = {
    "benchmark": "Omniglot",
    "split": "vinyals",
    "learner": "MAML",
    "way": 5,
    "shot": 1,
    "seed": 7,
    "episodes": 600,
    "batchnorm": "inductive",
    "metrics": {"accuracy": {"mean": 0.98765, "ci95": 0.00123}, "mse": {"mean": 0.5, "ci95": None}},
    "units": {"accuracy": "%"},
}


def printed(result: dict[str, Any]) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(results_table(result))
    return console.export_text()


def test_accuracies_are_in_per_cent_with_their_interval() -> None:
    text = printed(RESULT)
    assert "98.77 ± 0.12 %" in text
    assert "0.50 ± ?" in text, "the interval of one episode is unknown"


def test_the_protocol_stands_beside_the_numbers() -> None:
    text = " ".join(printed(RESULT).split())
    assert "MAML on Omniglot (vinyals), 5-way 1-shot" in text
    assert text.endswith("600 test episodes, seed 7, inductive batch norm")
    text = " ".join(printed(RESULT | {"stage": "validation", "partial": True}).split())
    assert "600 validation episodes, seed 7" in text
    assert text.endswith("PARTIAL: the validation was stopped")
    assert "inductive batch norm, FGSM(epsilon=0.1)" in " ".join(
        printed(RESULT | {"attack": "FGSM(epsilon=0.1)"}).split()
    )


def test_whether_queries_are_balanced_stands_in_transductive_results() -> None:
    together = RESULT | {"transductive": True, "balanced_queries": True}
    text = " ".join(printed(together).split())
    assert text.endswith("inductive batch norm, transductive head, balanced queries")
    text = " ".join(printed(together | {"balanced_queries": False}).split())
    assert text.endswith("transductive head, unbalanced queries")
    text = " ".join(printed(RESULT | {"balanced_queries": None}).split())
    assert text.endswith("inductive batch norm, perhaps unbalanced queries")


def quiet(folder: Path) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_test_says_whether_its_queries_are_balanced(alpha: float | None, tmp_path: Path) -> None:
    benchmark = TinyImages(way=3, shot=2, queries=3, test_episodes=5, query_alpha=alpha)
    network = MLP(benchmark.in_features, (8,))
    said = {}
    for kind, given in ((PTMAP, {"train_classes": 6}), (PrototypicalNetwork, {})):
        make: Any = kind
        learner = make(network, task=benchmark.task, **given)
        trainer = quiet(tmp_path)
        trainer.test(learner, benchmark, verbose=False)
        said[kind.__name__] = results(trainer, learner, 1.0)
    assert said["PTMAP"]["balanced_queries"] == (alpha is None)
    assert said["PTMAP"]["transductive"]
    assert "balanced_queries" not in said["PrototypicalNetwork"]
    assert (
        said["PTMAP"].get("query_alpha") == said["PrototypicalNetwork"].get("query_alpha") == alpha
    )
    counts = {
        tuple(np.bincount(targets, minlength=3).tolist())
        for batch in benchmark.test_dataloader()
        for targets in batch.stacked.query.targets
    }
    assert (counts == {(3, 3, 3)}) == (alpha is None)
    assert all(
        (targets.bincount(minlength=3) == 3).all()
        for targets in benchmark.stream("train").__getitems__(range(8)).stacked.query.targets
    )


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({}, {"way": 3, "shot": 2, "queries": 3}),
        ({"val_way": 2}, {"way": 2, "shot": 2, "queries": 3}),
        ({"ways": (2, 3)}, {"way": "2 to 3", "shot": 2, "queries": 3}),
        ({"shots": (1, 2)}, {"way": 3, "shot": "1 to 2", "queries": 3}),
    ],
)
def test_a_validation_says_its_own_sizes(
    sizes: dict[str, Any], told: dict[str, Any], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"way": 3, "shot": 2, "queries": 3, "val_episodes": 4}
    benchmark = TinyImages(**{**given, **sizes})
    learner = PrototypicalNetwork(MLP(benchmark.in_features, (8,)), task=benchmark.task)
    trainer = quiet(tmp_path)
    trainer.validate(learner, benchmark, verbose=False)
    found = results(trainer, learner, 1.0, stage="val")
    assert {name: found[name] for name in told} == told
    assert (found["stage"], found["episodes"], found["seed"]) == ("validation", 4, 0)
    assert "val_way" not in found


def test_unbalanced_queries_do_not_go_with_other_ways_of_drawing() -> None:
    with pytest.raises(FewshotError, match="query_alpha does not go with ways"):
        TinyImages(query_alpha=2.0, ways=(2, 3))
    with pytest.raises(FewshotError, match="query_alpha does not go with shots"):
        TinyImages(query_alpha=2.0, shots=(2, 3))


def test_a_benchmark_without_classes() -> None:
    text = " ".join(
        printed({**RESULT, "way": None, "split": None, "benchmark": "Sinusoid"}).split()
    )
    assert "MAML on Sinusoid, 1-shot" in text
