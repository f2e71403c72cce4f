"""`fewshot.Trainer`: Lightning's, with what every run of the command line has."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from fewshot.callbacks.board import BoardLogger
from fewshot.callbacks.checkpoint import LastCheckpoint
from fewshot.callbacks.of_every_run import not_named_already, of_every_run
from fewshot.callbacks.places import RUNS, names_for, place_for, stem_of
from fewshot.callbacks.quiet import silence_what_users_cannot_mend
from fewshot.callbacks.run_folder import RunFolder
from fewshot.errors import FewshotError, nearest
from fewshot.learners.later import Later

FLAGS = {
    "fast_dev_run": False,
    "enable_checkpointing": None,
    "enable_progress_bar": None,
    "enable_model_summary": None,
}
"""The Trainer's arguments that turn callbacks off, and their defaults."""


def check_arguments(names: Iterable[str]) -> None:
    """Check that they are arguments of Lightning's Trainer.

    Raises:
        FewshotError: one is none.
    """
    known = [*inspect.signature(L.Trainer.__init__).parameters][1:]
    for name in names:
        if name not in known:
            raise FewshotError(f"Trainer has no argument {name!r}{nearest(name, known)}")


class Trainer(L.Trainer):
    """Lightning's Trainer with the callbacks, the logger and the defaults of `fewshot fit`.

    A run has a folder of its own below ``lightning_logs``, such as ``maml-sinusoid-10shot-0``. It
    holds the best and the last checkpoint, TensorBoard's figures and pictures, and, after a test,
    ``results.json``, ``episodes.csv`` and what else the command line writes.

    ```python
    >>> import fewshot
    >>> data = fewshot.SinusoidDataModule(train_episodes=100, val_episodes=20, test_episodes=20)
    >>> trainer = fewshot.Trainer(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    >>> trainer.fit(fewshot.MAML(fewshot.MLP(1)), data)
    MAML with MLP: 1,761 parameters, all trained
    Sinusoid: 10-shot; episodes: 100 train, 20 val, 20 test
    trains for 1 epoch on cpu, 32-true
    >>> print(trainer.checkpoint_callback.best_model_path)
    /.../lightning_logs/maml-sinusoid-10shot-0/checkpoints/best.ckpt
    ```

    Args:
        run_name: what the run's folder is called, followed by the next number; None: learner,
            benchmark, way and shot.
        callbacks: more of them. One that does the work of one of ours takes its place.
        **kwargs: arguments of Lightning's Trainer.

    Raises:
        FewshotError: Lightning's Trainer has no such argument.
    """

    def __init__(
        self,
        *,
        run_name: str | None = None,
        callbacks: list[Callback] | Callback | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(kwargs)
        silence_what_users_cannot_mend()
        named = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        settings: Mapping[str, Any] = {**FLAGS, **kwargs}
        self._folder, self._run_name = RunFolder(), run_name
        ours = [self._folder, *of_every_run(settings, tests=False)]
        if settings["enable_checkpointing"] is not False:
            ours.append(LastCheckpoint())
        if kwargs.get("logger") in (None, True):
            root = kwargs.get("default_root_dir") or os.getcwd()
            kwargs["logger"] = BoardLogger(root, name=RUNS)
        kwargs.setdefault("use_distributed_sampler", False)  # the episode stream shards itself
        super().__init__(callbacks=[*named, *not_named_already(ours, named)], **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train; Lightning's ``Trainer.fit``. ``fit(learner, data)`` is enough."""
        self._take_folder(super().fit, args, kwargs)
        super().fit(*args, **kwargs)

    def validate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate on the validation episodes; Lightning's ``Trainer.validate``."""
        self._take_folder(super().validate, args, kwargs)
        # our table is printed, of all metrics with their intervals
        return super().validate(*args, **{"verbose": False, **kwargs})

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate on the test episodes; Lightning's ``Trainer.test``."""
        self._take_folder(super().test, args, kwargs)
        return super().test(*args, **{"verbose": False, **kwargs})

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Write the predictions of the test episodes; Lightning's ``Trainer.predict``."""
        self._take_folder(super().predict, args, kwargs)
        return super().predict(*args, **kwargs)

    def _take_folder(
        self, verb: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Have a folder that is this run's alone, from the first that this Trainer does."""
        given = inspect.signature(verb).bind(*args, **kwargs).arguments
        checkpoint = given.get("ckpt_path")
        self._folder.checkpoint = None if checkpoint is None else str(checkpoint)
        dry = self.fast_dev_run  # type: ignore[attr-defined]  # set from outside
        if self._folder.path is not None or dry or not self.is_global_zero:
            return
        places = ("datamodule", "train_dataloaders", "dataloaders")
        data = next((given[name] for name in places if given.get(name) is not None), None)
        model = given.get("model") or self.lightning_module
        benchmark = getattr(data, "benchmark", None) or type(data).__name__
        sizes = (getattr(data, name, None) for name in ("way", "shot"))
        learner = model.learner if isinstance(model, Later) else type(model)
        stem = stem_of(learner.__name__, str(benchmark), *sizes)
        names = names_for(self._run_name, stem, self.loggers)
        place = place_for(self.loggers, str(self.default_root_dir), names)
        if place is not None:
            self._folder.settle(self, place.claim())
