"""What only a GPU can show: captured, compiled episodes, their gradients, a command-line run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import fit, results
from torch import Tensor

from fewshot.backbones import Conv4
from fewshot.datamodules import GlyphsDataModule
from fewshot.episodes.types import Episode, Examples, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import FOMAML, MAML, MAMLPlusPlus, PrototypicalNetwork

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

EPISODES = 4


def meta_batch(seed: int) -> Episode:
    """4 episodes, 3-way 1-shot with 2 queries a class, 16x16 pixels."""
    random = torch.Generator().manual_seed(seed)

    def examples(a_class: int) -> Examples:
        labels = torch.arange(3).repeat_interleave(a_class).repeat(EPISODES, 1)
        inputs = torch.rand(EPISODES, 3 * a_class, 1, 16, 16, generator=random, dtype=torch.float64)
        return Examples(inputs, labels)

    return Episode(examples(1), examples(2))


def make(cls: type[MAML] | type[MAMLPlusPlus], **arguments: Any) -> MAML | MAMLPlusPlus:
    torch.manual_seed(0)
    task = {"kind": "classification", "way": 3}
    return cls(Conv4(1, 16, width=8), task=task, inner_lr=0.1, inner_steps=2, **arguments).double()


def gradients(learner: MAML | MAMLPlusPlus, batches: Sequence[Episode]) -> list[Tensor]:
    """Each batch's meta-gradient, on the learner's device, with its chunks summed up."""
    found = []
    for batch in batches:
        learner.zero_grad()
        for outcome in learner.run(
            map_tensors(lambda tensor: tensor.to(learner.device), batch), training=True
        ):
            torch.autograd.backward(outcome.loss.sum())
        found.append(
            torch.cat([p.grad.flatten().cpu() for p in learner.parameters() if p.grad is not None])
        )
    return found


@pytest.mark.parametrize("compile", [False, True, "capture"])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("cls", [MAML, FOMAML, MAMLPlusPlus])
def test_meta_gradients_are_those_of_the_loop_on_a_cpu(
    cls: type[MAML] | type[MAMLPlusPlus], chunk: int | None, compile: Any
) -> None:
    if compile is True and (cls is not MAML or chunk is None):
        pytest.skip("a minute each: one compilation stands for all")
    # a CUDA graph runs as itself from the third on
    batches = [meta_batch(seed) for seed in range(5)]
    expected = gradients(make(cls, episode_parallel="loop"), batches)
    learner = make(cls, episodes_per_chunk=chunk, compile=compile).cuda()
    for ours, theirs in zip(gradients(learner, batches), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("compile", ["false", "capture"])
def test_a_run_on_a_gpu(tmp_path: Path, precision: str, compile: str) -> None:
    """With a worker, so that batches are pinned."""
    run = fit(
        tmp_path, "--model", "MAML", "--model.backbone", "Conv4", "--data", "GlyphsDataModule", "--data.num_workers=1",
        "--data.meta_batch_size=2", f"--model.compile={compile}", "--trainer.accelerator=gpu", "--trainer.devices=1",
        f"--trainer.precision={precision}", "--trainer.max_epochs=2",
    )  # fmt: skip
    assert 0 < results(run)["metrics"]["accuracy"]["mean"] <= 1


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_fused_optimizer_leaves_a_step_out_on_the_device(policy: Any) -> None:
    """Nobody waits for the answer, which comes from the device while the next step is under way."""

    class Diverging(L.Callback):
        """Makes an image of the third step infinite, and keeps the weights from before it."""

        before: list[Tensor]

        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 2:
                self.before = [p.detach().clone() for p in pl_module.parameters()]
                batch.query.inputs[1] = float("inf")

    data = GlyphsDataModule(
        way=3,
        shot=1,
        queries=2,
        meta_batch_size=4,
        train_episodes=20,
        val_episodes=4,
        num_workers=1,
    )
    optimizer = partial(torch.optim.Adam, fused=True)
    learner = MAML(
        Conv4(1, 28, width=8), task=data.task, inner_lr=0.1, nonfinite=policy, optimizer=optimizer
    )
    trainer = L.Trainer(
        accelerator="gpu", devices=1, max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[diverging := Diverging()],
    )  # fmt: skip
    if policy == "stop":
        with pytest.raises(
            FewshotError, match=r"meta-step 2 is not finite: the loss of episode 1 "
        ):
            trainer.fit(learner, data)
        assert all(
            torch.equal(p.cpu(), old.cpu())
            for p, old in zip(learner.parameters(), diverging.before, strict=True)
        )
    else:
        trainer.fit(learner, data)
        assert learner.guard.skipped == 1
        assert trainer.global_step == 5
        assert all(p.isfinite().all() for p in learner.parameters())


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_features_that_are_held_give_the_same_results(precision: Any, tmp_path: Path) -> None:
    benchmark, columns = GlyphsDataModule(root=str(tmp_path), test_episodes=40), []
    for memory in (512.0, 0.0):
        torch.manual_seed(0)
        learner = PrototypicalNetwork(
            Conv4(1, 28), task=benchmark.task, feature_memory=memory, distance="cosine"
        )
        trainer = L.Trainer(
            accelerator="gpu",
            devices=1,
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.test(learner, benchmark, verbose=False)
        columns.append(learner.columns["test"]["loss"])
    reach = {"32-true": 1e-4, "64-true": 1e-10, "bf16-mixed": 1e-2}[precision]
    torch.testing.assert_close(columns[0], columns[1], rtol=reach, atol=reach)
