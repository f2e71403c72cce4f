"""Average ranks over sources."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewshot.cli.main import main
from fewshot.cli.rank import ranks
from fewshot.tasks.estimates import Estimate, estimate


def test_clear_differences() -> None:
    assert ranks([Estimate(0.5, 0.01), Estimate(0.9, 0.01), Estimate(0.7, 0.01)]) == [3, 1, 2]
    assert ranks([Estimate(0.5, 0.01), Estimate(0.9, 0.01), Estimate(0.7, 0.01)], sign=-1) == [
        1,
        3,
        2,
    ]


def test_what_cannot_be_told_apart_shares_its_ranks() -> None:
    same = Estimate(0.5, 0.02)
    assert ranks([same, same, same]) == [2, 2, 2]
    # 0.03 is beyond sqrt(2) * 0.02 = 0.0283, 0.028 is not
    assert ranks([Estimate(0.53, 0.02), same]) == [1, 2]
    assert ranks([Estimate(0.528, 0.02), same]) == [1.5, 1.5]
    # a group is measured from its best: the third differs from the first, not from the second
    assert ranks([Estimate(0.55, 0.02), Estimate(0.53, 0.02), Estimate(0.51, 0.02)]) == [
        1.5,
        1.5,
        3,
    ]


def test_an_unknown_interval_tells_nothing_apart() -> None:
    unknown = Estimate(0.9, math.nan)
    assert ranks([unknown, Estimate(0.1, 0.01)]) == [1.5, 1.5]
    assert ranks([Estimate(0.9, 0.01), Estimate(0.5, math.nan), Estimate(0.1, 0.01)]) == [
        1.5,
        1.5,
        3,
    ]


@pytest.mark.parametrize("number", [3, 5, 30])
def test_ranks_are_won_by_chance_in_five_of_a_hundred_cases_at_most(number: int) -> None:
    rng, apart = np.random.default_rng(0), 0
    for _ in range(3000):
        scales = (0.01, 0.03)
        runs = [estimate(torch.from_numpy(rng.normal(0.7, s, number))) for s in scales]
        apart += ranks(runs) != [1.5, 1.5]
    assert apart / 3000 <= 0.062


def test_a_result_that_is_no_number_has_no_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "a", "MAML", NEW, "accuracy", dtd=0.5)
    two = write(tmp_path / "b", "RFS", NEW, "accuracy", dtd=math.nan)
    text = Path(two, "results.json").read_text()
    for content in (text, text.replace("NaN", "null")):  # earlier versions wrote NaN
        Path(two, "results.json").write_text(content)
        capsys.readouterr()
        assert main(["rank", one, two]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{two} has no finite accuracy on dtd" in line


def write(folder: Path, learner: str, facts: dict[str, Any], metric: str, **means: float) -> str:
    """A results.json; without `facts` as the first of version 0.1.0."""

    def metrics(mean: float) -> dict[str, Any]:
        return {metric: {"mean": mean, "ci95": 0.01}, "loss": {"mean": 1.0, "ci95": None}}

    folder.mkdir()
    sources = {name: metrics(mean) for name, mean in means.items()}
    content = {"learner": learner, "metrics": metrics(0.5), **facts, "sources": sources}
    (folder / "results.json").write_text(json.dumps(content))
    return str(folder)


def ranked(capsys: pytest.CaptureFixture[str], *runs: str) -> list[list[str]]:
    """The rows that the command prints."""
    capsys.readouterr()
    assert main(["rank", *runs]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


NEW: dict[str, Any] = {
    "units": {"accuracy": "%"},
    "monitor": {"metric": "accuracy", "mode": "max"},
}


@pytest.mark.parametrize("facts", [({}, {}), (NEW, NEW), ({}, NEW), (NEW, {})])
def test_the_command(
    facts: tuple[dict[str, Any], dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = facts
    one = write(tmp_path / "a", "MAML", first, "accuracy", dtd=0.5, fungi=0.305, mine=0.2)
    two = write(tmp_path / "b", "RFS", second, "accuracy", fungi=0.3, dtd=0.6)
    rows = ranked(capsys, one, f"{two}/results.json")
    assert ["dtd", "50.00 ± 1.00 % (2)", "60.00 ± 1.00 % (1)"] in rows
    assert ["fungi", "30.50 ± 1.00 % (1.5)", "30.00 ± 1.00 % (1.5)"] in rows
    assert ["average rank", "1.75", "1.25"] in rows
    assert "mine" not in [row[0] for row in rows if row]


def test_a_kinds_own_metric_is_ranked_by_its_better_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode, places in (("min", "12"), ("max", "21")):
        facts = {"units": {"depth": "px"}, "monitor": {"metric": "depth", "mode": mode}}
        runs = [
            write(tmp_path / f"{name}{mode}", name, facts, "depth", dtd=mean)
            for name, mean in (("MAML", 2.5), ("RFS", 3.0))
        ]
        cells = [
            f"{mean} ± 0.01 px ({place})"
            for mean, place in zip(("2.50", "3.00"), places, strict=True)
        ]
        assert ["dtd", *cells] in ranked(capsys, *runs)


@pytest.mark.parametrize(("metric", "places"), [("mse", "12"), ("accuracy", "21")])
def test_old_files_are_ranked_by_what_they_hold(
    metric: str, places: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        write(tmp_path / name, name, {}, metric, dtd=mean)
        for name, mean in (("MAML", 0.25), ("RFS", 0.5))
    ]
    (row,) = (row for row in ranked(capsys, *runs) if row[:1] == ["dtd"])
    assert [cell[-2] for cell in row[1:]] == list(places)


def test_kinds_that_share_a_metric_are_ranked_by_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learner of densities is judged by more than one of values."""
    density = {"units": {}, "monitor": {"metric": "log_likelihood", "mode": "max"}}
    value = {"units": {}, "monitor": {"metric": "mse", "mode": "min"}}
    one = write(tmp_path / "a", "CNP", density, "mse", dtd=0.25)
    two = write(tmp_path / "b", "MAML", value, "mse", dtd=0.5)
    assert ["dtd", "0.25 ± 0.01 (1)", "0.50 ± 0.01 (2)"] in ranked(capsys, one, two)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no results.json"),
        ("{}", "is no results.json (it has no metrics)"),
        ('{"metrics": {}}', "has no results source by source"),
        (
            '{"sources": {"other": {}}, "metrics": {}, "learner": "MAML"}',
            "have no source in common",
        ),
        (
            '{"sources": {"dtd": {}}, "metrics": {}, "learner": "MAML"}',
            "judged by accuracy, which they do not have in common; take runs of one kind",
        ),
    ],
)
def test_what_cannot_be_ranked(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    assert main(["rank", write(tmp_path / "a", "MAML", {}, "accuracy", dtd=0.5), str(bad)]) == 2
    assert message in capsys.readouterr().err
    assert main(["rank", str(bad)]) == 2
    assert "give two results.json" in capsys.readouterr().err
