"""The measurements: their commands run, and what needs a GPU says so and runs nothing."""

import importlib.util
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewshot

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def script(name: str) -> Any:
    """The module of a file of benchmarks/, which is no package, and finds those beside it."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@pytest.fixture(scope="module")
def gpu() -> Any:
    return script("gpu")


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch, own_data_root: Path) -> Callable[..., None]:
    """`python benchmarks/schedule.py`, which sets the data's root of its process."""
    monkeypatch.setenv("FEWSHOT_DATA", str(own_data_root))  # and so back to it in the end

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["schedule.py", *arguments])
        script("schedule").main()

    return run


def test_the_schedule_gives_the_time_of_60_000_steps_and_of_the_warm_up_apart(
    schedule: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(
        "--steps=3", "--warmup=1",
        "--", "--model.compile=false", "--data.num_workers=0", "--data.meta_batch_size=2",
    )  # fmt: skip
    printed = capsys.readouterr().out
    line = re.fullmatch(
        r"maml_5way1shot_full on cpu: (\d+\.\d{4}) s a step, (\d+\.\d) min for 60000"
        r" \(and (\d+\.\d) s until step 1\)\n",
        printed,
    )
    assert line, printed
    step, minutes, first = map(float, line.groups())
    assert minutes == pytest.approx(1000 * step, abs=0.1)
    assert first > step > 0


@pytest.mark.parametrize("warmup", ["0", "3"])
def test_a_warm_up_that_leaves_no_step_is_refused(
    warmup: str, schedule: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        schedule("--steps=3", f"--warmup={warmup}")
    assert f"--warmup is {warmup} of 3 steps; set 1 to 2" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_without_a_gpu_nothing_is_run(
    arguments: list[str],
    gpu: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit, match=r"^there is no GPU that torch can use: nothing was run$"):
        gpu.main()
    assert capfd.readouterr().out == ""


def test_all_parts_together_have_nine_minutes(gpu: Any) -> None:
    assert sum(part.limit for part in gpu.PARTS) <= 9 * 60
    for part in gpu.PARTS:
        for file in (one for one in part.arguments if one.endswith(".py")):
            assert (BENCHMARKS.parent / file).is_file()


def test_a_part_that_takes_too_long_ends_with_all_that_it_has_started(
    gpu: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child = f"import time; time.sleep(2); open({str(tmp_path / 'alive')!r}, 'w')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert not gpu.run(gpu.Part("slow", ["-c", parent], 1))
    assert re.search(r"^--- slow: stopped: it may take 1 s, 1 s$", capfd.readouterr().out, re.M)
    time.sleep(2)
    assert not (tmp_path / "alive").exists()


@pytest.mark.parametrize(("status", "outcome"), [(0, "done"), (3, "exit status 3")])
def test_a_part_tells_how_it_ended(
    gpu: Any, status: int, outcome: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert gpu.run(gpu.Part("part", ["-c", f"raise SystemExit({status})"], 60)) is (status == 0)
    assert re.search(rf"^--- part: {outcome}, \d+ s$", capfd.readouterr().out, re.M)


def test_the_house_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    house = script("house")
    measured: list[tuple[str, ...]] = []

    def cost(root: Path, *command: str) -> tuple[str, str]:
        measured.append(command)
        return "0 s", "0 MB"

    monkeypatch.setattr(sys, "argv", ["house.py"])
    monkeypatch.setattr(house, "cost", cost)
    house.main()
    assert ("-c", "import fewshot") in measured
    assert ("-m", "fewshot", "fit", "--confg", "x") in measured
    printed = capsys.readouterr().out
    for bar in (
        r"modules that lie flat in fewshot/ +[0-6]$",
        r"imports against the order: pairs of rooms +0$",
        r"modules in circles of imports +0$",
        r"lines over 100 characters +0\.0 %$",
    ):
        assert re.search(f"(?m)^{bar}", printed), printed


def test_a_worse_house_shows(tmp_path: Path) -> None:
    house = script("house")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/architecture.md").write_text("```\n cli\n ↓\n tasks\n ↓\n errors\n```\n")
    for name, text in {
        "__init__.py": "",
        "errors.py": "",
        "cli/__init__.py": "",
        "cli/main.py": "from fewshot.tasks import base\nfrom fewshot import errors",
        "tasks/__init__.py": "",
        "tasks/base.py": "def late():\n    from fewshot.cli.main import run",
    }.items():
        (tmp_path / "fewshot" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "fewshot" / name).write_text(text)
    files = sorted((tmp_path / "fewshot").rglob("*.py"))
    assert house.against_the_order(tmp_path, files) == ({"tasks -> cli"}, 2)


def test_what_a_process_costs(tmp_path: Path) -> None:
    seconds, megabytes = script("house").cost(tmp_path, "-c", "x = b'1' * (60 << 20)")
    assert float(seconds.removesuffix(" s")) < 5
    assert float(megabytes.removesuffix(" MB")) > 60


def test_what_people_wait_for_is_shown_beside_its_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = script("waiting")
    asked: list[tuple[str, str, str]] = []

    def found_by(root: Path, name: str, data: str, _: bool) -> dict[str, Any]:
        asked.append((root.name, name, data))
        older = root == tmp_path
        losses = {"evaluation, R2D2": [0.1, 0.2 + older], "evaluation, RFS": [0.3]}
        return {"value": (4 if older else 1) + len(asked) / 100, "losses": losses.get(name)}

    def table(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["waiting.py", *arguments])
        waiting.main()
        printed: str = capsys.readouterr().out
        return [" ".join(line.split()) for line in printed.splitlines()]

    (tmp_path / "fewshot").mkdir()
    monkeypatch.setattr(waiting, "found_by", found_by)
    rows = ("--only", "R2D2", "RFS", "4800", "--rounds=3")
    assert table("--before", str(tmp_path), *rows)[1:] == [
        "evaluation, R2D2 4.03 1.04 s 0.26 <= 1.6: met same losses: False",
        "evaluation, RFS 4.09 1.10 s 0.27 <= 1.6: met same losses: True",
        "step, 4800 images of 28x28, an image 864.58 241.67 us 0.28 <= 420: met",
    ]
    here, there = waiting.HERE.name, tmp_path.name
    assert [root for root, *_ in asked[:6]] == [here, there, there, here, here, there]
    assert len({data for *_, data in asked}) == 2, "neither reads what the other has prepared"
    monkeypatch.setattr(waiting, "found_by", lambda *_: {"value": 301.0})
    assert table("--only", "tests")[1:] == [
        "tests, two workers (the clock) - 301.00 s - <= 300: missed"
    ]
    monkeypatch.setattr(waiting, "found_by", lambda *a: {"value": 0.5 if a[3] else 0.2})
    assert table("--only", "60-way")[1:] == [
        "easyfsl's 60-way step, in bfloat16 - 200.00 ms - 500.00 of easyfsl, 2.50 x >= 3: missed",
        "easyfsl's 60-way step, in float32 - 200.00 ms - 500.00 of easyfsl, 2.50 x >= 1.75: met",
    ]
    for wrong in (("--only", "nothing"), ("--before", str(tmp_path / "none"))):
        with pytest.raises(SystemExit):
            table(*wrong)
    assert (
        "--only nothing: no line's name holds it; there are: evaluation, PrototypicalNetwork; "
        in (err := capsys.readouterr().err)
    )
    assert "none, which holds no fewshot/" in err


def test_what_people_wait_for_is_measured(
    own_data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = script("waiting")
    monkeypatch.setenv("FEWSHOT_DATA", str(own_data_root))
    assert 0 < waiting.step(32, 16, 1)["value"] < 1
    monkeypatch.setattr(waiting, "PHOTOS", 400)
    assert 0 < waiting.folder_of_photos()["value"] < 5


@pytest.mark.parametrize("name", ["protonet", "baseline"])
def test_learners_are_timed_in_training_and_in_evaluation(name: str, own_data_root: Path) -> None:
    learners = script("learners")
    config = learners.CONFIGS / "glyphs" / f"{name}_5way1shot.yaml"
    small = ["--model.backbone.width=4", "--data.train_way=5", "--data.eval_batch_size=2"]
    speed = learners.measure(config, small, steps=2, episodes=6)
    assert min(speed.step, speed.training, speed.evaluation) > 0  # none is nan


def test_the_network_beside_easyfsl_is_ours(own_data_root: Path) -> None:
    """Equal layers and weights, equal episodes: both classify each query alike."""
    methods = pytest.importorskip("easyfsl.methods")
    beside = script("beside_easyfsl")
    benchmark = beside.data("Omniglot", 1)
    (episode,) = beside.their_loader(benchmark, 1)
    support, support_labels, query, query_labels, _ = episode
    assert (len(support), len(query)) == (5, 75)
    assert support_labels.tolist() == sorted(
        set(query_labels.tolist()), key=list(support_labels).index
    )
    learner = fewshot.PrototypicalNetwork(fewshot.Conv4(1), task=benchmark.task).eval()
    theirs = methods.PrototypicalNetworks(beside.network()).eval()
    weights = zip(learner.backbone.state_dict().values(), theirs.state_dict(), strict=True)
    theirs.load_state_dict({name: value for value, name in weights})
    with torch.no_grad():
        theirs.process_support_set(support, support_labels)
        ours = learner.predict(learner.adapt(fewshot.Examples(support, support_labels)), query)
        # squared distances here, distances there
        torch.testing.assert_close(
            -ours.clamp(max=0).neg().sqrt(), theirs(query), rtol=1e-3, atol=1e-3
        )
