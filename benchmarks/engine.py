"""Milliseconds of a second-order MAML meta-step by loop and by vmap, and which `auto` takes.

    python benchmarks/engine.py [--device cuda]

The two are timed in turn, meta-step by meta-step; the figures are medians, the ratio is of the same
run.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fewshot import MAML, MLP, Conv4, Episode, Examples
from fewshot.engine.episode_map import choose
from fewshot.engine.modes import How
from fewshot.episodes.types import episode

WAY, SHOT, QUERIES = 5, 1, 15


def meta_batch(episodes: int, *shape: int, device: str) -> Episode:
    """Random 5-way 1-shot episodes with 15 queries a class, of inputs of this shape."""

    def examples(a_class: int) -> Examples:
        labels = torch.arange(WAY, device=device).repeat_interleave(a_class).expand(episodes, -1)
        return Examples(torch.rand(episodes, WAY * a_class, *shape, device=device), labels)

    return Episode(examples(SHOT), examples(QUERIES))


def seconds(step: Callable[[], None], device: str) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def measure(
    name: str, backbone: nn.Module, episodes: int, *shape: int, device: str, repeats: int
) -> None:
    """Print one line of the table."""
    batch = meta_batch(episodes, *shape, device=device)
    learner = MAML(backbone, task={"kind": "classification", "way": WAY}, inner_lr=0.1).to(device)

    def step(how: How) -> Callable[[], None]:
        def run() -> None:
            learner.zero_grad()
            learner.episode_parallel = how
            for outcome in learner.run(batch, training=True):
                torch.autograd.backward(outcome.loss.sum() / episodes)

        return run

    times: dict[How, list[float]] = {"loop": [], "vmap": []}
    for repeat in range(repeats + 1):
        for how, values in times.items():
            value = seconds(step(how), device)
            if repeat:  # the first is a warm-up
                values.append(value)
    loop, vmap = (1e3 * statistics.median(values) for values in times.values())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(episode(batch, 0).support.inputs)
    flop = counter.get_total_flops() / 1e6
    print(
        f"{name:20}{episodes:9}{flop:15.2f}{loop:10.1f}{vmap:10.1f}{loop / vmap:11.2f}  "
        f" {choose(backbone, batch)}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    device, repeats = arguments.device, arguments.repeats
    print(
        f"one MAML meta-step, 1 inner step, second order, on {device} ({torch.get_num_threads()}"
        " threads), ms"
    )
    print("network              episodes  support MFLOP      loop      vmap  loop/vmap   auto")
    measure("MLP 40-40", MLP(1), 25, 1, device=device, repeats=repeats)
    measure("MLP 40-40, 28x28", MLP(784), 25, 784, device=device, repeats=repeats)
    measure("Conv4-8, 16x16", Conv4(1, 16, width=8), 16, 1, 16, 16, device=device, repeats=repeats)
    measure("Conv4-64, 16x16", Conv4(1, 16), 16, 1, 16, 16, device=device, repeats=repeats)
    measure("Conv4-64, 28x28", Conv4(1, 28), 16, 1, 28, 28, device=device, repeats=repeats)
    measure("Conv4-32, 84x84", Conv4(3, 84, width=32), 4, 3, 84, 84, device=device, repeats=repeats)


if __name__ == "__main__":
    main()
