"""A Prototypical Network of this library and of easyfsl: a training step, and an evaluation.

The rows of both in `waiting.py`, which gives each measurement a process of its own. easyfsl is used
as in its tutorials, with the network that its user would write. Its sampler hands torch's `Sampler`
an argument that torch no longer takes, which is let through here.
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from checkouts import tested

TRAIN_WAY, TRAIN_QUERIES = 60, 5  # of a step, 1-shot (arXiv:1703.05175)
WAY, QUERIES = 5, 15  # of an evaluation, 1-shot
STEPS, OURS, THEIRS = 9, 600, 60  # steps, test episodes: easyfsl's cost the same each


def our_step(precision: str) -> Mapping[str, Any]:
    """A step of Adam by this library, in `precision` bfloat16 (mixed) or float32."""
    import torch

    import fewshot

    fewshot.keep_freed_memory()
    torch.manual_seed(0)
    support, query = _training_episode()
    batch = fewshot.Episode(*(fewshot.Examples(x[None], y[None]) for x, y in (support, query)))
    task = {"kind": "classification", "way": TRAIN_WAY}
    learner = fewshot.PrototypicalNetwork(fewshot.Conv4(1), task=task).train()
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            outcomes = list(learner.run(batch, training=True))
        torch.autograd.backward([outcome.loss.sum() for outcome in outcomes])
        optimizer.step()

    return {"value": _median(step)}


def their_step() -> Mapping[str, Any]:
    """A step of Adam by easyfsl's `PrototypicalNetworks`, in float32."""
    import torch
    from easyfsl.methods import PrototypicalNetworks

    torch.manual_seed(0)
    support, query = _training_episode()
    model = PrototypicalNetworks(network()).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model.process_support_set(*support)
        loss = torch.nn.functional.cross_entropy(model(query[0]), query[1])
        torch.autograd.backward(loss)
        optimizer.step()

    return {"value": _median(step)}


def our_evaluation(name: str, precision: str = "32-true") -> Mapping[str, Any]:
    """`Trainer.test` on the benchmark `name`; seconds an episode."""
    import torch

    import fewshot

    fewshot.keep_freed_memory()
    torch.manual_seed(0)
    benchmark = data(name, OURS)
    learner = fewshot.PrototypicalNetwork(fewshot.Conv4(1), task=benchmark.task)
    return {"value": tested(learner, benchmark, precision=precision) / OURS}


def their_evaluation(name: str) -> Mapping[str, Any]:
    """`easyfsl.utils.evaluate` on the same examples; seconds an episode."""
    import torch
    from easyfsl.methods import PrototypicalNetworks
    from easyfsl.utils import evaluate

    torch.manual_seed(0)
    loader, model = their_loader(data(name, 1), THEIRS), PrototypicalNetworks(network())
    begin = time.process_time()
    evaluate(model, loader, device="cpu", use_tqdm=False)
    return {"value": (time.process_time() - begin) / THEIRS}


def their_loader(benchmark: Any, episodes: int) -> Any:
    """Easyfsl's episodes of the test classes; examples lie in memory, as floats."""
    import torch
    from easyfsl.datasets import FewShotDataset
    from easyfsl.samplers import TaskSampler
    from torch.utils.data import DataLoader, Sampler

    test = benchmark.datasets["test"]
    images = test.inputs.float() / 255
    labels = [label for label, count in enumerate(test.counts) for _ in range(count)]

    class Test(FewShotDataset):  # type: ignore[misc]
        def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
            return images[item], labels[item]

        def __len__(self) -> int:
            return len(labels)

        def get_labels(self) -> list[int]:
            return labels

    random.seed(0)
    dataset = Test()
    with mock.patch.object(Sampler, "__init__", return_value=None):
        tasks = TaskSampler(dataset, n_way=WAY, n_shot=1, n_query=QUERIES, n_tasks=episodes)
    return DataLoader(dataset, batch_sampler=tasks, collate_fn=tasks.episodic_collate_fn)


def network() -> Any:
    """Conv4 as one writes it: the layers and weights of ours, laid out as torch does."""
    from torch import nn

    layers: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        layers += [nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten())


def data(name: str, episodes: int) -> Any:
    """The benchmark; Omniglot's images are of the folder $OMNIGLOT, or else drawn at random."""
    import numpy as np
    import torch

    import fewshot
    from fewshot.episodes.class_dataset import ClassDataset

    class Drawn(fewshot.OmniglotDataModule):
        def load(self) -> dict[str, ClassDataset]:
            sizes = {"train": TRAIN_WAY, "val": WAY, "test": 1692}  # as many as Omniglot tests
            return {
                split: ClassDataset(
                    torch.randint(0, 256, (20 * size, 1, 28, 28), dtype=torch.uint8),
                    np.full(size, 20),
                    tuple(f"{split}{number}" for number in range(size)),
                )
                for split, size in sizes.items()
            }

    root = os.environ.get("OMNIGLOT")
    options: dict[str, Any] = {"way": WAY, "queries": QUERIES, "test_episodes": episodes}
    if name == "Glyphs":
        benchmark: Any = fewshot.GlyphsDataModule(**options)
    else:
        benchmark = fewshot.OmniglotDataModule(root=root, **options) if root else Drawn(**options)
        benchmark.datasets  # noqa: B018  # read before the clock runs, as the peer's are
    if root or name == "Glyphs":
        benchmark.prepare_data()
    return benchmark


def _training_episode() -> Any:
    """(images, labels) of the support and of the queries of an episode of Omniglot's size."""
    import torch

    train = data("Omniglot", 1).datasets["train"]
    images = train.inputs[: 20 * TRAIN_WAY].reshape(TRAIN_WAY, 20, 1, 28, 28).float() / 255

    def part(begin: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(TRAIN_WAY).repeat_interleave(size)
        return images[:, begin : begin + size].flatten(0, 1), labels

    return part(0, 1), part(1, TRAIN_QUERIES)


def _median(step: Callable[[], None]) -> float:
    times = []
    for _ in range(STEPS):
        begin = time.process_time()
        step()
        times.append(time.process_time() - begin)
    return statistics.median(times[2:])
