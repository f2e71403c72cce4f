"""Memory and time of link prediction at Wiki-One's size: ``benchmarks/link_prediction.py FOLDER``.

Makes a random graph of as many entities, relations and triples as Wiki-One in FOLDER (about 6 GB
with the vectors' cache; kept, so that a second call is quick), then trains MetaR for some steps,
each way in a process of its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from fewshot import Backbone, EntityVectors, MappedEntityVectors, MetaR, WikiOneDataModule

ENTITIES, RELATIONS, TRIPLES, TASKS = (
    4_838_244,
    411,
    5_859_240,
    {"train": 133, "dev": 16, "test": 34},
)
WAYS = {
    "mapped": "vectors left on the disk, not trained",
    "sparse": "vectors in memory, trained by Adagrad, gradients of the rows in use alone",
    "dense": "vectors in memory, trained by Adam",
}


def make_graph(folder: Path, entities: int, triples: int) -> None:
    """Write the files of a random graph."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ent2ids").open("w") as file:
        file.write("{")
        file.writelines(f'{", " if i else ""}"Q{i}": {i}' for i in range(entities))
        file.write("}")
    names = [f"P{i}" for i in range(RELATIONS)]
    names += [f"{name}_inv" for name in names]
    (folder / "relation2ids").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    rows = np.stack([rng.integers(n, size=triples) for n in (entities, RELATIONS, entities)], 1)
    with (folder / "path_graph").open("w") as file:
        file.writelines(f"Q{h}\tP{r}\tQ{t}\n" for h, r, t in rows.tolist())
    candidates: dict[str, list[str]] = {}
    tails: dict[str, list[str]] = {}
    for stage, number in TASKS.items():
        tasks = {}
        for i in range(number):
            name = f"{stage}{i}"
            found = rng.choice(entities, (5100,), replace=False).tolist()
            pairs = list(zip(found[:100], found[100:200], strict=True))
            tasks[name] = [[f"Q{h}", name, f"Q{t}"] for h, t in pairs]
            candidates[name] = [f"Q{e}" for e in found[100:]]
            tails |= {f"Q{h}{name}": [f"Q{t}"] for h, t in pairs}
        (folder / f"{stage}_tasks.json").write_text(json.dumps(tasks))
    (folder / "rel2candidates.json").write_text(json.dumps(candidates))
    (folder / "e1rel_e2.json").write_text(json.dumps(tails))


class Times(L.Callback):
    """The seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self.start)


def measure(folder: Path, way: str, steps: int) -> dict[str, float]:
    """Seconds to read the graph, memory then and at the end (GB), milliseconds a step."""
    data = WikiOneDataModule(
        str(folder), train_queries=3, train_episodes=64 * steps, embedding_epochs=1
    )
    start = time.perf_counter()
    data.prepare()
    found = {"seconds to read": time.perf_counter() - start, "GB, read": peak()}
    sizes = data.entities, data.dimensions, data.entity_vectors
    backbone: Backbone = (
        MappedEntityVectors(*sizes)
        if way == "mapped"
        else EntityVectors(*sizes, sparse=way == "sparse")
    )
    optimizer = torch.optim.Adagrad if way == "sparse" else torch.optim.Adam
    learner, times = MetaR(backbone, task=data.task, optimizer=optimizer), Times()
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0, use_distributed_sampler=False,
        callbacks=times,
    )  # fmt: skip
    trainer.fit(learner, data)
    return {**found, "ms a step": 1e3 * statistics.median(times.seconds[1:]), "GB, most": peak()}


def peak() -> float:
    """The most memory that this process has held, touched pages of mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Make the graph where it is not there; measure each way in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--entities", type=int, default=ENTITIES)
    parser.add_argument("--triples", type=int, default=TRIPLES)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["FEWSHOT_DATA"] = str(arguments.folder / "cache")
    graph = arguments.folder / f"graph_{arguments.entities}_{arguments.triples}"
    if arguments.one:
        print(json.dumps(measure(graph, arguments.one, arguments.steps)))
        return
    if not (graph / "e1rel_e2.json").is_file():
        make_graph(graph, arguments.entities, arguments.triples)
        start = time.perf_counter()
        WikiOneDataModule(str(graph), embedding_epochs=1).prepare()
        print(
            "one pass of TransE over the triples, with reading:"
            f" {time.perf_counter() - start:.0f} s"
        )
    for way in arguments.ways:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", way]
        lines = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        print(
            f"{WAYS[way]}: "
            + ", ".join(f"{name} {value:.1f}" for name, value in json.loads(lines[-1]).items())
        )


if __name__ == "__main__":
    main()
