"""`fewshot export`: an adapted classifier or the embedding, as a program without this library."""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fewshot
from fewshot.cli.options import Options, add_checkpoint, loaded
from fewshot.errors import FewshotError
from fewshot.files import atomic_write, is_special

if TYPE_CHECKING:
    from torch import Tensor

    from fewshot.deployment.export import AdaptedNetwork
    from fewshot.deployment.predictor import TrainedLearner


def options() -> Options:
    """The command's options."""
    parser = Options(
        "export",
        "Write a trained learner (--ckpt_path), or a pre-trained network without any training"
        " (--backbone), as a torch.export program (.pt2) and as ONNX (.onnx): with"
        " --support the classifier that it adapts to, which gives probabilities; without, its"
        " embedding, which gives features. Of a learner that acts it is the policy, with --env"
        " adapted. All take any number of inputs, each by itself, and are"
        " checked against the learner before they are kept. Beside them stands a .json file with"
        " the classes and how inputs are made of files, or what a policy's outputs are.",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--support", help="a folder as for `fewshot predict`; the embedding is written if left out"
    )
    parser.add_argument(
        "--env",
        help=(
            "of a learner that acts: an id of Gymnasium's registry, or the import path of a"
            " function that makes an environment, to adapt to first; as it was meta-trained if left"
            " out"
        ),
    )
    parser.add_argument(
        "--format", default="both", choices=("both", "pt2", "onnx"), help="what is written"
    )
    parser.add_argument(
        "--output", help="path without suffix; `classifier`, `embedding` or `policy` if left out"
    )
    return parser


def export(args: Sequence[str]) -> None:
    """Run the command."""
    _write(options().read(args))


def _write(arguments: argparse.Namespace) -> None:
    # here: seconds, which a misspelt option does not take
    from fewshot.deployment.export import (
        AdaptedClassifier,
        AdaptedNetwork,
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
    module: AdaptedNetwork | Embedding
    name = "images"
    if learner.module.task.acts:
        kind, name = "policy", "observations"
        module, more = _policy(learner, arguments)
        facts |= more
    elif "env" in arguments:
        raise FewshotError(
            f"--env is of learners that act, and this {type(learner.module).__name__} was trained"
            f" on {learner.module.task.kind}; leave it out"
        )
    elif "support" in arguments:
        predictor = learner.adapt(Path(arguments.support))
        kind, module = "classifier", AdaptedClassifier(predictor)
        facts |= {"output": "probabilities (n, classes)", "classes": predictor.classes}
    else:
        kind, module = "embedding", Embedding(learner.module)
        facts |= {"output": "features (n, ...)"}
    examples: Callable[[int], Any] = partial(_observations, learner.module.task)
    if not learner.module.task.acts:
        facts |= {"preprocessing": learner.reader.facts()}
        examples = learner.reader.example
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
    program = to_program(module, examples(2))
    # another number, and longer texts, than the program was traced with
    check = examples(5)
    written = []
    for suffix, save in (
        (".pt2", save_program),
        (".onnx", partial(save_onnx, name=name)),
    ):
        if arguments.format in ("both", suffix[1:]):
            written.append(stem.with_name(stem.name + suffix))
            save(program, written[-1], module, check)
    written.append(stem.with_name(stem.name + ".json"))
    with atomic_write(written[-1]) as file:
        json.dump(facts, file, indent=2)
    print(f"{kind}: {', '.join(map(str, written))}")


def _policy(
    learner: "TrainedLearner", arguments: argparse.Namespace
) -> tuple["AdaptedNetwork", dict[str, Any]]:
    """The policy, adapted to the environment that is named, and its facts."""
    from fewshot.deployment.acting import unadapted
    from fewshot.deployment.export import AdaptedNetwork

    if "support" in arguments:
        raise FewshotError(
            f"--support is of learners that classify, and this {type(learner.module).__name__}"
            " acts; give --env, or neither for the policy before it adapts"
        )
    task: Any = learner.module.task
    if "env" in arguments:
        from fewshot.environments.gymnasium_environment import make

        found = learner.adapt(make(arguments.env).one).adapted
    else:
        found = unadapted(learner.module)
    discrete, size = task.place.discrete, task.place.action_size
    output = f"logits (n, {size})" if discrete else f"means (n, {size}), then log deviations"
    adapted_to = getattr(arguments, "env", None)
    facts = {"input": f"observations (n, {task.place.observation_size})", "output": output}
    return AdaptedNetwork(learner.module, found), {**facts, "adapted_to": adapted_to}


def _observations(task: Any, number: int) -> "Tensor":
    import torch

    generator = torch.Generator().manual_seed(number)
    return torch.randn(number, task.place.observation_size, generator=generator)
