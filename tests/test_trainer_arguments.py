"""What the command line makes of the Trainer's arguments, and of processes that torchrun starts."""

import inspect
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Optional, Union

import lightning as L
import pytest
import torch
import yaml
from commands import FEW, QUIET, SINUSOID, results
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from fewshot import MAML, MLP, SinusoidDataModule
from fewshot.cli.main import main
from fewshot.cli.trainer_arguments import check_trainer, launched, planned_steps
from fewshot.errors import FewshotError
from fewshot.learners.optimization_check import check_optimization, tell_of_a_rise

HERE = Path(__file__).resolve().parent
MISSPELT: dict[str, Any] = {"setp_size": 1}
DEFAULTS: dict[str, Any] = {
    "max_epochs": None,
    "max_steps": -1,
    "num_nodes": 1,
    "devices": "auto",
    "accelerator": "auto",
    "strategy": "auto",
    "limit_train_batches": None,
    "overfit_batches": 0.0,
    "accumulate_grad_batches": 1,
    "fast_dev_run": False,
    "reload_dataloaders_every_n_epochs": 0,
}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"devices": 2},
        {"devices": "-1", "accelerator": "gpu"},
        {"devices": [0, 1]},
        {"devices": "0,1"},
        {"strategy": "ddp_find_unused_parameters_true"},
        {"val_check_interval": 0.5},
        {"val_check_interval": 7},
        {"val_check_interval": "00:01:00:00"},
        {"max_time": "00:12:00:00"},
        {"limit_train_batches": 0.1},
        {"limit_train_batches": 12},
        {"max_epochs": -1, "num_sanity_val_steps": -1, "fast_dev_run": 3, "log_every_n_steps": 0},
        {"profiler": "simple", "gradient_clip_val": 0},
    ],
)
def test_what_means_something_is_taken(given: dict[str, Any]) -> None:
    check_trainer(DEFAULTS | given)


@pytest.mark.parametrize(
    "name", [*(f"limit_{stage}_batches" for stage in ("train", "val", "test")), "overfit_batches"]
)
def test_a_number_of_batches_is_none_of_their_share_whoever_imported_unions_before(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = inspect.unwrap(L.Trainer.__init__).__annotations__
    monkeypatch.setitem(annotations, name, Optional[Union[float, int]])  # noqa: UP007, UP045
    for given in ("1", "0.5"):
        with pytest.raises(SystemExit):
            main(["fit", *SINUSOID, f"--trainer.{name}={given}", "--print_config"])
        trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
        assert repr(trainer[name]) == given


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(FewshotError) as caught:
        check_trainer(DEFAULTS | {"max_epochs": -3, "devices": 0, "profiler": "simpel"})
    assert str(caught.value) == (
        "trainer.max_epochs is -3; set trainer.max_epochs >= -1; trainer.devices is 0; give auto, or"
        " a number of devices >= 1, -1 for all; trainer.profiler is 'simpel'; did you mean 'simple'?"
    )


@pytest.mark.parametrize(
    ("given", "epoch", "steps"),
    [
        ({}, 5, None),
        ({"max_steps": 7}, 5, 7),
        ({"max_epochs": 2}, 5, 10),
        ({"max_epochs": 2}, None, None),
        ({"max_epochs": 2, "max_steps": 7}, 5, 7),
        ({"max_epochs": 2, "limit_train_batches": 3}, 5, None),
        ({"fast_dev_run": True, "max_steps": 7}, 5, 1),
    ],
)
def test_the_steps_of_a_run(given: dict[str, Any], epoch: int | None, steps: int | None) -> None:
    assert planned_steps(DEFAULTS | given, epoch) == steps


# ---------------------------------------------------------------------- optimizers, schedulers


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "steps", "message"),
    [
        (partial(Adam, lr=-1.0), None, 1, "optimizer Adam(lr=-1.0) cannot be made: Invalid"),
        (
            partial(SGD, lr=float("inf")),
            None,
            1,
            "optimizer SGD(lr=inf) makes the learning rate inf",
        ),
        (Adam, partial(StepLR, step_size=0), 1, "lr_scheduler.step_size is 0; set step_size >= 1"),
        (Adam, partial(StepLR, step_size=-3), 1, "lr_scheduler.step_size is -3; set step_size"),
        (
            Adam,
            partial(StepLR, step_size=2, gamma=-1.0),
            9,
            "makes the learning rate -0.001 at meta-",
        ),
        (Adam, partial(CosineAnnealingLR, T_max=0), 1, "lr_scheduler.T_max is 0; set T_max >= 1"),
        (Adam, partial(OneCycleLR, max_lr=1.0, total_steps=5), 7, "fails at meta-step 6: Tried to"),
        (Adam, partial(StepLR, **MISSPELT), 1, "cannot be made: StepLR.__init__() got an unexp"),
    ],
)
def test_what_an_optimizer_does_not_do_is_told(
    optimizer: Any, scheduler: Any, steps: int, message: str
) -> None:
    with pytest.raises(FewshotError) as caught:
        check_optimization(optimizer, scheduler, steps)
    assert message in str(caught.value)
    assert str(caught.value).endswith(("; correct its arguments", " >= 1"))


@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        partial(StepLR, step_size=1),
        partial(OneCycleLR, max_lr=1.0, total_steps=8),
        partial(ReduceLROnPlateau, patience=2),
        lambda optimizer: 1 / 0,  # a user's own, which nobody tries
    ],
)
def test_what_it_does_is_taken(scheduler: Callable[..., Any] | None) -> None:
    check_optimization(partial(Adam, fused=False), scheduler, 7)
    check_optimization(partial(Adam), scheduler, None)
    own: Any = lambda parameters: 1 / 0  # noqa: E731  # as a notebook has it
    check_optimization(own, scheduler, 7)


def test_python_is_told_as_well(tmp_path: Path) -> None:
    benchmark = SinusoidDataModule(meta_batch_size=2, train_episodes=4, val_episodes=2)
    learner = MAML(MLP(in_features=1), task=benchmark.task, optimizer=partial(SGD, lr=-1.0))
    trainer = L.Trainer(max_steps=2, logger=False, accelerator="cpu", default_root_dir=tmp_path)
    with pytest.raises(FewshotError, match=r"SGD\(lr=-1.0\) cannot be made"):
        trainer.fit(learner, benchmark)


@pytest.mark.parametrize(("period", "rises"), [(3, True), (4, False), (9, False)])
def test_a_cosine_that_ends_before_the_run_is_told(
    period: int, rises: bool, tmp_path: Path
) -> None:
    benchmark = SinusoidDataModule(meta_batch_size=2, train_episodes=4, val_episodes=2)
    scheduler = partial(CosineAnnealingLR, T_max=period)
    learner = MAML(MLP(in_features=1), task=benchmark.task, lr_scheduler=scheduler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = L.Trainer(
            max_epochs=2, logger=False, accelerator="cpu", default_root_dir=tmp_path
        )
        trainer.fit(learner, benchmark)
    told = [str(warning.message) for warning in caught if "Cosine" in str(warning.message)]
    expected = "CosineAnnealingLR falls until meta-step 3 of 4, then rises; to fall throughout, set"
    assert told == [f"{expected} lr_scheduler.T_max: 4"] * rises


def test_the_end_of_a_cosine_is_told_in_full_and_not_where_a_run_has_none() -> None:
    scheduler = CosineAnnealingLR(SGD([torch.zeros(1)], 0.1), T_max=3)
    with pytest.warns(UserWarning, match=r"set lr_scheduler.T_max: 12345678$"):
        tell_of_a_rise(scheduler, 12_345_678)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_of_a_rise(scheduler, float("inf"))


def test_the_check_changes_no_random_number() -> None:
    before = torch.get_rng_state()
    check_optimization(Adam, partial(StepLR, step_size=1), 5)
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------------- before training begins


def test_what_the_test_would_refuse_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SinusoidDataModule, stage: str) -> Any:
        if stage == "test":
            raise FewshotError("the test split has no classes")
        return whole(self, stage)  # type: ignore[arg-type]

    whole = SinusoidDataModule.stream
    monkeypatch.setattr(SinusoidDataModule, "stream", refuse)
    args = [
        *SINUSOID,
        *FEW,
        *QUIET,
        "--trainer.max_steps=2",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    assert main(["fit", *args]) == 2
    assert "the test split has no classes" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))
    assert main(["fit", *args, "--test_after_fit=false"]) == 0


# ---------------------------------------------------------------------- torchrun

ELASTIC = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}


def test_torchrun_is_taken_at_its_word() -> None:
    assert launched(DEFAULTS, {}) == {}
    assert launched(DEFAULTS, ELASTIC) == {"devices": 2, "num_nodes": 2}
    assert launched(DEFAULTS | {"devices": "2", "num_nodes": 2}, ELASTIC) == {"num_nodes": 2}
    assert launched(DEFAULTS | {"devices": [0, 1]}, ELASTIC) == {"num_nodes": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"devices": 3}, "trainer.devices is 3, but torchrun starts 2 processes on this machine"),
        (
            {"devices": "0,"},
            "trainer.devices is 1, but torchrun starts 2 processes on this machine",
        ),
        (
            {"num_nodes": 3},
            "trainer.num_nodes is 3, but torchrun starts 2 machines; leave trainer.",
        ),
    ],
)
def test_other_numbers_than_torchruns_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError) as caught:
        launched(DEFAULTS | given, ELASTIC)
    assert str(caught.value).startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize(("episodes", "status"), [(3, 0), (1, 1)])
def test_torchrun(episodes: int, status: int, tmp_path: Path) -> None:
    args = [*SINUSOID, *FEW, *QUIET, "--trainer.max_steps=2", "--trainer.accelerator=cpu"]
    args += [f"--data.test_episodes={episodes}", f"--trainer.default_root_dir={tmp_path}"]
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "fewshot", "fit", *args),
        ],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == status, ran.stderr[-3000:]
    (run,) = (tmp_path / "lightning_logs").iterdir()
    if status == 0:
        assert results(run)["episodes"] == 3
    else:
        told = "fewshot: error: test_episodes is 1, too few for 2 processes; set it to 2 or more"
        assert told in ran.stderr
        assert not list(run.rglob("*.ckpt"))
