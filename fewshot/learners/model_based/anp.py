"""Attentive Neural Processes (Kim et al., arXiv:1901.05761)."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from fewshot.arguments import Count, Natural
from fewshot.backbones.base import Backbone
from fewshot.engine.randomness import normal
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners.model_based.cnp import Deviation, pairs
from fewshot.learners.model_based.process import ProcessLearner, gaussian, perceptron
from fewshot.learners.outcome import Outcome


class Seen(NamedTuple):
    """An ANP's memory of B supports: keys, values (B, S, width), latent's value (B, latent)."""

    keys: Tensor
    values: Tensor
    latent: Tensor


class ANP(ProcessLearner):
    """ANP: each query attends to the support points near it, beside a latent for the whole.

    Paper: arXiv:1901.05761.

    Trained on log p(query | z) with z ~ q(z | support and query), minus KL(q(z | support and query)
    || q(z | support)) a query point. Evaluation sets z to the mean of q(z | support): each episode
    has one number, which is the likelihood of a normal distribution and no bound; the spread of z
    is not in the band.

    Args:
        backbone: what becomes of the inputs first; `Pixels` leaves them as they are.
        width: units of each hidden layer, of the keys and of the values (the paper: 128).
        encoder_layers: layers of the two encoders of support points.
        decoder_layers: layers of the decoder (the authors' code: 3).
        heads: heads of each attention (the paper: 8); they divide `width`.
        self_attention: layers of self-attention among the support points, before the queries attend
            to them: what a point tells then depends on the points beside it (the paper: on images,
            0 for functions of one value).
        latent: values of z; 0 leaves the latent path out.
        min_deviation: smallest standard deviation that can be predicted, as for `CNP`.
        head_projections: give each head linear maps of its own, without bias, from keys, queries
            and values to its share of `width`, and from what it reads to the whole, as the authors'
            code does; false cuts keys, queries and values themselves in parts.
        support_loss: train on the likelihood of the support's points beside the queries', the
            divergence shared among all of them, as the authors' code does.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        width: Count = 128,
        encoder_layers: Count = 4,
        decoder_layers: Count = 4,
        heads: Count = 8,
        self_attention: Natural = 0,
        latent: Natural = 128,
        min_deviation: Deviation = 0.1,
        head_projections: bool = False,
        support_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if width % heads:
            raise FewshotError(f"heads is {heads} and width {width}; heads must divide width")
        self.heads, self.latent, self.min_deviation = heads, latent, min_deviation
        self.support_loss = support_loss
        point = self.features + self.task.targets
        self.encoder = perceptron([point, *[width] * encoder_layers])
        self.among = nn.Sequential(*(_self_attention(width, heads) for _ in range(self_attention)))
        # keys and queries, by one network
        self.position = perceptron([self.features, width, width])
        self.attended = nn.Linear(width, width, bias=not head_projections)
        # of queries, keys and values; the heads' maps lie side by side
        self.projections = nn.ModuleList(
            nn.Linear(width, width, bias=False) for _ in range(3 if head_projections else 0)
        )
        for layer in (*self.projections, self.attended) if head_projections else ():
            nn.init.normal_(layer.weight, std=width**-0.5)  # the authors'
        if latent:
            self.latent_encoder = perceptron([point, *[width] * encoder_layers])
            self.latent_head = perceptron([width, width, 2 * latent])
        inside = [width] * (decoder_layers - 1)
        self.decoder = perceptron([width + latent + self.features, *inside, self.task.output_size])

    def read(self, support: Examples) -> Seen:
        """Keys and values of the support points, and the mean of the latent."""
        z = (
            self.latent_distribution(pairs(self.latent_encoder, support)).mean
            if self.latent
            else None
        )
        return self.seen(support, z)

    def seen(self, support: Examples, z: Tensor | None) -> Seen:
        """Keys and values of the support points beside a latent `z` (B, latent)."""
        values = self.among(pairs(self.encoder, support))
        return Seen(
            self.position(support.inputs),
            values,
            values.new_zeros(len(values), 0) if z is None else z,
        )

    def latent_distribution(self, encoded: Tensor) -> Normal:
        """q(z | points), independent normal values (B, latent), of encoded points (B, n, width).

        The deviation lies between 0.1 and 1, as in the paper.
        """
        mean, raw = self.latent_head(encoded.mean(-2)).chunk(2, -1)
        return Normal(mean, 0.1 + 0.9 * raw.sigmoid(), validate_args=False)

    def answer(self, kept: Seen, queries: Tensor) -> Tensor:
        """Means and standard deviations at the queries."""
        parts = (self.position(queries), kept.keys, kept.values)
        if self.projections:
            parts = tuple(m(part) for m, part in zip(self.projections, parts, strict=True))
        read = self.attended(attend(*parts, self.heads))
        z = kept.latent[:, None].expand(-1, queries.shape[1], -1)
        return gaussian(self.decoder(torch.cat([read, z, queries], -1)), self.min_deviation)

    def outcome(self, embedded: Episode, episodes: Episode, training: bool) -> Outcome:
        """In training, with a z that has seen the queries too, at the price of the divergence."""
        if not training or not (self.latent or self.support_loss):
            return super().outcome(embedded, episodes, training)
        support, query = embedded
        assert isinstance(query.inputs, Tensor)
        assert isinstance(support.inputs, Tensor)
        size = support.targets.shape[1]
        everything = Examples(
            torch.cat([support.inputs, query.inputs], 1),
            torch.cat([support.targets, query.targets], 1),
        )
        z, divergence = None, query.targets.new_zeros(len(query.targets))
        if self.latent:
            encoded = pairs(self.latent_encoder, everything)
            prior = self.latent_distribution(encoded[:, :size])
            guess = self.latent_distribution(encoded)
            z = guess.mean + guess.stddev * normal(episodes.support.inputs, self.latent, guess.mean)
            divergence = kl_divergence(guess, prior).sum(-1)
        trained_on = everything if self.support_loss else query
        assert isinstance(trained_on.inputs, Tensor)
        outputs = self.answer(self.seen(support, z), trained_on.inputs)
        losses = torch.func.vmap(self.task.loss)(outputs, trained_on.targets)
        judged = self.judged(outputs[:, -query.targets.shape[1] :], query.targets)
        return judged._replace(loss=losses + divergence / trained_on.targets.shape[1])


def _self_attention(width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, width, dropout=0.0, batch_first=True, norm_first=True
    )


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Multi-head attention of queries (B, n, D) to keys, values (B, S, D), shape (B, n, D)."""
    q, k, v = (
        part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in (queries, keys, values)
    )
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
