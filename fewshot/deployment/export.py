"""Trained learners as programs without this library: `torch.export` (.pt2) and ONNX.

What is exported is a function of the inputs alone, every example by itself, for any number of them:
the probabilities of an adapted classifier, the outputs of a policy, or the features of an
embedding. Each file is run once, on other inputs than it was traced with, and refused if it does
not give what the learner gives.
"""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fewshot.deployment.predictor import Predictor
from fewshot.engine.compiling.torch_internals import internal
from fewshot.episodes.types import Inputs, flatten, unflatten
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.files import written_beside
from fewshot.learners.base import MetaLearner
from fewshot.learners.embedding import EmbeddingLearner

TOLERANCE = 1e-5  # of a difference, relative to the largest value where that exceeds 1


class AdaptedNetwork(nn.Module):
    """The outputs of inputs (n, ...) by an adapted learner: of a policy (n, `Policy.size`)."""

    def __init__(self, learner: MetaLearner, adapted: Any) -> None:
        super().__init__()
        self.learner = detached(learner)
        leaves, self.structure = flatten(adapted)
        self.names = [f"adapted_{place}" for place in range(len(leaves))]
        for name, leaf in zip(self.names, leaves, strict=True):
            self.register_buffer(name, leaf.detach().clone())

    def forward(self, inputs: Inputs) -> Tensor:
        """The outputs."""
        adapted = unflatten(self.structure, [getattr(self, name) for name in self.names])
        outputs = self.learner.predict(adapted, inputs)
        assert isinstance(outputs, Tensor)
        return outputs


class AdaptedClassifier(AdaptedNetwork):
    """The probabilities (n, N) of inputs (n, ...) by a learner adapted to a support set."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.learner.module, predictor.adapted)
        self.temperature = predictor.temperature

    def forward(self, inputs: Inputs) -> Tensor:
        """Probabilities (n, N)."""
        return (super().forward(inputs) / self.temperature).softmax(-1)


class Embedding(nn.Module):
    """The features (n, ...) of inputs (n, ...).

    Raises:
        FewshotError: they would depend on the other inputs of a batch.
    """

    def __init__(self, learner: MetaLearner) -> None:
        super().__init__()
        self.learner = detached(learner)
        normalisation = internal("torch.nn.modules.batchnorm._NormBase")
        by_batch = [
            m
            for m in learner.backbone.modules()
            if isinstance(m, normalisation) and not m.track_running_stats
        ]
        if by_batch:
            raise FewshotError(
                f"the backbone of a {type(learner).__name__} has batch normalisation without"
                " running averages, so that an example's features depend on the others; give"
                " --support to export an adapted classifier"
            )

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, ...)."""
        learner = self.learner
        features = (
            learner.embed(inputs)
            if isinstance(learner, EmbeddingLearner)
            else learner.backbone(inputs)
        )
        assert isinstance(features, Tensor)
        return features


def detached(learner: MetaLearner) -> MetaLearner:
    """A copy on the CPU without gradients, and without what only training needs."""
    clone = copy.deepcopy(learner).cpu().eval().requires_grad_(False)
    del clone.tables
    return clone


def to_program(module: nn.Module, inputs: Inputs) -> ExportedProgram:
    """`module` as a `torch.export` program that takes any number of inputs.

    Args:
        module: takes `inputs` alone.
        inputs: examples (n >= 2, ...) of what it will be given; texts may be of any length.

    Raises:
        FewshotError: the network does what cannot be exported.
    """
    n, length = Dim("n", min=1), Dim("length", min=1)
    shapes: Any = {0: n}
    if isinstance(inputs, dict):
        shapes = {
            name: {0: n, 1: length} if value.dim() > 1 else {0: n} for name, value in inputs.items()
        }
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(module, (inputs,), dynamic_shapes=(shapes,))
    except Exception as error:  # whatever tracing stumbles over, in any user's network
        reason = str(error).strip().splitlines()[0]
        raise FewshotError(
            f"the network cannot be exported for any number of inputs: {reason}"
        ) from error


def save_program(program: ExportedProgram, path: Path, module: nn.Module, inputs: Inputs) -> None:
    """Write `program` to `path` (.pt2), once it is checked on `inputs` to give what `module` does.

    Raises:
        FewshotError: it does not.
    """
    # in memory first: torch's own writer ends the process by SIGABRT where a disk is full
    content = io.BytesIO()
    with written_beside(path) as file:
        with _quiet():
            torch.export.save(program, content)
            file.write_bytes(content.getvalue())  # no view, which an error's frames would keep
            loaded = torch.export.load(file).module()
        with torch.no_grad():
            _check(loaded(inputs), module(inputs), path)


def require_onnx() -> Any:
    """The package onnxruntime, once it is known that ONNX can be written.

    Raises:
        FewshotError: a package is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "export")
    return require("onnxruntime", "export")


def save_onnx(
    program: ExportedProgram, path: Path, module: nn.Module, inputs: Inputs, name: str = "images"
) -> None:
    """Write `program` to `path` (.onnx), once onnxruntime gives for `inputs` what `module` does.

    Raises:
        FewshotError: it does not, or the packages are not installed.
    """
    runtime = require_onnx()
    names = list(inputs) if isinstance(inputs, dict) else [name]
    with written_beside(path) as file:
        try:
            with _quiet():
                model = torch.onnx.export(
                    program, dynamo=True, input_names=names, output_names=["outputs"], verbose=False
                )
        except Exception as error:  # an operation that ONNX does not have
            reason = str(error).strip().splitlines()[0]
            raise FewshotError(
                f"the network cannot be written as ONNX ({reason}); set --format pt2"
            ) from error
        assert model is not None  # without a file to write to, it is given
        model.save(file)
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        tensors = inputs if isinstance(inputs, dict) else {name: inputs}
        # an input that the network does not use is left out
        known = {argument.name for argument in session.get_inputs()}
        (outputs,) = session.run(
            None, {name: value.numpy() for name, value in tensors.items() if name in known}
        )
        with torch.no_grad():
            _check(torch.from_numpy(outputs), module(inputs), path)


def _check(outputs: Tensor, expected: Tensor, path: Path) -> None:
    largest = (
        float((outputs - expected).abs().max()) if outputs.shape == expected.shape else float("inf")
    )
    if not largest <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise FewshotError(
            f"{path} would give other outputs than the learner, by {largest:.1e}; it was not"
            " written"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporters say nothing of their own workings."""
    log, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
