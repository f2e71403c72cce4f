"""What a checkpoint must be before it is used: the right learner's, of the right shapes."""

import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.errors import FewshotError
from fewshot.extras import DISTRIBUTION
from fewshot.hyperparameters import not_offered, parameter_names
from fewshot.lazy import offered
from fewshot.tasks import KINDS as TASK_KINDS

RUNNING = ("running_mean", "running_var", "num_batches_tracked")
"""What batch normalisation calls its running averages."""


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that the tensors of a checkpoint are those of the learner that shall take them.

    Raises:
        FewshotError: naming the first parameter that differs and both its shapes.
    """
    remedy = "; build the learner as the checkpoint's was (backbone, its arguments, way)"
    for name in [*expected, *tensors]:
        if name not in tensors or name not in expected:
            owner = "the checkpoint" if name not in tensors else "this learner"
            raise FewshotError(f"{owner} has no parameter {name}: the backbones differ{remedy}")
        if tensors[name].shape != expected[name].shape:
            shapes = (
                f"{tuple(tensors[name].shape)} in the checkpoint, {tuple(expected[name].shape)} in"
                " this learner"
            )
            raise FewshotError(f"the parameter {name} is {shapes}{remedy}")


def check_finite(held: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Check that the weights of `source` are numbers, but where the `expected` ones are none.

    Raises:
        FewshotError: naming the first parameter that has NaN or infinite values.
    """
    for name, tensor in held.items():
        if not _is_finite(tensor) and (name not in expected or _is_finite(expected[name])):
            raise FewshotError(
                f"{source} has values in {name} that are not finite (NaN or infinite); give"
                " weights of before they diverged, or train again with a lower learning rate"
            )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are, without a copy of the tensor: NaN wins every maximum."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(torch.linalg.vector_norm(tensor.detach(), torch.inf).isfinite())


def forget_parameter(checkpoint: dict[str, Any], name: str, learner: nn.Module) -> Tensor | None:
    """Drop a parameter that the learner no longer has, and its part of the optimizer's state.

    Args:
        checkpoint: of a version in which `learner` had the parameter, or of a later one.
        name: the parameter's, an attribute of the learner itself.
        learner: as it is now.

    Returns:
        What was dropped; None where the checkpoint does not hold it.
    """
    held = checkpoint.get("state_dict", {})
    if name not in held:
        return None
    trained = {n for n, parameter in learner.named_parameters() if parameter.requires_grad}
    # an optimizer knows parameters by their places, and a state has them in the same order
    place = sum(other in trained for other in list(held)[: list(held).index(name)])
    checkpoint["state_dict"] = {n: tensor for n, tensor in held.items() if n != name}
    checkpoint["optimizer_states"] = [
        _without_place(state, place) for state in checkpoint.get("optimizer_states", [])
    ]
    value: Tensor = held[name]
    return value


def _without_place(state: Mapping[str, Any], place: int) -> dict[str, Any]:
    """The state of an optimizer without its parameter number `place`."""

    def moved(number: int) -> int:
        return number - (number > place)

    return {
        **state,
        "state": {moved(n): value for n, value in state["state"].items() if n != place},
        "param_groups": [
            {**group, "params": [moved(n) for n in group["params"] if n != place]}
            for group in state["param_groups"]
        ],
    }


def backbone_weights(
    checkpoint: Mapping[str, Any],
    path: str | os.PathLike[str],
    expected: Mapping[str, Tensor],
    running_averages: bool = True,
) -> dict[str, Tensor]:
    """The tensors of the backbone alone in any learner's checkpoint.

    Args:
        checkpoint: what `read_checkpoint` gave.
        path: its file, for the messages.
        expected: the `state_dict` of the backbone that shall take them.
        running_averages: whether batch normalisation needs them; a learner that adapts its body
            (MAML) keeps none.

    Raises:
        FewshotError: no learner of this library wrote it, or the backbones differ.
    """
    if checkpoint.get("fewshot", {}).get("learner") is None:
        raise FewshotError(
            f"weights {path} was not written by fewshot; give a .ckpt file of `fewshot fit`"
        )
    prefix = "backbone."
    weights = {
        n.removeprefix(prefix): v
        for n, v in checkpoint["state_dict"].items()
        if n.startswith(prefix)
    }
    missing = [name for name in expected if name not in weights]
    if missing and all(name.rpartition(".")[2] in RUNNING for name in missing):
        if running_averages:
            raise FewshotError(
                f"weights {path} hold no running averages of batch normalisation, because the"
                " learner that wrote them keeps none; set batchnorm: transductive, which needs"
                " none, or give another learner's"
            )
        weights |= {name: expected[name] for name in missing}
    for name in [*expected, *weights]:
        shapes = [
            tuple(side[name].shape) if name in side else "missing" for side in (weights, expected)
        ]
        if shapes[0] != shapes[1]:
            raise FewshotError(
                f"weights {path} do not fit the backbone: {name} is {shapes[0]} in the file,"
                f" {shapes[1]} in the backbone; build the backbone as the file's was"
            )
    check_finite(weights, expected, f"weights {path}")
    return weights


def check_arguments(checkpoint: Mapping[str, Any], learner: type) -> None:
    """Check that a learner's class still takes the arguments that a checkpoint holds.

    Raises:
        FewshotError: the checkpoint has no weights, or is of a version of the library in which the
            class had others.
    """
    version = checkpoint["fewshot"].get("version")
    if "state_dict" not in checkpoint:
        raise FewshotError(
            f"the checkpoint of fewshot {version} holds no weights; give one that `fewshot fit`"
            " wrote"
        )
    known = parameter_names(learner)
    for name in checkpoint.get("hyper_parameters", {}):
        if name not in known:
            raise FewshotError(
                f"the checkpoint of fewshot {version} has the argument {name}, which"
                f" {learner.__name__} of fewshot {metadata.version(DISTRIBUTION)} does not have;"
                " load it with that version"
            )


def check_names(arguments: Mapping[str, Any]) -> None:
    """Check that what a checkpoint's arguments name is there without importing it.

    A class's path is in a description (see `fewshot.hyperparameters.describe`), however deep; that
    of a task kind is its `kind`.

    Raises:
        FewshotError: naming the argument, the path, and what to import.
    """
    for argument, value in arguments.items():
        for path in _named(value, argument == "task"):
            try:
                offered(path)
            except LookupError as error:
                raise FewshotError(f"the checkpoint's {not_offered(path, argument)}") from error


def _named(value: Any, is_task: bool = False) -> Iterator[str]:
    """The import paths in plain values."""
    if isinstance(value, Mapping):
        held = value.get("init_args") is not None  # without them nothing can be built
        if held and isinstance(path := value.get("class_path"), str):
            yield path
        if is_task and isinstance(kind := value.get("kind"), str) and kind not in TASK_KINDS:
            yield kind
        for item in value.values():
            yield from _named(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(item)


def check_learner(checkpoint: dict[str, Any], name: str) -> None:
    """Check that a loaded checkpoint is of the learner `name`.

    Raises:
        FewshotError: it is another learner's, or none of this library's.
    """
    learner = checkpoint.get("fewshot", {}).get("learner")
    if learner is None:
        raise FewshotError(
            f"the checkpoint was not written by fewshot; train a {name} with `fewshot fit` first"
        )
    if learner != name:
        raise FewshotError(
            f"the checkpoint holds a {learner}, not a {name}; load it with --model {learner}"
        )
