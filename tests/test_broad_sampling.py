"""Meta-Dataset's episodes against a transcription of its rules, independent of the library."""

import json
import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot.datasets.meta_dataset_specs import read_spec
from fewshot.episodes.broad_sampling import (
    Groups,
    check_groups,
    draw_broad_episode,
    draw_group_classes,
    draw_sizes,
)
from fewshot.errors import FewshotError

EPISODES = 10_000


class Facts(NamedTuple):
    """What describes an episode: its way, support size, shots, and how unequal these are."""

    way: int
    support: int
    queries: int
    shots: tuple[int, ...]

    @property
    def imbalance(self) -> float:
        return max(self.shots) / min(self.shots)


def ours(counts: np.ndarray, groups: Groups, number: int) -> Facts:
    rng = np.random.default_rng([1, number])
    classes = draw_group_classes(rng, groups)
    queries, shots = draw_sizes(rng, counts[classes])
    return Facts(len(classes), int(shots.sum()), queries, tuple(shots.tolist()))


# ---------------------------------------------------------------- the rules, written out in plain P


def choose_flat(spec: dict[str, Any], split: str) -> Callable[[], list[int]]:
    order = ["TRAIN", "VALID", "TEST"]
    start = sum(spec["classes_per_split"][name] for name in order[: order.index(split)])
    ids = range(start, start + spec["classes_per_split"][split])

    def choose() -> list[int]:
        way = random.randint(5, min(50, len(ids)))
        return [spec["images_per_class"][str(i)] for i in random.sample(ids, way)]

    return choose


def choose_alphabet(spec: dict[str, Any], split: str) -> Callable[[], list[int]]:
    order = ["TRAIN", "VALID", "TEST"]
    start = sum(spec["superclasses_per_split"][name] for name in order[: order.index(split)])
    alphabets = range(start, start + spec["superclasses_per_split"][split])

    def choose() -> list[int]:
        characters = spec["classes_per_superclass"][str(random.choice(alphabets))]
        return [20] * random.randint(5, min(50, characters))

    return choose


def choose_node(spec: dict[str, Any], split: str) -> Callable[[], list[int]]:
    nodes = {node["wn_id"]: node["children_ids"] for node in spec["split_subgraphs"][split]}

    def leaves(node: str) -> set[str]:
        if not nodes[node]:
            return {node}
        found: set[str] = set()
        for child in nodes[node]:
            found |= leaves(child)
        return found

    eligible = [sorted(leaves(node)) for node in nodes if nodes[node]]
    eligible = [span for span in eligible if 5 <= len(span) <= 392]

    def choose() -> list[int]:
        span = random.choice(eligible)
        chosen = random.sample(span, 50) if len(span) > 50 else span
        return [spec["images_per_class"][split][leaf] for leaf in chosen]

    return choose


def transcribed(choose: Callable[[], list[int]]) -> Facts:
    images = choose()
    way = len(images)
    queries = min([10] + [number // 2 for number in images])
    beta = 0.0
    while beta == 0.0:
        beta = random.random()
    support = 0
    for number in images:
        support += math.ceil(beta * min(100, number - queries))
    support = min(500, support)
    weighted = [
        math.exp(random.uniform(math.log(0.5), math.log(2.0))) * number for number in images
    ]
    shots = []
    for number, weight in zip(images, weighted, strict=True):
        wanted = math.floor(weight / sum(weighted) * (support - way)) + 1
        shots.append(min(wanted, number - queries))
    return Facts(way, sum(shots), queries, tuple(shots))


CASES = {
    "fungi": ("TEST", choose_flat),
    "omniglot": ("TEST", choose_alphabet),
    "ilsvrc_2012": ("TRAIN", choose_node),
}


@pytest.mark.parametrize("source", CASES)
def test_the_distribution_is_that_of_the_rules(source: str, shared_data: Path) -> None:
    split, choose = CASES[source]
    path = shared_data / f"splits/meta_dataset/dataset_specs/{source}_dataset_spec.json"
    spec = read_spec(path)
    part = {"TRAIN": "train", "VALID": "val", "TEST": "test"}[split]
    counts = np.array(list(spec.images[part].values()))
    found = [ours(counts, spec.groups[part], i) for i in range(EPISODES)]
    random.seed(0)
    chooser = choose(json.loads(path.read_text()), split)
    expected = [transcribed(chooser) for _ in range(EPISODES)]
    rng = random.Random(1)
    described: dict[str, Callable[[Facts], float]] = {
        "way": lambda facts: facts.way,
        "support": lambda facts: facts.support,
        "queries": lambda facts: facts.queries,
        "a class's shots": lambda facts: rng.choice(facts.shots),
        "imbalance": lambda facts: facts.imbalance,
    }
    for name, value in described.items():
        test = stats.ks_2samp(
            [value(facts) for facts in found], [value(facts) for facts in expected]
        )
        assert test.pvalue > 0.01, f"{name} of {source}: p = {test.pvalue}"


def test_the_comparison_can_fail() -> None:
    # one rule left out: a class's share of the support does not grow with its images
    random.seed(0)
    images = [20, 40, 60, 80, 100, 500]
    expected = [transcribed(lambda: images) for _ in range(2000)]
    counts, groups = np.array([100] * 6), Groups([np.arange(6)], whole=True)
    found = [ours(counts, groups, i) for i in range(2000)]
    assert (
        stats.ks_2samp([f.imbalance for f in found], [f.imbalance for f in expected]).pvalue < 1e-6
    )


# ---------------------------------------------------------------- properties


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 700), min_size=5, max_size=60), st.integers(0, 10**6))
def test_an_episode_keeps_the_limits(numbers: list[int], seed: int) -> None:
    counts = np.array(numbers)
    starts = np.cumsum(counts) - counts
    groups = Groups([np.arange(len(counts))])
    support, labels, query = draw_broad_episode(np.random.default_rng(seed), starts, counts, groups)
    way = len(query)
    assert 5 <= way <= min(50, len(counts))
    assert 1 <= query.shape[1] <= 10
    shots = np.bincount(labels, minlength=way)
    assert shots.min() >= 1
    assert len(support) == len(labels) <= 500
    rows = np.concatenate([support, query.flatten()])
    assert len(set(rows.tolist())) == len(rows)
    owner = np.searchsorted(starts, rows, side="right") - 1
    of_label = owner[len(support) :].reshape(query.shape)[:, 0]
    assert len(set(of_label.tolist())) == way
    assert (owner[: len(support)] == of_label[labels]).all()
    assert (owner[len(support) :].reshape(query.shape) == of_label[:, None]).all()


def test_examples_are_drawn_from_all_of_a_class() -> None:
    # runs of 30 frames of one sign lie side by side: the first rows alone would be one sign
    counts, groups = np.full(5, 300), Groups([np.arange(5)])
    starts = np.cumsum(counts) - counts
    rows = [
        np.concatenate([s, q.flatten()]) % 300
        for s, _, q in (
            draw_broad_episode(np.random.default_rng(i), starts, counts, groups) for i in range(200)
        )
    ]
    assert stats.kstest(np.concatenate(rows) / 300, "uniform").pvalue > 0.01
    assert all((np.diff(np.sort(one)) != 1).any() for one in rows)


def test_too_few_classes() -> None:
    with pytest.raises(
        FewshotError, match=r"the val split of dtd has a set of 4 classes .* needs 5"
    ):
        check_groups("the val split of dtd", Groups([np.arange(7), np.arange(4)]))


@pytest.mark.parametrize(
    ("source", "splits"),
    [
        ("ilsvrc_2012", {"train": (712, 113), "val": (158, 18), "test": (130, 15)}),
        ("omniglot", {"train": (883, 25), "val": (81, 5), "test": (659, 20)}),
        ("aircraft", {"train": (70, 1), "val": (15, 1), "test": (15, 1)}),
        ("cu_birds", {"train": (140, 1), "val": (30, 1), "test": (30, 1)}),
        ("dtd", {"train": (33, 1), "val": (7, 1), "test": (7, 1)}),
        ("quickdraw", {"train": (241, 1), "val": (52, 1), "test": (52, 1)}),
        ("fungi", {"train": (994, 1), "val": (200, 1), "test": (200, 1)}),
        ("vgg_flower", {"train": (71, 1), "val": (15, 1), "test": (16, 1)}),
        ("traffic_sign", {"test": (43, 1)}),
        ("mscoco", {"val": (40, 1), "test": (40, 1)}),
    ],
)
def test_the_published_splits(
    source: str, splits: dict[str, tuple[int, int]], shared_data: Path
) -> None:
    folder = shared_data / "splits/meta_dataset"
    spec = read_spec(folder / f"dataset_specs/{source}_dataset_spec.json")
    found = {
        split: (len(spec.images[split]), len(groups.members))
        for split, groups in spec.groups.items()
    }
    assert found == splits
    names = [set(spec.images[split]) for split in spec.groups]
    assert all(not one & other for one, other in pairwise([*names, set()]))
    assert len(set().union(*names)) == sum(map(len, names))
    lists = folder / f"splits/{source}_splits.json"
    if lists.is_file():
        published = json.loads(lists.read_text())
        for split, key in (("train", "train"), ("val", "valid"), ("test", "test")):
            assert set(published[key]) == set(spec.images[split]), split
