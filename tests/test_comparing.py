"""`fewshot compare`: paired differences, seeds together, configs that differ, every refusal."""

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from fewshot.cli.main import main
from fewshot.tasks.estimates import estimate_plain

FACTS: dict[str, Any] = {
    "benchmark": "Glyphs",
    "split": "scripts",
    "way": 5,
    "shot": 1,
    "queries": 15,
    "seed": 0,
    "learner": "PrototypicalNetwork",
    "partial": False,
    "untrained": False,
    "seed_everything": 0,
    "units": {"accuracy": "%"},
    "monitor": {"metric": "accuracy", "mode": "max"},
    "seconds": 12.5,
    "parameters": 111936,
}
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "model": {
        "class_path": "fewshot.PrototypicalNetwork",
        "init_args": {"distance": "euclidean", "scale": 1.0},
    },
    "data": {"class_path": "fewshot.GlyphsDataModule", "init_args": {"way": 5, "num_workers": 0}},
    "trainer": {"max_epochs": 10, "default_root_dir": None},
}
ATTEMPTS = 600


def accuracies(shift: float, noise: float = 0.02, seed: int = 0) -> list[float]:
    """Of 600 episodes that are as hard in every run."""
    hardness = np.random.default_rng(99).normal(0.6, 0.08, ATTEMPTS)
    own = np.random.default_rng(seed).normal(shift, noise, ATTEMPTS)
    return [float(value) for value in hardness + own]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that breaks no cell."""
    monkeypatch.setenv("COLUMNS", "200")


def made(
    folder: Path,
    values: Sequence[float],
    config: Mapping[str, Any] | None = CONFIG,
    order: Sequence[int] | None = None,
    **facts: Any,
) -> str:
    """A run with these accuracies of episodes 0, 1, ..."""
    folder.mkdir(parents=True)
    mean, ci95 = estimate_plain(values)
    metrics = {
        "loss": {"mean": 2 * mean, "ci95": 2 * ci95},
        "accuracy": {"mean": mean, "ci95": None if math.isnan(ci95) else ci95},
    }
    content = {**FACTS, "episodes": len(values), "metrics": metrics, **facts}
    (folder / "results.json").write_text(json.dumps(content))
    with open(folder / "episodes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("episode", "loss", "accuracy"))
        writer.writerows((i, 2 * values[i], values[i]) for i in order or range(len(values)))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    return str(folder)


def rows(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, str]]:
    """What the command prints as CSV."""
    capsys.readouterr()
    assert main(["compare", *args, "--format=csv"]) == 0
    lines = [*csv.reader(capsys.readouterr().out.splitlines())]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What the command prints on the screen, as one line."""
    capsys.readouterr()
    assert main(["compare", *args]) == 0
    return " ".join(capsys.readouterr().out.split())


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main([*args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_paired_interval_is_the_bootstraps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = accuracies(0.0, seed=1), accuracies(0.004, seed=2)
    order = np.random.default_rng(0).permutation(ATTEMPTS).tolist()  # numbers count, not lines
    runs = [made(tmp_path / "a", one), made(tmp_path / "b", two, order=order)]
    _, row = rows(capsys, *runs)
    differences = np.subtract(two, one)
    drawn = np.random.default_rng(0).choice(differences, (4000, ATTEMPTS)).mean(-1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert row["compared"] == "paired"
    assert float(row["difference"]) == pytest.approx(differences.mean())
    assert float(row["difference ci95"]) == pytest.approx((high - low) / 2, rel=0.1)
    # each of the means alone is known three times worse
    assert float(row["accuracy ci95"]) > 2.9 * float(row["difference ci95"])


def test_ranks_go_by_the_paired_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [accuracies(shift, seed=i) for i, shift in enumerate((0.0, 0.006, 0.0061))]
    runs = [made(tmp_path / str(i), of) for i, of in enumerate(values)]
    assert [row["rank"] for row in rows(capsys, *runs)] == ["3.0", "1.5", "1.5"]
    other = made(tmp_path / "other", values[1], seed=7)
    assert [row["rank"] for row in rows(capsys, runs[0], other)] == ["1.5", "1.5"]


@pytest.mark.parametrize(
    ("fact", "value", "reason"),
    [
        ("benchmark", "Omniglot", "benchmark Omniglot, not Glyphs"),
        ("seed", 1, "seed 1, not 0"),
        ("way", 20, "way 20, not 5"),
        ("shot", 5, "shot 5, not 1"),
        ("queries", 5, "queries 5, not 15"),
        ("split", "letters", "split letters, not scripts"),
        ("episodes", 1000, "episodes 1000, not 600"),
        ("test_episodes_sha256", "12ab", "test_episodes_sha256 12ab, not None"),
        ("crop", "box", "crop box, not None"),
    ],
)
def test_other_episodes_are_compared_unpaired(
    fact: str, value: Any, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = accuracies(0.0), accuracies(0.01, seed=1)
    runs = [made(tmp_path / "a", one), made(tmp_path / "b", two, **{fact: value})]
    _, row = rows(capsys, *runs)
    assert row["compared"] == "unpaired"
    intervals = [estimate_plain(values).ci95 for values in (one, two)]
    assert float(row["difference ci95"]) == pytest.approx(math.hypot(*intervals))
    assert f"compared with 1 unpaired: 2 ({reason})" in shown(capsys, *runs)


def test_what_a_learner_has_of_its_own_does_not_make_other_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own: dict[str, Any] = {
        "learner": "MAML",
        "batchnorm": "transductive",
        "attack": "FGSM()",
        "augment": {"p": 1},
    }
    runs = [made(tmp_path / "a", accuracies(0)), made(tmp_path / "b", accuracies(0), **own)]
    assert rows(capsys, *runs)[1]["compared"] == "paired"


def test_what_is_no_plain_mean_of_its_episodes_is_unpaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """IoUs, means over queries or videos; and a table that belongs to another test."""
    runs = [made(tmp_path / name, accuracies(0.0)) for name in "ab"]
    table = Path(runs[1], "episodes.csv")
    text = table.read_text()
    for content, reason in (
        (text.replace("accuracy", "iou"), "accuracy is no column of"),
        ("\n".join(text.splitlines()[:-1]), "accuracy is not the plain mean of"),
        (None, f"{table} is missing"),
    ):
        if content is None:
            table.unlink()
        else:
            table.write_text(content)
        assert rows(capsys, *runs)[1]["compared"] == "unpaired"
        assert reason in shown(capsys, *runs)


@pytest.mark.parametrize("content", ["", "episode,accuracy\n0,x\n", "episode,accuracy\n0\n", "\0"])
def test_a_broken_table_is_one_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [made(tmp_path / name, accuracies(0.0)) for name in "ab"]
    Path(runs[1], "episodes.csv").write_text(content)
    line = refused(capsys, "compare", *runs)
    assert f"{runs[1]}/episodes.csv is no table of episodes" in line
    assert "move it away to compare the run unpaired" in line


def test_training_seeds_are_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    means: dict[str, list[float]] = {"a": [], "b": []}
    runs = []
    for i, name in enumerate(["a", "b"] * 3):
        values = accuracies(0.01 * i, seed=i)
        means[name].append(math.fsum(values) / ATTEMPTS)
        config = {**CONFIG, "model": {**CONFIG["model"], "init_args": {"distance": name}}}
        config["trainer"] = {"max_epochs": 10, "default_root_dir": f"out{i}"}
        facts: dict[str, Any] = {"seed_everything": i, "global_step": i, "seconds": float(i)}
        facts |= {name: {"of": i} for name in ("calibration", "memorisation", "by_class")}
        runs.append(made(tmp_path / f"run{i}", values, config, **facts))
    one, two = rows(capsys, *runs)
    assert (one["seeds"], two["seeds"]) == ("0 2 4", "1 3 5")
    assert float(two["seconds"]) == 3.0
    for row, name in ((one, "a"), (two, "b")):
        mean, half = np.mean(means[name]), 4.302652729911275 * np.std(means[name], ddof=1) / 3**0.5
        assert float(row["accuracy"]) == pytest.approx(mean)
        assert float(row["accuracy ci95"]) == pytest.approx(half)
    # of seeds too, not of episodes: another training would give another difference
    assert two["compared"] == "over seeds"
    both = math.hypot(float(one["accuracy ci95"]), float(two["accuracy ci95"]))
    assert float(two["difference ci95"]) == pytest.approx(both)
    assert "run0, seeds 0 2 4" in (text := shown(capsys, *runs))
    assert "intervals of rows of several seeds, and of their differences, are over seeds" in text
    # a single run beside them: episode by episode, but another training counts too
    group, single = rows(capsys, *runs[::2], runs[1])
    assert single["compared"] == "paired, over seeds"
    assert float(single["difference"]) == pytest.approx(means["b"][0] - np.mean(means["a"]))
    seeds = np.mean([accuracies(0.01 * i, seed=i) for i in (0, 2, 4)], axis=0)
    paired = estimate_plain((accuracies(0.01, seed=1) - seeds).tolist()).ci95
    both = math.hypot(paired, float(group["accuracy ci95"]))
    assert float(single["difference ci95"]) == pytest.approx(both)
    # of two seeds nothing is known of a third, so that they are told from nothing
    assert [row["difference ci95"] for row in rows(capsys, *runs[:2], runs[2])] == ["", ""]
    assert [row["rank"] for row in rows(capsys, *runs[:2], runs[2])] == ["1.5", "1.5"]


@pytest.mark.parametrize("case", ["config", "no config", "the same seed", "facts", "weights"])
def test_what_differs_in_more_than_the_seed_is_a_row_of_its_own(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config: dict[str, Any] | None = CONFIG
    facts: dict[str, Any] = {"seed_everything": 1}
    if case == "config":
        config = {**CONFIG, "trainer": {**CONFIG["trainer"], "max_epochs": 20}}
    elif case == "no config":
        config = None
    elif case == "the same seed":
        facts = {}
    elif case == "facts":
        facts["batchnorm"] = "transductive"
    else:  # tested with one config, trained with two
        facts["checkpoint"] = str(tmp_path / "trained/checkpoints/best.ckpt")
        longer = {**CONFIG, "trainer": {**CONFIG["trainer"], "max_epochs": 20}}
        made(tmp_path / "trained", accuracies(0.0), longer)
        (tmp_path / "trained/checkpoints").mkdir()
        (tmp_path / "trained/checkpoints/best.ckpt").touch()
    runs = [made(tmp_path / "a", accuracies(0.0)), made(tmp_path / "b", accuracies(0), config)]
    Path(runs[1], "results.json").write_text(
        json.dumps({**json.loads(Path(runs[0], "results.json").read_text()), **facts})
    )
    found = rows(capsys, *runs)
    assert len(found) == 2
    if case == "weights":
        assert [row["trained.trainer.max_epochs"] for row in found] == ["10", "20"]
    Path(runs[1], "config.yaml").write_text(yaml.safe_dump(CONFIG))
    kept = json.loads(Path(runs[0], "results.json").read_text())
    Path(runs[1], "results.json").write_text(json.dumps({**kept, "seed_everything": 1}))
    assert len(rows(capsys, *runs)) == 1


def test_settings_that_differ_are_listed_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maml = {"class_path": "fewshot.MAML", "init_args": {"inner_lr": 0.4, "scale": 1.0}}
    slow = {"class_path": "fewshot.MAML", "init_args": {"inner_lr": 0.01, "scale": 1.0, "new": 1}}
    runs = [
        made(tmp_path / "a", accuracies(0.0)),
        made(tmp_path / "b", accuracies(0.0), {**CONFIG, "model": maml}),
        made(tmp_path / "c", accuracies(0.0), {**CONFIG, "model": maml}),
    ]
    (tmp_path / "c/config-1.yaml").write_text(yaml.safe_dump({**CONFIG, "trainer": {}}))
    # the tenth start counts, not the ninth
    for n, model in ((9, maml), (10, slow)):
        (tmp_path / f"c/config-{n}.yaml").write_text(yaml.safe_dump({**CONFIG, "model": model}))
    found = rows(capsys, *runs)
    assert [row["model"] for row in found] == ["PrototypicalNetwork", "MAML", "MAML"]
    assert [row["model.inner_lr"] for row in found] == ["", "0.4", "0.01"]
    assert [row["model.new"] for row in found] == ["", "", "1"]
    settings = {name for row in found for name in row if "." in name or name == "model"}
    assert settings == {"model", "model.inner_lr", "model.new"}
    text = shown(capsys, *runs)
    assert "model: PrototypicalNetwork (1), MAML (2, 3) model.inner_lr: 0.4 (2), 0.01 (3)" in text


def test_untrained_and_partial_runs_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        made(tmp_path / "a", accuracies(0.0)),
        made(tmp_path / "b", accuracies(0.0), untrained=True),
        made(tmp_path / "c", accuracies(0.0)[:200], partial=True),
    ]
    found = rows(capsys, *runs)
    assert [row["mark"] for row in found] == ["", "UNTRAINED", "PARTIAL"]
    assert [row["compared"] for row in found] == ["", "paired", "unpaired"]
    assert "mark" not in rows(capsys, runs[0], runs[0])[0]
    for command in ("rank", "summary"):
        assert "stopped after 200 episodes; test again, or leave it out" in refused(
            capsys, command, runs[0], runs[2]
        )


def test_what_names_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "lightning_logs"
    for number in (10, 9):
        run = Path(made(root / f"run-{number}", accuracies(0.0)))
        (run / "checkpoints").mkdir()
        (run / "checkpoints/best.ckpt").touch()
    (root / "untested").mkdir()
    (root / "untested/config.yaml").write_text("model: {}")
    (root / "notes.txt").touch()
    nine = root / "run-9"
    for path in ("", "results.json", "episodes.csv", "checkpoints", "checkpoints/best.ckpt"):
        (row,) = rows(capsys, f"{nine}/{path}")
        assert row["run"] == "run-9"
    named = [str(root), f"{nine}/results.json", str(nine)]  # each once
    assert [row["run"] for row in rows(capsys, *named)] == ["run-9", "run-10"]
    assert f"left out, not tested: {root}/untested" in shown(capsys, str(root))
    for command in ("summary", "rank"):
        line = refused(capsys, command, str(root))
        assert "run-10 and " in line or "run-9 has no results source by source" in line


def test_runs_of_one_name_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [made(tmp_path / part / "version_0", accuracies(0.0)) for part in "ab"]
    assert [row["run"] for row in rows(capsys, *runs)] == runs


BAD: list[tuple[tuple[str, ...], str]] = [
    ((), "no run is named; give folders of tested runs"),
    (("none",), "none is missing; give folders of tested runs"),
    (("empty",), "empty/results.json is missing; give folders of tested runs"),
    (("untested",), "was not tested; give folders of tested runs, or `fewshot test --config unte"),
    (("weights.ckpt",), "weights.ckpt belongs to no tested run; give the folder of one"),
    (("odd", "none"), "odd/results.json is no results.json (its metrics are no means with interv"),
    (("odd", "none"), "; none is missing"),
    (("units",), "units/results.json is no results.json (its units are no words)"),
    (("judge",), "judge/results.json is no results.json (its monitor has no metric and mode)"),
    (("wordy",), "wordy/results.json is no results.json (its seconds are no number)"),
    (("deep",), "deep/results.json is no results.json (maximum recursion depth exceeded"),
    (("good", "--metric=acuracy"), "good has no metric 'acuracy'; did you mean 'accuracy'?"),
    (("good", "--format=tex"), "'tex'"),
    (("good", "--plot=runs.gif"), "--plot is runs.gif; give a name that ends in .png or .svg"),
    (("good", "--by=metric", "--plot=a.png"), "--plot draws runs, not rows by metric; leave one"),
    (("good", "other"), "judged by accuracy, mse, which they do not have in common"),
    (("good", "bad_config"), "bad_config/config.yaml, line 1: this is no YAML"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_is_one_line(
    args: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    made(Path("good"), accuracies(0.0))
    made(Path("bad_config"), accuracies(0.0))
    Path("bad_config/config.yaml").write_text("model: {")
    mse: dict[str, Any] = {"metrics": {"mse": {"mean": 1.0, "ci95": None}}}
    made(Path("other"), accuracies(0), **mse, monitor={"metric": "mse", "mode": "min"})
    made(Path("wordy"), accuracies(0.0), seconds="many")
    made(Path("units"), accuracies(0.0), units={"accuracy": 5})
    made(Path("judge"), accuracies(0.0), monitor={"metric": "accuracy"})
    made(Path("odd"), accuracies(0.0), metrics={"accuracy": {"mean": "high"}})
    for folder in ("empty", "untested", "deep"):
        Path(folder).mkdir()
    Path("untested/config.yaml").touch()
    Path("deep/results.json").write_text("[" * 100_000)
    Path("weights.ckpt").touch()
    assert message in refused(capsys, "compare", *args)


def test_which_end_of_a_metric_is_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [accuracies(shift, seed=i) for i, shift in enumerate((0.0, 0.02))]
    metrics = [
        {name: {"mean": math.fsum(of) / ATTEMPTS, "ci95": 0.001} for name in METRICS}
        for of in values
    ]
    runs = [
        made(tmp_path / str(i), of, metrics=found)
        for i, (of, found) in enumerate(zip(values, metrics, strict=True))
    ]
    for metric, ranks in zip(
        METRICS, (["2.0", "1.0"], ["2.0", "1.0"], ["1.0", "2.0"]), strict=False
    ):
        assert [row["rank"] for row in rows(capsys, *runs, f"--metric={metric}")] == ranks
    assert [row["rank"] for row in rows(capsys, *runs, "--metric=depth")] == ["", ""]
    assert "no run says whether more or less of depth is better" in shown(
        capsys, *runs, "--metric=depth"
    )


METRICS = ("accuracy", "accuracy_step5", "loss_step5", "depth")


def test_the_formats_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        made(tmp_path / "r_0", [0.5, 0.6, 0.7]),
        made(tmp_path / "[b]", [0.4, 0.6, 0.7], parameters=None, seconds=None),
    ]
    printed = {}
    for form in ("table", "csv", "markdown", "latex"):
        capsys.readouterr()
        assert main(["compare", *runs, f"--format={form}"]) == 0
        printed[form] = capsys.readouterr().out
    wanted = ["1", "r_0", "60.00 ± 24.84", "", "1.5", "12.5", "111,936"]
    assert wanted in [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in printed["table"].splitlines()
    ]
    assert "│ [b] │" in printed["table"]  # no markup
    assert f"| {' | '.join(wanted)} |" in printed["markdown"]
    tex = " & ".join(wanted).replace("_", r"\_").replace("±", r"$\pm$")
    assert f"{tex} \\\\" in printed["latex"].splitlines()
    assert r"2 & {[}b] & 56.67 $\pm$ 37.95 & $-$3.33 $\pm$ 14.34 &" in printed["latex"]
    assert all(
        line.startswith("%") for line in printed["latex"].partition("\\begin")[0].split("\n")[:-1]
    )
    lines = [*csv.reader(printed["csv"].splitlines())]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert float(dict(zip(*lines[:2], strict=True))["accuracy"]) == pytest.approx(0.6)


def test_a_name_stays_in_its_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = made(tmp_path / "a\n*b*\\|<i>_c_d_e\x1b[1m", accuracies(0.0))
    for form, wanted in (
        ("table", r"│ a *b*\|<i>_c_d_e [1m │"),
        ("markdown", r"| a \*b\*\\\|\<i\>\_c_d_e \[1m |"),
        (
            "latex",
            r"1 & a *b*\textbackslash{}\textbar{}\textless{}i\textgreater{}\_c\_d\_e {[}1m &",
        ),
    ):
        capsys.readouterr()
        assert main(["compare", odd, f"--format={form}"]) == 0
        printed = capsys.readouterr().out
        assert any(wanted in line for line in printed.splitlines()), printed
        assert "\x1b" not in printed


def test_a_narrow_screen_has_the_names_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [made(tmp_path / name, accuracies(0.0)) for name in ("a", "b")]
    assert "│ 1 │ a" in shown(capsys, *runs)
    long = made(tmp_path / "prototypicalnetwork-glyphs-5way1shot-0", accuracies(0.0))
    capsys.readouterr()
    assert main(["compare", runs[0], long]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"1: a", "2: prototypicalnetwork-glyphs-5way1shot-0"} <= {*lines}
    assert any(line.startswith("│ 2 │ 6") and "± 0.6" in line for line in lines), lines
    assert not any("┃ run" in line for line in lines)


def test_seeds_of_a_sweep_are_called_by_what_they_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("MAML-seed_everything=0-0", "MAML-seed_everything=1-0")
    runs = [
        made(tmp_path / name, accuracies(0.0, seed=seed), seed_everything=seed)
        for seed, name in enumerate(names)
    ]
    assert "│ MAML-0, seeds 0 1 │" in shown(capsys, *runs)
    assert f"│ {names[0]} │" in shown(capsys, runs[0])


def test_runs_of_a_folder_that_lack_the_metric_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "logs"
    other: dict[str, Any] = {"metrics": {"mse": {"mean": 1.0, "ci95": None}}}
    runs = [made(root / name, accuracies(0.0)) for name in "ab"]
    wrong = made(root / "c", accuracies(0), **other, monitor={"metric": "mse", "mode": "min"})
    assert "--metric accuracy takes those of a folder that have it" in refused(
        capsys, "compare", str(root)
    )
    text = shown(capsys, str(root), "--metric=accuracy")
    assert [row["run"] for row in rows(capsys, str(root), "--metric=accuracy")] == ["a", "b"]
    assert f"left out, without accuracy: {wrong}" in text
    for named in ([*runs, wrong], [str(root), wrong]):
        assert "c has no metric 'accuracy'" in refused(
            capsys, "compare", *named, "--metric=accuracy"
        )
    assert "no metric 'accuracies'" in refused(capsys, "compare", str(root), "--metric=accuracies")


def test_a_validation_is_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts: dict[str, Any] = {"stage": "validation", "val_data": "checked"}
    runs = [
        made(tmp_path / "a", accuracies(0.0)),
        made(tmp_path / "b", accuracies(0.0), **facts),
        made(tmp_path / "c", accuracies(0.1), **facts),
        made(tmp_path / "d", accuracies(0.1), **facts | {"val_data": "other"}),
    ]
    found = rows(capsys, *runs[:2])
    assert [row["mark"] for row in found] == ["", "VALIDATION"]
    assert found[1]["compared"] == "unpaired"
    assert "unpaired: 2 (stage validation, not test)" in shown(capsys, *runs[:2])
    assert [row["compared"] for row in rows(capsys, *runs[1:])] == ["", "paired", "unpaired"]
    assert "accuracy on Glyphs, 5-way 1-shot, validation" in shown(capsys, *runs[1:])
    assert "has stage validation" in refused(capsys, "summary", *runs[:2])


def test_an_output_that_has_no_plus_minus(tmp_path: Path) -> None:
    one = made(tmp_path / "ä", accuracies(0.0))
    run = subprocess.run(
        [sys.executable, "-m", "fewshot", "compare", one],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert r"\xb1 95 % CI" in run.stdout
    assert r"| \xe4 " in run.stdout


def test_one_run_has_nothing_to_differ_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = made(tmp_path / "a", accuracies(0.0))
    text = shown(capsys, one)
    assert "accuracy (%)" in text
    assert "difference" not in text
    assert "rank" not in text
    assert {"difference", "rank"} <= {*rows(capsys, one)[0]}  # a program finds the same columns


@pytest.mark.parametrize(("command", "by"), [("rank", "source"), ("summary", "metric")])
def test_rank_and_summary_are_views(
    command: str, by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for seed in range(3):
        metrics = {"accuracy": {"mean": seed / 10, "ci95": 0.01}, "loss": {"mean": 1, "ci95": None}}
        facts: dict[str, Any] = {"seed_everything": seed, "sources": {"dtd": metrics}}
        runs.append(made(tmp_path / str(seed), accuracies(0.0), **facts))
    for options in ((), ("--format=csv",), ("--format=latex",), ("--metric=loss",)):
        capsys.readouterr()
        assert main([command, *runs, *options]) == 0
        expected = capsys.readouterr().out
        assert main(["compare", "--by", by, *runs, *options]) == 0
        assert capsys.readouterr().out == expected
        assert ("loss" in expected) == (by == "metric" or options == ("--metric=loss",))
        assert ("accuracy" in expected) == (options != ("--metric=loss",))
    assert main([command, *runs, "--format=csv"]) == 0
    lines = [*csv.reader(capsys.readouterr().out.splitlines())]
    assert {len(line) for line in lines} == {len(lines[0])}


def test_the_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made(tmp_path / name, accuracies(0.0)) for name in ("a", "$b_{")]
    runs.append(made(tmp_path / "c", [0.5, 0.6]))  # of unknown interval
    for name in ("runs.png", "runs.SVG"):
        shown(capsys, *runs, f"--plot={tmp_path / name}")
    with Image.open(tmp_path / "runs.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
        assert min(image.size) > 200
    assert ElementTree.parse(tmp_path / "runs.SVG").getroot().tag.endswith("svg")


def test_thirty_runs_take_less_than_two_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    padding = {"init_args": {f"argument{i}": float(i) for i in range(100)}}
    for i in range(30):
        config = {**CONFIG, "model": {**padding, "class_path": "fewshot.MAML"}, "extra": i}
        made(tmp_path / f"run{i}", accuracies(0.001 * i, seed=i), config)
    began = time.process_time()
    assert len(rows(capsys, str(tmp_path))) == 30
    assert time.process_time() - began < 2


def test_a_test_says_what_compare_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("--model=PrototypicalNetwork", "--data=GlyphsDataModule", "--data.queries=2")
    few = ("--data.test_episodes=4", "--trainer.accelerator=cpu", "--trainer.logger=false")
    quiet = ("--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path}")
    for backbone in (("Pixels",), ("Conv4", "--model.backbone.width=8")):
        one = f"--model.backbone={backbone[0]}"
        assert main(["test", *base, one, *backbone[1:], *few, *quiet]) == 0
    first, second = rows(capsys, str(tmp_path / "lightning_logs"))
    assert first["parameters"] == "0"
    # four convolutions without bias, and their normalisations' scales and shifts
    assert int(second["parameters"]) == 9 * 8 + 3 * 9 * 8 * 8 + 4 * 2 * 8
    assert 0 < float(first["seconds"]) < 60
    assert (first["mark"], second["mark"]) == ("", "UNTRAINED")
    assert second["compared"] == "paired"
    assert (first["model.backbone"], second["model.backbone"]) == ("Pixels", "Conv4")
