"""MetaR: its equations written out, its meta-gradient against differences, baselines by hand."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from fakes import fake_wiki_one
from slopes import assert_slope
from torch import Tensor, nn

from fewshot import (
    EntityVectors,
    MappedEntityVectors,
    MetaR,
    TailFrequency,
    TransE,
    WikiOneDataModule,
)
from fewshot.episodes.types import Episode, Examples, MetaBatch, map_tensors
from fewshot.errors import FewshotError

EPISODES, SHOT, QUERIES, CANDIDATES, ENTITIES, SIZE = 3, 2, 4, 5, 20, 6
TASK = {"kind": "ranking"}


@pytest.fixture
def batch() -> Episode:
    torch.manual_seed(0)

    def ids(*shape: int) -> Tensor:
        return torch.randint(ENTITIES, (EPISODES, *shape))

    candidates = ids(QUERIES, CANDIDATES)
    candidates[:, :, -1] = -1
    support = {"pairs": ids(SHOT, 2), "wrong": ids(SHOT)}
    zeros = torch.zeros(EPISODES, SHOT + QUERIES, dtype=torch.int64)
    query = {"heads": ids(QUERIES), "candidates": candidates}
    return Episode(Examples(support, zeros[:, :SHOT]), Examples(query, zeros[:, SHOT:]))


def learner(first_order: bool = False, **kwargs: Any) -> MetaR:
    return MetaR(
        EntityVectors(ENTITIES, SIZE), 0.7, (5, 4), first_order, task=TASK, **kwargs
    ).double()


def loss_of(made: MetaR, batch: Episode) -> Tensor:
    return torch.cat([outcome.loss for outcome in made.run(batch, training=True)]).mean()


def written_out(
    made: MetaR, batch: Episode, e: int, rate: float = 0.7, first_order: bool = False
) -> tuple[Tensor, Tensor]:
    """The scores (Q, C) of one episode, and its support loss, whose gradient has a closed form."""
    vectors = made.backbone(torch.arange(ENTITIES))
    support, query = batch.support.inputs, batch.query.inputs
    assert isinstance(support, dict)
    assert isinstance(query, dict)
    relations = []
    for h, t in support["pairs"][e].tolist():
        x = torch.cat([vectors[h], vectors[t]])
        layers = [m for m in made.relation_learner if isinstance(m, nn.Linear)]
        for layer, _ in pairwise(layers):
            x = layer.weight @ x + layer.bias
            x = torch.where(x > 0, x, 0.01 * x)
        relations.append(layers[-1].weight @ x + layers[-1].bias)
    meta = sum(relations[1:], relations[0]) / SHOT
    gradient, losses = torch.zeros_like(meta), []
    for (h, t), wrong in zip(
        support["pairs"][e].tolist(), support["wrong"][e].tolist(), strict=True
    ):
        right, against = vectors[h] + meta - vectors[t], vectors[h] + meta - vectors[wrong]
        losses.append((1 + right.norm() - against.norm()).clamp(min=0))
        if losses[-1] > 0:
            gradient = gradient + (right / right.norm() - against / against.norm()) / SHOT
    adapted = meta - rate * (gradient.detach() if first_order else gradient)
    scores = torch.full((QUERIES, CANDIDATES), -math.inf, dtype=torch.float64)
    for q, head in enumerate(query["heads"][e].tolist()):
        for c, tail in enumerate(query["candidates"][e, q].tolist()):
            if tail >= 0:
                scores[q, c] = -(vectors[head] + adapted - vectors[tail]).norm()
    return scores, torch.stack(losses).mean()


def test_scores_and_loss_are_the_written_out_ones(batch: Episode) -> None:
    made = learner()
    (outcome,) = made.run(batch, training=True)
    for e in range(EPISODES):
        scores, _ = written_out(made, batch, e)
        torch.testing.assert_close(outcome.outputs[e], scores, rtol=0, atol=1e-12)
        pairs = [
            max(0.0, 1 - row[0].item() + other.item()) for row in scores for other in row[1:-1]
        ]
        assert outcome.loss[e].item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_the_meta_gradient_is_the_slope(batch: Episode) -> None:
    made = learner()
    assert_slope(lambda: loss_of(made, batch), list(made.parameters()), 1e-6)


def test_first_order_has_the_same_loss_and_another_gradient(batch: Episode) -> None:
    made, first = learner(), learner(first_order=True)
    first.load_state_dict(made.state_dict())
    losses = [loss_of(one, batch) for one in (made, first)]
    assert losses[0] == losses[1]
    exact, constant = (
        torch.autograd.grad(loss, list(one.backbone.parameters()))[0]
        for loss, one in zip(losses, (made, first), strict=True)
    )
    assert (exact - constant).abs().max() > 1e-4


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(("shared", "added"), [(True, False), (False, True), (True, True)])
def test_the_authors_step_and_the_support_s_loss(
    shared: bool, added: bool, first_order: bool, batch: Episode
) -> None:
    made = learner(first_order, shared_step=shared, support_loss=added)
    (outcome,) = made.run(batch, training=True)
    losses = []
    for e in range(EPISODES):
        rate = 0.7 / EPISODES if shared else 0.7
        scores, support = written_out(made, batch, e, rate, first_order)
        margins = [(1 - row[0] + row[1:-1]).clamp(min=0) for row in scores]  # the last is none
        losses.append(torch.cat(margins).mean() + (support if added else 0.0))
    torch.testing.assert_close(outcome.loss, torch.stack(losses), rtol=0, atol=1e-12)
    weights = list(made.parameters())
    found, expected = (
        torch.autograd.grad(loss.mean(), weights) for loss in (outcome.loss, torch.stack(losses))
    )
    for one, two in zip(found, expected, strict=True):
        assert two.abs().max() > 1e-6
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    # evaluation takes the whole step, and judges the queries alone
    plain = learner()
    plain.load_state_dict(made.state_dict())
    torch.testing.assert_close(made.evaluate(batch).loss, plain.evaluate(batch).loss)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_shared_step_is_that_of_the_whole_meta_batch(
    ranks: int, batch: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner(shared_step=True)
    monkeypatch.setattr(MetaR, "trainer", SimpleNamespace(world_size=ranks))
    parts = [map_tensors(lambda tensor: tensor[e : e + 1], batch) for e in range(EPISODES)]  # noqa: B023
    losses = [outcome.loss for outcome in made.training_outcomes(MetaBatch(parts))]
    made.inner_lr, made.shared_step = 0.7 / (ranks * EPISODES), False
    torch.testing.assert_close(torch.cat(losses), next(made.run(batch, training=True)).loss)


def test_adapt_and_predict_are_the_meta_batch_s(batch: Episode) -> None:
    made = learner()
    outcome = made.evaluate(batch)
    torch.testing.assert_close(outcome.outputs, next(iter(made.run(batch, training=True))).outputs)
    support, query = batch.support.inputs, batch.query.inputs
    assert isinstance(support, dict)
    assert isinstance(query, dict)
    one = Examples({name: ids[1] for name, ids in support.items()}, batch.support.targets[1])
    scores = made.predict(made.adapt(one), {name: ids[1] for name, ids in query.items()})
    torch.testing.assert_close(scores, outcome.outputs[1])


def test_transe_takes_the_mean_translation() -> None:
    vectors = EntityVectors(4, 2)
    with torch.no_grad():
        vectors.vectors.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [1.0, 3.0]]))
    made = TransE(vectors, task=TASK)
    support = Examples(
        {"pairs": torch.tensor([[0, 1]]), "wrong": torch.tensor([2])}, torch.zeros(1)
    )
    scores = made.predict(
        made.adapt(support),
        {"heads": torch.tensor([2]), "candidates": torch.tensor([[3, 2, 0, -1]])},
    )
    assert scores.tolist() == [pytest.approx([0, -1, -math.sqrt(10), -math.inf])]


def test_the_support_s_tails_come_before_the_background_s() -> None:
    made = TailFrequency([0, 9, 3, 3], task=TASK)
    support = Examples(
        {"pairs": torch.tensor([[1, 0]]), "wrong": torch.tensor([2])}, torch.zeros(1)
    )
    query = {"heads": torch.tensor([2]), "candidates": torch.tensor([[0, 1, 2, 3, -1]])}
    scores = made.predict(made.adapt(support), query)
    assert scores.tolist() == [pytest.approx([1, 0.9, 0.3, 0.3, -math.inf])]


def test_another_task_is_refused() -> None:
    with pytest.raises(
        FewshotError,
        match=r"MetaR is made for ranking, but .* task is classification; .* benchmark of ranking",
    ):
        MetaR(EntityVectors(4, 2), task={"kind": "classification", "way": 5})


def test_other_vectors_than_the_benchmark_s_are_refused(tmp_path: Path) -> None:

    path = str(tmp_path / "vectors.npz")
    np.savez(path, entities=np.zeros((3, 2), np.float32))
    with pytest.raises(
        FewshotError, match=r"has vectors \(3, 2\), but entities is 4 and dimensions 2"
    ):
        EntityVectors(4, 2, path)


def test_vectors_on_the_disk_are_those_in_memory(batch: Episode, tmp_path: Path) -> None:
    path = str(tmp_path / "vectors.npz")
    np.savez(path, entities=np.random.default_rng(0).normal(size=(ENTITIES, 4)).astype(np.float32))
    made, mapped = (
        MetaR(cls(ENTITIES, 4, path), task=TASK).double()
        for cls in (EntityVectors, MappedEntityVectors)
    )
    mapped.load_state_dict(
        {name: w for name, w in made.state_dict().items() if not name.startswith("backbone")}
    )
    torch.testing.assert_close(mapped.evaluate(batch).outputs, made.evaluate(batch).outputs)
    assert mapped.evaluate(batch).outputs.dtype == torch.float64
    assert not any(name.startswith("backbone") for name in mapped.state_dict())


def test_sparse_gradients_train_as_dense_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "cache"))
    root, found = fake_wiki_one(tmp_path / "root"), []
    for sparse in (False, True):
        data = WikiOneDataModule(
            str(root), dimensions=4, embedding_epochs=1, train_episodes=640, meta_batch_size=64
        )
        torch.manual_seed(0)
        backbone = EntityVectors(data.entities, data.dimensions, data.entity_vectors, sparse=sparse)
        made = MetaR(backbone, hidden=(5,), task=data.task, optimizer=torch.optim.Adagrad)
        trainer = L.Trainer(
            accelerator="cpu", max_steps=5, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(made, data)
        found.append(backbone.vectors.weight)
        assert backbone.vectors.weight.grad is not None
        assert backbone.vectors.weight.grad.is_sparse == sparse
    torch.testing.assert_close(*found)


def test_a_missing_file_of_vectors_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match="is missing; let the benchmark make it anew"):
        MappedEntityVectors(4, 2, str(tmp_path / "none.npz"))
    with pytest.raises(FewshotError, match="needs a file of vectors; set data"):
        MappedEntityVectors(4, 2)
    np.savez(tmp_path / "others.npz", relations=np.zeros((4, 2), np.float32))
    with pytest.raises(FewshotError, match="has no array 'entities'"):
        MappedEntityVectors(4, 2, str(tmp_path / "others.npz"))
