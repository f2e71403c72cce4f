"""How a learner is adapted outside of a run: by features, where that is the same.

Where the network stays as it is, each example is embedded once, whatever is then done with it.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Examples, Inputs, map_tensors
from fewshot.learners.base import MetaLearner
from fewshot.learners.comparing import ComparingLearner
from fewshot.learners.embedding import at_least_float32

TOGETHER = 64
"""Texts, or images on a device, that are embedded at once."""


def goes_by_features(module: MetaLearner) -> bool:
    """Whether a learner asks for nothing but the features that each example has by itself."""
    normalisation = internal("torch.nn.modules.batchnorm._NormBase")
    return (
        isinstance(module, ComparingLearner)
        and module.head_alone
        and all(
            part.track_running_stats for part in module.modules() if isinstance(part, normalisation)
        )
    )


def embedded(module: MetaLearner, support: Examples) -> Examples:
    """The support with its features in place of the inputs, if the learner goes by them."""
    return support._replace(inputs=features_of(module, support.inputs))


def features_of(module: MetaLearner, inputs: Inputs) -> Inputs:
    """The features of inputs, if the learner goes by them; else the inputs."""
    if not goes_by_features(module):
        return inputs
    assert isinstance(module, ComparingLearner)
    with torch.no_grad(), evaluation_mode(module):
        parts = [at_least_float32(module.embed_in_chunks(part)) for part in _parts(inputs)]
    return torch.cat(parts)


def adapted(module: MetaLearner, support: Examples) -> Any:
    """What the learner adapts to, of a support that has gone through `embedded`."""
    with torch.no_grad(), _on_features(module):
        return map_tensors(_detached, module.adapt(support))


def judged(module: MetaLearner, adapted: Any, inputs: Inputs) -> Tensor:
    """Logits (n, N) of inputs that have gone through `embedded`."""
    with torch.no_grad(), _on_features(module):
        return at_least_float32(module.predict(adapted, inputs))


def _on_features(module: MetaLearner) -> AbstractContextManager[None]:
    if goes_by_features(module) and isinstance(module, ComparingLearner):
        return module.on_features()
    return nullcontext()


def _parts(inputs: Inputs) -> list[Inputs]:
    if isinstance(inputs, Tensor):
        return list(torch.split(inputs, TOGETHER))
    columns = {name: torch.split(tensor, TOGETHER) for name, tensor in inputs.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf
