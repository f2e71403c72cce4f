"""Tip-Adapter's cache of support examples (Zhang et al., arXiv:2207.09519)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import NonNegative, Positive
from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.embedding import full_precision
from fewshot.learners.transfer.feature_head import FeatureHead, Labelled

STEPS = 20
ALPHAS = tuple(0.1 + i * (3 - 0.1) / STEPS for i in range(STEPS))
BETAS = tuple(0.1 + i * (7 - 0.1) / STEPS for i in range(STEPS))
"""What is tried in a search: the ranges of the authors' code, which takes 200 steps of beta."""


class TipAdapter(FeatureHead):
    """TipAdapter: a cache of support examples, each voting by its closeness.

    Logits are prior + alpha exp(-beta (1 - f K^T)) L, with the query's feature f, the support's
    features K, of unit length, and their one-hot labels L. The paper's prior is CLIP's: 100 times
    the cosine with each class's text. A benchmark here has no texts of classes: the prior is the
    same of the class means, or none. The trained variant, Tip-Adapter-F, is left out. Paper:
    arXiv:2207.09519.

    The authors look for alpha and beta on validation data, for each number of shots: `search` does
    so on the benchmark's validation episodes, before the test. With one example of each class both
    change probabilities alone, no answer.

    Args:
        backbone: the network from inputs to features.
        alpha: weight of the cache.
        beta: sharpness of its votes.
        search: take the alpha (of 0.1 to 2.9) and the beta (of 0.1 to 6.7) that are right on most
            queries of the validation episodes, not those given; they stand in results.json.
        prior: `means`, prior_scale times the cosine with the class means, or `none`.
        prior_scale: 100 in the paper.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        alpha: NonNegative = 1.0,
        beta: Positive = 5.5,
        prior: Literal["means", "none"] = "means",
        prior_scale: Positive = 100.0,
        search: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.alpha, self.beta = alpha, beta
        self.prior, self.prior_scale = prior, prior_scale
        self.search, self.found = search, False

    def facts(self) -> dict[str, Any]:
        """The alpha and the beta that were found."""
        found = {"alpha": self.alpha, "beta": self.beta} if self.found else {}
        return {**super().facts(), **found}

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        closeness, prior = self._compared(support, queries)
        return prior + self.alpha * votes(closeness, support.labels, self.beta)

    def _compared(self, support: Labelled, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines (..., n, S) of queries with the support, and the prior's logits (..., n, N)."""
        f, keys = F.normalize(queries, dim=-1), F.normalize(support.features, dim=-1)
        if self.prior == "means":
            prior = self.prior_scale * f @ F.normalize(support.means, dim=-1).mT
        else:
            prior = f.new_zeros(*f.shape[:-1], support.labels.shape[-1])
        return f @ keys.mT, prior

    # ------------------------------------------------------------------ the search

    def adapt(self, support: Examples) -> Any:
        """The predictor of one support set, of any way."""
        if self.search and not self.found:
            raise FewshotError(
                "TipAdapter has not searched for its alpha and beta, which takes validation"
                " episodes: test it on a benchmark, or set them and search: false"
            )
        return super().adapt(support)

    def on_test_start(self) -> None:
        """Search, once the centre of the features is known."""
        self.find_center()
        self._search()
        super().on_test_start()

    def on_predict_start(self) -> None:
        """Search, once the centre of the features is known."""
        self.find_center()
        self._search()
        super().on_predict_start()

    def _search(self) -> None:
        """Take the alpha and the beta that are best on the benchmark's validation episodes."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if not self.search or self.found or datamodule is None:
            return
        to_device = self.trainer.strategy.batch_to_device
        right = torch.zeros(len(BETAS), len(ALPHAS), dtype=torch.long, device=self.device)
        with self.holding_features(), torch.no_grad():
            for batch in datamodule.every_val_episode():
                for part in to_device(batch, self.device).parts:
                    support, query = self.embed_meta_batch(part, training=False)
                    with full_precision(support):
                        way = int(part.support.targets.max()) + 1
                        known = self.fit_all(support, part.support.targets, way)
                        compared = self._compared(known, self.transformed(query))
                        right += right_by(*compared, known.labels, part.query.targets)
        row, column = divmod(int(right.argmax()), len(ALPHAS))  # of equals the first, as theirs
        self.alpha, self.beta, self.found = ALPHAS[column], BETAS[row], True


def votes(closeness: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Votes (..., n, N) of support examples with these cosines (..., n, S), labels (..., S, N)."""
    return (-beta * (1 - closeness)).exp() @ labels


def right_by(closeness: Tensor, prior: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """How many queries are right by each beta and alpha (BETAS, ALPHAS), of targets (..., n)."""

    def right(logits: Tensor) -> Tensor:
        return (logits.argmax(-1) == targets).sum()

    by_beta = (votes(closeness, labels, beta) for beta in BETAS)
    return torch.stack(
        [torch.stack([right(prior + alpha * of_cache) for alpha in ALPHAS]) for of_cache in by_beta]
    )
