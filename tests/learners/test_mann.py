"""MANN: the memory's access and both protocols against loops over heads, slots and items."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.backbones import MLP
from fewshot.engine.randomness import orders
from fewshot.episodes.types import Episode, Examples, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import MANN
from fewshot.learners.model_based.mann import instance_accuracies
from fewshot.learners.model_based.memory import EPSILON, Memory, access

WAY, SHOT, QUERIES, EPISODES, D = 3, 1, 2, 2, 5
HEADS, SLOTS, SIZE, HIDDEN = 2, 6, 4, 7
TASK = {"kind": "classification", "way": WAY}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def mann(protocol: str = "episode", normalise: bool = False) -> MANN:
    learner = MANN(
        MLP(4, (D,)),
        task=TASK,
        hidden=HIDDEN,
        slots=SLOTS,
        slot_size=SIZE,
        heads=HEADS,
        protocol=protocol,  # type: ignore[arg-type]
        normalise=normalise,
    )
    return learner.double()


@pytest.fixture
def batch() -> Episode:
    def examples(a_class: int) -> Examples:
        labels = torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1)
        return Examples(torch.randn(EPISODES, WAY * a_class, 4, dtype=torch.float64), labels)

    return Episode(examples(SHOT), examples(QUERIES))


def written_out_access(
    content: list[Tensor],
    usage: list[Tensor],
    last: list[list[Tensor]],
    keys: Tensor,
    gates: Tensor,
    decay: float,
    sharpness: float = 1.0,
) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]], list[Tensor]]:
    """One episode's access by slot: content M x (W,), usage M x (), last weights R x M x ()."""
    heads, slots = len(keys), len(content)
    least = sorted(range(slots), key=lambda i: usage[i].item())[:heads]
    write = [
        [
            gates[j] * last[j][i] + (1 - gates[j]) * (1.0 if least[j] == i else 0.0)
            for i in range(slots)
        ]
        for j in range(heads)
    ]
    new = []
    for i in range(slots):
        slot = torch.zeros_like(content[i]) if i in least else content[i]
        new.append(slot + sum(write[j][i] * keys[j] for j in range(heads)))
    weights, reads = [], []
    for j in range(heads):
        norm = ((keys[j] ** 2).sum() + EPSILON).sqrt()
        cosines = [
            (keys[j] * slot).sum() / norm / ((slot**2).sum() + EPSILON).sqrt() for slot in new
        ]
        scores = [(sharpness * cosine).exp() for cosine in cosines]
        total = torch.stack(scores).sum()
        weights.append([score / total for score in scores])
        reads.append(
            torch.stack([w * slot for w, slot in zip(weights[j], new, strict=True)]).sum(0)
        )
    used = [
        decay * usage[i] + torch.stack([weights[j][i] + write[j][i] for j in range(heads)]).sum()
        for i in range(slots)
    ]
    return new, used, weights, reads


@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_the_access_is_that_of_the_equations(sharpness: float) -> None:
    content = torch.randn(EPISODES, SLOTS, SIZE, dtype=torch.float64)
    usage = torch.rand(EPISODES, SLOTS, dtype=torch.float64)
    last = torch.rand(EPISODES, HEADS, SLOTS, dtype=torch.float64).softmax(-1)
    keys = torch.randn(EPISODES, HEADS, SIZE, dtype=torch.float64)
    gates = torch.rand(EPISODES, HEADS, dtype=torch.float64)
    memory, reads = access(Memory(content, usage, last), keys, gates, 0.9, sharpness)
    for b in range(EPISODES):
        found = written_out_access(
            list(content[b]),
            list(usage[b]),
            [list(row) for row in last[b]],
            keys[b],
            gates[b],
            0.9,
            sharpness,
        )
        expected = (
            torch.stack(found[0]),
            torch.stack(found[1]),
            torch.stack([torch.stack(row) for row in found[2]]),
            torch.stack(found[3]),
        )
        for one, two in zip(
            (memory.content[b], memory.usage[b], memory.weights[b], reads[b]), expected, strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


def written_out(learner: MANN, items: Tensor, labels: list[int | None]) -> list[Tensor]:
    """Logits of each of the embedded items (T, D) of one sequence.

    The label of an item comes with the next.
    """
    zero = torch.zeros((), dtype=torch.float64)
    content, usage = [torch.zeros(SIZE, dtype=torch.float64)] * SLOTS, [zero] * SLOTS
    last = [[zero] * SLOTS for _ in range(HEADS)]
    reads = [torch.zeros(SIZE, dtype=torch.float64)] * HEADS
    hidden, cell = (torch.zeros(1, HIDDEN, dtype=torch.float64) for _ in range(2))
    label, found = torch.zeros(WAY, dtype=torch.float64), []
    for item, its_label in zip(items, labels, strict=True):
        hidden, cell = learner.controller(torch.cat([item, label, *reads])[None], (hidden, cell))
        raw = learner.interface(hidden[0]).view(HEADS, SIZE + 1)
        keys, gates = raw[:, :SIZE].tanh(), raw[:, SIZE].sigmoid()
        content, usage, last, reads = written_out_access(content, usage, last, keys, gates, 0.95)
        found.append(learner.output(torch.cat([hidden[0], *reads])))
        label = torch.zeros(WAY, dtype=torch.float64)
        if its_label is not None:
            label[its_label] = 1
    return found


def assert_same_gradients(learner: MANN, found: Tensor, expected: Tensor) -> None:
    weights = dict(learner.named_parameters())
    gradients = [torch.autograd.grad(loss, list(weights.values())) for loss in (found, expected)]
    for name, one, two in zip(weights, *gradients, strict=True):
        assert two.abs().max() > 1e-9, name
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-11)


def test_the_episode_protocol_reads_the_support_and_each_query_by_itself(batch: Episode) -> None:
    learner = mann()
    (outcome,) = learner.run(batch, training=True)
    losses = []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        assert isinstance(support.inputs, Tensor)
        order = orders(support.inputs[None])[0]
        features = learner.backbone(support.inputs)[order]
        labels: list[int | None] = support.targets[order].tolist()
        for j, q in enumerate(learner.backbone(query.inputs)):
            logits = written_out(learner, torch.cat([features, q[None]]), [*labels, None])[-1]
            torch.testing.assert_close(outcome.outputs[i, j], logits, rtol=1e-10, atol=1e-11)
            losses.append(logits.logsumexp(0) - logits[query.targets[j]])
    assert_same_gradients(learner, outcome.loss.mean(), torch.stack(losses).mean())


@pytest.mark.parametrize("normalise", [False, True])
def test_the_sequence_protocol_predicts_every_item_before_its_label(
    batch: Episode, normalise: bool
) -> None:
    learner = mann("sequence", normalise=normalise)
    (outcome,) = learner.run(batch, training=True)
    losses = []
    for i in range(EPISODES):
        inputs = torch.cat([part.inputs[i] for part in batch])  # type: ignore[index]
        targets = torch.cat([part.targets[i] for part in batch])
        order = orders(inputs[None])[0]
        labels = targets[order].tolist()
        features = learner.backbone(inputs)[order]
        if normalise:
            features = torch.stack(
                [(x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() for x in features]
            )
        logits = written_out(learner, features, labels)
        losses.append(F.cross_entropy(torch.stack(logits), targets[order]))
        torch.testing.assert_close(outcome.loss[i], losses[-1], rtol=1e-10, atol=1e-11)
        for place, number in enumerate(order.tolist()):
            if number >= WAY * SHOT:
                torch.testing.assert_close(outcome.outputs[i, number - WAY * SHOT], logits[place])
        right = [int(one.argmax()) == label for one, label in zip(logits, labels, strict=True)]
        for instance in range(SHOT + QUERIES):
            places = [
                [t for t, label in enumerate(labels) if label == c][instance] for c in range(WAY)
            ]
            share = sum(right[t] for t in places) / WAY
            assert outcome.metrics[f"accuracy_instance{instance + 1}"][i].item() == pytest.approx(
                share
            )
    assert len(outcome.metrics) == 1 + SHOT + QUERIES
    assert torch.equal(outcome.metrics["accuracy"], outcome.metrics["accuracy_instance2"])  # 1-shot
    assert_same_gradients(learner, outcome.loss.mean(), torch.stack(losses).mean())


def test_the_warm_up_is_by_episodes_in_training_alone(
    batch: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = mann("sequence")
    learner.warmup_steps = 5
    by_episode = mann()
    by_episode.load_state_dict(learner.state_dict())
    for step, is_episode in ((0, True), (4, True), (5, False)):
        monkeypatch.setattr(MANN, "global_step", step)
        (outcome,) = learner.run(batch, training=True)
        assert (
            torch.equal(outcome.loss, next(by_episode.run(batch, training=True)).loss) == is_episode
        )
        assert ("accuracy_instance1" in outcome.metrics) != is_episode
        assert "accuracy_instance1" in next(learner.run(batch, training=False)).metrics


def test_instances_are_counted_class_by_class() -> None:
    labels = torch.tensor([[0, 1, 0, 1, 1, 0]])
    right = torch.tensor([[True, False, True, True, False, True]])
    assert [value.item() for value in instance_accuracies(right, labels, 2)] == [0.5, 1.0, 0.5]


@pytest.mark.parametrize("protocol", ["episode", "sequence"])
def test_a_meta_batch_is_its_episodes(protocol: str, batch: Episode) -> None:
    learner = mann(protocol)
    (outcome,) = learner.run(batch, training=False)
    for i in range(EPISODES):
        alone = map_tensors(lambda tensor: tensor[i : i + 1], batch)  # noqa: B023  # used at once
        (one,) = learner.run(alone, training=False)
        torch.testing.assert_close(one.outputs[0], outcome.outputs[i])
        torch.testing.assert_close(one.loss[0], outcome.loss[i])


def test_no_label_of_a_query_reaches_a_prediction(batch: Episode) -> None:
    learner = mann()
    other = batch._replace(query=batch.query._replace(targets=(batch.query.targets + 1) % WAY))
    one, two = (next(learner.run(meta_batch, training=False)) for meta_batch in (batch, other))
    assert torch.equal(one.outputs, two.outputs)
    assert not torch.equal(one.loss, two.loss)


def test_adapt_and_predict_are_the_episode_protocol(batch: Episode) -> None:
    learner = mann()
    (outcome,) = learner.run(batch, training=False)
    support, query = episode(batch, 1)
    found = learner.predict(learner.adapt(support), query.inputs)
    torch.testing.assert_close(found, outcome.outputs[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 0}, "hidden is 0; set hidden >= 1"),
        ({"heads": 7, "slots": 6}, "heads is 7, more than the 6 slots"),
        ({"usage_decay": 1.0}, r"usage_decay is 1.0; set usage_decay in \[0, 1\)"),
        ({"sharpness": 0.0}, r"sharpness is 0.0; set sharpness > 0"),
        ({"warmup_steps": -1}, r"warmup_steps is -1; set warmup_steps >= 0"),
    ],
)
def test_sizes_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        MANN(MLP(4, (D,)), task=TASK, **arguments)
