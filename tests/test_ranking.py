"""Average ranks over sources."""

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.cli.main import main
from fewshot.cli.rank import ranks
from fewshot.tasks.estimates import Estimate


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


def write(folder: Path, learner: str, **accuracies: float) -> str:
    def metrics(mean: float) -> dict[str, Any]:
        return {"accuracy": {"mean": mean, "ci95": 0.01}, "loss": {"mean": 1.0, "ci95": None}}

    folder.mkdir()
    sources = {name: metrics(mean) for name, mean in accuracies.items()}
    (folder / "results.json").write_text(
        json.dumps({"learner": learner, "metrics": metrics(0.5), "sources": sources})
    )
    return str(folder)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "a", "MAML", dtd=0.5, fungi=0.305, mine=0.2)
    two = write(tmp_path / "b", "RFS", fungi=0.3, dtd=0.6)
    assert main(["rank", one, f"{two}/results.json"]) == 0
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert ["dtd", "50.00 ± 1.00 % (2)", "60.00 ± 1.00 % (1)"] in rows
    assert ["fungi", "30.50 ± 1.00 % (1.5)", "30.00 ± 1.00 % (1.5)"] in rows
    assert ["average rank", "1.75", "1.25"] in rows
    assert "mine" not in [row[0] for row in rows if row]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no results.json"),
        ("{}", "has no results source by source"),
        (
            '{"sources": {"other": {}}, "metrics": {}, "learner": "MAML"}',
            "have no source in common",
        ),
        (
            '{"sources": {"dtd": {}}, "metrics": {}, "learner": "MAML"}',
            "none of the metrics accuracy, mse",
        ),
    ],
)
def test_what_cannot_be_ranked(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    assert main(["rank", write(tmp_path / "a", "MAML", dtd=0.5), str(bad)]) == 2
    assert message in capsys.readouterr().err
    assert main(["rank", str(bad)]) == 2
    assert "give two results.json" in capsys.readouterr().err
