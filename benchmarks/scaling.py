"""How a meta-step splits between compute and all-reduce on 1 to 512 GPUs: on paper, not measured.

    python benchmarks/scaling.py [--plot docs/scaling.png]

Operations are counted by `torch.utils.flop_counter` on the meta device, bytes from the parameters;
the machine is the constants below. Assumptions and what follows from them: docs/scaling.md.
"""

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VisionTransformer

from fewshot import Conv4, ResNet12

IMAGES = 5 * (5 + 15)
"""Of an episode: 5-way 5-shot with 15 queries a class, embedded once (a Prototypical Network)."""
FLOPS = 0.4 * 989e12
"""A second: 40 % of an H100's dense bfloat16 peak (NVIDIA's data sheet).

A slower GPU scales better.
"""
GPUS_A_NODE = 8
NVLINK, INFINIBAND = 450e9, 50e9
"""Bytes a second per GPU and direction: NVLink 4 in a node, 400 Gb/s InfiniBand between nodes."""
NEAR, FAR = 2e-6, 5e-6
"""Seconds until a message arrives, inside a node and between nodes."""
GPUS = (1, 8, 64, 512)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "Conv4, 84x84": (lambda: Conv4(3, 84, width=64), 84),
    "ResNet-12, 84x84": (lambda: ResNet12(3, 84), 84),
    "ViT-S/16, 224x224": (lambda: VisionTransformer(224, 16, 12, 6, 384, 1536), 224),
}


class Work(NamedTuple):
    """Of a network: operations of an episode, forward and backward; bytes of float32 gradient."""

    flop: int
    bytes: int


def work(make: Callable[[], nn.Module], size: int) -> Work:
    """Count what an episode of images (100, 3, `size`, `size`) takes."""
    with torch.device("meta"):
        network, images = make(), torch.empty(IMAGES, 3, size, size)
        with FlopCounterMode(display=False) as counter:
            network(images).sum().backward()
    return Work(counter.get_total_flops(), 4 * sum(p.numel() for p in network.parameters()))


def all_reduce(size: int, gpus: int) -> float:
    """Seconds to sum `size` bytes over `gpus`, by the better of ring and tree, as NCCL chooses.

    Ring (Patarasuk & Yuan 2009): 2 (n-1)/n size/bandwidth + 2 (n-1) latency. Double binary tree
    (Sanders, Speck & Traeff 2009): 2 size/bandwidth + 2 log2(n) latency. The slowest link counts.
    """
    if gpus == 1:
        return 0.0
    bandwidth, latency = (NVLINK, NEAR) if gpus <= GPUS_A_NODE else (INFINIBAND, FAR)
    ring = 2 * (gpus - 1) / gpus * size / bandwidth + 2 * (gpus - 1) * latency
    tree = 2 * size / bandwidth + 2 * math.log2(gpus) * latency
    return min(ring, tree)


def efficiency(one: Work, gpus: int, episodes: int) -> float:
    """Share of the step that computes, with so many episodes a GPU and nothing overlapped."""
    compute = episodes * one.flop / FLOPS
    return compute / (compute + all_reduce(one.bytes, gpus))


def enough(one: Work, gpus: int, wanted: float = 0.9) -> int:
    """The smallest number of episodes a GPU whose efficiency is above `wanted`."""
    seconds = all_reduce(one.bytes, gpus) * wanted / (1 - wanted)
    return max(1, math.ceil(seconds / (one.flop / FLOPS)))


def plot(found: dict[str, Work], path: str) -> None:
    """Draw the efficiency at one episode a GPU."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    gpus = [2**i for i in range(10)]
    for name, one in found.items():
        axes.plot(
            gpus, [100 * efficiency(one, n, 1) for n in gpus], marker="o", markersize=3, label=name
        )
    axes.axhline(90, color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xscale="log",
        xlabel="GPUs",
        ylabel="efficiency in %",
        ylim=(0, 105),
        title="On paper: 1 episode a GPU",
    )
    axes.set_xscale("log", base=2)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE", help="draw it too")
    arguments = parser.parse_args()
    found = {name: work(make, size) for name, (make, size) in NETWORKS.items()}
    table = Table(title="A meta-step on paper (H100, 1 episode a GPU, nothing overlapped)")
    for column in (
        "network",
        "GPUs",
        "compute ms",
        "all-reduce ms",
        "efficiency",
        "episodes a GPU",
        "meta-batch > 90 %",
    ):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, one in found.items():
        for gpus in GPUS:
            times = (
                f"{1e3 * seconds:.3f}"
                for seconds in (one.flop / FLOPS, all_reduce(one.bytes, gpus))
            )
            needed = enough(one, gpus)
            percent = f"{100 * efficiency(one, gpus, 1):.1f} %"
            table.add_row(name, str(gpus), *times, percent, str(needed), str(gpus * needed))
        table.add_row(
            f"  {one.flop / 1e9:.1f} GFLOP an episode, {one.bytes / 1e6:.2f} MB", end_section=True
        )
    Console(width=120).print(table)
    if arguments.plot:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
