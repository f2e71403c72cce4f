"""Checkpoints are written whole, say who wrote them, and are read as plain values alone."""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import FEW, QUIET, SINUSOID, fit
from every_learner import pair

import fewshot
from fewshot import MAML, MLP, FewshotError, SinusoidDataModule
from fewshot.cli.main import main
from fewshot.learners.checkpoints import WholeFiles

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fit(tmp_path_factory.mktemp("run"), *SINUSOID, "--test_after_fit=false")
    return run / "checkpoints/last.ckpt"


def content(checkpoint: Path) -> dict[str, Any]:
    held = torch.load(checkpoint, weights_only=True)
    assert isinstance(held, dict)
    return held


def trainer(root: Path) -> L.Trainer:
    return L.Trainer(
        max_epochs=2, default_root_dir=root, logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False, accelerator="cpu", enable_checkpointing=False,
    )  # fmt: skip


def test_a_checkpoint_says_who_wrote_it(checkpoint: Path) -> None:
    held = content(checkpoint)["fewshot"]
    assert (held["version"], held["learner"]) == (fewshot.__version__, "MAML")


# ---------------------------------------------------------------------- a malicious pickle


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def evil(checkpoint: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint right but for one entry, and the folder that it makes where it is trusted."""
    folder, file = tmp_path / "evil", tmp_path / "evil.ckpt"
    torch.save({**content(checkpoint), "hidden": Evil(folder)}, file)
    torch.load(file, weights_only=False)
    assert folder.is_dir(), "the pickle is malicious"
    folder.rmdir()
    return file, folder


@pytest.mark.parametrize("command", ["fit", "test", "validate", "predict"])
def test_no_command_runs_what_a_checkpoint_hides(
    command: str, evil: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main([command, *SINUSOID, *FEW, *QUIET, f"--ckpt_path={evil[0]}", root]) == 2
    assert (
        f"fewshot: error: {evil[0]} is no checkpoint, or a damaged one" in capsys.readouterr().err
    )
    assert (
        main(
            [
                command,
                *SINUSOID,
                *FEW,
                *QUIET,
                f"--ckpt_path={evil[0]}",
                "--weights_only=false",
                root,
            ]
        )
        == 2
    )
    assert (
        "weights_only is false, but a checkpoint holds plain values alone"
        in capsys.readouterr().err
    )
    assert not evil[1].exists()


def test_nor_does_weights(
    evil: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (
        "--model=SimpleShot",
        "--model.backbone=MLP",
        "--data=GlyphsDataModule",
        f"--model.weights={evil[0]}",
    )
    assert main(["test", *args, *FEW, *QUIET, f"--trainer.default_root_dir={tmp_path}"]) == 2
    assert f"{evil[0]} is no checkpoint, or a damaged one" in capsys.readouterr().err
    assert not evil[1].exists()


@pytest.mark.parametrize("weights_only", [None, False, True])
def test_nor_does_python(
    weights_only: bool | None, evil: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(FewshotError, match="is no checkpoint, or a damaged one"):
        MAML.load_from_checkpoint(evil[0])
    data = SinusoidDataModule(train_episodes=4, meta_batch_size=4, val_episodes=2)
    learner = MAML(MLP(1, (40, 40)), task=data.task)
    with pytest.raises(FewshotError, match="is no checkpoint, or a damaged one"):
        trainer(tmp_path).fit(learner, data, ckpt_path=evil[0], weights_only=weights_only)
    assert not evil[1].exists()


# ---------------------------------------------------------------------- earlier formats


def test_the_first_format_loads_and_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    held = content(checkpoint)
    held["fewshot"] = {"version": "0.1.0", "learner": "MAML"}  # neither `seed` nor `skipped`
    assert held["hyper_parameters"]["backbone"]["class_path"] == "fewshot.MLP"
    # where its file was: no name of a file that is no more may be the end of a checkpoint
    held["hyper_parameters"]["backbone"]["class_path"] = "fewshot.networks.perceptron.MLP"
    old = tmp_path / "old.ckpt"
    torch.save(held, old)
    loaded = MAML.load_from_checkpoint(old)
    assert all(
        torch.equal(value, held["state_dict"][name]) for name, value in loaded.state_dict().items()
    )
    run = fit(
        tmp_path,
        *SINUSOID,
        f"--ckpt_path={old}",
        "--trainer.max_epochs=2",
        "--test_after_fit=false",
    )
    assert content(run / "checkpoints/last.ckpt")["global_step"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("fewshot"), "the checkpoint was not written by fewshot"),
        (
            lambda held: held.pop("state_dict"),
            "holds no weights; give one that `fewshot fit` wrote",
        ),
        (
            lambda held: held["hyper_parameters"].update(rate_of_old=1),
            "argument rate_of_old, which MAML of fewshot .* does not have",
        ),
    ],
    ids=["no learner", "no weights", "an argument that is no more"],
)
def test_other_formats_are_refused_in_one_line(
    change: Any, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    held = content(checkpoint)
    change(held)
    old = tmp_path / "old.ckpt"
    torch.save(held, old)
    with pytest.raises(FewshotError, match=message) as refusal:
        MAML.load_from_checkpoint(old)
    assert "\n" not in str(refusal.value)


# ---------------------------------------------------------------------- written whole


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        FewshotError, match=r"cannot write the checkpoint .*last.ckpt \(No space left on device\)"
    ):
        WholeFiles().save_checkpoint({"step": 2}, path)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert content(path) == {"step": 1}


def test_learners_write_so_unless_the_user_has_a_way_of_his_own(tmp_path: Path) -> None:
    data = SinusoidDataModule(train_episodes=4, meta_batch_size=4, val_episodes=2)
    ways: list[tuple[list[Any], type]] = [([], WholeFiles), ([OwnFiles()], OwnFiles)]
    for plugins, kind in ways:
        run = L.Trainer(max_steps=1, default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
            enable_model_summary=False, plugins=plugins, accelerator="cpu", enable_checkpointing=False,
            use_distributed_sampler=False)  # fmt: skip
        run.fit(MAML(MLP(1, (4,)), task=data.task), data)
        assert type(run.strategy.checkpoint_io) is kind


class OwnFiles(WholeFiles):
    """Not the library's."""


# ---------------------------------------------------------------------- which one


def test_best_and_last_by_name(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = checkpoint.parents[3]
    args = (*SINUSOID, *FEW, *QUIET, f"--trainer.default_root_dir={root}")
    for name in ("best", "last"):
        assert main(["validate", *args, f"--ckpt_path={name}"]) == 0
        assert f"{checkpoint.parent}/{name}.ckpt" in caplog.text
    assert (
        main(
            [
                "test",
                *SINUSOID,
                *FEW,
                *QUIET,
                f"--trainer.default_root_dir={tmp_path}",
                "--ckpt_path=best",
            ]
        )
        == 2
    )
    assert (
        f"ckpt_path is 'best', but no run below {tmp_path}/lightning_logs has a best.ckpt; give its"
        in capsys.readouterr().err
    )


def test_wrong_intervals_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("every_n_steps=0", "every_minutes=-1"):
        assert (
            main(
                [
                    "fit",
                    *SINUSOID,
                    f"--checkpoint.{option}",
                    f"--trainer.default_root_dir={tmp_path}",
                ]
            )
            == 2
        )
        assert f"{option.replace('=', ' is ')}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["MAML", "MANN", "MatchingNetwork", "Reptile", "SNAIL"])
def test_every_family_begins_with_another_learners_backbone(name: str, tmp_path: Path) -> None:
    source, benchmark = pair("PrototypicalNetwork")
    writer = trainer(tmp_path)
    writer.strategy.connect(source)
    writer.save_checkpoint(tmp_path / "source.ckpt")
    learner, _ = pair(
        name, seed=1, candidates=[benchmark], given={"weights": str(tmp_path / "source.ckpt")}
    )
    held, taken = source.backbone.state_dict(), learner.backbone.state_dict()
    assert held.keys() == taken.keys()
    assert all(torch.equal(taken[key], value) for key, value in held.items())


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("backbone", {"class_path": "PATH", "init_args": {}}),
        (
            "backbone",
            {
                "class_path": "fewshot.MLP",
                "init_args": {"hidden": [{"class_path": "PATH", "init_args": {}}]},
            },
        ),
        ("head", {"class_path": "PATH", "init_args": {}}),
        ("attack", {"class_path": "PATH", "init_args": {}}),
        ("task", {"kind": "PATH"}),
        ("task", {"kind": {"class_path": "PATH", "init_args": {}}}),
        ("optimizer", {"class_path": "PATH", "init_args": {"lr": 1.0}}),
    ],
)
def test_a_checkpoint_imports_nothing(
    argument: str, value: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever names a class, at whatever depth: what is in the file must not run."""
    # one in a package whose own `__getattr__` would import
    (tmp_path / "lazily").mkdir()
    (tmp_path / "lazily/__init__.py").write_text(
        "from importlib import import_module\n"
        "def __getattr__(name): return getattr(import_module('beside'), name)\n"
    )
    (tmp_path / "beside.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('RAN').touch()\nclass X: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("lazily")
    run = fit(tmp_path, *SINUSOID, "--test_after_fit=false")
    path = run / "checkpoints/last.ckpt"
    held = torch.load(path, weights_only=True)
    for named in ("beside.X", "lazily.X", "fewshot.__main__.X"):
        text = json.dumps(value).replace("PATH", named)
        held["hyper_parameters"][argument] = json.loads(text)
        torch.save(held, path)
        for load in (fewshot.load, MAML.load_from_checkpoint):
            with pytest.raises(FewshotError, match=f"checkpoint's {argument} is {named}, "):
                load(path)
    assert not (tmp_path / "RAN").exists()
    assert "beside" not in sys.modules
