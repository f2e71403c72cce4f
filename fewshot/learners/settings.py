"""What made a run's weights, as plain values: so that no run goes on with other settings unsaid.

A checkpoint's state takes the place of what the command line or a script says: the optimizer's
numbers, the schedule, the seed, the start of learned numbers. Its position is one in a list of
episodes, which is a function of the benchmark's arguments.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import lightning as L
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fewshot.errors import FewshotError
from fewshot.hyperparameters import describe

FLAGS = ("limit_train_batches", "overfit_batches")
"""The Trainer's that say which episodes an epoch of training is made of."""
NOT_COMPARED = ("params", "initial_lr", "last_epoch", "base_lrs", "last_lr")
"""What optimizers and schedulers hold that is no setting, or says the same as another."""
PLAIN = (type(None), bool, int, float, str)


def settings(
    learner: Any, made: Any, benchmark: Any = None, trainer: L.Trainer | None = None
) -> dict[str, Any]:
    """The settings of a training by their names on the command line.

    Args:
        learner: a `MetaLearner`.
        made: what its `configure_optimizers` gives; None leaves the optimizer out.
        benchmark: the DataModule, if there is one.
        trainer: the Trainer, if it is known.
    """
    found: dict[str, Any] = {"model.weights": learner.weights_file}
    found |= _members("model", _beginnings(learner))
    for optimizer in _instances(made, Optimizer):
        found["model.optimizer"] = type(optimizer).__name__
        found |= _of_groups(optimizer.param_groups)
    if made is not None:
        found["model.lr_scheduler"] = None
    for scheduler in _instances(made, LRScheduler):
        found["model.lr_scheduler"] = type(scheduler).__name__
        found |= _members("model.lr_scheduler", scheduler.state_dict())
    if hasattr(benchmark, "settings"):
        found |= {"data": type(benchmark).__name__, **_members("data", benchmark.settings())}
    if trainer is not None:
        # in words: 1 is a batch, 1.0 is all of them
        found |= {f"trainer.{flag}": str(getattr(trainer, flag)) for flag in FLAGS}
    # what a script does not seed is the checkpoint's, and contradicts nothing
    if os.environ.get("PL_GLOBAL_SEED") == str(learner.made_with_seed):
        found["seed_everything"] = learner.made_with_seed
    return found


def held_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that made a checkpoint; of one that does not say, what its state shows."""
    said: dict[str, Any] | None = checkpoint.get("fewshot", {}).get("settings")
    if said is not None:
        return said
    states, scheduled = checkpoint.get("optimizer_states", ()), checkpoint.get("lr_schedulers")
    groups = [group for state in states for group in state["param_groups"]]
    if scheduled:  # a schedule changes what stands in the groups, but not where it began
        groups = [{"lr": group["initial_lr"]} for group in groups if "initial_lr" in group]
    return _of_groups(groups)


def check_settings(held: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that training goes on as it began.

    Raises:
        FewshotError: naming all settings that differ, with both values.
    """
    differing = [
        name
        for name, value in held.items()
        if name in now and not _same(value, now[name]) and not _is_left_out(name, now[name])
    ]
    # where the kind differs, so do its numbers
    differing = [
        name for name in differing if not any(name.startswith(f"{other}.") for other in differing)
    ]
    if differing:
        told = ", ".join(f"{n} is {held[n]} in the checkpoint and {now[n]} now" for n in differing)
        raise FewshotError(
            f"training cannot go on from the checkpoint with other settings: {told}; give the"
            " checkpoint's, or begin a new run without ckpt_path (model.weights takes the"
            " backbone of a checkpoint)"
        )


def _is_left_out(name: str, value: Any) -> bool:
    """Whether nothing is asked: the checkpoint's weights take the place of any file's."""
    return name == "model.weights" and value is None


def _same(one: Any, other: Any) -> bool:
    """Whether two values are, where a path is the file's name: folders may have moved."""
    if isinstance(one, str) and isinstance(other, str):
        return os.path.basename(one) == os.path.basename(other)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9) or (one != one and other != other)
    return bool(one == other)


def _beginnings(learner: Any) -> dict[str, Any]:
    """The arguments at which learned values begin, of the learner and of its backbone."""
    of_backbone = {
        name: describe(learner.backbone.init_args.get(name))
        for name in getattr(learner.backbone, "begins_at", ())
    }
    own = {name: describe(learner.init_args[name]) for name in learner.begins_at}
    return {**own, "backbone": of_backbone}


def _of_groups(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    groups, found = list(groups), dict[str, Any]()
    for number, group in enumerate(groups):
        name = "model.optimizer" + (f".{number}" if len(groups) > 1 else "")
        found |= _members(name, {**group, "lr": group.get("initial_lr", group.get("lr"))})
    return found


def _instances(made: Any, kind: type) -> Iterator[Any]:
    """The objects of a class in what `configure_optimizers` gives, in any of Lightning's forms."""
    if isinstance(made, kind):
        yield made
    elif isinstance(made, Mapping | list | tuple):
        for item in made.values() if isinstance(made, Mapping) else made:
            yield from _instances(item, kind)


def _flat(name: str, value: Any) -> dict[str, Any]:
    """A plain value under its name, and those that it consists of; what is not plain is left out.

    >>> _flat("a", [1, 2]), _flat("a", {"b": 1})
    ({'a': [1, 2]}, {'a': 'of its own', 'a.b': 1})
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, list | tuple):
        if all(isinstance(item, PLAIN) for item in value):
            return {name: list(value)}
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        return {name: value.get("class_path", "of its own"), **_members(name, value)}
    return {name: value} if isinstance(value, PLAIN) else {}


def _members(name: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        # what a scheduler keeps for itself, but for what it is made of
        if key not in NOT_COMPARED and (not str(key).startswith("_") or key == "_schedulers"):
            found |= _flat(f"{name}.{str(key).lstrip('_')}", value)
    return found
