"""Private names of Lightning, all in one place: what is asked of it that it says nowhere else.

`PRIVATE` names them with their purpose; a test fails first, and says which, when a new Lightning
has taken one away. One is torch's: of the writer that Lightning's TensorBoardLogger has.
"""

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import lightning as L
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger

if TYPE_CHECKING:  # takes a while, which not every learner needs
    from torch.utils.tensorboard import FileWriter


class Private(NamedTuple):
    """A private name: the module and the class that have it, and what we need it for."""

    module: str
    owner: str
    name: str
    purpose: str


LOOPS, CONNECTORS = "lightning.pytorch.loops", "lightning.pytorch.trainer.connectors"
PRIVATE = (
    Private("lightning.pytorch", "Trainer", "_logger_connector", "whether a logger takes a step"),
    Private(
        f"{CONNECTORS}.logger_connector.logger_connector",
        "_LoggerConnector",
        "should_update_logs",
        "whether a logger takes a step",
    ),
    Private("lightning.pytorch", "Trainer", "_accelerator_connector", "the cluster a run is on"),
    Private(
        f"{CONNECTORS}.accelerator_connector",
        "_AcceleratorConnector",
        "cluster_environment",
        "the cluster a run is on",
    ),
    Private("lightning.pytorch", "Trainer", "_signal_connector", "stop between two steps"),
    Private(
        f"{CONNECTORS}.signal_connector",
        "_SignalConnector",
        "received_sigterm",
        "stop between two steps",
    ),
    Private(
        f"{LOOPS}.training_epoch_loop",
        "_TrainingEpochLoop",
        "_should_check_val_fx",
        "whether a validation follows",
    ),
    Private(
        f"{LOOPS}.training_epoch_loop",
        "_TrainingEpochLoop",
        "_batches_that_stepped",
        "the step that loggers are told",
    ),
    Private(f"{LOOPS}.fit_loop", "_FitLoop", "_data_fetcher", "whether a validation follows"),
    Private("lightning.pytorch", "LightningModule", "_trainer", "whether a Trainer is attached"),
    Private(
        "lightning.pytorch.callbacks",
        "ModelCheckpoint",
        "_save_none_monitor_checkpoint",
        "write last.ckpt",
    ),
    Private("lightning.pytorch.callbacks", "ModelCheckpoint", "_monitor_candidates", "the same"),
    Private(
        "lightning.pytorch.callbacks",
        "ModelCheckpoint",
        "_train_time_interval",
        "refuse a clock that stands still",
    ),
    *(
        Private("lightning.pytorch.callbacks", "BatchSizeFinder", name, "which sizes it tries")
        for name in ("_batch_arg_name", "_mode", "_init_val", "_max_trials", "_max_val")
    ),
    *(
        Private("lightning.pytorch.callbacks", "LearningRateFinder", name, "what it changes")
        for name in ("_attr_name", "_update_attr")
    ),
    Private("lightning.pytorch.cli", "LightningCLI", "_parser", "options of one subcommand"),
    Private("lightning.pytorch.cli", "LightningCLI", "_instantiate_trainer", "our callbacks"),
    Private(
        "lightning.pytorch.cli",
        "LightningCLI",
        "_prepare_subcommand_kwargs",
        "the file that --ckpt_path means",
    ),
    Private("lightning.pytorch.cli", "LightningCLI", "_parse_ckpt_path", "configs stay the user's"),
    Private("lightning.pytorch.loggers", "TensorBoardLogger", "_version", "a run's folder"),
    Private("lightning.pytorch.loggers", "CSVLogger", "_version", "a run's folder"),
    Private("lightning.pytorch.loggers", "MLFlowLogger", "_experiment_name", "where runs lie"),
    Private("torch.utils.tensorboard", "SummaryWriter", "_get_file_writer", "texts and HPARAMS"),
)


def missing() -> list[str]:
    """What the Lightning at hand lacks of `PRIVATE`, a line each."""
    return [f"{p.module}.{p.owner}.{p.name}: {p.purpose}" for p in PRIVATE if not _is_there(p)]


def _is_there(private: Private) -> bool:
    """Whether the class has the name, or its methods set such an attribute."""
    try:
        owner = getattr(importlib.import_module(private.module), private.owner)
    except (ImportError, AttributeError):
        return False
    methods = [inspect.unwrap(m) for c in owner.__mro__ for m in vars(c).values() if callable(m)]
    codes = [method.__code__ for method in methods if hasattr(method, "__code__")]
    return hasattr(owner, private.name) or any(private.name in code.co_names for code in codes)


def attached_trainer(module: L.LightningModule) -> L.Trainer | None:
    """The Trainer of a module; its public attribute `trainer` is an error where there is none."""
    return module._trainer


def logger_takes_step(trainer: L.Trainer) -> bool:
    """Whether loggers take the training step under way, as Lightning's own callbacks ask."""
    return bool(trainer._logger_connector.should_update_logs)


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether a validation comes right after the training step whose end it is."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def tell_loggers_the_right_step(trainer: L.Trainer) -> None:
    """Set the step that loggers are told: lightning 2.6 adds one when an epoch's end is resumed."""
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped = loop.batch_progress.total.completed


def cluster_environment(trainer: L.Trainer) -> ClusterEnvironment | None:
    """What the run's processes were started by."""
    found: ClusterEnvironment | None = trainer._accelerator_connector.cluster_environment
    return found


def stop_after_this_step(trainer: L.Trainer) -> None:
    """Have the training end when the step under way is logged, as after a SIGTERM."""
    trainer._signal_connector.received_sigterm = True


def write_checkpoint(callback: ModelCheckpoint, trainer: L.Trainer) -> None:
    """Have a checkpoint callback without a monitor write its file now."""
    callback._save_none_monitor_checkpoint(trainer, callback._monitor_candidates(trainer))


def given_version(logger: TensorBoardLogger | CSVLogger) -> str | None:
    """The name of the folder that a logger was told to write into; its `version` makes one up."""
    version = logger._version
    return f"version_{version}" if isinstance(version, int) else version


def set_version(logger: TensorBoardLogger | CSVLogger, folder: str) -> None:
    """Have a logger that has written nothing yet write into the folder of this name."""
    logger._version = folder


def file_writer(logger: TensorBoardLogger) -> "FileWriter":
    """What writes summaries of one's own; open, also where an earlier run's end has closed it."""
    found: FileWriter = logger.experiment._get_file_writer()
    return found


def experiment_name(logger: MLFlowLogger) -> str:
    """What the user calls an experiment of MLflow's; `name` asks its server for a number."""
    return str(logger._experiment_name)


def saves_by_the_clock(callback: ModelCheckpoint) -> bool:
    """Whether it was told to save as soon as some time has passed."""
    return callback._train_time_interval is not None


class SizeSearch(NamedTuple):
    """How a `BatchSizeFinder` searches: the attribute it sets, and the sizes it may try."""

    attribute: str
    mode: str
    first: int
    trials: int
    largest: int

    @classmethod
    def of(cls, callback: BatchSizeFinder) -> "SizeSearch":
        """Those of a callback."""
        sizes = callback._init_val, callback._max_trials, callback._max_val
        return cls(callback._batch_arg_name, callback._mode, *sizes)


def rate_search(callback: LearningRateFinder) -> tuple[str, bool]:
    """The attribute that is named for a found learning rate, and whether it is set at all."""
    return callback._attr_name, callback._update_attr


def is_of_a_tuner(trainer: L.Trainer) -> bool:
    """Whether what is loaded is what a search of Lightning's has set aside before it began."""
    return Path(trainer.ckpt_path or "").name.startswith((".lr_find_", ".scale_batch_size_"))
