"""What people wait for, here and in an older checkout: each row with the bar that it is held to.

    python benchmarks/waiting.py --before OLDER_CHECKOUT [--only evaluation step ...] [--rounds 3]
    python benchmarks/waiting.py --only easyfsl [--omniglot DATA]      # pip install -e '.[bench]'

Every measurement is a process of its own on one thread; the checkouts, and easyfsl in its lines,
take turns, every second round in the opposite order. Seconds are of the processor, of which other
programs take few; a line holds the medians. The tests' own row is of the clock, on two cores that
should do nothing else. Evaluations say whether both give the same losses, to the bit.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import beside_easyfsl
from checkouts import (
    HERE,
    begin_work,
    chosen,
    environment,
    keep_freed_memory,
    make_parser,
    tested,
)

GLYPHS = HERE / "configs/glyphs/protonet_5way1shot.yaml"
PHOTOS = 20_000
Found = Mapping[str, Any]
"""What a process has found: the `value`, and the `losses` of an evaluation."""


class Row(NamedTuple):
    """A line of the table."""

    measure: Callable[[], Found]
    unit: str
    bar: float
    scale: float = 1.0
    """By which seconds are multiplied."""
    peer: Callable[[], Found] | None = None
    """The same by easyfsl; then `bar` is how many times as fast as it this must be."""


def evaluation(name: str, **arguments: Any) -> Found:
    """600 5-way 1-shot test episodes of Glyphs with Conv4-64, its data at hand."""
    import torch

    import fewshot

    keep_freed_memory()
    torch.manual_seed(0)
    benchmark = fewshot.GlyphsDataModule()
    benchmark.prepare_data()
    facts: dict[str, Any] = {"task": benchmark.task}
    if name in ("RFS", "FineTune"):
        facts["train_classes"] = benchmark.train_classes
    if name == "SNAIL":
        facts["shot"] = 1
    learner = getattr(fewshot, name)(fewshot.Conv4(1, 28), **facts, **arguments)
    seconds = tested(learner, benchmark)
    return {"value": seconds, "losses": learner.columns["test"]["loss"].tolist()}


def step(images: int, size: int, channels: int) -> Found:
    """A meta-step of a Prototypical Network on random images, the median of some.

    The first ones are left out: the memory that the program keeps still grows there.
    """
    import torch

    import fewshot

    keep_freed_memory()
    way = images // 16
    learner = fewshot.PrototypicalNetwork(
        fewshot.Conv4(channels, size), task={"kind": "classification", "way": way}
    )

    def examples(a_class: int) -> fewshot.Examples:
        labels = torch.arange(way).repeat_interleave(a_class)[None]
        return fewshot.Examples(torch.rand(1, way * a_class, channels, size, size), labels)

    batch, times = fewshot.Episode(examples(1), examples(15)), []
    for _ in range(13):
        begin = time.process_time()
        learner.zero_grad()
        for outcome in learner.run(batch, training=True):
            torch.autograd.backward(outcome.loss.sum())
        times.append(time.process_time() - begin)
    return {"value": statistics.median(times[6:])}


def run_of_readme() -> Found:
    """The whole process that `make train` starts."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fewshot", "fit", f"--config={GLYPHS}"]
        subprocess.run([*command, f"--trainer.default_root_dir={folder}"], check=True, stdout=2)
    return {"value": _of_children()}


def first_step() -> Found:
    """A process of `fewshot fit`, which ends itself when the first meta-step is done."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ends.py").write_text(ENDS)
        command = [sys.executable, "-m", "fewshot", "fit", f"--config={GLYPHS}"]
        options = ["--trainer.callbacks=ends.Ends", "--trainer.num_sanity_val_steps=0"]
        subprocess.run([*command, *options], check=True, stdout=2, cwd=folder)
    return {"value": _of_children()}


ENDS = """
import os
from lightning import Callback

class Ends(Callback):
    def on_train_batch_end(self, *args):
        os._exit(0)
"""


def folder_of_photos() -> Found:
    """The second start of an ImageFolder of 20 000 JPEGs of 100 pixels, which are made beside it."""
    import fewshot

    root = Path(os.environ["FEWSHOT_DATA"]) / "photos"
    if not root.exists():
        _photos(root)
    for _ in range(2):
        begin = time.process_time()
        benchmark = fewshot.ImageFolderDataModule(str(root), image_size=84)
        benchmark.prepare_data()
        benchmark.setup("fit")
        seconds = time.process_time() - begin
    return {"value": seconds}


def _photos(root: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        folder = root / f"class{number % 100}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (100, 100, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")


def suite() -> Found:
    """The tests of the checkout, by the clock."""
    root, begin = Path(os.environ["PYTHONPATH"]), time.monotonic()
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-q"]
    subprocess.run(command, cwd=root, check=True, stdout=2)
    return {"value": time.monotonic() - begin}


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


ROWS: dict[str, Row] = {
    **{
        f"evaluation, {name}": Row(partial(evaluation, name), "s", 1.6)
        for name in ("PrototypicalNetwork", "R2D2", "RFS", "RelationNetwork")
    },
    "evaluation, SNAIL": Row(partial(evaluation, "SNAIL"), "s", 6),
    "evaluation, MAML, 3 steps": Row(partial(evaluation, "MAML", inner_steps=3), "s", 32),
    "evaluation, FineTune": Row(partial(evaluation, "FineTune"), "s", 60),
    "easyfsl's 60-way step, in bfloat16": Row(
        partial(beside_easyfsl.our_step, "bfloat16"), "ms", 3, 1e3, beside_easyfsl.their_step
    ),
    "easyfsl's 60-way step, in float32": Row(
        partial(beside_easyfsl.our_step, "float32"), "ms", 1.75, 1e3, beside_easyfsl.their_step
    ),
    **{
        f"easyfsl's test episode, {name}, in {precision}": Row(
            partial(beside_easyfsl.our_evaluation, name, trainers),
            "ms",
            15,
            1e3,
            partial(beside_easyfsl.their_evaluation, name),
        )
        for name in ("Glyphs", "Omniglot")
        for precision, trainers in (("float32", "32-true"), ("bfloat16", "bf16-mixed"))
    },
    "make train": Row(run_of_readme, "s", 45),
    "step, 80 images of 84x84": Row(partial(step, 80, 84, 3), "ms", 620, 1e3),
    "step, 4800 images of 28x28, an image": Row(partial(step, 4800, 28, 1), "us", 420, 1e6 / 4800),
    "photos, 20 000 at a second start": Row(folder_of_photos, "s", 1),
    "fewshot fit, to its first step": Row(first_step, "s", 5),
    "tests, two workers (the clock)": Row(suite, "s", 300),
}


def found_by(root: Path, name: str, data: str, peer: bool = False) -> Found:
    """What a process finds with the package of the checkout `root`, or of easyfsl beside it."""
    command = [sys.executable, __file__, "--worker", name, *(["--peer"] if peer else [])]
    done = subprocess.run(
        command,
        env=environment(root) | {"FEWSHOT_DATA": data},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} in {root}: {done.stderr[-2000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def work(name: str, peer: bool) -> None:
    """Measure a row in this process, and print what is found as the last line."""
    begin_work()
    measure = ROWS[name].peer if peer else ROWS[name].measure
    assert measure is not None
    print(json.dumps(measure()))


def compare(name: str, before: Path | None, rounds: int, data: Mapping[Path, str]) -> None:
    """Print a row's line."""
    row = ROWS[name]
    sides: dict[str, tuple[Path, bool]] = {"before": (before, False)} if before else {}
    sides |= {"now": (HERE, False)} | ({"peer": (HERE, True)} if row.peer else {})
    found: dict[str, list[Found]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 else reversed(sides):
            root, peer = sides[side]
            found[side].append(found_by(root, name, data[root], peer))
    value = {
        side: row.scale * statistics.median(one["value"] for one in of)
        for side, of in found.items()
    }
    now = value["now"]
    then = f"{value['before']:10.2f}" if before else f"{'-':>10}"
    ratio = f"{now / value['before']:8.2f}" if before else f"{'-':>8}"
    if row.peer:
        faster = value["peer"] / now
        bar = f"{value['peer']:.2f} of easyfsl, {faster:.2f} x >= {row.bar:g}"
    else:
        bar = f"<= {row.bar:g}"
    met = "met" if (faster >= row.bar if row.peer else now <= row.bar) else "missed"
    every = [one.get("losses") for of in found.values() for one in of]
    same = "" if every[0] is None else f"  same losses: {all(x == every[0] for x in every)}"
    print(f"{name:42}{then}{now:10.2f} {row.unit:2}{ratio}  {bar}: {met}{same}", flush=True)


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument(
        "--omniglot", type=Path, help="its folder; without it images of its size are drawn"
    )
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.peer)
    names, before = chosen(parser, arguments, ROWS)
    if arguments.omniglot:
        os.environ["OMNIGLOT"] = str(arguments.omniglot.resolve())
    with tempfile.TemporaryDirectory() as folder:
        data = {root: f"{folder}/{number}" for number, root in enumerate((HERE, before)) if root}
        print(f"{'one thread':42}{'before':>10}{'now':>10}{'ratio':>11}  bar")
        for name in names:
            compare(name, before, arguments.rounds, data)
    return None


if __name__ == "__main__":
    main()
