"""`fewshot export`: an adapted classifier or the embedding, as a program without this library."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fewshot
from fewshot.cli.options import Options, add_checkpoint, loaded
from fewshot.errors import FewshotError
from fewshot.files import atomic_write, is_special


def options() -> Options:
    """The command's options."""
    parser = Options(
        "export",
        "Write a trained learner (--ckpt_path), or a pre-trained network without any training"
        " (--backbone), as a torch.export program (.pt2) and as ONNX (.onnx): with"
        " --support the classifier that it adapts to, which gives probabilities; without, its"
        " embedding, which gives features. Both take any number of inputs, each by itself, and are"
        " checked against the learner before they are kept. Beside them stands a .json file with"
        " the classes and how inputs are made of files.",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--support", help="a folder as for `fewshot predict`; the embedding is written if left out"
    )
    parser.add_argument(
        "--format", default="both", choices=("both", "pt2", "onnx"), help="what is written"
    )
    parser.add_argument(
        "--output", help="path without suffix; `classifier` or `embedding` if left out"
    )
    return parser


def export(args: Sequence[str]) -> None:
    """Run the command."""
    _write(options().read(args))


def _write(arguments: argparse.Namespace) -> None:
    # here: seconds, which a misspelt option does not take
    from fewshot.deployment.export import (
        AdaptedClassifier,
        Embedding,
        require_onnx,
        save_onnx,
        save_program,
        to_program,
    )

    if arguments.format != "pt2":
        require_onnx()
    learner = loaded(arguments, "cpu")
    facts: dict[str, Any] = {
        "learner": type(learner.module).__name__,
        "fewshot": fewshot.__version__,
    }
    module: AdaptedClassifier | Embedding
    if "support" in arguments:
        predictor = learner.adapt(Path(arguments.support))
        kind, module = "classifier", AdaptedClassifier(predictor)
        facts |= {"output": "probabilities (n, classes)", "classes": predictor.classes}
    else:
        kind, module = "embedding", Embedding(learner.module)
        facts |= {"output": "features (n, ...)"}
    facts |= {"preprocessing": learner.reader.facts()}
    stem = Path(getattr(arguments, "output", kind))
    if stem.is_dir() or not stem.name:
        raise FewshotError(
            f"output {stem} is a folder; name what to write in it, such as {stem / kind}"
        )
    if is_special(stem):
        raise FewshotError(
            f"output {stem} is a device or a pipe, and several files are written; name a path for"
            " them"
        )
    program = to_program(module, learner.reader.example(2))
    # another number, and longer texts, than the program was traced with
    check = learner.reader.example(5)
    written = []
    for suffix, save in ((".pt2", save_program), (".onnx", save_onnx)):
        if arguments.format in ("both", suffix[1:]):
            written.append(stem.with_name(stem.name + suffix))
            save(program, written[-1], module, check)
    written.append(stem.with_name(stem.name + ".json"))
    with atomic_write(written[-1]) as file:
        json.dump(facts, file, indent=2)
    print(f"{kind}: {', '.join(map(str, written))}")
