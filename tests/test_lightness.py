"""What computes nothing answers at once: CPU time and memory, and neither torch nor Lightning."""

import importlib
import json
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fewshot.cli import late_metrics
from fewshot.cli.catalogue import benchmarks, learners, networks
from fewshot.cli.class_options import check_class_options
from fewshot.cli.definitions import arguments
from fewshot.hyperparameters import parameter_names

HEAVY = ("torch", "lightning", "torchmetrics", "matplotlib", "jsonargparse")
SPARE = 3
"""How many times its seconds a command may take here: the machine may be busy."""
COMMANDS = {
    "version": (("--version",), 0, 0.6),
    "help": (("--help",), 0, 0.6),
    "nothing": ((), 2, 0.6),
    "misspelt command": (("rnak",), 2, 0.6),
    "misspelt option": (("fit", "--confg", "x"), 2, 0.6),
    "misspelt second option": (("fit", "--config", "c", "--modle", "MAML"), 2, 0.6),
    "misspelt option of the Trainer": (("fit", "--trainer.max_epohcs=3"), 2, 0.6),
    "misspelt option of predict": (("predict", "--suport", "x"), 2, 0.6),
    "misspelt option of export": (("export", "--ckpt", "x"), 2, 0.6),
    "misspelt option of prepare": (("prepare", "--confg", "x"), 2, 0.6),
    "misspelt option of a learner": (("fit", "--model", "MAML", "--model.inner_lrr=1"), 2, 0.6),
    "misspelt option of a benchmark": (
        ("test", "--data=GlyphsDataModule", "--data.init_args.wya", "5"),
        2,
        0.6,
    ),
    "misspelt option of a backbone": (
        ("fit", "--model.backbone", "Conv4", "--model.backbone.widht", "5"),
        2,
        0.6,
    ),
    "misspelt config": (("fit", "--config", "glyphs/protonet"), 2, 0.6),
    "list": (("list",), 0, 1.0),
    "list configs": (("list", "configs"), 0, 1.0),
    "reproduce --list": (("reproduce", "--list"), 0, 1.2),
    "reproduce of nothing known": (("reproduce", "omniglot/mmal_5way1shot"), 2, 0.6),
    "compare": (("compare", "run0", "run1"), 0, 0.8),
    "check": (("check", "photos"), 0, 0.8),
    "cache": (("cache",), 0, 0.6),
    "check of texts": (("check", "texts.csv"), 0, 0.8),
    "rank": (("rank", "sources0", "sources1"), 0, 0.6),
    "summary": (("summary", "run0", "run1"), 0, 0.6),
    "sweep": (
        (
            *(
                "sweep",
                "--model",
                "MAML",
                "ANIL",
                "--data",
                "Glyphs",
                "--seed_everything",
                "0",
                "1",
            ),
            "--dry_run",
        ),
        0,
        0.8,
    ),
    "sweep of nothing": (("sweep", "--config", "glyphs/protonet_5way1shot"), 2, 0.6),
}
PROGRAM = """
import json, resource, sys
from pathlib import Path
from fewshot.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in HEAVY if name in sys.modules]
print(json.dumps([code, used.ru_utime + used.ru_stime, HIGHEST, heavy]))
"""
# not `ru_maxrss`, which a process has from what started it
HIGHEST = (
    "int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) / 1024"
    if sys.platform == "linux"
    else "0"
)


def run_folder(folder: Path, accuracy: float, seed: int) -> None:
    """A tested run, as far as `compare`, `rank` and `summary` look at it."""
    facts = {"benchmark": "Glyphs", "learner": "MAML", "way": 5, "shot": 1, "split": None}
    metrics = {"accuracy": {"mean": accuracy, "ci95": 0.01}}
    folder.mkdir()
    content = {**facts, "seed": seed, "metrics": metrics}
    if folder.name.startswith("sources"):
        content["sources"] = {"one": metrics, "other": metrics}
    (folder / "results.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_computes_nothing(name: str, tmp_path: Path) -> None:
    args, code, seconds = COMMANDS[name]
    for seed in (0, 1):
        run_folder(tmp_path / f"run{seed}", 0.5 + seed / 10, seed)
        run_folder(tmp_path / f"sources{seed}", 0.5 + seed / 10, seed)
    for number in range(6):
        (tmp_path / f"photos/class{number}").mkdir(parents=True)
        for image in range(2):
            Image.new("L", (4, 4)).save(tmp_path / f"photos/class{number}/{image}.png")
    texts = [f"text {number},class{number % 6}" for number in range(12)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *texts]))
    program = PROGRAM.replace("HEAVY", repr(HEAVY)).replace("HIGHEST", HIGHEST)
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    got, used, megabytes, heavy = json.loads(done.stdout.splitlines()[-1])
    assert got == code, done.stdout + done.stderr
    assert heavy == []
    assert megabytes < 100
    assert used < SPARE * seconds


def test_importing_the_package() -> None:
    program = (
        "import resource, sys, fewshot; used = resource.getrusage(resource.RUSAGE_SELF); from"
        f" pathlib import Path; print(used.ru_utime + used.ru_stime, {HIGHEST},"
        f" [n for n in {HEAVY} if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    seconds, megabytes, heavy = done.stdout.split(maxsplit=2)
    assert heavy.strip() == "[]"
    assert float(megabytes) < 40
    assert float(seconds) < SPARE * 0.2


def test_the_whole_of_a_process_is_light() -> None:
    """With the interpreter's start and end; of all that this process has waited for, the largest."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "fewshot", "--version"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SPARE * 0.6


LATE = """
import sys
from fewshot.cli.late_metrics import import_metrics_late
import_metrics_late()
from fewshot.cli import lightning
lightning.import_all()
late = {"scipy", "sklearn", "torchvision", "transformers", "timm", "torchmetrics.functional"}
assert not late & set(sys.modules), late & set(sys.modules)

import os, torchmetrics, torch
from lightning.pytorch.core.module import Metric, MetricCollection
if not (child := os.fork()):  # a part of it first, as our learners ask for it
    from torchmetrics.functional.classification import binary_auroc
    assert binary_auroc(torch.tensor([0.1, 0.9]), torch.tensor([0, 1])) == 1
    assert issubclass(torchmetrics.Accuracy, Metric)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert torchmetrics.__version__[0].isdigit() and not late & set(sys.modules)
from torchmetrics import Accuracy, MeanMetric
from torchmetrics.text import EditDistance
assert Metric is torchmetrics.Metric and MetricCollection is torchmetrics.MetricCollection
assert issubclass(EditDistance, Metric) and torchmetrics.text.EditDistance is EditDistance
assert torchmetrics.functional.text.edit_distance(["rain"], ["shine"]) == 3
held = MetricCollection([MeanMetric(), EditDistance()])
assert Accuracy(task="binary")(torch.ones(2), torch.tensor([0, 1])) == 0.5
assert torchmetrics._logger.handlers and type(torchmetrics.__loader__).__name__ == "SourceFileLoader"
assert not hasattr(torchmetrics, "nothing_of_it")
"""


def test_a_run_imports_no_metrics_but_who_uses_them_finds_all() -> None:
    """A canary too: where torchmetrics has other parts, it is imported whole, and this fails."""
    subprocess.run([sys.executable, "-c", LATE], check=True)


@pytest.mark.parametrize(
    ("metric", "whole"),
    [
        ("class Metric: pass", False),
        ("from fake_metrics import of_another_version\nclass Metric: pass", True),
        ("class Metrics: pass", True),
    ],
)
def test_metrics_whose_parts_are_others_are_imported_whole(
    metric: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "fake_metrics"
    package.mkdir()
    (package / "metric.py").write_text(metric)
    (package / "__init__.py").write_text(
        "of_another_version = __version__ = 1\nfrom fake_metrics import metric\nlater = [metric]"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(late_metrics, "PACKAGE", "fake_metrics")
    monkeypatch.setattr(late_metrics, "PARTS", {"Metric": "metric"})
    late_metrics.import_metrics_late()
    late_metrics.import_metrics_late()
    assert not importlib.util.find_spec("no_such_module")
    fake: Any = importlib.import_module("fake_metrics")
    assert ("later" in vars(fake)) == whole
    assert fake.later == [sys.modules["fake_metrics.metric"]] == [fake.metric]
    assert not any(isinstance(finder, late_metrics._Finder) for finder in sys.meta_path)
    for name in ("fake_metrics.metric", "fake_metrics"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_no_option_of_lightnings_is_refused(command: str) -> None:
    from fewshot.cli import lightning
    from fewshot.cli.arguments import check_options

    class Parser(lightning.FewshotCLI):
        def parse_arguments(self, parser: object, args: object) -> None:
            raise KeyboardInterrupt  # the parser is complete then

        def setup_parser(self, *args: object, **kwargs: object) -> None:
            super().setup_parser(*args, **kwargs)
            options.extend(
                option
                for action in self._parser(command)._actions
                for option in action.option_strings
                if option.startswith("--")
            )

    options: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        Parser([command], ExitStack())
    assert len(options) > 50
    check_options(command, options)
    assert {"--config", "--trainer.max_epochs", "--ckpt_path", "--print_config"} <= {*options}


def test_the_arguments_of_every_class_are_read_from_the_source() -> None:
    for entry in (*benchmarks(), *learners(), *networks()):
        assert sorted(a.name for a in arguments(entry.name)) == sorted(
            {*parameter_names(entry.cls)}
        ), entry.name


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "MAML", "--model.inner_lr", "1", "--model.backbone.width", "3"),
        ("--model.class_path=fewshot.MAML", "--model.init_args.inner_lr=1", "--model.help"),
        ("--model.backbone", "resnet18", "--model.backbone.normalised", "x"),  # a short name
        ("--model", "my.MAML", "--model.inner_lrr", "1"),  # a class of the user's own
        ("--model.backbone", "MLP", "--model.backbone.hidden+=[3]", "--model.optimizer.lrr", "1"),
        ("--data", "GlyphsDataModule", "--data.way", "--model.nothing"),
    ],
)
def test_what_cannot_be_judged_from_here_is_left_to_the_parser(options: tuple[str, ...]) -> None:
    check_class_options(options)
