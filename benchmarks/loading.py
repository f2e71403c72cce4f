"""Milliseconds to draw, gather and convert one meta-batch: ``python benchmarks/loading.py``.

Three sources of images, generated here (the values do not matter), on one thread without workers:

- Omniglot's sizes in memory: 32 episodes of 5-way 1-shot with 15 queries a class are 2560 images of
  28x28, out of 1692 classes of 20 drawings. The bar is 4 ms: a meta-step of Conv4-64 on these
  episodes takes about half a second on two cores, and some 10 ms on a GPU, so that loading in the
  training process, without workers, must not be seen.
- mini-ImageNet's sizes in a packed store: 4 episodes of 5-way 5-shot with 15 queries a class are
  400 images of 84x84 in colour, out of 64 classes of 600. The bars are 60 ms, and 5000 images a
  second read from the store, also when each is compared with its checksum. The store is 0.8 GB on
  disk and is read through the page cache, as in training.
- Triple MNIST: the same episodes in grey, composed when they are asked for.

And the text benchmarks, from files of their sizes: the time to read them and make ids of them (the
bar is 5 s), and to draw one episode of FewRel, 5-way 1-shot with 5 queries a class, without queries
of other classes and with as many (the bar is 1 ms).
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fewshot.datamodules import CLINC150DataModule, FewRelDataModule, SNIPSDataModule
from fewshot.datamodules.text import TextDataModule
from fewshot.datasets.mnist import Digits
from fewshot.datasets.multi_digit import Compositions
from fewshot.datasets.preprocessing import as_float
from fewshot.datasets.reading.store import PackedImages, open_store, packed
from fewshot.datasets.snips import INTENTS
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.streams import EpisodeStream
from fewshot.episodes.types import MetaBatch

WARM_UP = 50


def in_memory() -> ClassDataset:
    """A dataset of Omniglot's size."""
    images = np.random.default_rng(0).integers(0, 256, (1692 * 20, 1, 28, 28), np.uint8)
    return named(torch.from_numpy(images), 1692)


def composed() -> ClassDataset:
    """The training classes of Triple MNIST, of digits without meaning."""
    images = np.random.default_rng(0).integers(0, 256, (70_000, 28, 28), np.uint8)
    digits = Digits(images, np.full(10, 7000, np.int64))
    classes, numbers = np.repeat(np.arange(640), 1000), np.tile(np.arange(1000), 640)
    return named(Compositions(digits, 3, 84, classes, numbers), 640)


def named(inputs: torch.Tensor | Compositions, classes: int) -> ClassDataset:
    """A dataset of equally many of the inputs in each class."""
    counts = np.full(classes, len(inputs) // classes, np.int64)
    return ClassDataset(inputs, counts, tuple(f"class{i}" for i in range(classes)))


def stored(folder: Path) -> ClassDataset:
    """A packed store of mini-ImageNet's training classes."""
    images = np.random.default_rng(0).integers(0, 256, (1000, 84, 84, 3), np.uint8)
    source = {
        "train": {
            f"class{c}": [images[(600 * c + i) % 1000] for i in range(600)] for c in range(64)
        }
    }
    return packed(folder, "generated", lambda: source, 84)["train"]


def convert(meta_batch: MetaBatch) -> list[torch.Tensor]:
    """Both parts' images as float, as `ImageDataModule.on_after_batch_transfer` does."""
    return [as_float(part.inputs) for part in meta_batch.stacked]


def percentiles(milliseconds: list[float]) -> str:
    """The median and the fastest and slowest tenths."""
    ordered = sorted(milliseconds)
    tenth = len(ordered) // 10
    return (
        f"{statistics.median(ordered):6.2f} ms  (10 % {ordered[tenth]:.2f}, 90 %"
        f" {ordered[-tenth]:.2f})"
    )


def measure(
    name: str, dataset: ClassDataset, episodes: int, shot: int, repeats: int, bar: str
) -> None:
    """Print the medians of drawing with gathering, of converting, and of both."""
    stream = EpisodeStream(ClassTasks(dataset, 5, shot, 15), seed=0, stage="train")
    loader = EpisodeLoader(stream, episodes * (WARM_UP + repeats), episodes, repeat=True)
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
    print(
        f"\n{name}: {episodes} episodes, 5-way {shot}-shot 15-query, {episodes * 5 * (shot + 15)}"
        " images, one thread"
    )
    print(f"draw and gather   {percentiles(drawing)}")
    print(f"convert to float  {percentiles(converting)}")
    print(f"together          {percentiles(total)}  {bar}")


def read_through(folder: Path) -> None:
    """Print the images a second of a store in random order, with every checksum and without."""
    images = open_store(folder)["train"].inputs
    assert isinstance(images, PackedImages)
    order = np.random.default_rng(1).permutation(len(images))
    print("\npacked store, batches of 400 in random order, one thread")
    for how in ("compared with its checksum", "again"):
        start = time.perf_counter()
        for rows in np.array_split(order, len(order) // 400):
            images.take(rows)
        rate = len(order) / (time.perf_counter() - start)
        print(f"each image {how:28} {rate:8.0f} images a second  bar: 5000")


def sentences(number: int, words: int) -> list[list[str]]:
    """Sentences of words whose frequencies fall as their ranks rise, as those of a language do."""
    ranks = np.random.default_rng(0).zipf(1.3, (number, words)).clip(max=50_000)
    return [[f"w{rank}" for rank in row] for row in ranks.tolist()]


def write_clinc150(root: Path) -> None:
    """Files of CLINC150's size: 150 intents with 100, 20 and 30 utterances of 8 words."""
    texts = iter(sentences(22_500, 8))
    parts = {
        part: [[" ".join(next(texts)), f"intent{i}"] for i in range(150) for _ in range(number)]
        for part, number in (("train", 100), ("val", 20), ("test", 30))
    }
    (root / "data_full.json").write_text(json.dumps(parts))


def write_snips(root: Path) -> None:
    """Files of SNIPS's size: 7 intents with 2000 and 100 utterances of 9 words in three pieces."""
    texts = iter(sentences(7 * 2100, 9))
    for intent in INTENTS:
        (root / intent).mkdir()
        for name, number in ((f"train_{intent}_full", 2000), (f"validate_{intent}", 100)):
            utterances = [next(texts) for _ in range(number)]
            items = [
                {"data": [{"text": f"{' '.join(u[i : i + 3])} "} for i in (0, 3, 6)]}
                for u in utterances
            ]
            (root / intent / f"{name}.json").write_text(json.dumps({intent: items}))


def write_fewrel(root: Path) -> None:
    """Files of FewRel's size: 64 and 16 relations with 700 sentences of 25 words."""
    texts = iter(sentences(80 * 700, 25))
    for name, relations in (("train_wiki", range(64)), ("val_wiki", range(64, 80))):
        content = {
            f"P{r}": [
                {
                    "tokens": next(texts),
                    "h": ["a", f"Q{r}h{i}", [[3, 4]]],
                    "t": ["b", f"Q{r}t{i}", [[12]]],
                }
                for i in range(700)
            ]
            for r in relations
        }
        (root / f"{name}.json").write_text(json.dumps(content))


def read_texts(
    name: str, write: Callable[[Path], None], make: Callable[[str], TextDataModule]
) -> None:
    """Print how long a text benchmark takes from its files to its first episode."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        start = time.perf_counter()
        module = make(folder)
        module.stream("test")[0]
        print(f"{name:10} read in {time.perf_counter() - start:5.2f} s  bar: 5 s")


def draw_texts(repeats: int = 1000) -> None:
    """Print how long an episode of FewRel takes, without queries of other classes and with them."""
    with tempfile.TemporaryDirectory() as folder:
        write_fewrel(Path(folder))
        for rate in (0, 1):
            stream = fewrel(folder, nota_rate=rate).stream("test")
            taken = []
            for number in range(WARM_UP + repeats):
                start = time.perf_counter()
                stream[number]
                taken.append(1000 * (time.perf_counter() - start))
            print(
                f"an episode of FewRel, nota_rate {rate}  {percentiles(taken[WARM_UP:])}  bar: 1 ms"
            )


def fewrel(root: str, nota_rate: float = 0) -> FewRelDataModule:
    """FewRel with twelve of the training relations for validation."""
    return FewRelDataModule(root=root, test="val_wiki", val_relations=12, nota_rate=nota_rate)


def main() -> None:
    """Measure all sources."""
    torch.set_num_threads(1)
    measure("in memory, 28x28", in_memory(), 32, 1, 500, "bar: 4 ms")
    measure("composed, 84x84 grey", composed(), 4, 5, 200, "")
    with tempfile.TemporaryDirectory() as folder:
        measure(
            "packed store, 84x84 colour", stored(Path(folder) / "store"), 4, 5, 200, "bar: 60 ms"
        )
        read_through(Path(folder) / "store")
    print("\ntexts, one thread")
    read_texts("CLINC150", write_clinc150, lambda root: CLINC150DataModule(root=root))
    read_texts("SNIPS", write_snips, lambda root: SNIPSDataModule(root=root, split="seed", way=2))
    read_texts("FewRel", write_fewrel, fewrel)
    draw_texts()


if __name__ == "__main__":
    main()
