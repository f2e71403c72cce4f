"""Seconds of a test and of a run's validation, with each example embedded once and as often as asked.

    python benchmarks/evaluation.py [--learners PrototypicalNetwork ...] [--repeats 3]

600 5-way 1-shot test episodes of Glyphs with Conv4 on one core, then 200 training episodes and 200
validation episodes. Each measurement is a process of its own, the two ways in
alternation. Seconds are of the processor, so that others on the machine count little; the table has
their medians, the largest memory of a process, and whether the results are the same to the bit.
"""

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

LEARNERS = ("PrototypicalNetwork", "MatchingNetwork", "Baseline", "SimpleShot")
WAYS = {"once": 512.0, "as often as asked": 0.0}


def measure(name: str, memory: float, stage: str) -> dict[str, Any]:
    """Test the learner `name`, untrained, or train it for an epoch, in this process."""
    import lightning as L
    import torch

    import fewshot

    class Clock(L.Callback):
        """The processor's seconds of validations."""

        seconds = 0.0

        def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.seconds -= time.process_time()

        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.seconds += time.process_time()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    benchmark = fewshot.GlyphsDataModule(train_episodes=200)
    benchmark.prepare_data()
    own: dict[str, Any] = {"transform": "l2"} if name == "SimpleShot" else {}
    if name == "Baseline":
        own["train_classes"] = benchmark.train_classes
    learner = getattr(fewshot, name)(
        fewshot.Conv4(1, 28), task=benchmark.task, feature_memory=memory, **own
    )
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begin = time.process_time()
    if stage == "test":
        trainer.test(learner, benchmark, verbose=False)
    else:
        trainer.fit(learner, benchmark)
    columns = learner.columns["test" if stage == "test" else "val"]
    return {
        "seconds": time.process_time() - begin,
        "validation": clock.seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": columns["loss"].tolist(),
    }


def measured(name: str, memory: float, stage: str) -> dict[str, Any]:
    """The same in a process of its own, on one core."""
    command = [sys.executable, __file__, "--one", name, str(memory), stage]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def median(runs: list[dict[str, Any]], key: str) -> float:
    """The median of what the runs have measured."""
    return float(statistics.median(run[key] for run in runs))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learners", nargs="+", default=LEARNERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        warnings.filterwarnings("ignore")
        logging.getLogger("lightning").setLevel(logging.ERROR)
        name, memory, stage = options.one
        print(json.dumps(measure(name, float(memory), stage)))
        return
    cases = [(name, "test") for name in options.learners] + [(options.learners[0], "fit")]
    for name, stage in cases:
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, memory in WAYS.items():
                runs[way].append(measured(name, memory, stage))
        same = all(run["losses"] == runs["once"][0]["losses"] for way in WAYS for run in runs[way])
        for way, of_way in runs.items():
            seconds = f"{median(of_way, 'seconds'):7.2f} s"
            if stage == "fit":
                seconds += f", of which {median(of_way, 'validation'):5.2f} s validation"
            size = f"{median(of_way, 'megabytes'):6.0f} MB"
            print(f"{name:20} {stage:5} {way:18} {seconds} {size}", flush=True)
        print(f"{'':26} the same to the bit: {'yes' if same else 'no'}", flush=True)


if __name__ == "__main__":
    main()
