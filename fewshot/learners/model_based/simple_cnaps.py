"""Simple CNAPS (Bateni et al., arXiv:1912.03432)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.learners.metric.classes import class_means, membership
from fewshot.learners.model_based.cnaps import ConditionalLearner


class Gaussians(NamedTuple):
    """The classes of a task as normals: means (N, D), Cholesky factors of covariances (N, D, D)."""

    means: Tensor
    factors: Tensor


def class_covariances(features: Tensor, targets: Tensor, way: int) -> Tensor:
    """Regularised covariances Q_k = l_k S_k + (1 - l_k) S + I of each class's features, (N, D, D).

    S_k is the unbiased covariance of the n_k examples of class k (zero where there is one), S that
    of all examples of the task, and l_k = n_k / (n_k + 1). Equation 2 of the paper, whose weight
    beta of the identity is 1.

    Args:
        features: (S, D).
        targets: (S,) in 0..`way`-1.
        way: N.
    """
    member = membership(targets, way, features.dtype)
    sizes = member.sum(0)
    within = features - member @ class_means(features, targets, way)
    of_class = (
        torch.einsum("sn,sd,se->nde", member, within, within)
        / (sizes - 1).clamp(min=1)[:, None, None]
    )
    around = features - features.mean(0)
    of_task = around.T @ around / max(len(features) - 1, 1)
    share = (sizes / (sizes + 1))[:, None, None]
    identity = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    return share * of_class + (1 - share) * of_task + identity


class SimpleCNAPs(ConditionalLearner):
    """Simple CNAPs: a frozen network fitted to each task by FiLM, with Mahalanobis distances.

    A logit is -1/2 (x - mu_k)^T Q_k^-1 (x - mu_k), with the mean of the class's support features
    and their covariance, regularised by that of the whole task and the identity. The classifier has
    no weights. Paper: arXiv:1912.03432.

    Args:
        backbone: the pre-trained network from inputs to features, with batch normalisation.
        **kwargs: arguments of `ConditionalLearner`.
    """

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Gaussians:
        """The classes' means and the factors of their covariances."""
        covariances = class_covariances(features, targets, way)
        return Gaussians(class_means(features, targets, way), torch.linalg.cholesky(covariances))

    def compare(self, classifier: Gaussians, features: Tensor) -> Tensor:
        """Logits (n, N): minus half the squared Mahalanobis distance."""
        differences = (features - classifier.means[:, None]).mT  # N, D, n
        whitened: Tensor = torch.linalg.solve_triangular(
            classifier.factors, differences, upper=False
        )
        return -0.5 * whitened.square().sum(1).T
