"""What comparisons of this checkout with an older one share: their arguments and their workers."""

import argparse
import contextlib
import importlib
import logging
import os
import time
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def make_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The arguments of such a comparison, whose table has a line a case."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="the older checkout")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="PART", help="lines whose names hold one of these"
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def chosen(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, cases: Collection[str]
) -> tuple[list[str], Path | None]:
    """The cases that `--only` names, and the older checkout.

    Ends the program where a part names no case, or the checkout holds no package.
    """
    for part in arguments.only:
        if not any(part in name for name in cases):
            parser.error(f"--only {part}: no line's name holds it; there are: {'; '.join(cases)}")
    before = arguments.before.resolve() if arguments.before else None
    if before and not (before / "fewshot").is_dir():
        parser.error(f"--before is {before}, which holds no fewshot/")
    names = [n for n in cases if not arguments.only or any(part in n for part in arguments.only)]
    return names, before


def environment(root: Path) -> dict[str, str]:
    """Of a worker: the package of the checkout `root`, on one thread."""
    return os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def begin_work() -> None:
    """Have this process, a worker, compute on one thread and say nothing but its figures."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def keep_freed_memory() -> None:
    """Keep freed memory, as the program does, by whatever a checkout has for it."""
    for room in ("fewshot.engine.allocation", "fewshot.allocation"):  # before it had rooms
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(room).keep_freed_memory()
            return


def tested(learner: Any, benchmark: Any, **options: Any) -> float:
    """Seconds of the processor that `Trainer.test` takes, without loggers and pictures."""
    import lightning as L

    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    begin = time.process_time()
    trainer.test(learner, benchmark, verbose=False)
    return time.process_time() - begin
