"""The family's embedding: one pass a meta-batch, what batch normalisation sees at evaluation."""

import pytest
import torch
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Examples, Inputs, episode, map_tensors
from fewshot.learners import PrototypicalNetwork
from fewshot.learners.base import BatchNormPolicy

TASK = {"kind": "classification", "way": 3}


@pytest.fixture
def batch() -> Episode:
    """Four episodes of images (2, 16, 16)."""
    torch.manual_seed(0)

    def examples(a_class: int) -> Examples:
        images = torch.rand(4, 3 * a_class, 2, 16, 16, dtype=torch.float64)
        return Examples(images, torch.arange(3).repeat_interleave(a_class).expand(4, -1))

    return Episode(examples(2), examples(3))


def learner(policy: BatchNormPolicy) -> PrototypicalNetwork:
    """With running averages that are not the trivial ones."""
    result = PrototypicalNetwork(Conv4(2, 16, width=4), task=TASK, batchnorm=policy).double()
    result.backbone(torch.rand(9, 2, 16, 16, dtype=torch.float64))
    return result.eval()


def changed(batch: Episode) -> Episode:
    """Other queries but for the first of each episode."""
    inputs = batch.query.inputs
    assert isinstance(inputs, Tensor)
    other = torch.rand_like(inputs)
    other[:, 0] = inputs[:, 0]
    return batch._replace(query=batch.query._replace(inputs=other))


def test_training_normalises_over_the_whole_meta_batch(batch: Episode) -> None:
    network = learner("inductive").train()
    (outcome,) = network.run(batch, training=True)
    images = torch.cat([batch.support.inputs.flatten(0, 1), batch.query.inputs.flatten(0, 1)])  # type: ignore[union-attr]
    features = network.backbone(images)  # in another order: the statistics are the same
    support, query = features[:24].view(4, 6, -1), features[24:].view(4, 9, -1)
    for i in range(4):
        logits = network.compare(network.fit(support[i], batch.support.targets[i], 3), query[i])
        torch.testing.assert_close(outcome.outputs[i], logits, rtol=1e-10, atol=1e-10)
    averages = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert averages.num_batches_tracked is not None
    assert averages.num_batches_tracked.item() == 3  # one pass each: `learner`, `run` and this test


def test_inductive_evaluation_uses_the_running_averages(batch: Episode) -> None:
    network = learner("inductive")
    outcome = network.evaluate(batch)
    for i in range(4):
        support, query = episode(batch, i)
        logits = network.predict(network.adapt(support), query.inputs)
        torch.testing.assert_close(outcome.outputs[i], logits, rtol=1e-10, atol=1e-10)
    other = network.evaluate(changed(batch))
    assert torch.equal(outcome.outputs[:, 0], other.outputs[:, 0])  # no query sees another
    assert (outcome.outputs[:, 1] - other.outputs[:, 1]).abs().max() > 1e-6


def test_transductive_evaluation_uses_the_statistics_of_each_episode(batch: Episode) -> None:
    network = learner("transductive")
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    outcome = network.evaluate(batch)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    network.backbone.train()  # by the statistics of what is passed in
    for i in range(4):
        support, query = episode(batch, i)
        features = network.backbone(torch.cat([support.inputs, query.inputs]))  # type: ignore[list-item]
        logits = network.compare(network.fit(features[:6], support.targets, 3), features[6:])
        torch.testing.assert_close(outcome.outputs[i], logits, rtol=1e-10, atol=1e-10)
    other = network.evaluate(changed(batch))
    assert (outcome.outputs[:, 0] - other.outputs[:, 0]).abs().max() > 1e-6


class Words(nn.Module):
    """Reads a dict: the mean of the words times the length."""

    out_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 2)

    def forward(self, inputs: Inputs) -> Tensor:
        assert isinstance(inputs, dict)
        words: Tensor = self.embedding(inputs["tokens"])
        return words.mean(1) * inputs["lengths"][:, None]


def test_inputs_may_be_dicts() -> None:
    def examples(a_class: int) -> Examples:
        tokens = torch.randint(10, (2, 3 * a_class, 4))
        labels = torch.arange(3).repeat_interleave(a_class).expand(2, -1)
        return Examples(
            {"tokens": tokens, "lengths": torch.randint(1, 5, (2, 3 * a_class))}, labels
        )

    batch = Episode(examples(1), examples(2))
    policies: tuple[BatchNormPolicy, ...] = ("inductive", "transductive")
    for policy in policies:
        network = PrototypicalNetwork(Words(), task=TASK, batchnorm=policy)
        outcome = network.evaluate(batch)
        for i in range(2):
            support, query = episode(batch, i)
            torch.testing.assert_close(
                outcome.outputs[i], network.predict(network.adapt(support), query.inputs)
            )


def test_evaluation_mode_ends_with_its_block() -> None:
    network, frozen = MLP(2, norm="batch"), nn.Dropout().eval()
    network.layers.append(frozen)

    def fail() -> None:
        with evaluation_mode(network):
            assert not any(module.training for module in network.modules())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert network.training
    assert network.layers[1].training
    assert not frozen.training


def test_mixed_precision_is_for_the_network_alone(batch: Episode) -> None:
    network = learner("inductive").float()
    batch = map_tensors(
        lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, batch
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network.evaluate(batch)
        features = (
            network.embed(batch.support.inputs[0]).float(),  # type: ignore[index]
            network.embed(batch.query.inputs[0]).float(),  # type: ignore[index]
        )
        support, query = episode(batch, 0)
        alone = network.predict(network.adapt(support), query.inputs)
    # logits of the rounded features without another rounding: in bfloat16 they would be off by 1 %
    exact = network.compare(network.fit(features[0], support.targets, 3), features[1])
    torch.testing.assert_close(mixed.outputs[0], exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, exact, rtol=1e-5, atol=1e-5)
    rough = network.evaluate(batch).outputs
    assert mixed.outputs.dtype == torch.float32
    assert (mixed.outputs - rough).abs().max() > 1e-5  # the network did run in bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_a_cpu_embeds_chunks_in_evaluation_alone(
    training: bool, monkeypatch: pytest.MonkeyPatch, batch: Episode
) -> None:
    network = learner("inductive").train(training)
    sizes: list[int] = []
    network.backbone.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    whole = network.evaluate(batch).outputs
    monkeypatch.setattr("fewshot.learners.features_held.CHUNK_PIXELS", 7 * 16 * 16)
    chunked = network.evaluate(batch).outputs
    # 60 images; in training mode their statistics are those of all together
    assert sizes == ([60, 60] if training else [60, *[7] * 8, 4])
    torch.testing.assert_close(chunked, whole, rtol=1e-11, atol=1e-11)
