"""Second-order MAML meta-steps against `higher` and `torchopt`, the hardware's floor, and memory.

    pip install -e '.[bench]'
    python benchmarks/peers.py [--device cuda] [--repeats 7] [--only omniglot] [--channels-last]

All contestants run the same layers on the same episodes, one after another in each round, every
second round in the opposite order. Images come as a loader gives them, and our Conv4 lays them out
channels last; with `--channels-last` the peers are given them so too. Times are medians over the
rounds; a ratio is of one run. Memory is the peak of a process of its own above what it held before
its first step. The floor is the counted FLOP over the matrix product's speed in this run.
"""

import argparse
import copy
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import higher
import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fewshot import ANIL, FOMAML, MAML, Conv4, Episode, Examples
from fewshot.episodes.types import episode

Step = Callable[[], None]
WAY, QUERIES, RATE = 5, 15, 0.01
MMAP_THRESHOLD = -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Setting:
    """A benchmark's shapes: images (channels, size, size), Conv4 of `width`, B episodes, K shots.

    `channels_last` says how the images lie in memory: as a loader of images gives them, or as the
    networks' weights do.
    """

    channels: int
    size: int
    width: int
    episodes: int
    shot: int
    inner_steps: int
    channels_last: bool = False


SETTINGS = {
    "omniglot": Setting(1, 28, 64, episodes=16, shot=1, inner_steps=1),
    "84x84 1-shot": Setting(3, 84, 32, episodes=4, shot=1, inner_steps=5),
    "84x84 5-shot": Setting(3, 84, 32, episodes=4, shot=5, inner_steps=5),
}


def meta_batch(s: Setting, device: str, episodes: int | None = None) -> Episode:
    """Random episodes of the setting."""
    torch.manual_seed(0)
    b = episodes or s.episodes

    def examples(a_class: int) -> Examples:
        labels = torch.arange(WAY, device=device).repeat_interleave(a_class).expand(b, -1)
        if s.channels_last:
            images = torch.rand(
                b, WAY * a_class, s.size, s.size, s.channels, device=device
            ).movedim(-1, 2)
        else:
            images = torch.rand(b, WAY * a_class, s.channels, s.size, s.size, device=device)
        return Examples(images, labels)

    return Episode(examples(s.shot), examples(QUERIES))


def make(s: Setting, device: str, cls: Any = MAML, **arguments: Any) -> MAML:
    """A learner of this library."""
    torch.manual_seed(0)
    task = {"kind": "classification", "way": WAY}
    backbone = Conv4(s.channels, s.size, width=s.width)
    learner: MAML = cls(backbone, task=task, inner_lr=RATE, inner_steps=s.inner_steps, **arguments)
    return learner.to(device)


def ours(learner: MAML, batch: Episode) -> Step:
    """The meta-gradient by this library, chunk by chunk as in training."""

    def step() -> None:
        learner.zero_grad()
        for outcome in learner.run(batch, training=True):
            torch.autograd.backward(outcome.loss.sum() / len(batch.support.targets))

    return step


def network_of(s: Setting, device: str) -> nn.Module:
    """The same layers and memory format for the peers (`higher` cannot take abstract classes)."""
    learner = make(s, device)
    assert isinstance(learner.backbone, Conv4)
    return nn.Sequential(
        copy.deepcopy(learner.backbone.blocks), nn.Flatten(), copy.deepcopy(learner.head)
    ).train()


def loss_of(network: Any, examples: Examples) -> Tensor:
    """Mean cross-entropy."""
    return F.cross_entropy(network(examples.inputs), examples.targets)


def with_higher(s: Setting, batch: Episode, device: str) -> Step:
    """The meta-gradient by `higher`, as its MAML example has it: one backward an episode."""
    network = network_of(s, device)
    inner = torch.optim.SGD(network.parameters(), lr=RATE)

    def step() -> None:
        network.zero_grad()
        for i in range(s.episodes):
            support, query = episode(batch, i)
            with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (
                fast,
                optimizer,
            ):
                for _ in range(s.inner_steps):
                    optimizer.step(loss_of(fast, support))
                torch.autograd.backward(loss_of(fast, query) / s.episodes)

    return step


def with_torchopt(s: Setting, batch: Episode, device: str) -> Step:
    """The meta-gradient by `torchopt`, as its MAML example has it: one backward an episode."""
    network = network_of(s, device)
    inner = torchopt.MetaSGD(network, lr=RATE)

    def step() -> None:
        network.zero_grad()
        weights = torchopt.extract_state_dict(network, by="reference", detach_buffers=True)
        state = torchopt.extract_state_dict(inner, by="reference")
        parameters = list(network.parameters())
        for i in range(s.episodes):
            support, query = episode(batch, i)
            for _ in range(s.inner_steps):
                inner.step(loss_of(network, support))
            gradients = torch.autograd.grad(loss_of(network, query) / s.episodes, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            torchopt.recover_state_dict(network, weights)
            torchopt.recover_state_dict(inner, state)

    return step


CONTESTANTS: dict[str, Callable[[Setting, Episode, str], Step]] = {
    "fewshot": lambda s, batch, device: ours(make(s, device), batch),
    "fewshot compiled": lambda s, batch, device: ours(make(s, device, compile=True), batch),
    "higher": with_higher,
    "torchopt": with_torchopt,
}


def seconds(step: Step, device: str) -> float:
    """Wall time of one call."""
    gc.collect()
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def medians(steps: dict[str, Step], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each, in rounds of alternating order; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 1):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            value = seconds(steps[name], device)
            if number:
                times[name].append(value)
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_speed(device: str) -> float:
    """FLOP a second of a float32 matrix product, the best of several sizes."""
    best = 0.0
    for size in (1024, 2048, 3072):
        one, other = torch.rand(2, size, size, device=device)
        out = torch.empty_like(one)
        # used at once
        times = [seconds(lambda: _multiply(one, other, out), device) for _ in range(9)]  # noqa: B023
        best = max(best, 2 * size**3 / statistics.median(times))
    return best


def _multiply(one: Tensor, other: Tensor, out: Tensor) -> None:
    torch.mm(one, other, out=out)


def flop(s: Setting, batch: Episode, device: str) -> int:
    """Counted operations of one meta-step."""
    step = ours(make(s, device, episode_parallel="loop"), batch)
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def peak_memory(setting: str, contestant: str, device: str) -> float:
    """Peak MB of two meta-steps, in a process of its own."""
    command = [sys.executable, __file__, "--device", device, "--memory", setting, contestant]
    command += ["--channels-last"] if SETTINGS[setting].channels_last else []
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(result.stdout.splitlines()[-1]))


def print_memory(setting: str, contestant: str, device: str) -> None:
    """Print the peak MB of two meta-steps of a contestant above what is held before."""
    # else glibc keeps freed blocks, and the peak is of its habits
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 2**20)

    def make_step(s: Setting) -> Step:
        batch = meta_batch(s, device)
        if contestant == "fewshot checkpointed":
            return ours(make(s, device, checkpoint_inner_steps=True), batch)
        return CONTESTANTS[contestant](s, batch, device)

    # loads what the first use loads
    make_step(replace(SETTINGS[setting], size=28, width=8, episodes=1))()
    step = make_step(SETTINGS[setting])
    before = torch.cuda.memory_allocated() if device == "cuda" else resident()
    for _ in range(2):
        step()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")
    print(json.dumps((peak - before) / 1e6))


def resident(which: str = "VmRSS") -> int:
    """Bytes of this process in memory now, or the most there ever were (VmHWM); of Linux.

    Not `getrusage`: a child's ru_maxrss begins at what its parent held.
    """
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(f"{which}:")
    )
    return int(line.split()[1]) * 1024


def compare(name: str, device: str, repeats: int, peak: float) -> None:
    """Print time and memory of all contestants in one setting."""
    s = SETTINGS[name]
    batch = meta_batch(s, device)
    times = medians(
        {who: make_step(s, batch, device) for who, make_step in CONTESTANTS.items()},
        repeats,
        device,
    )
    fastest_peer = min(times["higher"], times["torchopt"])
    work = flop(s, batch, device)
    print(
        f"\n{name}: {s.episodes} episodes, {s.inner_steps} inner steps, {work / 1e9:.1f} GFLOP,",
        end=" ",
    )
    print(f"floor {1e3 * work / peak:.0f} ms at {peak / 1e9:.0f} GFLOP/s")
    print(
        f"  {'':22}{'ms':>8}{'speed':>8}{'of floor':>10}{'peak MB':>10}   (speed: of the faster"
        " peer's)"
    )
    for who, value in times.items():
        memory = peak_memory(name, who, device)
        print(
            f"  {who:22}{1e3 * value:8.0f}{fastest_peer / value:8.2f}{work / peak / value:10.0%}{memory:10.0f}"
        )
    print(
        f"  {'fewshot checkpointed':22}{'':26}{peak_memory(name, 'fewshot checkpointed', device):10.0f}"
    )


def algorithms(name: str, device: str, repeats: int) -> None:
    """Print first order and ANIL against MAML."""
    s = SETTINGS[name]
    batch = meta_batch(s, device)
    learners = {
        "MAML": make(s, device),
        "FOMAML": make(s, device, FOMAML),
        "ANIL": make(s, device, ANIL),
    }
    training = medians(
        {who: ours(learner, batch) for who, learner in learners.items()}, repeats, device
    )
    support = episode(batch, 0).support
    adapting: dict[str, Step] = {
        who: lambda learner=learner: learner.adapt(support)  # type: ignore[misc]
        for who, learner in learners.items()
    }
    adaptation = medians(adapting, repeats, device)
    print(f"\n{name}: {s.inner_steps} inner steps, speed against MAML's")
    for who in ("FOMAML", "ANIL"):
        print(f"  {who:10}training {training['MAML'] / training[who]:5.2f}", end="")
        print(f"   adaptation {adaptation['MAML'] / adaptation[who]:5.2f}")


def parallel(device: str, repeats: int, peak: float) -> None:
    """Print vmap against the loop at 32 episodes, and the time of MAML's full Omniglot schedule."""
    s = SETTINGS["omniglot"]
    batch = meta_batch(s, device, episodes=32)
    ways = {
        "loop": make(s, device, episode_parallel="loop"),
        "vmap": make(s, device, episode_parallel="vmap"),
        "vmap captured": make(s, device, episode_parallel="vmap", compile="capture"),
        "vmap compiled": make(s, device, episode_parallel="vmap", compile=True),
    }
    for learner in ways.values():
        for _ in range(2):  # a CUDA graph runs as itself from the third time on
            ours(learner, batch)()
    times = medians({how: ours(learner, batch) for how, learner in ways.items()}, repeats, device)
    floor = flop(s, batch, device) / peak
    print("\nomniglot, 32 episodes on an accelerator")
    for how, value in times.items():
        print(f"  {how:14}{1e3 * value:8.1f} ms{times['loop'] / value:8.2f} x the loop", end="")
        print(f"{value / floor:8.1f} x the floor{1000 * value:8.1f} min for 60 000")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=SETTINGS, help="one setting")
    parser.add_argument(
        "--memory",
        nargs=2,
        metavar=("SETTING", "CONTESTANT"),
        help="print that peak in MB and stop",
    )
    parser.add_argument(
        "--channels-last", action="store_true", help="give all contestants images in channels last"
    )
    arguments = parser.parse_args()
    SETTINGS.update(
        {name: replace(s, channels_last=arguments.channels_last) for name, s in SETTINGS.items()}
    )
    device, repeats = arguments.device, arguments.repeats
    if arguments.memory:
        setting, contestant = arguments.memory
        print_memory(setting, contestant, device)
        return
    peak = matmul_speed(device)
    print(
        f"second-order MAML, {WAY}-way, {QUERIES} queries a class, on {device}"
        f" ({torch.get_num_threads()} threads)"
    )
    for name in [arguments.only] if arguments.only else SETTINGS:
        compare(name, device, repeats, peak)
        if SETTINGS[name].inner_steps > 1:
            algorithms(name, device, repeats)
    if device != "cpu":
        parallel(device, repeats, peak)


if __name__ == "__main__":
    main()
