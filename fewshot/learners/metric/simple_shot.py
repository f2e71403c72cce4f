"""SimpleShot (Wang et al., arXiv:1911.04623)."""

from typing import Any

from torch import Tensor

from fewshot.errors import FewshotError
from fewshot.learners.centering import CenteringLearner
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means
from fewshot.learners.metric.prototypical_network import negative_squared_distance


class SimpleShot(CenteringLearner, MetricLearner):
    """SimpleShot: nearest class mean of a trained network's centred, normalised features.

    Nothing is trained: `fewshot test --model SimpleShot --model.weights FILE.ckpt`, or `fit`, which
    goes to the test, takes the backbone of any learner's checkpoint. The centre is the mean feature
    of all examples of the training classes; it is computed before the first evaluation and belongs
    to the checkpoint.
    Paper: arXiv:1911.04623.

    Args:
        **kwargs: arguments of `CenteringLearner` and `MetricLearner`.
    """

    trains_on = "nothing"

    def configure_optimizers(self) -> Any:
        """Refuse to be trained."""
        raise FewshotError(
            "SimpleShot has nothing to train: train a backbone by another learner (--model"
            " Baseline), then `fewshot test --model SimpleShot --model.weights FILE.ckpt`"
        )

    @property
    def untrained(self) -> bool:
        """Whether the features are those of a network that nothing has trained."""
        given = self.weights_file is not None or getattr(self.backbone, "pretrained", True)
        return self.as_made and not given and any(p.requires_grad for p in self.parameters())

    # ------------------------------------------------------------------ classification

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """The class means (N, D) of transformed support features (S, D)."""
        return class_means(self.transformed(features), targets, way)

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Logits (n, N): minus squared distance of transformed query (n, D) to means (N, D)."""
        return negative_squared_distance(self.transformed(features), predictor)
