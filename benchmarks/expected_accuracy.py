"""Whether the accuracy that is expected from a support alone holds on the queries.

    python benchmarks/expected_accuracy.py --root DATA [--benchmarks CIFARFS ...] [--episodes 300]

Test classes of three benchmarks are embedded once, by networks that nothing trains further: CIFAR-FS
and Omniglot by EfficientNet-Lite0, CLINC150 by MiniLM. Of each protocol episodes are drawn; of each,
the nearest class mean by cosine is adapted to the support as `fewshot predict --backbone` does, and
asked for its expected accuracy on so many queries, before it names them. The table has the share of
episodes whose accuracy lies in the 95 % interval, both means, and the calibration error of the
probabilities as they come and as they are given.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewshot
from fewshot.deployment.classifier import Vectors
from fewshot.deployment.pretrained import pretrained
from fewshot.episodes.types import Examples
from fewshot.tasks.calibration import bin_sums, expected_calibration_error

PROTOCOLS = ((5, 5), (5, 10), (10, 5), (20, 5), (20, 10))
QUERIES = 15
"""Of each class; Omniglot has 20 examples, and 10 are left at 10 shots."""
SIDE = 112
CLASSES = 100
"""Test classes at most."""


def classes_of(benchmark: str, root: str) -> list[Tensor]:
    """The features of the examples of each test class."""
    own: dict[str, Any] = {
        "CIFARFS": {"verify": False},
        "CLINC150": {"tokenizer": "all_minilm_l6_v2"},
    }
    data = getattr(fewshot, f"{benchmark}DataModule")(root=root, **own.get(benchmark, {}))
    data.prepare_data()
    data.setup("test")
    split = data.datasets["test"]
    counts = split.counts[:CLASSES].tolist()
    inputs = split.inputs
    if isinstance(inputs, dict):
        network: Any = fewshot.MiniLM(data.vocab_size, "all_minilm_l6_v2", frozen=True)
    else:
        channels, size = inputs.shape[-3], inputs.shape[-1]
        network = fewshot.EfficientNetLite0(channels, size, resize=SIDE, frozen=True)
    found = []
    for rows in torch.split(torch.arange(sum(counts)), 16):
        if isinstance(inputs, dict):
            longest = int(inputs["lengths"][rows].max())
            found.append(
                network(
                    {
                        "tokens": inputs["tokens"][rows][:, :longest],
                        "lengths": inputs["lengths"][rows],
                    }
                )
            )
        else:
            found.append(network(torch.as_tensor(inputs[rows]).float() / 255))
    return list(torch.split(torch.cat(found), counts))


def drawn(
    classes: list[Tensor], way: int, shot: int, generator: torch.Generator
) -> tuple[Examples, Examples]:
    """The support and the query of an episode."""
    sets: list[list[Tensor]] = [[], []]
    for place in torch.randperm(len(classes), generator=generator)[:way].tolist():
        examples = classes[place]
        order = torch.randperm(len(examples), generator=generator)
        sets[0].append(examples[order[:shot]])
        sets[1].append(examples[order[shot : shot + QUERIES]])
    support, query = (
        Examples(torch.cat(of), torch.arange(way).repeat_interleave(len(of[0]))) for of in sets
    )
    return support, query


def measure(classes: list[Tensor], way: int, shot: int, episodes: int) -> str:
    """A row of the table."""
    generator = torch.Generator().manual_seed(0)
    learner = pretrained(Vectors(classes[0].shape[1]), device="cpu")
    held = accuracy = expected = 0.0
    bins = [torch.zeros(3, 15), torch.zeros(3, 15)]
    for _ in range(episodes):
        support, query = drawn(classes, way, shot, generator)
        predictor = learner.adapt(support)
        assert isinstance(query.inputs, Tensor)
        ends = predictor.expected.interval(len(query.targets))
        assert ends is not None
        given = predictor(query.inputs).probabilities
        right = (given.argmax(-1) == query.targets).double().mean().item()
        held += ends[0] - 1e-9 <= right <= ends[1] + 1e-9
        accuracy += right
        expected += predictor.expected.accuracy or 0
        bins[0] += bin_sums(predictor.outputs(query.inputs).softmax(-1), query.targets)
        bins[1] += bin_sums(given, query.targets)
    before, after = map(expected_calibration_error, bins)
    return (
        f"{way}-way {shot}-shot | {100 * held / episodes:.1f} % | {100 * expected / episodes:.2f} %"
        f" | {100 * accuracy / episodes:.2f} % | {100 * before:.1f} % | {100 * after:.1f} % |"
    )


def main() -> None:
    """Print a table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", default=os.environ.get("FEWSHOT_DATA", "data"))
    parser.add_argument("--benchmarks", nargs="+", default=["CIFARFS", "CLINC150", "Omniglot"])
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--features", type=Path, help="a folder to keep the features in")
    arguments = parser.parse_args()
    print("| benchmark | protocol | held | expected | accuracy | ECE before | ECE |")
    print("|---|---|---|---|---|---|---|")
    for benchmark in arguments.benchmarks:
        with torch.no_grad():
            classes = kept(benchmark, arguments)
        for way, shot in PROTOCOLS:
            print(f"| {benchmark} | {measure(classes, way, shot, arguments.episodes)}", flush=True)


def kept(benchmark: str, arguments: argparse.Namespace) -> list[Tensor]:
    """The features of a benchmark, made once where there is a folder for them."""
    if arguments.features is None:
        return classes_of(benchmark, arguments.root)
    file: Path = arguments.features / f"{benchmark}.pt"
    if not file.exists():
        arguments.features.mkdir(parents=True, exist_ok=True)
        torch.save(classes_of(benchmark, arguments.root), file)
    found: list[Tensor] = torch.load(file, weights_only=True)
    return found


if __name__ == "__main__":
    main()
