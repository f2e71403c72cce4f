"""`fewshot.pretrained`: a pre-trained network and a learner that needs no training of its own."""

import functools
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fewshot import learners
from fewshot.backbones.named import made, named
from fewshot.backbones.pretrained import PretrainedBackbone
from fewshot.datasets.preprocessing import Preprocessing
from fewshot.datasets.reading.kinds import Kind
from fewshot.deployment.load import find_device
from fewshot.deployment.predictor import TrainedLearner
from fewshot.errors import FewshotError, nearest
from fewshot.hyperparameters import check_arguments, parameter_names
from fewshot.lazy import public_names
from fewshot.learners.base import MetaLearner
from fewshot.learners.comparing import ComparingLearner

DEFAULT = "PrototypicalNetwork"
DEFAULT_ARGUMENTS: Mapping[str, Any] = {"distance": "cosine", "scale": 10.0}
"""The nearest class mean by cosine: nothing to choose, and hard to beat on frozen features."""
ANY_WAY = {"kind": "classification", "way": 2}
"""The task of a learner of any way, which asks nobody how many classes there are."""


def pretrained(
    backbone: str | os.PathLike[str] | nn.Module,
    learner: str | type[MetaLearner] | None = None,
    device: str | torch.device = "auto",
    *,
    kind: Kind | None = None,
    backbone_args: Mapping[str, Any] | None = None,
    learner_args: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing[Any] | None = None,
) -> TrainedLearner:
    """A pre-trained network with a learner on its features, ready for support sets: no checkpoint.

    ```python
    >>> import fewshot, torch
    >>> learner = fewshot.pretrained(fewshot.Pixels(2))  # or "efficientnet_lite0", for images
    >>> support = {"left": torch.tensor([[-1.0, 0.1]]), "right": torch.tensor([[1.0, 0.2]])}
    >>> learner.adapt(support)(torch.tensor([[0.5, 0.0], [-2.0, 0.3]])).names
    ['right', 'left']
    ```

    Args:
        backbone: the network's name (``fewshot list backbones``; or torchvision's, timm's, Hugging
            Face's), or a network of your own with its weights.
        learner: the learner that tells classes apart by the features; None: the nearest class mean
            by cosine. It must need no training.
        device: where it computes; ``auto``: the accelerator where there is one, else the CPU.
        kind: ``image`` or ``text``, where the name alone does not tell.
        backbone_args: arguments of the network's class, such as ``{"resize": 112}``. It is frozen,
            unless the learner adapts it.
        learner_args: arguments of the learner's class.
        preprocessing: how inputs are made of files, for a network of your own; None: tensors alone
            are taken.

    Raises:
        FewshotError: there is no such network or learner, or the learner needs training.
    """
    place = find_device(device)
    cls, chosen = _learner(learner, learner_args or {})
    if isinstance(backbone, nn.Module):
        network, reader = backbone, preprocessing
    else:
        meant = named(os.fspath(backbone), kind)
        network, reader = made(meant, backbone_args or {})
    module = cls(network, task=ANY_WAY, **chosen)
    compares = isinstance(module, ComparingLearner)
    if module.untrained or module.fixed_way or (module.trains_on == "nothing" and not compares):
        raise FewshotError(
            f"{cls.__name__} needs training: `fewshot fit` it and give its checkpoint, or choose a"
            " learner that needs none, such as PrototypicalNetwork, BaselinePlusPlus or RFS"
        )
    if (
        isinstance(network, PretrainedBackbone)
        and isinstance(module, ComparingLearner)
        and module.head_alone
    ):
        network.freeze()
    return TrainedLearner(module.to(place).eval(), reader, calibrate=True)


def _learner(
    learner: str | type[MetaLearner] | None, given: Mapping[str, Any]
) -> tuple[type[MetaLearner], dict[str, Any]]:
    """The class of a learner and its arguments.

    Raises:
        FewshotError: there is no such learner, or it has no such argument.
    """
    arguments = dict(given)
    if learner is None:
        learner, arguments = DEFAULT, {**DEFAULT_ARGUMENTS, **given}
    if isinstance(learner, str):
        learner = known_learner(learner)
    if "train_classes" in parameter_names(learner):
        # what training would tell apart; there is none
        arguments = {"train_classes": 2, **arguments}
    check_arguments(learner, (), arguments, partly=True)
    return learner, arguments


@functools.cache
def known_learner(name: str) -> type[MetaLearner]:
    """The library's learner of a name.

    Raises:
        FewshotError: there is none; the nearest is told.
    """
    known = public_names("fewshot.learners")
    found: type[MetaLearner] | None = getattr(learners, name) if name in known else None
    if found is None or "Paper:" not in (found.__doc__ or ""):  # as no base class has
        raise FewshotError(f"no learner is called {name!r}{nearest(name, known)}")
    return found
