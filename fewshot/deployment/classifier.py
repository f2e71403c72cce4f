"""`fewshot.FewShotClassifier`: a pre-trained network and a learner as an estimator of scikit-learn.

scikit-learn is an extra. This module is imported without it too, and the class says then what to
install when it is made.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from fewshot.backbones.pixels import Pixels
from fewshot.datasets.reading.folders import is_image
from fewshot.datasets.reading.kinds import NETWORKS, Kind
from fewshot.deployment.expected import Expected
from fewshot.deployment.predictor import Predictor
from fewshot.deployment.pretrained import pretrained
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.extras import require

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, ClassifierMixin
else:
    try:
        from sklearn.base import BaseEstimator, ClassifierMixin
    except ModuleNotFoundError:

        class ClassifierMixin:
            """Stands in scikit-learn's place, where it is not installed."""

            def __new__(cls, *args: Any, **kwargs: Any) -> Any:
                """Say what to install."""
                require("sklearn", "sklearn")

        class BaseEstimator:
            """The same."""


class Vectors(Pixels):
    """Features that some network has given elsewhere."""

    pretrained = True


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # it has no types
    """A pre-trained network with a learner that needs no training, in scikit-learn's way.

    Needs ``pip install 'fewshot-lightning[sklearn]'``. It works in ``Pipeline``, ``GridSearchCV``
    and ``cross_val_score``. Probabilities are calibrated on held-out examples of what it is
    fitted to.

    ```python
    >>> from fewshot import FewShotClassifier
    >>> vectors = [[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.2]]
    >>> model = FewShotClassifier().fit(vectors, ["cat", "cat", "dog", "dog"])
    >>> model.predict([[0.2, 0.8], [0.7, 0.1]]).tolist()
    ['cat', 'dog']
    >>> model.predict_proba([[0.2, 0.8]]).round(3)
    array([[0.865, 0.135]])
    ```

    Args:
        backbone: a pre-trained network's name (``fewshot list backbones``), or a network of your
            own with its weights; None: what is given are feature vectors already.
        learner: the learner that tells classes apart by the features, by its name or its class;
            None: the nearest class mean by cosine.
        backbone_args: arguments of the network's class, such as ``{"resize": 112}``.
        learner_args: arguments of the learner's class, such as ``{"inverse_penalty": 10.0}``.
        device: where it computes; ``auto``: the accelerator where there is one, else the CPU, and
            vectors always there.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: values of a feature vector, where `backbone` is None.
        predictor_: the adapted learner, which `fewshot.load` would give too.
    """

    def __init__(
        self,
        backbone: Any = None,
        learner: Any = None,
        backbone_args: Mapping[str, Any] | None = None,
        learner_args: Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        self.backbone, self.learner = backbone, learner
        self.backbone_args, self.learner_args = backbone_args, learner_args
        self.device = device

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks: images and texts are no matrices."""
        tags = super().__sklearn_tags__()
        tags.no_validation = self.backbone is not None
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Adapt to examples `X` of the classes `y`, two classes or more.

        Args:
            X: feature vectors (n, D); or paths of images, PIL images, arrays (n, H, W, 3) or (n, H,
                W) of bytes, tensors (n, C, H, W); or texts.
            y: the class of each.

        Raises:
            FewshotError: they are not what the network reads, or all of one class.
        """
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import column_or_1d

        if self.backbone is None:
            from sklearn.utils.validation import validate_data

            X, y = validate_data(self, X, y, dtype=np.float64)
        elif y is None:
            raise FewshotError("y is None; give the class of each example")
        number = _count(X)
        check_classification_targets(y)
        self.classes_, labels = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise FewshotError(
                f"y has one class alone, {self.classes_[0]!r}; give examples of 2 classes or more"
            )
        if len(labels) != number:
            raise FewshotError(
                f"X has {number} examples and y has {len(labels)}; give one for each"
            )
        kind = None if self.backbone is None else _kind(X)
        # vectors are matrices of doubles, which not every accelerator has
        auto = "cpu" if self.backbone is None else "auto"
        trained = pretrained(
            Vectors(X.shape[1]) if self.backbone is None else self.backbone,
            self.learner,
            auto if self.device == "auto" else self.device,
            kind=kind,
            backbone_args=self.backbone_args,
            learner_args=self.learner_args,
        )
        self._check(X, kind, trained.preprocessing)
        if self.backbone is None:
            trained.module.double()
        inputs = trained.inputs(self._items(X))
        targets = torch.from_numpy(labels).to(trained.module.device)
        self.predictor_: Predictor = trained.adapt(Examples(inputs, targets))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability (n, N) of each of `classes_` for examples `X`."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        if self.backbone is None:
            from sklearn.utils.validation import validate_data

            X = validate_data(self, X, dtype=np.float64, reset=False)
        else:
            self._check(X, _kind(X), self.predictor_.learner.preprocessing)
        probabilities: np.ndarray = self.predictor_(self._items(X)).probabilities.numpy()
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class (n,) of each of examples `X`."""
        probabilities = self.predict_proba(X)
        names: np.ndarray = self.classes_[probabilities.argmax(1)]
        return names

    @property
    def expected_(self) -> Expected:
        """The accuracy that is to be expected, by cross-validation within what it is fitted to."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return self.predictor_.expected

    def _items(self, X: Any) -> Any:
        """Examples as `TrainedLearner.inputs` takes them."""
        if self.backbone is None:
            return torch.from_numpy(X)
        return X if isinstance(X, Tensor) else list(X)

    def _check(self, X: Any, kind: Kind | None, reader: Any) -> None:
        """Check that the network reads what is given.

        Raises:
            FewshotError: it does not.
        """
        if kind is not None and reader is not None and kind != reader.kind:
            if kind == "text" and is_image(name := os.path.basename(_first(X))):
                raise FewshotError(
                    f"X begins with {name!r}, and there is no such file; correct the paths"
                )
            raise FewshotError(
                f"X holds {kind}s, and the backbone {self.backbone} reads {reader.kind}s; take one"
                f" of {kind}s, such as {NETWORKS[kind]}"
            )


def _count(X: Any) -> int:
    """How many examples there are.

    Raises:
        FewshotError: there is none, or it is no list of them.
    """
    if isinstance(X, str | os.PathLike):
        raise FewshotError(f"X is {str(X)!r:.80}, one text or path; give a list of them")
    if hasattr(X, "columns"):
        raise FewshotError("X is a table; give the column of the paths or texts")
    number: int = X.shape[0] if hasattr(X, "shape") else len(X)
    if not number:
        raise FewshotError("X has no examples; give some")
    return number


def _kind(X: Any) -> Kind | None:
    """What examples are, by the first of them: words that are no file are a text."""
    _count(X)
    first = _first(X)
    if isinstance(first, str):
        return "image" if os.path.isfile(first) else "text"
    is_image = isinstance(first, os.PathLike | Image.Image | np.ndarray | Tensor)
    return "image" if is_image else None


def _first(X: Any) -> Any:
    return X.iloc[0] if hasattr(X, "iloc") else X[0]
