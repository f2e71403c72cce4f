"""Lightning's own callbacks and tuners with manual optimization: right, or refused in one line."""

import csv
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_learner import TinyImages
from lightning.fabric.utilities.spike import TrainingSpikeException
from lightning.pytorch import callbacks as lightnings
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    SpikeDetection,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
    WeightAveraging,
    device_stats_monitor,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from fewshot import (
    ADML,
    ANIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    MLP,
    Baseline,
    FewshotError,
    MAMLPlusPlus,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
)
from fewshot.callbacks.checkpoint import LastCheckpoint
from fewshot.learners import MetaLearner

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Checkpoint directory .* exists and is not empty:UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:The dirpath has changed from:UserWarning"),
]
EPOCHS, STEPS = 4, 16
LEARNERS = [MAML, PrototypicalNetwork, Baseline]


def pair(cls: type[MetaLearner], **arguments: Any) -> tuple[MetaLearner, TinyImages]:
    """A tiny learner of always the same weights, and a benchmark of four steps an epoch."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "meta_batch_size": 2,
        "batch_size": 12,
        "eval_batch_size": 4,
        "train_episodes": 8,
        "val_episodes": 4,
        "test_episodes": 4,
    }
    data = TinyImages(way=3, shot=1, queries=2, **sizes)
    facts: dict[str, Any] = {"task": data.task} | (
        {"train_classes": 6} if issubclass(cls, Baseline) else {}
    )
    return cls(MLP(16, [8]), **facts, **arguments), data


def trainer(root: Path, *callbacks: Callback, **flags: Any) -> L.Trainer:
    given: dict[str, Any] = {
        "max_epochs": EPOCHS,
        "logger": False,
        "enable_checkpointing": False,
    } | flags
    return L.Trainer(
        default_root_dir=root,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **given,
    )


def weights(learner: MetaLearner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learner.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def trained(
    cls: type[MetaLearner], root: Path, *callbacks: Callback, **flags: Any
) -> tuple[L.Trainer, MetaLearner]:
    learner, data = pair(cls)
    resume = flags.pop("ckpt_path", None)
    run = trainer(root, *callbacks, **flags)
    run.fit(learner, data, ckpt_path=resume, weights_only=True)
    return run, learner


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: GradientAccumulationScheduler({0: 2}),
            "GradientAccumulationScheduler accumulates gradients over steps, but a meta-batch is one"
            " optimizer step; set data.meta_batch_size (data.batch_size)",
        ),
        (
            lambda: StochasticWeightAveraging(1e-2),
            "StochasticWeightAveraging trains on after its average under manual optimization; take"
            " WeightAveraging or EMAWeightAveraging, which are right here",
        ),
        (
            lambda: ModelCheckpoint(train_time_interval=timedelta(seconds=1)),
            "ModelCheckpoint has a train_time_interval, whose clock stands still under manual"
            " optimization; leave it out and set checkpoint.every_minutes, from Python"
            " LastCheckpoint(every_minutes=...)",
        ),
        (
            lambda: BatchSizeFinder(),
            "BatchSizeFinder changes batch_size, which is not in use here; set batch_arg_name:"
            " meta_batch_size",
        ),
        (
            lambda: BatchSizeFinder("binsearch", batch_arg_name="meta_batch_size"),
            "BatchSizeFinder tries sizes by bisection, of which train_episodes is no multiple; set"
            " mode: power",
        ),
        (
            lambda: BatchSizeFinder(batch_arg_name="meta_batch_size", init_val=3),
            "BatchSizeFinder doubles meta_batch_size from 3 on, but train_episodes 8 is no multiple"
            " of 3; set train_episodes to one, or init_val to one that divides it",
        ),
        (
            lambda: LearningRateFinder(attr_name="inner_lr"),
            "LearningRateFinder changes inner_lr, not the outer optimizer; set attr_name:"
            " learning_rate",
        ),
    ],
)
def test_what_is_not_right_is_refused_before_anything_is_done(
    make: Callable[[], Callback], told: str, tmp_path: Path
) -> None:
    learner, data = pair(MAML)
    before, callback = weights(learner), make()
    run = trainer(tmp_path, callback, enable_checkpointing=isinstance(callback, ModelCheckpoint))
    with pytest.raises(FewshotError) as error:
        run.fit(learner, data)
    assert str(error.value) == told
    assert same(weights(learner), before)
    assert not list(tmp_path.iterdir())


def test_flags_of_automatic_optimization_are_refused_together(tmp_path: Path) -> None:
    learner, data = pair(MAML)
    run = trainer(tmp_path, accumulate_grad_batches=2, gradient_clip_val=1.0)
    with pytest.raises(FewshotError) as error:
        run.fit(learner, data)
    assert str(error.value) == (
        "accumulate_grad_batches is 2, but a meta-batch is one optimizer step; set"
        " data.meta_batch_size (data.batch_size); gradient_clip_val is 1.0, which clips steps of"
        " automatic optimization alone; set model.gradient_clip"
    )
    run.test(learner, data, verbose=False)  # where they do nothing


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: ModelPruning("l1_unstructured", amount=0.5),
            "ModelPruning does not keep its masks in checkpoints, so that pruned weights would grow"
            " again; train in one go, or leave it out",
        ),
        (
            lambda: LearningRateFinder(num_training_steps=15),
            "LearningRateFinder would find a learning rate anew, which the checkpoint's optimizer"
            " does not take; leave it out and set the optimizer's lr to the one that was found",
        ),
    ],
)
def test_what_does_not_go_on_is_refused(
    make: Callable[[], Callback], told: str, tmp_path: Path
) -> None:
    flags: dict[str, Any] = {"max_epochs": 4, "enable_checkpointing": True}
    trained(PrototypicalNetwork, tmp_path, make(), LastCheckpoint(), **flags)
    flags |= {"ckpt_path": tmp_path / "checkpoints/last.ckpt", "max_epochs": 5}
    with pytest.raises(FewshotError) as error:
        trained(PrototypicalNetwork, tmp_path, make(), LastCheckpoint(), **flags)
    assert str(error.value) == told


def test_a_rate_that_was_found_is_a_setting(tmp_path: Path) -> None:
    finder = LearningRateFinder(num_training_steps=15, min_lr=1e-4)
    _, learner = trained(MAML, tmp_path, finder, LastCheckpoint(), enable_checkpointing=True)
    content = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert learner.learning_rate is not None
    assert content["fewshot"]["settings"]["model.optimizer.lr"] == learner.learning_rate


def test_every_callback_of_lightning_is_looked_at() -> None:
    """A new one of a new Lightning stands here once it has been tried."""
    tried = {
        *("BackboneFinetuning", "BaseFinetuning", "BasePredictionWriter", "BatchSizeFinder"),
        *("Callback", "Checkpoint", "DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping"),
        *("GradientAccumulationScheduler", "LambdaCallback", "LearningRateFinder"),
        *("LearningRateMonitor", "ModelCheckpoint", "ModelPruning", "ModelSummary"),
        *("OnExceptionCheckpoint", "ProgressBar", "RichModelSummary", "RichProgressBar"),
        *("SpikeDetection", "StochasticWeightAveraging", "TQDMProgressBar", "ThroughputMonitor"),
        *("Timer", "WeightAveraging"),
    }
    assert set(lightnings.__all__) == tried


# ---------------------------------------------------------------------- right


@pytest.mark.parametrize("cls", LEARNERS)
def test_early_stopping_ends_after_an_epoch_without_progress(
    cls: type[MetaLearner], tmp_path: Path
) -> None:
    run, _ = trained(cls, tmp_path, EarlyStopping("val/accuracy", 9.0, patience=0, mode="max"))
    assert (run.current_epoch, run.global_step) == (2, 8)


@pytest.mark.parametrize(
    "flags", [{"callbacks": [Timer("00:00:00:00")]}, {"max_time": "00:00:00:00"}]
)
def test_the_timer_ends_training(flags: dict[str, Any], tmp_path: Path) -> None:
    learner, data = pair(MAML)
    callbacks = flags.pop("callbacks", [])
    run = trainer(tmp_path, *callbacks, **flags)
    run.fit(learner, data)
    assert run.global_step < STEPS


@pytest.mark.filterwarnings("ignore:When using the `ThroughputMonitor`, you need to define")
def test_what_is_measured_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = {"cpu_percent": 25.0}
    monkeypatch.setattr(CPUAccelerator, "get_device_stats", lambda *args: stats)
    monkeypatch.setattr(device_stats_monitor, "_PSUTIL_AVAILABLE", True)
    monkeypatch.setattr("fewshot.learners.trainer_checks.find_spec", lambda name: name)
    logger = CSVLogger(tmp_path)
    measuring = (
        LearningRateMonitor(),
        ThroughputMonitor(lambda batch: batch.size, window_size=2),
        DeviceStatsMonitor(),
    )
    flags: dict[str, Any] = {"logger": logger, "log_every_n_steps": 1}
    trained(MAML, tmp_path, *measuring, **flags)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {name: [row[name] for row in rows if row[name]] for name in rows[0]}
    assert len(logged["lr-Adam"]) >= STEPS
    assert set(logged["lr-Adam"]) == {"0.001"}
    assert logged["DeviceStatsMonitor.on_train_batch_end/cpu_percent"] == ["25.0"] * STEPS
    samples = next(of for name, of in logged.items() if name.endswith("device/samples_per_sec"))
    assert len(samples) >= STEPS - 2
    assert min(map(float, samples)) > 0
    monkeypatch.setattr("fewshot.learners.trainer_checks.find_spec", lambda name: None)
    with pytest.raises(FewshotError, match="DeviceStatsMonitor needs psutil for the CPU; pip"):
        trained(MAML, tmp_path, DeviceStatsMonitor(), **flags)


@pytest.mark.parametrize("cls", [MetaSGD, MAMLPlusPlus, Reptile])
def test_pruning_is_refused_by_learners_that_keep_something_for_each_weight(
    cls: type[MetaLearner], tmp_path: Path
) -> None:
    told = (
        f"ModelPruning renames weights, which {cls.__name__} knows by name; leave it out, or take"
    )
    with pytest.raises(FewshotError, match=told):
        trained(cls, tmp_path, ModelPruning("l1_unstructured", amount=0.5), max_epochs=1)


@pytest.mark.filterwarnings("ignore:pruned weights cannot be vmapped over")  # where it is asked for
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (PrototypicalNetwork, {}),
        (Baseline, {}),
        *((MAML, {"episode_parallel": how}) for how in ("loop", "vmap")),
        *((cls, {}) for cls in (FOMAML, ANIL, ADML, ProtoMAML, CAVIA, IMAML)),
    ],
)
def test_pruned_weights_are_0_when_training_is_done(
    cls: type[MetaLearner], options: dict[str, Any], tmp_path: Path
) -> None:
    pruning = ModelPruning("l1_unstructured", amount=0.5)
    learner, data = pair(cls, **options)
    trainer(tmp_path, pruning, max_epochs=2).fit(learner, data)  # half, and half of what is left
    values = torch.cat([parameter.flatten() for parameter in learner.parameters()])
    assert 0.7 < float((values == 0).float().mean()) < 0.8


@pytest.mark.parametrize("cls", [MAML, Baseline])
def test_a_backbone_is_frozen_and_then_trained(cls: type[MetaLearner], tmp_path: Path) -> None:
    learner, data = pair(cls, optimizer=lambda parameters: SGD(parameters, 0.1))
    before, after = dict(zip(dict(learner.named_parameters()), weights(learner), strict=True)), {}

    class Look(Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            after[trainer.current_epoch] = {
                name: not torch.equal(p, before[name]) for name, p in pl_module.named_parameters()
            }

    trainer(tmp_path, BackboneFinetuning(2, backbone_initial_lr=0.1), Look()).fit(learner, data)
    for epoch, moved in after.items():
        assert moved == {n: epoch >= 2 or not n.startswith("backbone") for n in moved}


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda: BackboneFinetuning(2, backbone_initial_lr=1e-3),
        lambda: EMAWeightAveraging(decay=0.9),
        lambda: WeightAveraging(),
    ],
)
@pytest.mark.parametrize("cls", [MAML, Baseline])
def test_a_run_with_a_callback_goes_on_to_the_same_weights(
    cls: type[MetaLearner], make: Callable[[], Callback], epochs: int, tmp_path: Path
) -> None:
    _, whole = trained(cls, tmp_path, make())
    last, flags = tmp_path / "checkpoints/last.ckpt", {"enable_checkpointing": True}
    trained(cls, tmp_path, make(), LastCheckpoint(), max_epochs=epochs, **flags)
    _, learner = trained(cls, tmp_path, make(), LastCheckpoint(), ckpt_path=last, **flags)
    assert same(weights(learner), weights(whole))


@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("cls", LEARNERS)
def test_averaged_weights_are_the_average_and_training_does_not_see_them(
    cls: type[MetaLearner], decay: float | None, tmp_path: Path
) -> None:
    steps: list[list[Tensor]] = []
    judged: dict[int, list[Tensor]] = {}

    class Look(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            steps.append([p.double() for p in weights(args[1])])

        def on_validation_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
            judged[trainer.global_step] = weights(args[0])

    averaging = WeightAveraging() if decay is None else EMAWeightAveraging(decay=decay)
    run, learner = trained(cls, tmp_path, Look(), averaging, num_sanity_val_steps=0)
    _, plain = trained(cls, tmp_path)
    assert run.global_step == STEPS
    assert same([p.float() for p in steps[-1]], weights(plain))
    expected = steps[0]
    for number, step in enumerate(steps[1:], start=2):
        share = 1 / number if decay is None else 1 - decay
        expected = [old + share * (new - old) for old, new in zip(expected, step, strict=True)]
    for found in (weights(learner), judged[STEPS]):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*ckpt_path.*:UserWarning")
def test_a_checkpoint_of_an_exception_is_gone_on_from(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.global_step == 3:
                raise InterruptedError("on purpose")

    saving = OnExceptionCheckpoint(tmp_path, "failed")
    with pytest.raises(InterruptedError):
        trained(MAML, tmp_path, saving, Fails(), enable_checkpointing=True)
    _, learner = trained(MAML, tmp_path, ckpt_path=tmp_path / "failed.ckpt")
    assert same(weights(learner), weights(trained(MAML, tmp_path)[1]))


def test_a_spike_of_the_loss_is_seen(tmp_path: Path) -> None:
    class Wild(MAML):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * (1 if self.global_step != 6 else 100)

    with pytest.raises(TrainingSpikeException, match="batch 1"):
        trained(Wild, tmp_path, SpikeDetection(exclude_batches_path=tmp_path))
    assert json.loads((tmp_path / "skip_batches.json").read_text()) == [0, 1]


# ---------------------------------------------------------------------- tuners


@pytest.mark.parametrize("how", ["callback", "tuner"])
@pytest.mark.parametrize(("cls", "name"), [(MAML, "meta_batch_size"), (Baseline, "batch_size")])
def test_a_batch_size_is_found_and_training_is_as_if_it_had_been_given(
    how: str, cls: type[MetaLearner], name: str, tmp_path: Path
) -> None:
    learner, data = pair(cls)
    search: dict[str, Any] = {"max_trials": 3, "batch_arg_name": name, "steps_per_trial": 1}
    if how == "tuner":
        run = trainer(tmp_path)
        assert Tuner(run).scale_batch_size(learner, datamodule=data, **search) == 8
    else:
        run = trainer(tmp_path, BatchSizeFinder(**search))
    run.fit(learner, data)
    other, given = pair(cls)
    setattr(given, name, 8)
    expected = trainer(tmp_path)
    expected.fit(other, given)
    assert getattr(data, name) == 8
    assert run.global_step == expected.global_step
    assert same(weights(learner), weights(other))
    assert not list(tmp_path.glob(".scale*"))


def test_a_search_ends_at_an_epoch_of_one_step(tmp_path: Path) -> None:
    learner, data = pair(MAML)
    search: dict[str, Any] = {"batch_arg_name": "meta_batch_size", "steps_per_trial": 1}
    assert Tuner(trainer(tmp_path)).scale_batch_size(learner, datamodule=data, **search) == 8


def test_a_batch_size_for_evaluation_is_found(tmp_path: Path) -> None:
    learner, data = pair(PrototypicalNetwork)
    data.eval_batch_size = 1
    search: dict[str, Any] = {"method": "validate", "datamodule": data}
    tuner = Tuner(trainer(tmp_path))
    with pytest.raises(FewshotError, match="not in use here; set batch_arg_name: eval_batch_size"):
        tuner.scale_batch_size(learner, **search)
    tuner = Tuner(trainer(tmp_path))
    assert tuner.scale_batch_size(learner, batch_arg_name="eval_batch_size", **search) == 4
    assert data.eval_batch_size == 4


def cosine(optimizer: Optimizer) -> CosineAnnealingLR:
    return CosineAnnealingLR(optimizer, STEPS)


@pytest.mark.parametrize("scheduler", [None, cosine])
@pytest.mark.parametrize("how", ["callback", "tuner"])
@pytest.mark.parametrize("cls", LEARNERS)
def test_a_learning_rate_is_found_and_training_is_as_if_it_had_been_given(
    cls: type[MetaLearner], how: str, scheduler: Any, tmp_path: Path
) -> None:
    learner, data = pair(cls, lr_scheduler=scheduler)
    start = weights(learner)
    search: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-1}
    if how == "tuner":
        run = trainer(tmp_path)
        found = Tuner(run).lr_find(learner, datamodule=data, num_training=15, **search)
        assert same(weights(learner), start)
    else:
        finder = LearningRateFinder(num_training_steps=15, **search)
        run = trainer(tmp_path, finder)
    run.fit(learner, data)
    if how == "callback":
        found = finder.optimal_lr
    assert found is not None
    lr = found.suggestion()
    assert lr is not None
    other, _ = pair(cls, optimizer=lambda ps: torch.optim.Adam(ps, lr), lr_scheduler=scheduler)
    expected = trainer(tmp_path)
    expected.fit(other, data)
    assert learner.learning_rate == lr
    assert same(weights(learner), weights(other))
    assert not list(tmp_path.glob(".lr_find*"))
