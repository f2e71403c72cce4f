"""Meta-gradients that are not finite, with optimizers that are asked to skip a step or are not."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from fewshot.backbones import MLP
from fewshot.datamodules import SinusoidDataModule
from fewshot.errors import FewshotError
from fewshot.learners import MAML
from fewshot.learners.guard import gradient_is_finite, leaves_steps_out, left_out_unless


class Diverging(L.Callback):
    """Makes a target of some steps infinite."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx in self.steps:
            batch.stacked.query.targets[1] = float("inf")


class Weights(L.Callback):
    """Keeps the weights as they were before each step."""

    def __init__(self) -> None:
        self.before: list[Tensor] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        self.before.append(flat(pl_module))


def flat(learner: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learner.parameters()])


def make(policy: Any, fused: bool, **arguments: Any) -> tuple[MAML, SinusoidDataModule]:
    data = SinusoidDataModule(
        shot=5,
        queries=5,
        meta_batch_size=3,
        train_episodes=12,
        val_episodes=2,
        test_episodes=2,
        seed=0,
    )
    torch.manual_seed(0)
    return (
        MAML(
            MLP(1, (5,)),
            task=data.task,
            nonfinite=policy,
            optimizer=partial(Adam, fused=fused),
            **arguments,
        ),
        data,
    )


def trainer(*callbacks: L.Callback, **arguments: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=list(callbacks), **({"max_epochs": 1} | arguments),
    )  # fmt: skip


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("step", [0, 2, 3])
def test_the_run_stops_and_the_weights_are_as_before_the_step(step: int, fused: bool) -> None:
    """The last of an epoch's 4 steps included, after which no other step asks."""
    learner, data = make("stop", fused)
    with pytest.raises(
        FewshotError,
        match=rf"meta-step {step} is not finite: the loss of episode 1 .* inner step 0; lower",
    ):
        trainer(Diverging(step), weights := Weights()).fit(learner, data)
    assert torch.equal(flat(learner), weights.before[step])


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("steps", [(0,), (2,), (3,), (1, 2), (0, 3)])
def test_steps_are_left_out_alike_by_either_kind(
    steps: tuple[int, ...], clip: float | None
) -> None:
    """Weights, moments and bias-correction counts: all as if these steps had not been."""
    learners = []
    for fused in (False, True):
        learner, data = make("skip", fused, gradient_clip=clip)
        run = trainer(Diverging(*steps), weights := Weights(), max_epochs=2)
        run.fit(learner, data)
        assert learner.guard.skipped == 2 * len(steps)  # in each of the two epochs
        assert run.global_step == (8 if fused else 8 - 2 * len(steps))
        # Of a fused optimizer's last step nobody has heard when the figures of that step are
        # logged.
        logged = run.callback_metrics.get("train/skipped", torch.tensor(0.0))
        assert logged == 2 * len(steps) - (fused and 3 in steps)
        after = [*weights.before[1:], flat(learner)]
        for index in range(8):
            assert torch.equal(after[index], weights.before[index]) == (index % 4 in steps)
        learners.append((flat(learner), run.optimizers[0].state_dict()["state"]))
    (plain, plain_state), (fused_weights, fused_state) = learners
    torch.testing.assert_close(fused_weights, plain)
    torch.testing.assert_close(fused_state, plain_state, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_a_scaled_loss_and_a_fused_optimizer_go_together(scale: float) -> None:
    """As under 16-mixed, where the scaler itself asks the optimizer to leave a step out.

    A scale of 1 hides nothing.
    """
    learner, data = make("skip", fused=True)
    # Lightning's float16 needs a GPU, a scale does not
    precision = MixedPrecision("bf16-mixed", "cpu")
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainer(Diverging(2), weights := Weights(), plugins=[precision]).fit(learner, data)
    assert torch.equal(weights.before[3], weights.before[2])
    assert not torch.equal(weights.before[2], weights.before[1])
    assert not torch.equal(flat(learner), weights.before[3])
    assert learner.guard.skipped == (scale == 1)


def test_what_lightning_does_not_clip_is_refused_before_the_first_step() -> None:
    learner, data = make("stop", fused=True, gradient_clip=0.5)
    with pytest.raises(
        FewshotError,
        match=r"\(gradient_clip is 0.5\) of a fused optimizer under bf16-mixed; set fused: false",
    ):
        trainer(weights := Weights(), precision="bf16-mixed").fit(learner, data)
    assert not weights.before
    learner, data = make("stop", fused=False, gradient_clip=0.5)
    trainer(precision="bf16-mixed").fit(learner, data)


def test_a_checkpoint_counts_the_step_before_it(tmp_path: Path) -> None:
    class Saving(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    learner, data = make("skip", fused=True)
    trainer(Diverging(1), Saving()).fit(learner, data)
    counts = [torch.load(tmp_path / f"{step}.ckpt")["fewshot"]["skipped"] for step in (1, 2, 3)]
    assert counts == [0, 1, 1]


@pytest.mark.parametrize("fused", [False, True])
def test_a_run_that_skips_everything_ends(fused: bool) -> None:
    """By steps it would never end: where the optimizer is not asked, a skipped step is none."""
    learner, data = make("skip", fused)
    with pytest.raises(
        FewshotError,
        match=r"the last 100 meta-steps were all skipped: the meta-gradient of meta-step",
    ):
        trainer(Diverging(0, 1, 2, 3), max_epochs=-1, max_steps=1000).fit(learner, data)
    assert learner.guard.skipped == 99


def test_only_torchs_own_fused_optimizers_are_asked() -> None:
    class Other(Adam):
        """Has the argument and may not look at the flag."""

    p = [nn.Parameter(torch.zeros(2))]
    fused: list[Optimizer] = [kind(p, fused=True) for kind in (Adagrad, Adam, AdamW, SGD)]
    assert all(leaves_steps_out(optimizer) for optimizer in fused)
    others: list[Optimizer] = [
        Adam(p),
        SGD(p, lr=0.1, fused=False),
        torch.optim.RMSprop(p),
        Other(p, fused=True),
    ]
    assert not any(leaves_steps_out(optimizer) for optimizer in others)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        partial(Adagrad, lr=0.1), partial(Adam, amsgrad=True, weight_decay=0.1), partial(AdamW, weight_decay=0.1),
        partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    ],
)  # fmt: skip
def test_each_leaves_all_alone_where_it_is_told_to(make_optimizer: Any) -> None:
    weight, twin = (nn.Parameter(torch.ones(5)) for _ in range(2))
    asked, plain = make_optimizer([weight], fused=True), make_optimizer([twin], fused=True)
    for gradient in (1.0, float("nan"), 2.0, float("inf"), 3.0):
        weight.grad, twin.grad = (torch.full((5,), gradient) for _ in range(2))
        finite = gradient_is_finite(asked)
        with left_out_unless(finite, asked):
            asked.step()
        if finite:
            plain.step()
    assert torch.equal(weight, twin)
    torch.testing.assert_close(asked.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert weight.isfinite().all()
