"""`fewshot.load`: the learner that a checkpoint holds, ready for support sets of one's own."""

import os
from collections.abc import Mapping
from typing import Any

import torch

import fewshot
from fewshot.datasets.preprocessing import make_preprocessing
from fewshot.deployment.predictor import TrainedLearner
from fewshot.errors import FewshotError, nearest
from fewshot.lazy import public_names
from fewshot.learners.base import MetaLearner
from fewshot.learners.checkpoints import read_checkpoint


def load(
    checkpoint: str | os.PathLike[str],
    device: str | torch.device = "auto",
    learner: type[MetaLearner] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> TrainedLearner:
    """The learner that a checkpoint holds, ready for support sets and queries of one's own.

    ```python
    >>> import fewshot, torch
    >>> data = fewshot.GlyphsDataModule(way=3, queries=2, train_episodes=8, val_episodes=2)
    >>> trainer = fewshot.Trainer(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    >>> trainer.fit(fewshot.PrototypicalNetwork(fewshot.Conv4(1, 28, width=4)), data)
    PrototypicalNetwork with Conv4: 500 parameters, all trained
    Glyphs: 3-way 1-shot scripts; episodes: 8 train, 2 val, 600 test
    trains for 1 epoch on cpu, 32-true
    >>> learner = fewshot.load(trainer.checkpoint_callback.best_model_path, "cpu")
    >>> predictor = learner.adapt(
    ...     {"paper": torch.zeros(2, 1, 28, 28), "ink": torch.ones(2, 1, 28, 28)}
    ... )  # or a folder of images for each class
    >>> predictor(torch.full((1, 1, 28, 28), 0.9)).names
    ['ink']
    ```

    Args:
        checkpoint: a .ckpt file that `fewshot fit`, or a Trainer with a learner of this library,
            wrote.
        device: where it computes; ``auto``: the accelerator where there is one, else the CPU.
        learner: the learner's class, where it is one of your own; None: the library's of the name
            in the checkpoint.
        preprocessing: how inputs are made of files, a DataModule's `preprocessing`; None: as the
            checkpoint says.
        **kwargs: constructor arguments that override the checkpoint's, such as ``backbone`` for one
            of your own.

    Raises:
        FewshotError: the file is no checkpoint, or its learner is not known.
    """
    content = read_checkpoint(checkpoint)
    metadata = content.get("fewshot")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("learner"), str):
        raise FewshotError(
            f"{checkpoint} was not written by fewshot; give a .ckpt file of `fewshot fit`"
        )
    cls, place = learner or _known(metadata["learner"]), find_device(device)
    try:
        module = cls.from_content(content, **kwargs).to(place).eval()
    except FewshotError:
        raise
    # whatever a damaged entry makes the learner's constructor stumble over
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FewshotError(
            f"{checkpoint} does not make a {cls.__name__} ({reason:.300}); it is damaged, or of"
            " another version"
        ) from error
    facts = preprocessing or metadata.get("preprocessing")
    return TrainedLearner(module, None if facts is None else make_preprocessing(facts))


def _known(name: str) -> type[MetaLearner]:
    known = public_names("fewshot.learners")
    if name not in known:
        raise FewshotError(
            f"the checkpoint holds a {name}, which is none of the library's"
            f" learners{nearest(name, known)}; say where its class is: learner=<the class> to"
            " fewshot.load, --learner MODULE.CLASS on the command line"
        )
    found: type[MetaLearner] = getattr(fewshot, name)
    return found


def find_device(device: str | torch.device) -> torch.device:
    """The device of a name; of ``auto`` the accelerator where there is one, else the CPU.

    Raises:
        FewshotError: it cannot be used.
    """
    if device == "auto":
        device = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        ) or "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise FewshotError(
            f"device {device!r} cannot be used ({str(error).splitlines()[0]}); try cpu"
        ) from error
    return found
