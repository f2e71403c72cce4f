"""What the arguments of Lightning's Trainer may be, told before anything is built.

Lightning takes some that mean nothing, and stumbles over others in the middle of a run.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from lightning.pytorch.strategies import StrategyRegistry

from fewshot.arguments import Count, Natural, Range, fault
from fewshot.datamodules import EpisodicDataModule
from fewshot.errors import FewshotError, nearest
from fewshot.learners import MetaLearner
from fewshot.learners.optimization_check import check_optimization

All = Annotated[int, Range(-1)]
"""A number; -1 stands for all."""
Batches = Natural | Annotated[float, Range(0, 1, why=": a share, as it is no integer")]
HINTS: Mapping[str, Any] = {
    "max_epochs": All | None,
    "max_steps": All,
    "min_epochs": Natural | None,
    "min_steps": Natural | None,
    "num_nodes": Count,
    "limit_train_batches": Batches | None,
    "limit_val_batches": Batches | None,
    "limit_test_batches": Batches | None,
    "limit_predict_batches": Batches | None,
    "overfit_batches": Batches,
    "check_val_every_n_epoch": Count | None,
    "num_sanity_val_steps": All | None,
    "log_every_n_steps": Natural | None,
    "accumulate_grad_batches": Count,
    "gradient_clip_algorithm": Literal["norm", "value"] | None,
    "fast_dev_run": bool | Natural,
    "reload_dataloaders_every_n_epochs": Natural,
}
"""Those that are numbers and choices. The parser has checked their kinds alone."""
PROFILERS = ("simple", "advanced", "pytorch", "xla")
CLOCK = r"\d+:\d\d?:\d\d?:\d\d?"


def check_trainer(config: Mapping[str, Any]) -> None:
    """Check the arguments of the Trainer in a parsed config.

    Raises:
        FewshotError: one is out of its range, or is no choice; all that are, in one line.
    """
    told = [fault(f"trainer.{name}", config.get(name), hint) for name, hint in HINTS.items()]
    told += [check(config) for check in (_clip, _interval, _time, _devices, _strategy, _profiler)]
    if found := list(filter(None, told)):
        raise FewshotError("; ".join(found))


def _clip(config: Mapping[str, Any]) -> str | None:
    value = config.get("gradient_clip_val")
    if value is None or value == 0:
        return None
    return (
        f"trainer.gradient_clip_val is {value}, but learners clip by themselves; remove it and set"
        f" model.gradient_clip to {value if value > 0 else 'a number > 0'}"
    )


def _interval(config: Mapping[str, Any]) -> str | None:
    value = config.get("val_check_interval")
    if isinstance(value, str):
        return _clock("val_check_interval", value)
    if value is None or (isinstance(value, int) and value >= 1) or 0 < value <= 1:
        return None
    return (
        f"trainer.val_check_interval is {value}; give a number of batches >= 1, or a share of the"
        " epoch in (0, 1]"
    )


def _time(config: Mapping[str, Any]) -> str | None:
    value = config.get("max_time")
    return _clock("max_time", value) if isinstance(value, str) else None


def _clock(name: str, value: str) -> str | None:
    if re.fullmatch(CLOCK, value):
        return None
    return f"trainer.{name} is {value!r}; give days:hours:minutes:seconds, such as 00:12:00:00"


def _devices(config: Mapping[str, Any]) -> str | None:
    value = config.get("devices")
    text = str(value)
    number = re.fullmatch(r"-?\d+", text)
    least = 1 if config.get("accelerator") == "cpu" else -1
    if number and int(text) >= least and int(text) != 0:
        return None
    listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    if text in ("auto", "None") or listed or re.fullmatch(r"[\d, ]*,[\d, ]*", text):
        return None
    every = "" if least == 1 else ", -1 for all"
    return f"trainer.devices is {value!r}; give auto, or a number of devices >= 1{every}"


def _strategy(config: Mapping[str, Any]) -> str | None:
    value = config.get("strategy")
    known = ["auto", *StrategyRegistry.available_strategies()]
    if not isinstance(value, str) or value.lower() in known:
        return None
    return f"trainer.strategy is {value!r}{nearest(value, (n for n in known if '_' not in n))}"


def _profiler(config: Mapping[str, Any]) -> str | None:
    value = config.get("profiler")
    if not isinstance(value, str) or value in PROFILERS:
        return None
    return f"trainer.profiler is {value!r}{nearest(value, PROFILERS)}"


def check_plan(
    learner: MetaLearner, benchmark: EpisodicDataModule, config: Mapping[str, Any]
) -> None:
    """Check that the learner's optimizer and scheduler do the steps of the run.

    Raises:
        FewshotError: they cannot be made, or do not last.
    """
    if learner.trains_on == "nothing":
        return
    epoch = benchmark.episodes["train"] // benchmark.meta_batch_size
    steps = planned_steps(config, epoch if learner.trains_on == "episodes" else None)
    check_optimization(learner.optimizer, learner.lr_scheduler, steps)


def planned_steps(config: Mapping[str, Any], epoch: int | None) -> int | None:
    """Meta-steps of a run, where its config tells them.

    Args:
        config: the Trainer's arguments.
        epoch: meta-steps of an epoch; None: unknown.
    """
    if config["fast_dev_run"]:
        return int(config["fast_dev_run"])
    limits = [config["max_steps"]] if config["max_steps"] >= 0 else []
    whole = config["limit_train_batches"] in (None, 1.0) and not config["overfit_batches"]
    if epoch is not None and whole and (config["max_epochs"] or -1) > 0:
        limits.append(config["max_epochs"] * epoch)
    return min(limits, default=None)


def launched(config: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, int]:
    """The devices and nodes that `torchrun` stands for: as many processes as it starts.

    Lightning would go by the machine, and on one device start as many runs as there are processes.

    Raises:
        FewshotError: the config says other numbers.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        return {}
    local = int(environment.get("LOCAL_WORLD_SIZE", 1))
    nodes = int(environment.get("WORLD_SIZE", local)) // local
    asked = _count(config["devices"])
    for name, value, started in (
        ("devices", asked, local),
        ("num_nodes", config["num_nodes"] if config["num_nodes"] != 1 else None, nodes),
    ):
        if value is not None and value != started:
            what = "processes on this machine" if name == "devices" else "machines"
            raise FewshotError(
                f"trainer.{name} is {value}, but torchrun starts {started} {what}; leave"
                f" trainer.{name} out, or start {value}"
            )
    return {"devices": local, "num_nodes": nodes} if asked is None else {"num_nodes": nodes}


def _count(devices: Any) -> int | None:
    """How many devices a value means; None where it leaves that open."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if re.fullmatch(r"\d+", text):
        return int(text)
    return len(list(filter(None, text.split(",")))) if "," in text else None
