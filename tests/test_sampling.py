"""Sampling: what every episode obeys, and that nothing is likelier than anything else.

Chi-square statistics are computed with a fixed seed and compared with their mean plus 5 standard
deviations.
"""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.episodes.sampling import (
    check_split,
    draw_classes,
    draw_episode,
    draw_examples,
    draw_shots,
    draw_unequal_episode,
)
from fewshot.episodes.unbalanced_sampling import draw_query_counts, draw_unbalanced_episode
from fewshot.errors import FewshotError

EPISODES = 6000


@st.composite
def settings_of_episodes(draw: st.DrawFn) -> tuple[NDArray[np.int64], int, int, int]:
    """Counts of a split's classes, and an episode that they can fill."""
    shot, queries = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    counts = draw(st.lists(st.integers(shot + queries, shot + queries + 6), min_size=2, max_size=9))
    way = draw(st.integers(2, len(counts)))
    return np.array(counts, np.int64), way, shot, queries


@given(settings_of_episodes(), st.integers(0, 2**32 - 1))
def test_every_episode_is_well_formed(
    setting: tuple[NDArray[np.int64], int, int, int], seed: int
) -> None:
    counts, way, shot, queries = setting
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    support, query = draw_episode(np.random.default_rng(seed), starts, counts, way, shot, queries)
    assert support.shape == (way, shot)
    assert query.shape == (way, queries)
    owner = np.repeat(np.arange(len(counts)), counts)  # the class of each row
    classes = owner[support[:, 0]]
    assert len(set(classes.tolist())) == way
    for rows in (support, query):
        assert (owner[rows] == classes[:, None]).all()
    rows = np.concatenate([support, query], axis=1)
    # nothing twice, support not in query
    assert all(len(set(line.tolist())) == shot + queries for line in rows)


@given(settings_of_episodes(), st.integers(0, 2**32 - 1))
def test_an_episode_is_a_function_of_its_generator(
    setting: tuple[NDArray[np.int64], int, int, int], seed: int
) -> None:
    counts, way, shot, queries = setting
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    one, two = (
        draw_episode(np.random.default_rng(seed), starts, counts, way, shot, queries)
        for _ in range(2)
    )
    assert all((a == b).all() for a, b in zip(one, two, strict=True))


@given(settings_of_episodes(), st.integers(0, 2**32 - 1))
def test_every_episode_of_unequal_shots_is_well_formed(
    setting: tuple[NDArray[np.int64], int, int, int], seed: int
) -> None:
    counts, way, shot, queries = setting
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    support, labels, query = draw_unequal_episode(
        np.random.default_rng(seed), starts, counts, way, shot, queries
    )
    assert support.shape == labels.shape == (way * shot,)
    assert query.shape == (way, queries)
    assert set(labels.tolist()) == set(range(way))
    owner = np.repeat(np.arange(len(counts)), counts)
    classes = owner[query[:, 0]]
    assert len(set(classes.tolist())) == way
    assert (owner[query] == classes[:, None]).all()
    assert (owner[support] == classes[labels]).all()
    rows = np.concatenate([support, query.flatten()])
    assert len(set(rows.tolist())) == len(rows)


def test_every_split_of_the_shots_is_equally_likely() -> None:
    rng = np.random.default_rng(3)
    drawn = [tuple(draw_shots(rng, 6, np.full(3, 9, np.int64)).tolist()) for _ in range(EPISODES)]
    splits = {split: i for i, split in enumerate(sorted(set(drawn)))}
    assert len(splits) == 10  # 5 over 2
    assert all(sum(split) == 6 and min(split) >= 1 for split in splits)
    assert_uniform(np.bincount([splits[split] for split in drawn]))


def test_shots_stay_within_what_classes_have() -> None:
    limits = np.array([1, 2, 9], np.int64)
    drawn = np.stack([draw_shots(np.random.default_rng(seed), 9, limits) for seed in range(200)])
    assert (drawn <= limits).all()
    assert (drawn.sum(1) == 9).all()


def test_queries_are_shared_out_by_dirichlet_shares() -> None:
    rng, limits = np.random.default_rng(0), np.full(5, 75, np.int64)
    drawn = np.stack([draw_query_counts(rng, 2.0, 75, limits) for _ in range(EPISODES)])
    assert (drawn.sum(1) == 75).all()
    assert (drawn >= 0).all()
    # the moments of a Dirichlet share: mean 1/N, variance (1/N)(1 - 1/N) / (N alpha + 1)
    shares = drawn / 75
    np.testing.assert_allclose(shares.mean(0), 0.2, atol=0.01)
    np.testing.assert_allclose(shares.var(0), 0.2 * 0.8 / 11, rtol=0.1)
    even = draw_query_counts(rng, 1e7, 75, limits)
    assert np.ptp(even) <= 1


def test_unbalanced_queries_stay_within_what_classes_have() -> None:
    limits = np.array([2, 3, 10, 9], np.int64)
    for seed in range(200):
        drawn = draw_query_counts(np.random.default_rng(seed), 0.3, 20, limits)
        assert (drawn <= limits).all()
        assert drawn.sum() == 20


def test_an_unbalanced_episode_is_well_formed() -> None:
    counts = np.array([9, 7, 8, 6, 12], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    of_class = np.arange(5).repeat(counts)
    sizes = set()
    for seed in range(50):
        rng = np.random.default_rng(seed)
        support, query, labels = draw_unbalanced_episode(rng, starts, counts, 3, 2, 4, 0.5)
        assert support.shape == (3, 2)
        assert query.shape == labels.shape == (12,)
        assert len({*support.flat, *query}) == 18
        classes = of_class[support[:, 0]]
        assert (of_class[support] == classes[:, None]).all()
        assert (of_class[query] == classes[labels]).all()
        sizes.add(tuple(np.bincount(labels, minlength=3)))
    assert len(sizes) > 10


def test_the_list_of_episodes_is_the_one_that_was_published() -> None:
    # Results compare only between equal test lists. If this fails, every published list has
    # changed: find out why.
    counts = np.array([9, 7, 8, 6, 12], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    support, query = draw_episode(
        np.random.default_rng([0, 2, 41]), starts, counts, way=3, shot=2, queries=2
    )
    assert support.tolist() == [[41, 34], [8, 6], [27, 26]]
    assert query.tolist() == [[32, 40], [4, 3], [25, 28]]


def assert_uniform(observed: NDArray[np.int64]) -> None:
    """Counts of equally likely outcomes pass a chi-square test."""
    expected = observed.sum() / len(observed)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    freedom = len(observed) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_ordered_choices_of_classes_are_equally_likely() -> None:
    rng = np.random.default_rng(0)
    outcomes = {pair: i for i, pair in enumerate(permutations(range(5), 2))}
    drawn = [outcomes[tuple(draw_classes(rng, 5, 2).tolist())] for _ in range(EPISODES)]
    assert_uniform(np.bincount(drawn, minlength=len(outcomes)))


def test_ordered_choices_of_examples_are_equally_likely_in_classes_of_any_size() -> None:
    rng = np.random.default_rng(1)
    counts = np.array([4, 6, 3], np.int64)
    # episodes, class, example
    drawn = np.stack([draw_examples(rng, counts, 3) for _ in range(EPISODES)])
    for number, size in enumerate(counts):
        outcomes = {triple: i for i, triple in enumerate(permutations(range(size), 3))}
        indices = [outcomes[tuple(triple)] for triple in drawn[:, number].tolist()]
        assert_uniform(np.bincount(indices, minlength=len(outcomes)))


def test_classes_are_drawn_independently_of_each_other() -> None:
    rng = np.random.default_rng(2)
    drawn = np.stack(
        [draw_examples(rng, np.array([3, 4], np.int64), 2)[:, 0] for _ in range(EPISODES)]
    )
    assert_uniform(np.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=12))


NAMES, COUNTS = ["cat", "dog", "eel"], np.array([20, 4, 3], np.int64)


def test_a_split_that_just_suffices_passes() -> None:
    check_split("val", NAMES, COUNTS, way=3, shot=1, queries=2)


@pytest.mark.parametrize(
    ("way", "shot", "queries", "prefix", "message"),
    [
        (1, 1, 1, "", "way is 1; set way >= 2"),
        (2, 0, 1, "", "shot is 0; set shot >= 1"),
        (2, 1, 0, "", "queries is 0; set queries >= 1"),
        (2, 1, -3, "train_", "train_queries is -3; set train_queries >= 1"),
        (
            4,
            1,
            1,
            "",
            "the val split has 3 classes, too few for way 4; set way <= 3 or add classes",
        ),
        (4, 1, 1, "train_", "too few for train_way 4; set train_way <= 3"),
        (
            2,
            1,
            3,
            "",
            (
                "class 'eel' of the val split has 3 examples, too few for shot 1 [+] queries 3; set"
                " shot [+]"
            ),
        ),
        (
            2,
            2,
            3,
            "train_",
            (
                "class 'dog' .* has 4 examples, too few for train_shot 2 [+] train_queries 3; set"
                " train_"
            ),
        ),
    ],
)
def test_a_split_that_cannot_fill_an_episode_is_an_error(
    way: int, shot: int, queries: int, prefix: str, message: str
) -> None:
    with pytest.raises(FewshotError, match=message):
        check_split("val", NAMES, COUNTS, way, shot, queries, prefix, prefix)
