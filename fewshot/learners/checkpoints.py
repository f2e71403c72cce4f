"""Checkpoints: written whole, read as plain values alone, and what a learner keeps in its own."""

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from typing_extensions import Self

from fewshot.errors import FewshotError
from fewshot.extras import DISTRIBUTION
from fewshot.files import atomic_write
from fewshot.hyperparameters import without_weights
from fewshot.learners.checkpoint_checks import (
    RUNNING,
    backbone_weights,
    check_arguments,
    check_finite,
    check_learner,
    check_names,
    check_shapes,
)
from fewshot.learners.guard import Guard
from fewshot.learners.lightning_internals import attached_trainer


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint; only plain values and tensors are loaded.

    Args:
        path: the file.
        map_location: where its tensors go, as for `torch.load`.

    Raises:
        FewshotError: there is no such file, or it is no checkpoint.
    """
    if not os.path.isfile(path):
        raise FewshotError(
            f"there is no checkpoint {path}; give the path of a .ckpt file that `fewshot fit` wrote"
        )
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
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
                file.write(content.getvalue())
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


class Checkpointed(L.LightningModule):
    """Mix-in: what a learner writes into its checkpoints, and how one makes a learner again."""

    backbone: nn.Module
    guard: Guard
    batchnorm: str
    seed: int
    loaded_step: int
    weights_file: str | None
    preprocessing: dict[str, Any] | None
    softmax_temperature: float | None
    last_validation: dict[str, Any] | None
    trains_on: ClassVar[str]
    as_made = True
    """Whether neither a checkpoint nor a training has touched the weights that `__init__` made."""

    def setup(self, stage: str) -> None:
        """Have checkpoints written whole and read as plain values.

        A way of the user's own is left in place.
        """
        self.as_made &= stage != "fit"
        with suppress(NotImplementedError):  # of strategies in which each rank saves its own part
            if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
                self.trainer.strategy.checkpoint_io = WholeFiles()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take weights, as `torch.nn.Module` does; they are `as_made` no more."""
        self.as_made = False
        return super().load_state_dict(state_dict, strict, assign)

    @property
    def untrained(self) -> bool:
        """Whether values that training would change are those that a test is made with at random.

        A backbone of `weights`, one that is `pretrained` and one of the user's own that says
        nothing of it are taken to be trained. A learner on plain examples has, besides, only what
        tells the training classes apart, which no test uses.
        """
        if not self.as_made or self.trains_on == "nothing":
            return False
        given = self.weights_file is not None or getattr(self.backbone, "pretrained", True)
        if given and self.trains_on == "examples":
            return False
        trained = {id(parameter) for parameter in self.backbone.parameters() if given}
        return any(p.requires_grad and id(p) not in trained for p in self.parameters())

    def check_weights(self) -> None:
        """Refuse weights that are not finite; say in one line where nothing has trained them.

        Raises:
            FewshotError: a parameter or a running average has NaN or infinite values.
        """
        learner = type(self).__name__
        kept: dict[str, torch.Tensor] = dict(self.named_parameters())
        kept |= {n: b for n, b in self.named_buffers() if n.rpartition(".")[2] in RUNNING}
        check_finite(kept, {}, learner)
        if self.untrained:
            rank_zero_info(
                f"{learner} is untrained: no checkpoint is given, its weights are those it was made"
                " with; give --ckpt_path, or weights for the backbone"
            )

    def take_backbone(self, path: str) -> None:
        """Begin with the backbone of the checkpoint `path`, whatever learner wrote it."""
        checkpoint = read_checkpoint(path)
        inductive = self.batchnorm == "inductive"
        self.backbone.load_state_dict(
            backbone_weights(checkpoint, path, self.backbone.state_dict(), inductive)
        )
        self.weights_file, self.loaded_step = path, checkpoint.get("global_step", 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record who wrote the checkpoint, training's own state, how files become inputs."""
        self.guard.settle()
        benchmark = getattr(attached_trainer(self), "datamodule", None)
        checkpoint["fewshot"] = {
            "version": metadata.version(DISTRIBUTION),
            "learner": type(self).__name__,
            "seed": self.seed,
            "skipped": self.guard.skipped,
            "preprocessing": getattr(benchmark, "preprocessing", self.preprocessing),
            "temperature": self.softmax_temperature,
            "validated": self.last_validation,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another learner's checkpoint, and one of another network."""
        check_learner(checkpoint, type(self).__name__)
        expected = self.state_dict()
        check_shapes(checkpoint["state_dict"], expected)
        check_finite(checkpoint["state_dict"], expected, "the checkpoint")
        self.loaded_step = checkpoint.get("global_step", 0)
        if (trainer := attached_trainer(self)) is not None:
            # Lightning takes on the precision after it has loaded the weights: in double precision
            # they were rounded.
            trainer.precision_plugin.convert_module(self)
        # the first checkpoints of version 0.1.0 hold neither
        self.seed = checkpoint["fewshot"].get("seed", self.seed)
        self.guard.skipped = checkpoint["fewshot"].get("skipped", 0)
        self.preprocessing = checkpoint["fewshot"].get("preprocessing")
        self.softmax_temperature = checkpoint["fewshot"].get("temperature")
        self.last_validation = checkpoint["fewshot"].get("validated")

    @classmethod
    # hparams_file, strict and weights_only are settled here
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = None, **kwargs: Any
    ) -> Self:
        """The learner that a checkpoint holds, without further arguments.

        Nothing but plain values and tensors is loaded.

        Args:
            checkpoint_path: the file.
            map_location: where its tensors go, as for `torch.load`; None: the device that they were
                on where there is CUDA, else the CPU.
            **kwargs: constructor arguments that override what the checkpoint holds.

        Raises:
            FewshotError: the file is no checkpoint, not this learner's, or names a class of a
                module that is not imported.
        """
        if map_location is None and not torch.cuda.is_available():
            map_location = "cpu"
        return cls.from_content(read_checkpoint(checkpoint_path, map_location), **kwargs)

    @classmethod
    def from_content(cls, checkpoint: dict[str, Any], **kwargs: Any) -> Self:
        """The same of what `read_checkpoint` gave, on the device of its tensors."""
        check_learner(checkpoint, cls.__name__)
        check_arguments(checkpoint, cls)
        held = checkpoint.get("hyper_parameters", {})
        held = {name: value for name, value in held.items() if name not in kwargs}
        check_names(held)
        with without_weights():
            learner = cls(**held, **kwargs)
        learner.on_load_checkpoint(checkpoint)
        learner.load_state_dict(checkpoint["state_dict"])
        weights = next(iter(checkpoint["state_dict"].values()), torch.empty(0))
        return learner.to(weights.device)
