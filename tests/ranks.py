"""Train and test learners, each rank a process; `torchrun` starts this file.

`ranks.py FOLDER RUN...` leaves ``FOLDER/RUN-<rank>.pt`` for each ``RUN = <learner>-<precision>``.
"""

import sys
import traceback
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import torch
from every_learner import LEFT_OUT, UNTRAINED, pair, texts
from lightning.pytorch.strategies import DDPStrategy

# documented, but not in __all__
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from fewshot.learners import RelationNetwork

STEPS = 10
"""Two epochs of training on episodes."""
Precision = Literal["64-true", "32-true"]
SGD_IN_FLOAT32 = {"CNAPs", "SNAIL"}
"""Have weights whose gradient is rounding alone in float32, as SNAIL's key biases.

Adam would make full steps of it.
"""


class Reductions(L.Callback):
    """Count the all-reduces of gradients."""

    def __init__(self) -> None:
        self.buckets: list[int] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(trainer.model, torch.nn.parallel.DistributedDataParallel):
            trainer.model.register_comm_hook(None, self.reduce)

    def reduce(self, state: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.buckets.append(bucket.index())
        return allreduce_hook(state, bucket)


def train(name: str, precision: Precision, root: Path, ranks: int = 1) -> dict[str, Any]:
    """What the meta-steps and a test leave: weights, gradient all-reduces, tables and logs."""
    learner, benchmark = pair(name, train_episodes=STEPS // 2 * 4)
    # its batch normalisation has statistics of each rank's own, as everywhere
    if isinstance(learner, RelationNetwork):
        learner.relation.score[0] = torch.nn.Identity()
    if precision == "32-true" and name in SGD_IN_FLOAT32:
        learner.optimizer = partial(torch.optim.SGD, lr=0.01)
    reductions = Reductions()
    trainer = L.Trainer(
        accelerator="cpu",
        num_nodes=ranks,
        strategy=DDPStrategy(timeout=timedelta(seconds=60)) if ranks > 1 else "auto",
        precision=precision,
        max_steps=STEPS,
        callbacks=[reductions],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=root,
    )
    held: dict[str, Any] = {}
    if name not in UNTRAINED:
        trainer.fit(learner, benchmark)
        held |= {
            "steps": trainer.global_step,
            "val": learner.columns["val"],
            "val_logs": dict(trainer.callback_metrics),
        }
    trainer.test(learner, benchmark, verbose=False)
    weights = {key: value.detach().clone() for key, value in learner.named_parameters()}
    if learner.answers is not None:  # of ranks one after the other
        held["answers"] = sorted(learner.answers.tolist())
    held |= {"weights": weights, "buckets": reductions.buckets, "world_size": trainer.world_size}
    held |= {"temperature": learner.softmax_temperature}
    return held | {"test": learner.columns["test"], "test_logs": dict(trainer.callback_metrics)}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if not LEFT_OUT:
        texts()  # once the processes are connected, transformers saves a model on the first alone
    folder, *runs = sys.argv[1:]
    for run in runs:
        name, _, precision = run.partition("-")
        try:
            found: Any = train(name, cast(Precision, precision), Path(folder), 2)
        except Exception:
            found = traceback.format_exc()
        torch.save(found, f"{folder}/{run}-{torch.distributed.get_rank()}.pt")
