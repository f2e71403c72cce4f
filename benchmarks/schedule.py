"""Seconds of a meta-step of MAML's full Omniglot schedule, and minutes for all its 60 000.

    python benchmarks/schedule.py [--device cuda] [--steps 300] [--warmup 20] [-- OPTIONS]

The command line runs `configs/omniglot/maml_5way1shot_full.yaml` as it is, workers, logger and
callbacks included, on generated drawings in Omniglot's layout and number: a step's time does not
depend on what is drawn. The first `--warmup` steps, in which the compiler works and a CUDA graph is
recorded, are reported apart and not extrapolated; nor is validation counted, which the schedule has
30 times. What follows `--` goes to `fewshot`.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from fewshot.cli.main import run
from fewshot.datasets.omniglot import DRAWINGS, HALVES, SIZE, cache_file
from fewshot.datasets.reading.downloads import cached_arrays

CONFIG = Path(__file__).resolve().parents[1] / "configs/omniglot/maml_5way1shot_full.yaml"
SCHEDULE = 60_000
CHARACTERS = {  # of the split's training, validation and test, each below an alphabet that is its
    "images_background/Greek": 792,
    "images_background/Hebrew": 172,
    "images_evaluation/Kannada": 659,
}


def write_drawings(root: Path) -> None:
    """Write Omniglot's cache of decoded drawings below `root`, with random ones."""
    names = [
        f"{alphabet}/character{number:03d}"
        for alphabet, characters in CHARACTERS.items()
        for number in range(1, characters + 1)
    ]
    shape = (len(names), DRAWINGS, SIZE, SIZE)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for half in HALVES:  # which the cache answers for
        (root / "omniglot").mkdir(parents=True, exist_ok=True)
        (root / "omniglot" / f"{half}.zip").write_bytes(b"")
    cached_arrays(
        cache_file(root, root / "omniglot"),
        lambda: {"images": images, "characters": np.array(names)},
    )


def measure(device: str, steps: int, warmup: int, options: list[str]) -> tuple[float, float]:
    """Train for `steps` meta-steps.

    Returns:
        Seconds until the first `warmup` were done, start of the program included, and seconds a
        step of the others.
    """
    ends: list[float] = []

    def note(*_: object) -> None:
        if len(ends) + 1 in (warmup, steps) and device == "cuda":
            torch.cuda.synchronize()  # a step is not done when it has been asked for
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEWSHOT_DATA"] = folder
        write_drawings(Path(folder))
        start = time.perf_counter()
        with register_optimizer_step_post_hook(note), contextlib.redirect_stdout(io.StringIO()):
            run(
                [
                    "fit",
                    f"--config={CONFIG}",
                    f"--trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
                    "--trainer.devices=1",
                    f"--trainer.max_steps={steps}",
                    f"--trainer.default_root_dir={folder}",
                    "--trainer.num_sanity_val_steps=0",
                    "--trainer.limit_val_batches=0",
                    "--trainer.enable_progress_bar=false",
                    "--trainer.enable_model_summary=false",
                    "--test_after_fit=false",
                    *options,
                ]
            )
    if len(ends) != steps:
        raise SystemExit(f"{len(ends)} steps were taken, not {steps}: nothing can be said")
    return ends[warmup - 1] - start, (ends[-1] - ends[warmup - 1]) / (steps - warmup)


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=20, help="of the steps, not extrapolated")
    parser.add_argument("options", nargs="*", help="options of `fewshot`, after --")
    arguments = parser.parse_args()
    if not 1 <= arguments.warmup < arguments.steps:
        parser.error(
            f"--warmup is {arguments.warmup} of {arguments.steps} steps; set 1 to"
            f" {arguments.steps - 1}"
        )
    first, step = measure(arguments.device, arguments.steps, arguments.warmup, arguments.options)
    print(
        f"{CONFIG.stem} on {arguments.device}: {step:.4f} s a step,"
        f" {step * SCHEDULE / 60:.1f} min for {SCHEDULE} (and {first:.1f} s until step"
        f" {arguments.warmup})"
    )


if __name__ == "__main__":
    main()
