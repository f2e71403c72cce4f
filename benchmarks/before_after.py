"""Is this checkout slower than an older one? The same work by both, alternated, as ratios.

    python benchmarks/before_after.py --before OLDER_CHECKOUT [--only "MLP" ...] [--rounds 40]

Each checkout has a process of its own, on one thread; they take turns, every second round in the
opposite order. CPU time is compared, which other programs disturb less than the clock. Processes of
one code differ too (where their memory lies), so that each third of the rounds has new ones. A line
holds the medians of both, the median of the rounds' ratios (now / before) and the 95 % interval of
that median by order statistics, which assumes nothing of how times are distributed. Freed memory
is kept, as the program does.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from checkouts import HERE, begin_work, chosen, environment, keep_freed_memory, make_parser
from scipy.stats import binom

Step = Callable[[], object]
LEAST = 0.2  # seconds of a turn: shorter work is repeated
PAIRS = 3  # of processes
WAY, QUERIES = 5, 15


def meta_step(width: int, episodes: int, *shape: int, **options: Any) -> Step:
    """MAML's second-order meta-gradient on random 5-way 1-shot episodes; width 0 is an MLP's."""
    import torch

    import fewshot

    def examples(a_class: int) -> fewshot.Examples:
        labels = torch.arange(WAY).repeat_interleave(a_class).expand(episodes, -1)
        return fewshot.Examples(torch.rand(episodes, WAY * a_class, *shape), labels)

    torch.manual_seed(0)
    batch = fewshot.Episode(examples(1), examples(QUERIES))
    network = fewshot.Conv4(shape[0], shape[1], width=width) if width else fewshot.MLP(shape[0])
    task = {"kind": "classification", "way": WAY}
    learner = fewshot.MAML(network, task=task, inner_lr=0.1, **options)

    def step() -> None:
        learner.zero_grad()
        for outcome in learner.run(batch, training=True):
            torch.autograd.backward(outcome.loss.sum() / episodes)

    return step


def fit(learner: str, backbone: str, data: str, steps: int, **options: Any) -> Step:
    """A whole short `Trainer.fit` from Python, without loggers and files."""
    import lightning as L

    import fewshot

    def step() -> None:
        L.seed_everything(0, verbose=False)
        module = getattr(fewshot, data)()
        network = getattr(fewshot, backbone)(*((1,) if backbone == "MLP" else (1, 28)))
        kind = {"kind": "regression"} if backbone == "MLP" else {"kind": "classification", "way": 5}
        trainer = L.Trainer(
            max_steps=steps,
            accelerator="cpu",
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(getattr(fewshot, learner)(network, task=kind, **options), datamodule=module)

    return step


def load(data: str, batches: int) -> Step:
    """The first meta-batches of an epoch, drawn, gathered and converted."""
    import fewshot

    module = getattr(fewshot, data)()
    module.prepare_data()
    module.setup("fit")

    def step() -> None:
        for number, _ in enumerate(module.train_dataloader()):
            if number == batches:
                return

    return step


CASES: dict[str, Callable[[], Step]] = {
    "MAML, MLP, loop": partial(meta_step, 0, 25, 1, episode_parallel="loop"),
    "MAML, MLP, vmap": partial(meta_step, 0, 25, 1, episode_parallel="vmap"),
    "MAML, MLP, compiled": partial(meta_step, 0, 25, 1, compile=True),
    "MAML, Conv4-8 16x16, loop": partial(meta_step, 8, 16, 1, 16, 16, episode_parallel="loop"),
    "MAML, Conv4-8 16x16, vmap": partial(meta_step, 8, 16, 1, 16, 16, episode_parallel="vmap"),
    "MAML, Conv4-64 16x16, loop": partial(meta_step, 64, 8, 1, 16, 16, episode_parallel="loop"),
    "MAML, Conv4-64 28x28, loop": partial(meta_step, 64, 4, 1, 28, 28, episode_parallel="loop"),
    "MAML, Conv4-64 28x28, compiled": partial(meta_step, 64, 4, 1, 28, 28, compile=True),
    "MAML, Conv4-32 84x84, loop": partial(meta_step, 32, 2, 3, 84, 84, episode_parallel="loop"),
    "fit MAML on Sinusoid, 100 steps": partial(fit, "MAML", "MLP", "SinusoidDataModule", 100),
    "fit ProtoNet on Glyphs, 5 steps": partial(
        fit, "PrototypicalNetwork", "Conv4", "GlyphsDataModule", 5
    ),
    "load Glyphs, 100 meta-batches": partial(load, "GlyphsDataModule", 100),
    "load Sinusoid, 100 meta-batches": partial(load, "SinusoidDataModule", 100),
}


def work(name: str) -> None:
    """Do a case's step whenever a line arrives, and answer with CPU seconds of one."""
    begin_work()
    keep_freed_memory()
    answers = os.fdopen(os.dup(1), "w")
    with contextlib.redirect_stdout(sys.stderr):
        step = CASES[name]()
        step()
        step()
        start = time.process_time()
        step()
        times = max(1, round(LEAST / (time.process_time() - start)))
        print("ready", file=answers, flush=True)
        for _ in sys.stdin:
            start = time.process_time()
            for _ in range(times):
                step()
            print(json.dumps((time.process_time() - start) / times), file=answers, flush=True)


def worker(name: str, root: Path) -> subprocess.Popen[str]:
    """A process that works on a case with the package of this checkout."""
    command = [sys.executable, __file__, "--worker", name]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        env=environment(root),
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    """The next line of a worker."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a worker ended with status {process.wait()}: {process.args!r}")
    return line


def measure(name: str, before: Path, rounds: int) -> None:
    """Print a case's line."""
    seconds: list[list[float]] = [[], []]
    for _ in range(PAIRS):
        workers = [worker(name, before), worker(name, HERE)]
        for process in workers:
            answer(process)
        for number in range(rounds // PAIRS):
            for which in (0, 1) if number % 2 else (1, 0):
                process = workers[which]
                assert process.stdin is not None
                print("go", file=process.stdin, flush=True)
                seconds[which].append(json.loads(answer(process)))
        for process in workers:
            process.kill()
    ratios = sorted(now / then for then, now in zip(*seconds, strict=True))
    low = int(
        binom.ppf(0.025, len(ratios), 0.5)
    )  # the median lies between these ranks in 95 % of cases
    then, now = (1e3 * statistics.median(values) for values in seconds)
    print(
        f"{name:34}{then:11.2f}{now:11.2f}{statistics.median(ratios):9.3f}"
        f"   {ratios[low]:.3f} to {ratios[-1 - low]:.3f}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__, rounds=30)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker)
    names, before = chosen(parser, arguments, CASES)
    if not before:
        parser.error("--before FOLDER: the checkout to compare with")
    print(f"{'CPU ms on one thread':34}{'before':>11}{'now':>11}{'ratio':>9}   its 95 % interval")
    for name in names:
        measure(name, before, arguments.rounds)
    return None


if __name__ == "__main__":
    main()
