"""Checkpoints, written whole and checked before use: plain values, right learner, right shapes."""

import io
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from fewshot.errors import FewshotError
from fewshot.files import atomic_write
from fewshot.hyperparameters import parameter_names

RUNNING = ("running_mean", "running_var", "num_batches_tracked")
"""What batch normalisation calls its running averages."""


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; only plain values and tensors are loaded.

    Raises:
        FewshotError: there is no such file, or it is no checkpoint.
    """
    if not os.path.isfile(path):
        raise FewshotError(
            f"there is no checkpoint {path}; give the path of a .ckpt file that `fewshot fit` wrote"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    # the unpickler passes on whatever foreign bytes make it stumble over
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise  # it cannot be opened; without a name, it was opened and is cut off
        raise FewshotError(
            f"{path} is no checkpoint, or a damaged one; give one that `fewshot fit` wrote"
        ) from error
    if not isinstance(checkpoint, dict):
        raise FewshotError(f"{path} holds no checkpoint; give one that `fewshot fit` wrote")
    return checkpoint


class WholeFiles(TorchCheckpointIO):
    """How learners' checkpoints are written and read: whole or not at all, plain values alone.

    Lightning's own writes into the system's temporary folder and moves the file from there. To
    another file system that is a copy, which a full disk or a killed process leaves half done in
    the place of the checkpoint before it. Addresses of remote storage are left to Lightning.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the file beside its place and rename it.

        Raises:
            FewshotError: it cannot be written; what was there before is still there.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_write(Path(path), binary=True) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise FewshotError(
                f"cannot write the checkpoint {path} ({error.strerror}); make room or set"
                " trainer.default_root_dir, and go on from the checkpoint before it with"
                " --ckpt_path last"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content on the CPU.

        Nothing but plain values and tensors is loaded, whatever `weights_only` says.

        Raises:
            FewshotError: there is no such file, or it is no checkpoint.
        """
        if "://" in str(path):
            content: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=True)
            return content
        return read_checkpoint(path)


def check_shapes(held: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that the tensors of a checkpoint are those of the learner that shall take them.

    Raises:
        FewshotError: naming the first parameter that differs and both its shapes.
    """
    remedy = "; build the learner as the checkpoint's was (backbone, its arguments, way)"
    for name in [*expected, *held]:
        if name not in held or name not in expected:
            owner = "the checkpoint" if name not in held else "this learner"
            raise FewshotError(f"{owner} has no parameter {name}: the backbones differ{remedy}")
        if held[name].shape != expected[name].shape:
            shapes = (
                f"{tuple(held[name].shape)} in the checkpoint, {tuple(expected[name].shape)} in"
                " this learner"
            )
            raise FewshotError(f"the parameter {name} is {shapes}{remedy}")


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
    held = {
        n.removeprefix(prefix): v
        for n, v in checkpoint["state_dict"].items()
        if n.startswith(prefix)
    }
    missing = [name for name in expected if name not in held]
    if missing and all(name.rpartition(".")[2] in RUNNING for name in missing):
        if running_averages:
            raise FewshotError(
                f"weights {path} hold no running averages of batch normalisation, because the"
                " learner that wrote them keeps none; set batchnorm: transductive, which needs"
                " none, or give another learner's"
            )
        held |= {name: expected[name] for name in missing}
    for name in [*expected, *held]:
        shapes = [
            tuple(side[name].shape) if name in side else "missing" for side in (held, expected)
        ]
        if shapes[0] != shapes[1]:
            raise FewshotError(
                f"weights {path} do not fit the backbone: {name} is {shapes[0]} in the file,"
                f" {shapes[1]} in the backbone; build the backbone as the file's was"
            )
    return held


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
                f" {learner.__name__} of fewshot {metadata.version('fewshot')} does not have; load"
                " it with that version"
            )


def check_learner(checkpoint: dict[str, Any], name: str) -> None:
    """Check that a loaded checkpoint is of the learner `name`.

    Raises:
        FewshotError: it is another learner's, or none of this library's.
    """
    held = checkpoint.get("fewshot", {}).get("learner")
    if held is None:
        raise FewshotError(
            f"the checkpoint was not written by fewshot; train a {name} with `fewshot fit` first"
        )
    if held != name:
        raise FewshotError(
            f"the checkpoint holds a {held}, not a {name}; load it with --model {held}"
        )
