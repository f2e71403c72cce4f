"""What a test of heads on kept features costs, here and in an older checkout.

    python benchmarks/heads.py --root DATA --before OLDER_CHECKOUT [--only tim ...] [--rounds 3]

1000 5-way 1-shot test episodes of CIFAR-FS on a frozen EfficientNet-Lite0, by each checkout's own
config, once a first command has kept the features. Every command is a process of its own on one
thread; the checkouts take turns, every second round in the opposite order. Seconds are of the
processor, the medians: the head's alone, of all batches, and of the whole command.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from checkouts import HERE, begin_work, chosen, environment, make_parser

SAME_NAME = (
    *("simple_shot", "ridge_regression", "rfs", "nearest_neighbour", "tip_adapter", "bd_cspn"),
    *("laplacian_shot", "pt_map", "tim", "transductive_fine_tuning"),
)
HEADS = {"nearest class mean": "efficientnet_lite0_frozen"} | {name: name for name in SAME_NAME}
"""The heads, and the names of their configs."""
COLUMNS = ("head", "batches", "command")
Found = Mapping[str, float]


def command(name: str, root: Path, data: str) -> list[str]:
    """The arguments of the test of a head."""
    config = root / f"configs/cifar_fs/{HEADS[name]}_5way1shot.yaml"
    return ["test", f"--config={config}", f"--data.root={data}", "--data.verify=false"]


def work(arguments: list[str]) -> Found:
    """What the processor's seconds went to in this process, and the accuracy."""
    from fewshot.cli.main import main
    from fewshot.learners import MetaLearner
    from fewshot.learners.comparing import ComparingLearner

    found = dict.fromkeys(COLUMNS, 0.0)

    def timed(owner: type, verb: str, column: str) -> None:
        plain: Callable[..., Any] = getattr(owner, verb)

        @wraps(plain)
        def inner(*given: Any, **named: Any) -> Any:
            begin = time.process_time()
            try:
                return plain(*given, **named)
            finally:
                found[column] += time.process_time() - begin

        setattr(owner, verb, inner)

    def note(learner: Any) -> None:
        end(learner)
        found["accuracy"] = float(learner.columns["test"]["accuracy"].double().mean())

    timed(ComparingLearner, "logits", "head")
    timed(MetaLearner, "test_step", "batches")
    end = MetaLearner.on_test_epoch_end
    MetaLearner.on_test_epoch_end = note  # type: ignore[method-assign, assignment]
    with contextlib.redirect_stdout(sys.stderr):
        main(arguments)
    return found | {"command": time.process_time()}


def found_by(root: Path, name: str, data: str, folder: str) -> Found:
    """What a process finds with the package of the checkout `root`."""
    worker = [sys.executable, __file__, "--worker", json.dumps(command(name, root, data))]
    given = environment(root) | {"FEWSHOT_DATA": folder}
    done = subprocess.run(worker, env=given, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} in {root}: {done.stderr[-2000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(name: str, before: Path | None, rounds: int, data: str, folder: str) -> None:
    """Print a head's line."""
    sides = {"before": before, "now": HERE} if before else {"now": HERE}
    found: dict[str, list[Found]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 else reversed(sides):
            found[side].append(found_by(sides[side], name, data, folder))
    line = f"{name:26}"
    for column in COLUMNS:
        medians = [statistics.median(one[column] for one in of) for of in found.values()]
        line += f"{' -> '.join(f'{value:.2f}' for value in medians):>18}"
    accuracies = {f"{100 * one['accuracy']:.2f}" for of in found.values() for one in of}
    print(f"{line}  {' '.join(sorted(accuracies)):>12}", flush=True)


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--root", help="the benchmark's folder")
    parser.add_argument("--features", help="where features are kept; a new folder if not given")
    arguments = parser.parse_args()
    if arguments.worker:
        begin_work()
        print(json.dumps(work(json.loads(arguments.worker))))
        return
    names, before = chosen(parser, arguments, HEADS)
    if arguments.root is None:
        parser.error("--root is missing: the folder that holds CIFAR-100")
    data = str(Path(arguments.root).resolve())
    with tempfile.TemporaryDirectory() as made:
        folder = str(Path(arguments.features or made).resolve())
        if not arguments.features:
            found_by(HERE, "simple_shot", data, folder)  # embeds the training and the test classes
        print(f"{'seconds of one thread':26}" + "".join(f"{column:>18}" for column in COLUMNS))
        for name in names:
            compare(name, before, arguments.rounds, data, folder)


if __name__ == "__main__":
    main()
