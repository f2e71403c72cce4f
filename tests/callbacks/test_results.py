"""The table that a test prints."""

import io
from typing import Any

from rich.console import Console

from fewshot.callbacks.results import results_table

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
    assert "inductive batch norm, FGSM(epsilon=0.1)" in " ".join(
        printed(RESULT | {"attack": "FGSM(epsilon=0.1)"}).split()
    )


def test_a_benchmark_without_classes() -> None:
    text = " ".join(
        printed({**RESULT, "way": None, "split": None, "benchmark": "Sinusoid"}).split()
    )
    assert "MAML on Sinusoid, 1-shot" in text
