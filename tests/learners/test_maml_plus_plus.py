"""MAML++ in float64: each part and each switch against plain autograd (arXiv:1810.09502)."""

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4
from fewshot.datamodules import SinusoidDataModule
from fewshot.engine.compiling.compiler import Compiler
from fewshot.engine.episode_map import Parallel
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.learners import MAML, MAMLPlusPlus

WAY, EPISODES, STEPS, LR = 3, 2, 3, 0.2
Weights = dict[str, Tensor]


def network(w: Weights, x: Any) -> Tensor:
    """Conv4 and the linear head, written out."""
    for i in range(4):
        x = F.conv2d(x, w[f"backbone.blocks.{i}.0.weight"], padding=1)
        mean, variance = (
            x.mean([0, 2, 3], keepdim=True),
            x.var([0, 2, 3], correction=0, keepdim=True),
        )
        scale, shift = (
            w[f"backbone.blocks.{i}.1.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias")
        )
        x = F.max_pool2d(((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0), 2)
    outputs: Tensor = x.flatten(1) @ w["head.weight"].T + w["head.bias"]
    return outputs


def make(**arguments: Any) -> MAMLPlusPlus:
    torch.manual_seed(0)
    task = {"kind": "classification", "way": WAY}
    learner = MAMLPlusPlus(
        Conv4(2, 16, width=4), task=task, inner_lr=LR, inner_steps=STEPS, **arguments
    ).double()
    for parameter in [*learner.rates.values(), *learner.norms.values()]:
        parameter.data += 0.1 * torch.randn_like(parameter)  # every step its own
    return learner


@pytest.fixture(scope="module")
def batch() -> Episode:
    torch.manual_seed(1)

    def examples(a_class: int) -> Examples:
        images = torch.rand(EPISODES, WAY * a_class, 2, 16, 16, dtype=torch.float64)
        return Examples(images, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(1), examples(2))


def reference(
    learner: MAMLPlusPlus, batch: Episode, importance: list[float], first_order: bool
) -> tuple[Tensor, Tensor]:
    """The meta-loss and its gradient, with every step written out.

    `importance` weighs the query losses.
    """
    p = {
        n: v.detach().clone().requires_grad_(v.requires_grad) for n, v in learner.named_parameters()
    }
    total = torch.zeros((), dtype=torch.float64)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        w = {n: v for n, v in p.items() if not n.startswith(("rates.", "norms."))}
        for step in range(STEPS):
            norms = {
                n[6:].replace("/", "."): v[step] for n, v in p.items() if n.startswith("norms.")
            }
            names = [n for n in w if n not in norms]
            loss = F.cross_entropy(network(w | norms, support.inputs), support.targets)
            gradients = torch.autograd.grad(
                loss, [w[n] for n in names], create_graph=not first_order
            )
            for name, gradient in zip(names, gradients, strict=True):
                rates = p.get("rates." + name.replace(".", "/"))
                w[name] = w[name] - (LR if rates is None else rates[step]) * gradient
            if importance[step]:
                total = total + importance[step] * F.cross_entropy(
                    network(w | norms, query.inputs), query.targets
                )
    learned = [v for v in p.values() if v.requires_grad]
    found = torch.autograd.grad(total / EPISODES, learned, allow_unused=True)
    return total / EPISODES, torch.cat(
        [
            (torch.zeros_like(v) if g is None else g).flatten()
            for v, g in zip(learned, found, strict=True)
        ]
    )


def loss_and_gradient(learner: MAMLPlusPlus, batch: Episode) -> tuple[Tensor, Tensor]:
    learner.zero_grad()
    losses = []
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / EPISODES)
        losses.append(outcome.loss.detach())
    learned = [p for p in learner.parameters() if p.requires_grad]
    gradient = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learned]
    return torch.cat(losses).mean(), torch.cat(gradient)


# progress -> weights of the three query losses, and whether second derivatives are left out
PARTS: dict[str, tuple[float, list[float], bool]] = {
    "begin": (0.0, [1 / 3, 1 / 3, 1 / 3], True),
    "multi-step": (0.05, [1 / 6, 1 / 6, 2 / 3], True),
    "end of multi-step": (0.099, [0.01, 0.01, 0.98], True),
    "first order": (0.3, [0.0, 0.0, 1.0], True),
    "second order": (0.5, [0.0, 0.0, 1.0], False),
}


@pytest.mark.usefixtures("as_traced")
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_training_is_that_of_plain_autograd(
    part: str, parallel: Parallel, batch: Episode
) -> None:
    progress, importance, first_order = PARTS[part]
    learner = make(episode_parallel=parallel)
    loss, gradient = reference(learner, batch, importance, first_order)
    for learner.compiler in (None, Compiler()):
        # one compiled function follows the changing weights
        learner.set_progress(0.02 if progress < 0.1 else 0.95)
        loss_and_gradient(learner, batch)
        learner.set_progress(progress)
        found_loss, found = loss_and_gradient(learner, batch)
        torch.testing.assert_close(found_loss, loss.detach(), rtol=1e-12, atol=0.0)
        assert (found - gradient).abs().max() / gradient.abs().max() < 1e-9


SWITCHES: dict[str, tuple[float, Callable[[list[float], bool], tuple[list[float], bool]]]] = {
    "multi_step_loss": (0.0, lambda importance, first_order: ([0.0, 0.0, 1.0], first_order)),
    "derivative_annealing": (0.0, lambda importance, first_order: (importance, False)),
    "learned_rates": (1.0, lambda importance, first_order: (importance, first_order)),
    "per_step_norm": (1.0, lambda importance, first_order: (importance, first_order)),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_turns_its_remedy_off(switch: str, batch: Episode) -> None:
    progress, change = SWITCHES[switch]
    on, off = make(), make(**{switch: False})
    assert (len(off.rates) == 0) == (switch == "learned_rates")
    assert (len(off.norms) == 0) == (switch == "per_step_norm")
    off.set_progress(progress)
    importance, first_order = PARTS["begin"][1:] if progress == 0.0 else PARTS["second order"][1:]
    loss, gradient = reference(off, batch, *change(importance, first_order))
    found_loss, found = loss_and_gradient(off, batch)
    torch.testing.assert_close(found_loss, loss.detach(), rtol=1e-12, atol=0.0)
    assert (found - gradient).abs().max() / gradient.abs().max() < 1e-9
    on.set_progress(progress)
    assert loss_and_gradient(on, batch)[1].shape != found.shape or not torch.allclose(
        loss_and_gradient(on, batch)[1], found
    )


def test_all_switches_off_is_maml(batch: Episode) -> None:
    off = dict.fromkeys(
        ("multi_step_loss", "learned_rates", "per_step_norm", "derivative_annealing"), False
    )
    learner = make(**off)
    maml = MAML(
        Conv4(2, 16, width=4),
        task={"kind": "classification", "way": WAY},
        inner_lr=LR,
        inner_steps=STEPS,
    )
    maml.double().load_state_dict(learner.state_dict())
    expected = maml.evaluate(batch).outputs
    torch.testing.assert_close(learner.evaluate(batch).outputs, expected, rtol=0.0, atol=0.0)


def test_more_steps_at_evaluation_share_the_rates_and_norms_of_the_last(batch: Episode) -> None:
    learner = make(eval_inner_steps=STEPS + 2, eval_curve="all")
    assert {f"accuracy_step{k}" for k in range(STEPS + 3)} < set(learner.evaluate(batch).metrics)
    assert learner.rate(STEPS + 1, "head.bias") is not None
    torch.testing.assert_close(
        learner.rate(STEPS + 1, "head.bias"), learner.rate(STEPS - 1, "head.bias")
    )


def trained(**arguments: Any) -> tuple[MAMLPlusPlus, list[tuple[float, bool, bool]], list[float]]:
    """A learner trained for 20 meta-steps; its parts, and its outer rates."""
    parts: list[tuple[float, bool, bool]] = []
    rates: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_end(
            self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
        ) -> None:
            assert isinstance(pl_module, MAMLPlusPlus)
            parts.append((pl_module.progress, pl_module.multi_step, pl_module.first_order))
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    data = SinusoidDataModule(
        shot=5, queries=5, meta_batch_size=2, train_episodes=20, val_episodes=2, test_episodes=2
    )
    learner = MAMLPlusPlus(MLP(1, (5,)), task=data.task, inner_lr=0.01, inner_steps=2, **arguments)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[Watch()], limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(learner, data)
    return learner, parts, rates


def test_training_goes_through_its_parts_and_down_the_cosine() -> None:
    learner, parts, rates = trained()
    assert parts == [(k / 20, k < 2, k < 10) for k in range(20)]
    assert rates[9] == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-6)
    assert rates[-1] == pytest.approx(1e-5, rel=1e-6)
    assert learner.progress == 1.0
    assert trained(cosine_schedule=False)[2] == [1e-3] * 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multi_step_share": 0.0}, r"multi_step_share is 0.0; set multi_step_share in \(0, 1\]"),
        (
            {"first_order_share": 1.5},
            r"first_order_share is 1.5; set first_order_share in \(0, 1\]",
        ),
        (
            {"lr_scheduler": torch.optim.lr_scheduler.ConstantLR},
            "cosine_schedule and lr_scheduler are both set",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        make(**arguments)


def test_an_endless_training_has_no_cosine() -> None:
    data = SinusoidDataModule(shot=5, queries=5, train_episodes=20)
    learner = MAMLPlusPlus(MLP(1, (5,)), task=data.task)
    trainer = L.Trainer(max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(
        FewshotError, match="cosine_schedule needs an end of training; set max_epochs"
    ):
        trainer.fit(learner, data)


def test_where_the_head_alone_adapts_the_body_keeps_its_norm(batch: Episode) -> None:
    learner = make(adapt="head")
    assert not learner.norms
    assert all(
        p.requires_grad
        for m in learner.backbone.modules()
        if isinstance(m, nn.BatchNorm2d)
        for p in [m.weight]
    )
    learner.evaluate(batch)
