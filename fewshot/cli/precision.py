"""`--trainer.precision auto`: bfloat16 where the learner is proven in it and the machine has it."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import rank_zero_info

from fewshot.errors import FewshotError

Choice: TypeAlias = (
    Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"]
    | Literal["transformer-engine", "transformer-engine-float16"]
    | Literal["32", "bf16", "16", "64"]
    | Literal[32, 16, 64]
)
"""Lightning's, and `auto`."""
Batches: TypeAlias = int | float | None
"""A number of batches or a share of them, the number first: 1 and 1.0 differ."""
CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


class RunTrainer(Trainer):
    """Lightning's Trainer; of the command line its precision may be `auto`.

    Numbers of batches are annotated anew: what Lightning's `Union[int, float]` tries first is left
    to whoever imported such a union before it, which rich does the other way round.
    """

    def __init__(
        self,
        *args: Any,
        precision: Choice | None = None,
        limit_train_batches: Batches = None,
        limit_val_batches: Batches = None,
        limit_test_batches: Batches = None,
        limit_predict_batches: Batches = None,
        overfit_batches: int | float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Make a Trainer.

        Args:
            *args: arguments of the Trainer.
            limit_train_batches: as Lightning's, and those that follow.
            limit_val_batches: the same of validation.
            limit_test_batches: the same of a test.
            limit_predict_batches: the same of predictions.
            overfit_batches: the same of training and validation on the same batches.
            precision: as Lightning's; `auto`: bf16-mixed for a learner whose accuracy is proven in
                it (docs/journal/measurements.md), on a GPU and on a CPU that compute in it; else
                32-true.
            **kwargs: arguments of the Trainer.
        """
        assert precision != "auto", "which `decide_precision` has put something in place of"
        super().__init__(
            *args,
            precision=precision,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            **kwargs,
        )


def decide_precision(config: Namespace, learner: type) -> None:
    """Put in place of `auto` what it means here, and say so in one line.

    Args:
        config: the Trainer's arguments.
        learner: the class that is trained or tested.

    Raises:
        FewshotError: a plugin decides too.
    """
    if config.get("precision") != "auto":
        return
    for plugin in _classes(config.get("plugins")):
        if issubclass(plugin, Precision):
            raise FewshotError(
                f"trainer.precision is auto, but trainer.plugins has {plugin.__name__}, which"
                " decides it too; leave one of them out"
            )
    reason = _against(config, learner)
    config["precision"] = "bf16-mixed" if reason is None else "32-true"
    why = reason or f"{learner.__name__} is as accurate in it, and this machine computes in it"
    rank_zero_info(f"precision auto: {config['precision']}, as {why}")


def _against(config: Namespace, learner: type) -> str | None:
    """What speaks against bfloat16; None: nothing."""
    # what a subclass changes is not proven with its parent
    if not vars(learner).get("proven_in_bfloat16", False):
        return f"{learner.__name__} is not proven in bfloat16"
    accelerator = config.get("accelerator", "auto")
    has_gpu = CUDAAccelerator.is_available()
    if accelerator in ("auto", "gpu", "cuda") and has_gpu:
        computes = torch.cuda.is_bf16_supported(including_emulation=False)
        return None if computes else "this GPU does not compute in bfloat16"
    if accelerator not in ("auto", "cpu"):
        return f"it is not known how {accelerator} computes in bfloat16"
    return None if _cpu_computes() else "this CPU has no instructions for bfloat16"


def _cpu_computes() -> bool:
    flags = re.search(r"^flags\s*:(.*)$", CPUINFO.read_text(), re.M) if CPUINFO.exists() else None
    return flags is not None and not INSTRUCTIONS.isdisjoint(flags[1].split())


def _classes(plugins: Any) -> Iterator[type]:
    """The classes of the Trainer's plugins, which are one or a list, as the parser has them."""
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        if isinstance(plugin, Namespace):
            module, _, name = plugin["class_path"].rpartition(".")
            yield getattr(import_module(module), name)
        else:
            yield type(plugin)
