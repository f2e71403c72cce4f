"""MR-MAML: what the code costs, written out; the recipe's forgetful optimizer; what adapts."""

import logging
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from fewshot.backbones import MLP
from fewshot.datamodules import SinusoidDataModule
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import MRMAML

TASK = {"kind": "regression", "targets": 1}


pytestmark = pytest.mark.usefixtures("double")


def made(**arguments: Any) -> MRMAML:
    torch.manual_seed(0)
    return MRMAML(MLP(21, [12]), hidden=(8,), inner_lr=0.1, task=TASK, **arguments)


def episodes(number: int = 2) -> Episode:
    data = SinusoidDataModule(reveal_task=True, shot=4, queries=6)
    whole: Any = data.stream("val").__getitems__(range(number)).stacked
    return Episode(*(Examples(p.inputs.double(), p.targets.double()) for p in whole))


def losses(learner: MRMAML, batch: Episode) -> Tensor:
    torch.manual_seed(3)
    return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)])


def fitted(learner: MRMAML) -> L.Trainer:
    """What has trained a learner for one meta-step."""
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    data = SinusoidDataModule(
        reveal_task=True, shot=4, queries=6, meta_batch_size=2, train_episodes=4
    )
    trainer.fit(learner, data)
    return trainer


def test_weights_of_the_notebook_cost_half_their_square() -> None:
    batch = episodes()
    free, paid = (losses(made(beta=beta), batch) for beta in (0.0, 2.0))
    learner = made()
    encoder = [*learner.backbone.parameters(), *learner.code.parameters()]
    square = torch.stack([p.square().sum() for p in encoder]).sum()
    torch.testing.assert_close(paid - free, square.expand(2))
    assert learner.beta == 5e-5
    assert made(regularize="activations").beta == 5


def test_the_inner_loop_adapts_the_layers_behind_the_code_alone() -> None:
    learner, batch = made(), episodes(1)
    x, y = batch.support.inputs[0], batch.support.targets[0]  # type: ignore[index]
    *_, weights = learner.inner_loop(
        batch.support._replace(inputs=learner.embedded(x), targets=y), 1
    )
    assert set(weights) == {f"head.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    code = F.linear(learner.backbone(x), learner.code.weight, learner.code.bias)
    loss = F.mse_loss(learner.head(code), y)
    slopes = torch.autograd.grad(loss, list(learner.head.parameters()))
    for (name, before), slope in zip(learner.head.named_parameters(), slopes, strict=True):
        torch.testing.assert_close(weights[f"head.{name}"], before - 0.1 * slope)


def test_the_paper_draws_weights_and_pays_their_divergence() -> None:
    learner, batch = made(recipe="paper", beta=0.5), episodes()
    assert set(learner.spread) == {
        "backbone/layers/0/weight", "backbone/layers/0/bias", "code/weight", "code/bias",
    }  # fmt: skip
    means = [*learner.backbone.parameters(), *learner.code.parameters()]
    sigma = F.softplus(torch.tensor(-4.0))
    cost = torch.stack([kl_divergence(Normal(m, sigma), Normal(0.0, 1.0)).sum() for m in means])
    free = made(recipe="paper", beta=0.0)
    torch.testing.assert_close(
        losses(learner, batch) - losses(free, batch), 0.5 * cost.sum().expand(2)
    )
    assert (losses(free, batch) - losses(made(beta=0.0), batch)).abs().min() > 1e-6, "drawn"
    torch.autograd.backward(losses(learner, batch).sum())
    assert all(p.grad is not None and p.grad.any() for p in learner.spread.values())


def test_activations_are_drawn_and_pay_their_divergence() -> None:
    learner, batch = made(regularize="activations", beta=0.5), episodes()
    free = made(regularize="activations", beta=0.0)
    costs = []
    for part in batch:
        code = torch.stack([learner.code(learner.backbone(x)) for x in part.inputs])
        normal = Normal(code[..., :5], F.softplus(code[..., 5:]))
        costs.append(kl_divergence(normal, Normal(0.0, 1.0)).mean((1, 2)))
    expected = 0.5 * (costs[0] + costs[1]) / 2
    torch.testing.assert_close(losses(learner, batch) - losses(free, batch), expected)
    torch.manual_seed(4)
    other = torch.cat([outcome.loss for outcome in free.run(batch, training=True)])
    assert not torch.equal(other, losses(free, batch))
    of: Any = batch.support
    support = Examples(of.inputs[0], of.targets[0])
    outputs = [learner.predict(learner.adapt(support), support.inputs) for _ in range(2)]
    assert torch.equal(*outputs), "evaluation takes the means"


@pytest.mark.parametrize(
    ("arguments", "forgets"),
    [
        ({}, {"backbone", "code", "head"}),
        ({"regularize": "activations"}, {"backbone", "code"}),
        ({"recipe": "paper"}, set()),
    ],
)
def test_the_notebooks_optimizer_forgets(arguments: Any, forgets: set[str]) -> None:
    torch.set_default_dtype(torch.float32)
    learner = made(**arguments)
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    optimizer = fitted(learner).optimizers[0]
    rooms = ("backbone", "code", "head")
    kept = {n.split(".")[0] for n, p in learner.named_parameters() if p in optimizer.state}
    assert kept & set(rooms) == set(rooms) - forgets
    moves = torch.cat(
        [(p.detach() - before[n]).abs().flatten() for n, p in learner.named_parameters()]
    )
    assert moves.max() == pytest.approx(1e-3, rel=1e-2), "Adam's first step is of one length"


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(FewshotError, match=r"hidden is empty; give the layers that adapt"):
        MRMAML(MLP(21), hidden=(), task=TASK)
    with pytest.raises(FewshotError, match="MRMAML has a code of an input, no map; choose MAML"):
        MRMAML(MLP(21), task={"kind": "segmentation", "way": 1})


@pytest.mark.parametrize(
    ("norm", "regularize", "told"),
    [("batch", "weights", True), ("layer", "weights", False), ("batch", "activations", False)],
)
def test_a_price_that_batch_normalisation_undoes_is_told(
    norm: Any, regularize: Any, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    torch.set_default_dtype(torch.float32)
    learner = MRMAML(MLP(21, [12], norm), regularize=regularize, task=TASK)
    with caplog.at_level(logging.INFO):
        fitted(learner)
    assert ("batch normalisation undoes" in caplog.text) == told
