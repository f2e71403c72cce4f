"""PsCo against its written-out equations, its queue, its follower, and what a checkpoint holds."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from every_learner import TinyImages
from torch import Tensor

import fewshot
from fewshot import MLP, FewshotError, PsCo, SelfLabelledDataModule
from fewshot.engine.views import Views
from fewshot.learners.metric.psco import momentum_contrast, paired, pseudo_supervised, sinkhorn

TASK = {"kind": "classification", "way": 3, "train_way": 4}


def unit(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


def learner(**arguments: Any) -> PsCo:
    small = {"queue": 16, "hidden": 8, "projected": 5, "task_shots": 2}
    torch.manual_seed(0)
    return PsCo(MLP(16, (8,)), task=TASK, **{**small, **arguments})


def benchmark(**arguments: Any) -> SelfLabelledDataModule:
    sizes: dict[str, Any] = {"train_way": 4, "train_episodes": 8, "val_episodes": 2}
    return SelfLabelledDataModule(
        benchmark=TinyImages(way=3, queries=3),
        views=Views(erase=0.2),
        support_views=Views(shift=1),
        **{**sizes, "meta_batch_size": 2, **arguments},
    )


def fit(model: PsCo, data: Any, folder: Path, **arguments: Any) -> fewshot.Trainer:
    trainer = fewshot.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        **{"max_epochs": 1, "num_sanity_val_steps": 0, **arguments},
    )
    trainer.fit(model, data)
    return trainer


def test_sinkhorn_is_that_of_plain_sums() -> None:
    similarity = unit(5, 7) @ unit(9, 7, seed=1).T
    rows = [[math.exp(v / 0.05) for v in row] for row in similarity.tolist()]
    for _ in range(3):
        sums = [sum(row[j] for row in rows) for j in range(9)]
        rows = [[v / (s * 9) for v, s in zip(row, sums, strict=True)] for row in rows]
        rows = [[v / (sum(row) * 5) for v in row] for row in rows]
    expected = torch.tensor([[v * 5 for v in row] for row in rows], dtype=torch.float64)
    found = sinkhorn(similarity, 0.05, 3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.sum(1), torch.ones(5, dtype=torch.float64))
    assert sinkhorn(similarity, 1e-4, 3).isfinite().all()  # where exp overflows


def test_the_task_of_the_shots_is_supervised_contrast() -> None:
    queries, shots = unit(4, 6), unit(4, 3, 6, seed=1)
    for i, found in enumerate(pseudo_supervised(queries, shots, 0.7).tolist()):
        weights = [[math.exp(float(queries[i] @ s) / 0.7) for s in of] for of in shots]
        total = sum(map(sum, weights))
        expected = -sum(math.log(w / total) for w in weights[i]) / 3
        assert found == pytest.approx(expected, rel=1e-12)


def test_momentum_contrast_is_a_softmax_over_key_and_queue() -> None:
    queries, keys, queue = unit(4, 6), unit(4, 6, seed=1), unit(8, 6, seed=2)
    for i, found in enumerate(momentum_contrast(queries, keys, queue, 0.2).tolist()):
        own = math.exp(float(queries[i] @ keys[i]) / 0.2)
        others = sum(math.exp(float(queries[i] @ k) / 0.2) for k in queue)
        assert found == pytest.approx(-math.log(own / (own + others)), rel=1e-12)


def test_both_losses_with_the_shots_that_transport_assigns() -> None:
    model = learner().double()
    queries, keys = unit(4, 5), unit(4, 5, seed=1)
    assigned = sinkhorn(keys @ model.queue.T, 0.05, 3)
    best = [sorted(range(16), key=lambda j: -float(row[j]))[:2] for row in assigned]
    shots = torch.stack([model.queue[of] for of in best])
    expected = pseudo_supervised(queries, shots, 1.0) + momentum_contrast(
        queries, keys, model.queue, 0.2
    )
    torch.testing.assert_close(model.losses(queries, keys), expected)


def test_queries_are_paired_within_their_class() -> None:
    support, query = torch.tensor([2, 0, 1, 0]), torch.tensor([0, 0, 0, 2, 1, 1])
    assert paired(support, query).tolist() == [1, 3, 1, 0, 2, 2]


def test_the_follower_follows_and_the_queue_is_a_ring() -> None:
    model = learner(momentum=0.9)
    weight, followed = (
        model.get_parameter(f"{part}.0.weight") for part in ("projector", "follower.1")
    )
    before = followed.clone()
    with torch.no_grad():
        weight.add_(1)
    model.follow()
    torch.testing.assert_close(followed, 0.9 * before + 0.1 * weight)
    assert not any(p.requires_grad for p in model.follower.parameters())
    old, keys = model.queue.clone(), unit(10, 5).float()
    model.enqueue(keys)
    model.enqueue(keys)
    assert torch.equal(model.queue[:4], keys[6:])
    assert torch.equal(model.queue[4:10], keys[4:])
    assert torch.equal(model.queue[10:], keys[:6])
    assert int(model.place) == 4
    assert not torch.equal(old, model.queue)
    kept = model.queue.clone()
    model.enqueue(torch.full((3, 5), math.nan))
    assert torch.equal(model.queue, kept)


def test_a_query_is_of_the_nearest_prototype_by_cosine() -> None:
    model = learner().double().eval().requires_grad_(False)
    support, queries = unit(6, 8), unit(4, 8, seed=1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = model.compare(model.fit(support, labels, 3), queries)
    for i in range(4):
        for c in range(3):
            projected = [model.projector(s[None])[0] for s in support[labels == c]]
            mean = sum(p / p.norm() for p in projected) / 2
            query = model.predictor(model.projector(queries[i : i + 1]))[0]
            cosine = float(query @ mean / query.norm() / mean.norm())
            assert float(logits[i, c]) == pytest.approx(cosine / 0.2, rel=1e-9)


def test_a_resumed_run_has_its_queue_and_its_follower(tmp_path: Path) -> None:
    whole = learner()
    fit(whole, benchmark(), tmp_path / "whole", max_epochs=2)
    first = learner()
    fit(first, benchmark(), tmp_path / "first").save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(5)
    second = learner()
    second.queue.zero_()
    trainer = fewshot.Trainer(
        max_epochs=2, default_root_dir=tmp_path / "second", accelerator="cpu", logger=False,
        enable_progress_bar=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(second, benchmark(), ckpt_path=tmp_path / "half.ckpt")
    held, resumed = whole.state_dict(), second.state_dict()
    for name in ("queue", "place", "follower.1.0.weight", "projector.0.weight"):
        torch.testing.assert_close(resumed[name], held[name], msg=name)
    assert int(second.place) == 2 * 8 * 4 % 16
    assert not torch.equal(held["follower.1.0.weight"], held["projector.0.weight"])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(FewshotError, match="set task_shots <= 16"):
        learner(task_shots=17)
    with pytest.raises(FewshotError, match=r"there are 2; set trainer.devices: 1"):
        PsCo.refuse_others(2)
    PsCo.refuse_others(1)
