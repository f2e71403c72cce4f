"""`fewshot.trained_backbone`: a network that knows something, for the inputs of a benchmark."""

import os
from pathlib import Path
from typing import Any

from torch import nn

from fewshot.backbones.named import made, named
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.deployment.load import load
from fewshot.errors import FewshotError


def trained_backbone(source: str | os.PathLike[str], benchmark: EpisodicDataModule) -> nn.Module:
    """The backbone of a checkpoint, or a network with published weights, in evaluation mode.

    Args:
        source: a .ckpt file that `fewshot fit` wrote, or a name of ``fewshot list backbones``.
        benchmark: whose inputs it is to read.

    Raises:
        FewshotError: there is none such, or it reads other inputs.
    """
    name, facts = os.fspath(source), benchmark.preprocessing or {}
    if Path(name).is_file() or name.endswith(".ckpt"):
        return _of_checkpoint(name, facts).eval()
    meant = named(name, "text" if facts.get("kind") == "text" else "image")
    if meant.kind != facts.get("kind"):
        raise FewshotError(
            f"encoder {name} reads {meant.kind}s, which {benchmark.benchmark} is not of; choose one"
            " of its kind (`fewshot list backbones`)"
        )
    if meant.kind == "image":
        given = {"in_channels": facts["channels"], "image_size": facts["image_size"]}
    elif (tokenizer := getattr(benchmark, "tokenizer", None)) is None:
        raise FewshotError(
            f"encoder {name} reads the ids of its own tokenizer; set tokenizer: {name} of"
            f" {benchmark.benchmark}"
        )
    else:
        given = {"tokenizer": tokenizer}
    return made(meant, given)[0].eval()


def _of_checkpoint(path: str, facts: dict[str, Any]) -> nn.Module:
    trained = load(path, "cpu")
    own = trained.preprocessing.facts() if trained.preprocessing else None
    if own != facts:
        names = [name for name in facts if own is None or own.get(name) != facts[name]]
        raise FewshotError(
            f"encoder {path} was trained on inputs made otherwise ({', '.join(names)}); give a"
            " checkpoint of a run on the same benchmark"
        )
    return trained.module.backbone
