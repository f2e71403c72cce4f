"""CNP, ANP, exact Gaussian process: densities and losses written out, what must not change them."""

import math
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from fewshot.backbones import MLP, Pixels
from fewshot.engine.randomness import normal
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.learners import ANP, CNP, GaussianProcess
from fewshot.learners.model_based.anp import attend
from fewshot.learners.model_based.process import ProcessLearner, gaussian
from fewshot.tasks.gaussian_process import posterior

EPISODES, S, Q, WIDTH, FLOOR = 3, 4, 5, 6, 0.05
TASK = {"kind": "regression", "targets": 2}
Process: TypeAlias = type[CNP] | type[ANP]


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def batch() -> Episode:
    """Functions from R^3 to R^2."""

    def points(n: int) -> Examples:
        return Examples(
            torch.randn(EPISODES, n, 3, dtype=torch.float64),
            torch.randn(EPISODES, n, 2, dtype=torch.float64),
        )

    return Episode(points(S), points(Q))


def cnp() -> CNP:
    return CNP(Pixels(3), task=TASK, width=WIDTH, min_deviation=FLOOR).double()


def anp(latent: int = 3, self_attention: int = 1, **kwargs: Any) -> ANP:
    sizes: dict[str, Any] = {
        "width": WIDTH,
        "heads": 2,
        "latent": latent,
        "self_attention": self_attention,
    }
    return ANP(Pixels(3), task=TASK, min_deviation=FLOOR, **sizes, **kwargs).double()


def log_density(y: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """log N(y; mean, deviation^2), number by number."""
    return -((y - mean) ** 2) / (2 * deviation**2) - torch.log(deviation * math.sqrt(2 * math.pi))


def softplus(raw: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(raw))


def assert_same(
    learner: ProcessLearner, found: Tensor, expected: Tensor, unused: str = "nothing"
) -> None:
    """Losses (B,) and the gradients of their mean."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    weights = dict(learner.named_parameters())
    gradients = [
        torch.autograd.grad(loss.mean(), list(weights.values())) for loss in (found, expected)
    ]
    for name, one, two in zip(weights, *gradients, strict=True):
        assert two.abs().max() > 1e-9 or name == unused, name
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-11)


def cnp_outputs(learner: CNP, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (2,) at one point `x` (3,)."""
    assert isinstance(support.inputs, Tensor)
    encoded = [
        learner.encoder(torch.cat(pair))
        for pair in zip(support.inputs, support.targets, strict=True)
    ]
    raw = learner.decoder(torch.cat([torch.stack(encoded).sum(0) / len(encoded), x]))
    return raw[:2], FLOOR + (1 - FLOOR) * softplus(raw[2:])


def test_the_cnp_is_trained_on_the_log_likelihood_of_its_equations(batch: Episode) -> None:
    learner = cnp()
    (outcome,) = learner.run(batch, training=True)
    losses = []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        assert isinstance(query.inputs, Tensor)
        densities, errors, inside = [], [], []
        for j in range(Q):
            mean, deviation = cnp_outputs(learner, support, query.inputs[j])
            torch.testing.assert_close(
                outcome.outputs[i, j], torch.cat([mean, deviation]), rtol=1e-11, atol=1e-12
            )
            densities.append(log_density(query.targets[j], mean, deviation).sum())
            errors.append((query.targets[j] - mean) ** 2)
            inside.append((query.targets[j] - mean).abs() <= 1.96 * deviation)
        losses.append(-torch.stack(densities).mean())
        assert outcome.metrics["log_likelihood"][i].item() == pytest.approx(-losses[-1].item())
        assert outcome.metrics["mse"][i].item() == pytest.approx(torch.stack(errors).mean().item())
        assert outcome.metrics["coverage95"][i].item() == pytest.approx(
            torch.stack(inside).double().mean().item()
        )
    assert_same(learner, outcome.loss, torch.stack(losses))


def anp_latent(learner: ANP, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (latent,) of q(z | points), points (n, 3) and (n, 2)."""
    encoded = [learner.latent_encoder(torch.cat(pair)) for pair in zip(x, y, strict=True)]
    raw = learner.latent_head(torch.stack(encoded).sum(0) / len(encoded))
    return raw[: learner.latent], 0.1 + 0.9 / (1 + torch.exp(-raw[learner.latent :]))


def anp_outputs(learner: ANP, support: Examples, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (2,) at one point `x` (3,), head by head."""
    assert isinstance(support.inputs, Tensor)
    values = torch.stack(
        [learner.encoder(torch.cat(p)) for p in zip(support.inputs, support.targets, strict=True)]
    )
    for layer in learner.among:
        assert isinstance(layer, torch.nn.TransformerEncoderLayer)
        normal = layer.norm1(values)
        q, k, v = (normal @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(
            3, -1
        )
        parts = [slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH)]
        told = [(q[:, p] @ k[:, p].T / math.sqrt(WIDTH // 2)).softmax(1) @ v[:, p] for p in parts]
        values = values + layer.self_attn.out_proj(torch.cat(told, 1))
        values = values + layer.linear2(layer.linear1(layer.norm2(values)).relu())
    keys, query = learner.position(support.inputs), learner.position(x)
    read = []
    if learner.projections:  # each head's own maps, from the whole width to half of it
        maps: Any = [m.weight for m in learner.projections]
        summed = torch.zeros(WIDTH, dtype=torch.float64)
        for part in (slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH)):
            q, k, v = maps[0][part] @ query, keys @ maps[1][part].T, values @ maps[2][part].T
            weights = (k @ q / math.sqrt(WIDTH // 2)).softmax(0)
            summed = summed + learner.attended.weight[:, part] @ (weights @ v)
        raw = learner.decoder(torch.cat([summed, z, x]))
        return raw[:2], FLOOR + (1 - FLOOR) * softplus(raw[2:])
    for head in range(2):
        part = slice(head * WIDTH // 2, (head + 1) * WIDTH // 2)
        scores = torch.stack(
            [torch.exp((query[part] * key[part]).sum() / math.sqrt(WIDTH // 2)) for key in keys]
        )
        read.append((scores[:, None] * values[:, part]).sum(0) / scores.sum())
    raw = learner.decoder(torch.cat([learner.attended(torch.cat(read)), z, x]))
    return raw[:2], FLOOR + (1 - FLOOR) * softplus(raw[2:])


@pytest.mark.parametrize("projections", [False, True])
@pytest.mark.parametrize("support_loss", [False, True])
def test_the_anp_is_trained_on_the_bound_of_its_equations(
    support_loss: bool, projections: bool, batch: Episode
) -> None:
    learner = anp(head_projections=projections, support_loss=support_loss)
    assert (learner.attended.bias is None) == projections
    (outcome,) = learner.run(batch, training=True)
    noise = normal(batch.support.inputs, learner.latent, batch.support.targets)
    losses = []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        assert isinstance(support.inputs, Tensor)
        assert isinstance(query.inputs, Tensor)
        m0, s0 = anp_latent(learner, support.inputs, support.targets)
        both = (
            torch.cat([support.inputs, query.inputs]),
            torch.cat([support.targets, query.targets]),
        )
        m1, s1 = anp_latent(learner, *both)
        z = m1 + s1 * noise[i]
        judged = [
            log_density(y, *anp_outputs(learner, support, z, x)).sum()
            for x, y in zip(query.inputs, query.targets, strict=True)
        ]
        seen = [
            log_density(y, *anp_outputs(learner, support, z, x)).sum()
            for x, y in zip(support.inputs, support.targets, strict=True)
        ]
        densities = judged + seen if support_loss else judged
        # what is reported is of the queries alone
        assert outcome.metrics["log_likelihood"][i].item() == pytest.approx(
            torch.stack(judged).mean().item()
        )
        divergence = (torch.log(s0 / s1) + (s1**2 + (m1 - m0) ** 2) / (2 * s0**2) - 0.5).sum()
        torch.testing.assert_close(
            divergence, torch.as_tensor(kl_divergence(Normal(m1, s1), Normal(m0, s0))).sum()
        )
        assert divergence > 0
        losses.append(-torch.stack(densities).mean() + divergence / len(densities))
    assert_same(learner, outcome.loss, torch.stack(losses))


def test_without_a_latent_the_support_is_trained_on_too(batch: Episode) -> None:
    learner = anp(latent=0, support_loss=True)
    (outcome,) = learner.run(batch, training=True)
    losses, none = [], torch.zeros(0, dtype=torch.float64)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        densities = [
            log_density(y, *anp_outputs(learner, support, none, x)).sum()
            for part in (support, query)
            for x, y in zip(part.inputs, part.targets, strict=True)
        ]
        losses.append(-torch.stack(densities).mean())
    assert_same(learner, outcome.loss, torch.stack(losses))
    assert outcome.outputs.shape[1] == Q


@pytest.mark.parametrize(("latent", "self_attention"), [(0, 2), (3, 0)])
def test_the_anp_is_judged_at_the_mean_of_the_latent(
    latent: int, self_attention: int, batch: Episode
) -> None:
    learner = anp(latent, self_attention)
    one, two = (next(learner.run(batch, training=False)) for _ in range(2))
    assert torch.equal(one.loss, two.loss)  # nothing is drawn
    for i in range(EPISODES):
        support, query = episode(batch, i)
        assert isinstance(support.inputs, Tensor)
        assert isinstance(query.inputs, Tensor)
        z = (
            anp_latent(learner, support.inputs, support.targets)[0]
            if latent
            else torch.zeros(0, dtype=torch.float64)
        )
        for j in range(Q):
            expected = torch.cat(anp_outputs(learner, support, z, query.inputs[j]))
            torch.testing.assert_close(one.outputs[i, j], expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        one.loss, -one.metrics["log_likelihood"].double(), rtol=1e-6, atol=1e-6
    )


def test_attention_is_pytorchs_multi_head_attention() -> None:
    queries, keys, values = (torch.randn(2, n, 8, dtype=torch.float64) for n in (5, 3, 3))
    reference = torch.nn.MultiheadAttention(8, 4, bias=False, batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        reference.out_proj.weight.copy_(torch.eye(8))
        expected, _ = reference(queries, keys, values)
    torch.testing.assert_close(attend(queries, keys, values, 4), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", [cnp, anp])
def test_the_order_of_the_support_does_not_matter_but_the_support_does(
    make: Any, batch: Episode
) -> None:
    learner = make()
    support, query = episode(batch, 0)
    order = torch.tensor([2, 0, 3, 1])
    assert isinstance(support.inputs, Tensor)
    shuffled = Examples(support.inputs[order], support.targets[order])
    other = Examples(support.inputs, support.targets[order])
    one, two, three = (
        learner.predict(learner.adapt(part), query.inputs) for part in (support, shuffled, other)
    )
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert (one - three).abs().max() > 1e-5


@pytest.mark.parametrize("make", [cnp, anp])
@pytest.mark.parametrize("size", [1, 30])
def test_supports_of_any_size_are_read(make: Any, size: int) -> None:
    learner = make()
    support = Examples(torch.randn(size, 3).double(), torch.randn(size, 2).double())
    outputs = learner.predict(learner.adapt(support), torch.randn(7, 3).double())
    assert outputs.shape == (7, 4)
    assert (outputs[:, 2:] >= FLOOR).all()


@pytest.mark.parametrize("make", [cnp, anp])
def test_queries_and_their_targets_do_not_reach_other_predictions(
    make: Any, batch: Episode
) -> None:
    learner = make()
    (one,) = learner.run(batch, training=False)
    inputs = batch.query.inputs.clone()  # type: ignore[union-attr]
    inputs[:, 1:] += 1
    (two,) = learner.run(
        batch._replace(query=Examples(inputs, batch.query.targets + 1)), training=False
    )
    torch.testing.assert_close(one.outputs[:, 0], two.outputs[:, 0], rtol=1e-12, atol=1e-12)
    assert (one.outputs[:, 1:] - two.outputs[:, 1:]).abs().max() > 1e-5


def test_a_meta_batch_passes_the_backbone_first(batch: Episode) -> None:
    learner = CNP(MLP(3, (5,)), task=TASK, width=WIDTH, min_deviation=FLOOR).double()
    (outcome,) = learner.run(batch, training=True)
    support, query = episode(batch, 2)
    embedded = Examples(learner.backbone(support.inputs), support.targets)
    expected = torch.cat(cnp_outputs(learner, embedded, learner.backbone(query.inputs)[1]))
    torch.testing.assert_close(outcome.outputs[2, 1], expected, rtol=1e-11, atol=1e-12)


def test_the_deviation_has_a_floor() -> None:
    found = gaussian(torch.tensor([[3.0, -1e4], [3.0, 0.0]]), 0.1)
    assert found[0].tolist() == pytest.approx([3.0, 0.1])
    assert found[1, 1].item() == pytest.approx(0.1 + 0.9 * math.log(2))


def test_the_exact_process_answers_by_its_posterior() -> None:
    learner = GaussianProcess(0.7, 2.0, 0.3, task={"kind": "regression"})
    support = Examples(torch.randn(4, 1), torch.randn(4, 1))
    x = torch.randn(6, 1)
    mean, deviation = posterior(support.inputs, support.targets, x, 0.7, 2.0, 0.3)  # type: ignore[arg-type]
    outputs = learner.predict(learner.adapt(support), x)
    torch.testing.assert_close(outputs, torch.cat([mean, deviation], 1).float())
    assert outputs.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CNP(Pixels(3), task=TASK, width=0), "width is 0; set width >= 1"),
        (
            lambda: CNP(Pixels(3), task=TASK, decoder_layers=0),
            "decoder_layers is 0; set decoder_layers >= 1",
        ),
        (
            lambda: CNP(Pixels(3), task=TASK, min_deviation=0.0),
            r"min_deviation is 0\.0; set min_deviation in \(0, 1\)",
        ),
        (
            lambda: ANP(Pixels(3), task=TASK, min_deviation=1.0),
            r"min_deviation is 1\.0; set min_deviation in \(0, 1\)",
        ),
        (
            lambda: ANP(Pixels(3), task=TASK, heads=3),
            "heads is 3 and width 128; heads must divide width",
        ),
        (lambda: ANP(Pixels(3), task=TASK, latent=-1), "latent is -1; set latent >= 0"),
        (
            lambda: ANP(Pixels(3), task=TASK, self_attention=-1),
            "self_attention is -1; set self_attention >= 0",
        ),
        (lambda: GaussianProcess(0.0, task=TASK), r"length_scale is 0\.0; set length_scale > 0"),
        (lambda: GaussianProcess(noise=-1.0, task=TASK), r"noise is -1\.0; set noise >= 0"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        make()
