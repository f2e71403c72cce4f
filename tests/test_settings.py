"""Training goes on with the settings that it began with, or is refused naming both values."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import FEW, QUIET, SINUSOID, fit
from every_learner import OF_LANGUAGE_MODELS, SMALL, TRAINED, TinyImages, pair
from lightning.pytorch import seed_everything
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR, SequentialLR, StepLR

from fewshot import MAML, MLP, FewshotError, MultiSourceDataModule, SinusoidDataModule
from fewshot.callbacks.checkpoint import LastCheckpoint
from fewshot.cli.main import main
from fewshot.engine.augmentation import Augmentation
from fewshot.hyperparameters import signatures
from fewshot.learners.settings import check_settings, settings

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:Detected call of `lr_scheduler.step:UserWarning",
)


def warmed_up(optimizer: Optimizer, steps: int = 3) -> SequentialLR:
    parts = [LinearLR(optimizer, total_iters=steps), StepLR(optimizer, 5)]
    return SequentialLR(optimizer, parts, [steps])


def train(
    root: Path, resume: Path | None = None, data: Any = None, flags: Any = None, **arguments: Any
) -> Path:
    """Two meta-steps an epoch: one epoch, or another one from a checkpoint on."""
    benchmark = SinusoidDataModule(**SIZES | (data or {}))
    learner = MAML(MLP(1, [4]), task=benchmark.task, **arguments)
    trainer = L.Trainer(
        max_epochs=1 if resume is None else 2,
        default_root_dir=root,
        logger=False,
        callbacks=[LastCheckpoint()],
        enable_progress_bar=False,
        enable_model_summary=False,
        **(flags or {}),
    )
    trainer.fit(learner, benchmark, ckpt_path=resume, weights_only=True)
    return root / "checkpoints/last.ckpt"


SIZES = {"shot": 5, "queries": 6, "meta_batch_size": 2, "train_episodes": 4, "val_episodes": 1}


@pytest.mark.parametrize(
    ("began", "goes_on", "told"),
    [
        (
            {"optimizer": lambda p: Adam(p, 1e-3), "data": {"shot": 2}},
            {"optimizer": lambda p: Adam(p, 1e-5), "data": {"shot": 2, "seed": 7, "train_shot": 3}},
            {
                "model.optimizer.lr": (1e-3, 1e-5),
                "data.seed": (0, 7),
                "data.train_shot": (2, 3),
            },
        ),
        (
            {"optimizer": lambda p: SGD(p, 0.1, momentum=0.5, weight_decay=0.1)},
            {"optimizer": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.2)},
            {"model.optimizer.momentum": (0.5, 0.9), "model.optimizer.weight_decay": (0.1, 0.2)},
        ),
        ({}, {"optimizer": SGD}, {"model.optimizer": ("Adam", "SGD")}),
        (
            {},
            {"lr_scheduler": lambda o: StepLR(o, 3)},
            {"model.lr_scheduler": (None, "StepLR")},
        ),
        (
            {"lr_scheduler": lambda o: StepLR(o, 3)},
            {"lr_scheduler": lambda o: StepLR(o, 4, 0.5)},
            {"model.lr_scheduler.step_size": (3, 4), "model.lr_scheduler.gamma": (0.1, 0.5)},
        ),
        (
            {"lr_scheduler": warmed_up},
            {"lr_scheduler": lambda o: warmed_up(o, 2)},
            {"model.lr_scheduler.schedulers.0.total_iters": (3, 2)},
        ),
        ({}, {"data": {"train_shots": (1, 2)}}, {"data.train_shots": (None, [1, 2])}),
        (
            {},
            {"data": {"queries": 3, "meta_batch_size": 1, "train_episodes": 2}},
            {
                "data.queries": (6, 3),
                "data.meta_batch_size": (2, 1),
                "data.train_episodes": (4, 2),
            },
        ),
        ({}, {"flags": {"limit_train_batches": 0.5}}, {"trainer.limit_train_batches": (1.0, 0.5)}),
        ({}, {"flags": {"overfit_batches": 1}}, {"trainer.overfit_batches": (0.0, 1)}),
    ],
)
def test_other_settings_are_refused_all_at_once(
    began: dict[str, Any],
    goes_on: dict[str, Any],
    told: dict[str, tuple[Any, Any]],
    tmp_path: Path,
) -> None:
    last = train(tmp_path, **began)
    before = last.read_bytes()
    with pytest.raises(FewshotError) as error:
        train(tmp_path, last, **goes_on)
    said = str(error.value)
    for name, (old, new) in told.items():
        assert f"{name} is {old} in the checkpoint and {new} now" in said
    extra = "trainer.overfit_batches" in told  # which sets limit_train_batches too
    assert said.count(" in the checkpoint and ") == len(told) + extra
    assert "give the checkpoint's, or begin a new run" in said
    assert last.read_bytes() == before
    train(tmp_path, last, **began)


@pytest.mark.parametrize(
    "free",
    [
        {},
        {"data": {"num_workers": 1, "eval_batch_size": 3, "test_episodes": 9}},
        {"data": {"train_shot": 5}},  # what it is where nothing is said
        {"inner_lr": 0.5, "gradient_clip": 1.0, "nonfinite": "skip"},  # which are in use
        {"flags": {"log_every_n_steps": 7, "precision": "64-true", "limit_val_batches": 0}},
    ],
)
def test_what_is_used_or_changes_no_weight_may_be_another(
    free: dict[str, Any], tmp_path: Path
) -> None:
    last = train(tmp_path)
    train(tmp_path, last, **free)
    assert torch.load(last, weights_only=True)["global_step"] == 4


def test_the_seed_counts_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.manual_seed(1)
    unasked = train(tmp_path / "unasked")
    for number in (2, 3):
        torch.manual_seed(number)
        train(tmp_path / "unasked", unasked)
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")  # so that it is as it was after the test
    seed_everything(4, verbose=False)
    asked = train(tmp_path / "asked")
    train(tmp_path / "asked", asked)  # the learner is not made right after the seed
    seed_everything(5, verbose=False)
    with pytest.raises(FewshotError, match="seed_everything is 4 in the checkpoint and 5 now;"):
        train(tmp_path / "asked", asked)


def test_a_checkpoint_that_does_not_say_is_told_by_its_state(tmp_path: Path) -> None:
    cases: dict[str, Any] = {"plain": {}, "scheduled": {"lr_scheduler": lambda o: StepLR(o, 1)}}
    for name, arguments in cases.items():
        last = train(tmp_path / name, **arguments)
        content = torch.load(last, weights_only=True)
        del content["fewshot"]["settings"]
        torch.save(content, last)
        with pytest.raises(FewshotError, match=r"model.optimizer.lr is 0.001 in .* and 0.1 now;"):
            train(tmp_path, last, optimizer=lambda p: Adam(p, 0.1), **arguments)
        train(tmp_path / name, last, **arguments)


def test_nothing_is_written_where_the_command_line_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path, *SINUSOID, "--model.optimizer=Adam", "--test_after_fit=false")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = ("--model.optimizer=Adam", "--model.optimizer.lr=0.1", "--seed_everything=3")
    args = (*SINUSOID, *other, *FEW, *QUIET, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert main(["fit", *args, f"--trainer.default_root_dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "model.optimizer.lr is 0.001 in the checkpoint and 0.1 now" in said
    assert "seed_everything is 0 in the checkpoint and 3 now;" in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (run / "config.yaml") in before


def test_arguments_that_have_arguments_are_compared_with_theirs() -> None:
    learner, _ = pair("MAML")
    none, flipped, shifted = (
        settings(learner, None, TinyImages(augment=augment))
        for augment in (None, Augmentation(flip=True), Augmentation(padding=2))
    )
    for held, now in ((none, flipped), (flipped, none)):
        with pytest.raises(FewshotError, match=r"data\.augment is .* in the checkpoint and "):
            check_settings(held, now)
    with pytest.raises(FewshotError, match=r"data\.augment\.padding is 0 .* and 2 now"):
        check_settings(flipped, shifted)


def test_other_classes_in_the_folder_are_seen_once_they_are_read() -> None:
    learner, _ = pair("MAML")
    benchmark = TinyImages(queries=2)
    unread = settings(learner, None, benchmark)
    benchmark.setup("fit")
    read = settings(learner, None, benchmark)
    check_settings(read, unread)
    check_settings(unread, read)
    benchmark.datasets["train"].counts[0] -= 1
    with pytest.raises(
        FewshotError, match=r"data.training_classes is 6 of 48 examples .* and 6 of"
    ):
        check_settings(read, settings(learner, None, benchmark))


def test_a_benchmark_of_benchmarks_says_theirs() -> None:
    images = TinyImages(way=2, shot=3, queries=2, num_workers=3)
    found = settings(pair("MAML")[0], None, MultiSourceDataModule({"tiny": images}, seed=4))
    assert found["data.benchmarks.tiny.shot"] == found["data.benchmarks.tiny.train_shot"] == 3
    assert found["data.seed"] == 4
    assert "data.benchmarks.tiny.num_workers" not in found


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in OF_LANGUAGE_MODELS])
def test_arguments_at_which_learned_values_begin_are_named(name: str) -> None:
    """An argument that changes what a checkpoint overwrites, and nothing else, has no effect."""

    def state(**given: Any) -> dict[str, torch.Tensor]:
        return dict(pair(name, given=SMALL.get(name, {}) | given)[0].named_parameters())

    learner, _ = pair(name)
    expected = state()
    for parameter in (p for level in signatures(type(learner)) for p in level):
        default = learner.init_args.get(parameter.name)
        if isinstance(default, float):
            other: Any = 0.9 * default
        elif isinstance(default, tuple) and all(isinstance(value, float) for value in default):
            other = tuple(0.9 * value for value in default)
        else:
            continue
        try:
            found = state(**{parameter.name: other})
        except FewshotError:  # as it goes with others alone
            continue
        moved = any(not torch.equal(found[n], value) for n, value in expected.items())
        assert moved == (parameter.name in learner.begins_at), parameter.name


def test_a_scale_that_is_learned_begins_there() -> None:
    for learned in (True, False):
        learner, _ = pair("PrototypicalNetwork", given={"learn_scale": learned})
        assert ("scale" in learner.begins_at) == learned
