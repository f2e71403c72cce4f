"""Records of what was measured: whole, true to configs, and what the documentation is written from."""

import json
import shlex
from pathlib import Path
from typing import Any

import leaderboard
import plot
import pytest
import side_by_side
import yaml

from fewshot.cli import configs, records, reproduce
from fewshot.cli.aliases import names as other_names
from fewshot.cli.catalogue import benchmarks, learners
from fewshot.cli.class_options import check_class_options
from fewshot.cli.main import main
from fewshot.errors import FewshotError

ROOT = Path(__file__).resolve().parents[1]
RECORDS = list(records.read_all())


def test_there_are_records_and_no_other_files() -> None:
    assert len(RECORDS) >= 120
    assert {p.suffix for p in (ROOT / "results").rglob("*") if p.is_file()} == {".yaml"}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_is_whole_and_runs_what_exists(record: records.Record) -> None:
    assert record.learner in {entry.name for entry in learners()}
    known = {name for entry in benchmarks() for name in (entry.name, *other_names(entry))}
    assert record.benchmark in known
    assert {"machine", "commit", "date"} <= {*record.facts}
    reproduce.check(record)
    for step in record.steps:
        _, words = reproduce.split(step.command)
        check_class_options(words[2:])
        for name in step.configs:
            assert "model" in yaml.safe_load(Path(configs.locate(name)).read_text())
        for figure in step.figures:
            assert figure.paper is None or figure.paper.source.startswith(("arXiv:", "https://"))
        assert "BEST" not in shlex.split(step.command) or any(
            " fit " in before.command for before in record.steps
        )


def test_docs_are_what_the_records_generate() -> None:
    folder = ROOT / "docs/results"
    there = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.md")}
    assert there == leaderboard.pages(), "run `make results`"
    text = (ROOT / "README.md").read_text()
    assert leaderboard.readme(text) == text, "run `make results`"


def test_the_pictures_of_the_challenges_are_of_the_records() -> None:
    text = (ROOT / "docs/challenges.md").read_text(encoding="utf-8")
    assert side_by_side.beside(text) == text, "run `make results`"
    places = side_by_side.PLACE.findall(text)
    assert len(places) == text.count("<!-- beside:") >= 5


def test_pictures_of_what_is_not_comparable_or_not_there_are_refused() -> None:
    def page(rows: str) -> str:
        return f"<!-- beside: {rows} -->\n<!-- end of beside -->"

    shown = side_by_side.beside(
        page("function_mixture/maml: 2 kinds, function_mixture/mmaml: 2 kinds")
    )
    lines = [line.split("  ")[0].strip() for line in shown.splitlines()]
    assert lines[3:6] == ["mse", "MAML, 2 kinds", "MMAML, 2 kinds"]
    assert side_by_side.beside(shown) == shown
    with pytest.raises(ValueError, match="one picture shows one metric"):
        side_by_side.beside(
            page("function_mixture/maml: 2 kinds, rainbow_mnist/protonet_10way1shot")
        )
    with pytest.raises(ValueError, match="has no task '7 kinds'"):
        side_by_side.beside(page("function_mixture/maml: 7 kinds"))
    with pytest.raises(FewshotError, match="there is no record 'function_mixture/mamml'"):
        side_by_side.beside(page("function_mixture/mamml"))


def test_no_figure_of_the_readme_is_a_second_one() -> None:
    """What is outside of the generated table, the output that is shown, is of the record."""
    text = (ROOT / "README.md").read_text()
    before, _, rest = text.partition(leaderboard.OPEN)
    by_hand = leaderboard.figures(before + rest.partition(leaderboard.CLOSE)[2])
    (step,) = records.find("glyphs/protonet_5way1shot").steps
    assert by_hand
    assert {*by_hand} <= {str(figure) for figure in step.figures}


def test_a_gap_is_marked_by_the_interval() -> None:
    paper = records.Paper(98.0, 99.0, "arXiv:1")
    step = records.Step("t", "c", ())
    signs = [
        leaderboard.gap(records.Figure("a", mean, 0.5, None, "%", paper), step)[0]
        for mean in (97.4, 97.6, 98.5, 99.6)
    ]
    assert signs == ["▼", "≈", "≈", "▲"]


def judged(mean: float, **of: Any) -> bool:
    figure = records.Figure("accuracy", 90.0, of.get("ci95"), of.get("deviation"), "%", None)
    return reproduce.judged(figure, {"accuracy": [mean] * (of.get("folds") or 1)}, of.get("folds"))[
        1
    ]


def test_records_of_one_title_are_told_apart_on_the_leaderboard() -> None:
    page = leaderboard.pages()["README.md"]
    for shot in ("5", "10"):
        assert f"| [CAVIA, {shot}-shot](sinusoid/cavia_{shot}shot.md) | CAVIA |" in page
    assert "| [ThompsonSampling](bandit/thompson.md) |" in page


def test_a_record_is_drawn_beside_the_papers_figure() -> None:
    paper = records.Paper(93.0, 97.0, "arXiv:1")
    figure = records.Figure("accuracy", 95.0, 1.0, None, "%", paper)
    alone = records.Figure("loss", 0.5, None, None, "", None)
    step = records.Step("1-shot", "fewshot test", (figure, alone))
    record = records.Record("a/b", "A", "MAML", "B", "p", (step,), {})
    title, ours, papers = plot.plot(record).splitlines()  # a loss alone has no picture
    begins = title.index("93")
    assert title.split() == ["accuracy", "(%)", "93", "97"]
    assert [len(title), len(papers)] == [begins + plot.WIDTH] * 2
    assert papers[begins] == papers[-1] == plot.PAPERS
    places = {sign: ours.index(sign) - begins for sign in ("├", plot.OURS, "┤")}
    # a quarter, a half and three quarters of the axis
    assert places == {"├": 12, plot.OURS: 24, "┤": 35}


def test_an_outcome_is_judged_by_the_interval() -> None:
    assert judged(0.905, ci95=0.6)
    assert not judged(0.907, ci95=0.6)
    assert judged(0.907, deviation=1.0, folds=10)  # t s / sqrt(n) = 0.715
    assert not judged(0.908, deviation=1.0, folds=10)
    assert not reproduce.judged(
        records.Figure("mse", 1.0, 0.1, None, "", None), {"loss": [1.0]}, None
    )[1]


RECORD: dict[str, Any] = {
    "title": "Raw pixels",
    "learner": "PrototypicalNetwork",
    "benchmark": "Glyphs",
    "protocol": "5-way 1-shot",
    "runs": [
        {
            "task": "test",
            "command": (
                "fewshot test --data GlyphsDataModule --model PrototypicalNetwork --model.backbone"
                " Pixels --data.test_episodes 4 --data.queries 2"
            ),
            "figures": {"accuracy": {"mean": 67.5, "ci95": 1.0, "unit": "%"}},
        }
    ],
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a folder of records of its own, with this one in it."""
    monkeypatch.setattr(records, "folder", lambda: tmp_path / "results")
    monkeypatch.chdir(tmp_path)

    def make(record: Any) -> None:
        (tmp_path / "results/own").mkdir(parents=True)
        (tmp_path / "results/own/pixels.yaml").write_text(yaml.safe_dump(record))

    return make


@pytest.mark.parametrize(("mean", "status"), [(0.675, 0), (0.5, 1)])
def test_a_record_is_run_and_judged(
    mean: float,
    status: int,
    own: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own(RECORD)

    def run(command: list[str], **kwargs: Any) -> Any:
        root = Path(command[-1].partition("=")[2]) / "lightning_logs/run"
        root.mkdir(parents=True)
        content = {"metrics": {"accuracy": {"mean": mean, "ci95": 0.1}}}
        (root / "results.json").write_text(json.dumps(content))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr("subprocess.run", run)
    if status:
        with pytest.raises(SystemExit, match="1"):
            main(["reproduce", "own/pixels"])
    else:
        assert main(["reproduce", "own/pixels"]) == 0
    where = "outside of" if status else "within"
    assert f"{where} the interval of the record, 67.50 ± 1.00 %" in capsys.readouterr().out


def test_list_and_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(record.name in out for record in RECORDS)
    assert main(["reproduce", "omniglot/maml_5way1shot", "DATA=/data", "--dry_run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "--data.root /data" in first
    assert "--ckpt_path BEST --model.batchnorm inductive" in second


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no record is named; `fewshot reproduce --list` shows them"),
        (["omniglot/mmal_5way1shot"], "did you mean 'omniglot/maml_5way1shot'?"),
        (["0"], "`fewshot reproduce --list` shows them"),
        (
            ["omniglot/maml_5way1shot"],
            "needs DATA, the folder with the benchmark's files; add DATA=",
        ),
        (
            ["omniglot/maml_5way1shot", "ROOT=x"],
            "'ROOT=x' fills no placeholder; omniglot/maml_5way1",
        ),
    ],
)
def test_refusals(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"runs": [{**RECORD["runs"][0], "command": "fewshot fit --config glyphs/no"}]},
            "does not",
        ),
        ({"runs": [{**RECORD["runs"][0], "command": "python peers.py"}]}, "only a checkout has"),
        ({"learnr": "MAML"}, "nothing is known of learnr"),
        ({"runs": [{"task": "t"}]}, "is no record ('figures')"),
    ],
)
def test_a_record_that_does_not_run(
    changes: dict[str, Any], message: str, own: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records.read.cache_clear()
    own({**RECORD, **changes})
    assert main(["reproduce", "own/pixels"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
