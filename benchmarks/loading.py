"""Milliseconds to draw, gather and convert one meta-batch: ``python benchmarks/loading.py``.

Omniglot's sizes: 32 episodes of 5-way 1-shot with 15 queries a class are 2560 images of 28x28, out of 1692 classes of
20 drawings, uint8 in memory (generated here: the values do not matter). One thread, no workers. The bar is 4 ms: a
meta-step of Conv4-64 on these episodes takes about half a second on two cores, and some 10 ms on a GPU, so that
loading in the training process, without workers, must not be seen.
"""

import statistics
import time

import numpy as np
import torch

from fewshot.datasets.base import ClassDataset
from fewshot.episodes import Episode
from fewshot.loading import ClassTasks, EpisodeLoader, EpisodeStream
from fewshot.preprocessing import as_float

CLASSES, EXAMPLES, SIZE = 1692, 20, 28
EPISODES, WAY, SHOT, QUERIES = 32, 5, 1, 15
WARM_UP, REPEATS = 50, 500
BAR_MS = 4.0


def generated() -> ClassDataset:
    """A dataset of Omniglot's size."""
    images = np.random.default_rng(0).integers(0, 256, (CLASSES * EXAMPLES, 1, SIZE, SIZE), np.uint8)
    names = tuple(f"class{i}" for i in range(CLASSES))
    return ClassDataset(torch.from_numpy(images), np.full(CLASSES, EXAMPLES, np.int64), names)


def convert(meta_batch: Episode) -> list[torch.Tensor]:
    """Both parts' images as float, as `ImageDataModule.on_after_batch_transfer` does."""
    return [as_float(part.inputs) for part in meta_batch]


def percentiles(milliseconds: list[float]) -> str:
    """The median and the fastest and slowest tenths."""
    ordered = sorted(milliseconds)
    tenth = len(ordered) // 10
    return f"{statistics.median(ordered):6.2f} ms  (10 % {ordered[tenth]:.2f}, 90 % {ordered[-tenth]:.2f})"


def main() -> None:
    """Print the medians of drawing with gathering, of converting, and of both."""
    torch.set_num_threads(1)
    stream = EpisodeStream(ClassTasks(generated(), WAY, SHOT, QUERIES), seed=0, stage="train")
    loader = EpisodeLoader(stream, EPISODES * (WARM_UP + REPEATS), EPISODES, repeat=True)
    drawing: list[float] = []
    converting: list[float] = []
    batches = iter(loader)
    for _ in range(len(loader)):
        start = time.perf_counter()
        batch = next(batches)
        drawn = time.perf_counter()
        convert(batch)
        drawing.append(1000 * (drawn - start))
        converting.append(1000 * (time.perf_counter() - drawn))
    drawing, converting = drawing[WARM_UP:], converting[WARM_UP:]
    total = [a + b for a, b in zip(drawing, converting, strict=True)]
    images = EPISODES * WAY * (SHOT + QUERIES)
    print(f"{EPISODES} episodes, {WAY}-way {SHOT}-shot {QUERIES}-query, {images} images of {SIZE}x{SIZE}, one thread")
    print(f"draw and gather   {percentiles(drawing)}")
    print(f"convert to float  {percentiles(converting)}")
    print(f"together          {percentiles(total)}  bar: {BAR_MS} ms")


if __name__ == "__main__":
    main()
