"""Milliseconds to draw one episode's rows of Meta-Dataset: ``benchmarks/meta_dataset.py SPECS``.

SPECS is the folder of the published specifications. One thread; the images are not read. The bar is
2 ms.
"""

import sys
import time
from pathlib import Path

import numpy as np

from fewshot.datasets.meta_dataset_sources import SOURCES
from fewshot.datasets.meta_dataset_specs import read_spec
from fewshot.episodes.broad_sampling import draw_broad_episode

WARM_UP, REPEATS = 50, 1000
BAR_MS = 2.0


def main(specs: Path) -> None:
    """Print the mean of each source and split."""
    for source in SOURCES:
        spec = read_spec(specs / f"{source}_dataset_spec.json")
        for split, groups in spec.groups.items():
            counts = np.array(list(spec.images[split].values()))
            starts = np.cumsum(counts) - counts
            for number in range(WARM_UP + REPEATS):
                if number == WARM_UP:
                    start = time.process_time()
                draw_broad_episode(np.random.default_rng([0, number]), starts, counts, groups)
            taken = 1000 * (time.process_time() - start) / REPEATS
            print(
                f"{source:12} {split:5} {taken:5.2f} ms{'' if taken < BAR_MS else '  over the bar'}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
