"""What MAML costs on a vision transformer: all weights against LoRA, in memory and time.

ViT-S (timm's ``vit_small_patch16_224``) with random weights, images of 224 pixels, 5 inner steps,
one episode of 5 classes with an example of support and of query each, SGD. Each case is a process
of its own, whose resident memory at its height is told, and without what the process had before its
first step. Activations are kept, or computed again: those of inner `steps`, of the network's
`blocks`, or `both`::

    python benchmarks/adapters.py
    python benchmarks/adapters.py --case lora second both
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product

WAY, STEPS = 5, 5


def measure(weights: str, order: str, memory: str) -> None:
    """Two meta-steps of one case; the second is timed."""
    import torch

    from fewshot import MAML, Episode, Examples, LoRA, TimmBackbone

    torch.manual_seed(0)
    torch.set_num_threads(1)
    learner = MAML(
        TimmBackbone(
            3, 224, "vit_small_patch16_224", checkpoint_blocks=memory in ("blocks", "both")
        ),
        adapters=LoRA(rank=4) if weights == "lora" else None,
        inner_steps=STEPS,
        first_order=order == "first",
        episode_parallel="loop",
        checkpoint_inner_steps=memory in ("steps", "both"),
        task={"kind": "classification", "way": WAY},
    )
    trained = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)
    episode = Episode(
        *(Examples(torch.rand(1, WAY, 3, 224, 224), torch.arange(WAY)[None]) for _ in range(2))
    )
    before, seconds = peak(), 0.0
    for _ in range(2):
        begin = time.process_time()
        optimizer.zero_grad()
        for outcome in learner.run(episode, training=True):
            torch.autograd.backward(outcome.loss.sum())
        optimizer.step()
        seconds = time.process_time() - begin
    count = sum(p.numel() for p in trained)
    print(
        f"{weights:5} {order:6} order, {memory:6}: {peak():7.0f} MiB, {peak() - before:7.0f} above"
        f" the start, {seconds:6.1f} s a meta-step, {count} weights",
        flush=True,
    )


def peak() -> float:
    """The largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(args: Sequence[str] | None = None) -> None:
    """Measure one case, or each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=3, metavar=("WEIGHTS", "ORDER", "MEMORY"))
    if case := parser.parse_args(args).case:
        measure(*case)
        return
    for case in product(("all", "lora"), ("first", "second"), ("kept", "steps", "blocks", "both")):
        subprocess.run([sys.executable, __file__, "--case", *case], check=True)


if __name__ == "__main__":
    main()
