"""SNAIL: causal layers written out, the shared support against the naive form, no peeking."""

import math

import pytest
import torch
from torch import Tensor

from fewshot.backbones import MLP, Pixels
from fewshot.engine.randomness import orders
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.learners import SNAIL
from fewshot.learners.model_based.causal import CausalAttention, CausalLayer, DenseBlock

WAY, SHOT, QUERIES, EPISODES, D = 3, 2, 4, 2, 5
TASK = {"kind": "classification", "way": WAY}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def snail(shot: int = SHOT) -> SNAIL:
    return SNAIL(
        MLP(4, (D,)), task=TASK, shot=shot, filters=6, keys=(3, 4, 5), values=(2, 3, 4)
    ).double()


@pytest.fixture
def batch() -> Episode:
    def examples(a_class: int) -> Examples:
        labels = torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1)
        return Examples(torch.randn(EPISODES, WAY * a_class, 4, dtype=torch.float64), labels)

    return Episode(examples(SHOT), examples(QUERIES))


def naive(learner: SNAIL, features: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """Logits (N,) of one query: the whole sequence through every layer.

    Features (S, D), query (D,).
    """
    one_hot = torch.zeros(len(labels) + 1, WAY, dtype=torch.float64)
    one_hot[range(len(labels)), labels] = 1
    sequence = torch.cat([torch.cat([features, query[None]]), one_hot], 1)[None]
    for layer in learner.causal_layers():
        sequence = torch.cat([sequence, layer(sequence)], -1)
    logits = learner.head(sequence)[0, -1]
    assert isinstance(logits, Tensor)
    return logits


def test_the_shared_support_gives_the_naive_losses_and_gradients(batch: Episode) -> None:
    learner = snail()
    (outcome,) = learner.run(batch, training=True)
    losses = []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        assert isinstance(support.inputs, Tensor)
        order = orders(support.inputs[None])[0]
        features = learner.backbone(support.inputs)[order]
        for j, q in enumerate(learner.backbone(query.inputs)):
            logits = naive(learner, features, support.targets[order], q)
            torch.testing.assert_close(outcome.outputs[i, j], logits, rtol=1e-11, atol=1e-12)
            losses.append(logits.logsumexp(0) - logits[query.targets[j]])
    loss = torch.stack(losses).view(EPISODES, -1).mean(1)
    torch.testing.assert_close(outcome.loss, loss, rtol=1e-11, atol=1e-12)
    weights = dict(learner.named_parameters())
    gradients = [
        torch.autograd.grad(value.mean(), list(weights.values())) for value in (outcome.loss, loss)
    ]
    for name, one, two in zip(weights, *gradients, strict=True):
        # what shifts all scores of an attention alike has no gradient
        assert two.abs().max() > 1e-9 or name.endswith("key.bias"), name
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_attention_is_a_softmax_over_the_items_up_to_its_own() -> None:
    layer = CausalAttention(4, 3, 2).double()
    layer.requires_grad_(False)
    sequence = torch.randn(2, 5, 4, dtype=torch.float64)
    found = layer(sequence)
    for b in range(2):
        query, key, value = (part(sequence[b]) for part in (layer.query, layer.key, layer.value))
        for t in range(5):
            weights = [math.exp(float(query[t] @ key[s]) / math.sqrt(3)) for s in range(t + 1)]
            expected = sum(w * value[s] for s, w in enumerate(weights)) / sum(weights)
            torch.testing.assert_close(found[b, t], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
def test_a_dense_block_is_a_gated_causal_convolution(dilation: int) -> None:
    layer = DenseBlock(4, 3, dilation).double()
    sequence = torch.randn(2, 7, 4, dtype=torch.float64)
    convolution = torch.nn.Conv1d(4, 6, 2, dilation=dilation).double()
    with torch.no_grad():
        convolution.weight.copy_(layer.convolution.weight.view(6, 2, 4).mT)
        convolution.bias.copy_(layer.convolution.bias)  # type: ignore[union-attr]
    padded = torch.nn.functional.pad(sequence.mT, (dilation, 0))
    values, gates = convolution(padded).mT.chunk(2, -1)
    torch.testing.assert_close(
        layer(sequence), values.tanh() * gates.sigmoid(), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize(
    "layer", [CausalAttention(4, 3, 2), DenseBlock(4, 3, 1), DenseBlock(4, 3, 4)]
)
def test_no_item_sees_a_later_one(layer: CausalLayer) -> None:
    layer.double()
    sequence = torch.randn(1, 6, 4, dtype=torch.float64)
    before = layer(sequence)
    for t in range(6):
        changed = sequence.clone()
        changed[:, t] += 1
        difference = (layer(changed) - before).abs().amax((0, 2))
        assert difference[:t].eq(0).all()
        assert difference[t] > 0


@pytest.mark.parametrize(
    ("way", "shot", "dilations"),
    [(5, 1, [1, 2, 4]), (2, 2, [1, 2, 4]), (3, 1, [1, 2]), (5, 5, [1, 2, 4, 8, 16])],
)
def test_the_blocks_are_those_of_the_paper(way: int, shot: int, dilations: list[int]) -> None:
    learner = SNAIL(Pixels(7), task={**TASK, "way": way}, shot=shot)
    assert len(dilations) == math.ceil(math.log2(way * shot + 1))
    kinds = [
        layer.dilation if isinstance(layer, DenseBlock) else "attention"
        for layer in learner.causal_layers()
    ]
    assert kinds == ["attention", *dilations, "attention", *dilations, "attention"]
    sizes = [
        (layer.key.out_features, layer.value.out_features)
        for layer in learner.causal_layers()
        if isinstance(layer, CausalAttention)
    ]
    assert sizes == [(64, 32), (256, 128), (512, 256)]
    assert learner.head.in_features == 7 + way + 2 * len(dilations) * 128 + 32 + 128 + 256


def test_every_support_item_reaches_the_prediction_and_no_query_reaches_another(
    batch: Episode,
) -> None:
    learner = snail()
    support, query = episode(batch, 0)
    x, q = (part.inputs.requires_grad_() for part in (support, query))  # type: ignore[union-attr]
    outputs = learner.predict(learner.adapt(Examples(x, support.targets)), q)
    seen, others = torch.autograd.grad(outputs[0].sum(), (x, q))
    assert (seen.abs().sum(1) > 0).all()
    assert others[0].abs().sum() > 0
    assert others[1:].eq(0).all()


def test_the_label_of_a_query_does_not_reach_its_prediction(batch: Episode) -> None:
    learner = snail()
    (one,) = learner.run(batch, training=False)
    other = batch._replace(query=batch.query._replace(targets=(batch.query.targets + 1) % WAY))
    (two,) = learner.run(other, training=False)
    assert torch.equal(one.outputs, two.outputs)
    assert not torch.equal(one.loss, two.loss)


def test_the_labels_of_the_support_do(batch: Episode) -> None:
    learner = snail()
    (one,) = learner.run(batch, training=False)
    other = batch._replace(
        support=batch.support._replace(targets=(batch.support.targets + 1) % WAY)
    )
    (two,) = learner.run(other, training=False)
    assert (one.outputs - two.outputs).abs().max() > 1e-4


def test_other_supports_are_refused(batch: Episode) -> None:
    with pytest.raises(
        FewshotError,
        match=r"built for supports of 3-way 1-shot, but one has 6 .*leave train_shot out",
    ):
        list(snail(shot=1).run(batch, training=True))
    labels = batch.support.targets + 1
    with pytest.raises(
        FewshotError, match="an episode has the label 3, but this SNAIL was built for way 3"
    ):
        list(
            snail().run(
                batch._replace(support=batch.support._replace(targets=labels)), training=True
            )
        )
    with pytest.raises(FewshotError, match=r"keys is \[1, 2\] and .* give three sizes"):
        SNAIL(MLP(4, (D,)), task=TASK, shot=1, keys=(1, 2))
    with pytest.raises(FewshotError, match="shot is 0; set shot >= 1"):
        SNAIL(MLP(4, (D,)), task=TASK, shot=0)
