"""What classes allow: the rule, what holds, and what is said where nothing fits."""

from typing import Any

import pytest

from fewshot.datasets.fitting import Fit, Wanted, fit, remedy
from fewshot.datasets.fitting_words import refusal, summary


def classes(*counts: int) -> dict[str, int]:
    return {f"c{number:02d}": count for number, count in enumerate(counts)}


def sizes(found: Fit) -> tuple[int, ...]:
    """Way, shot, queries, and the classes of train, val and test."""
    assert not found.faults, found.faults
    parts = (len(found.rows[split]) for split in ("train", "val", "test"))
    return (found.way, found.shot, found.queries, *parts)


@pytest.mark.parametrize(
    ("number", "images", "expected"),
    [
        (6, 2, (2, 1, 1, 2, 2, 2)),
        (7, 3, (2, 1, 2, 3, 2, 2)),
        (8, 5, (2, 2, 3, 4, 2, 2)),
        (12, 10, (3, 5, 5, 6, 3, 3)),
        (20, 20, (5, 5, 15, 10, 5, 5)),
        (40, 100, (5, 5, 15, 26, 6, 8)),
        (100, 600, (5, 5, 15, 64, 16, 20)),  # mini-ImageNet's split
    ],
)
def test_six_classes_or_more_are_split_by_class(
    number: int, images: int, expected: tuple[int, ...]
) -> None:
    found = fit(classes(*[images] * number), Wanted())
    assert sizes(found) == expected
    names = [name for of in found.rows.values() for name in of]
    assert sorted(names) == sorted(classes(*[images] * number))  # each once
    assert found.counts("train") == [images] * expected[3]


@pytest.mark.parametrize(
    ("number", "rate", "expected"),
    [
        (4, 1.0, (3, 2, 3, 4, 4, 4)),
        (8, 1.0, (5, 2, 3, 8, 8, 8)),  # by example: 9 make three splits of 2 and one outside
        (9, 1.0, (2, 5, 15, 3, 3, 3)),
        (20, 1.0, (5, 5, 15, 8, 6, 6)),
        (20, 0.5, (5, 5, 14, 8, 6, 6)),  # 7 of none
        (20, 5.0, (5, 5, 4, 8, 6, 6)),  # of a class of 20
    ],
)
def test_queries_of_none_have_a_class_outside_of_the_episode(
    number: int, rate: float, expected: tuple[int, ...]
) -> None:
    wanted = Wanted(nota_rates=(rate, rate))
    assert sizes(fit(classes(*[20] * number), wanted)) == expected
    few = fit(classes(20, 20), wanted)
    assert few.faults == ("there are 2 classes, an episode needs 2 and one outside of it",)
    asked = Wanted(way=4, nota_rates=(rate, rate))
    (fault,) = fit(classes(*[20] * 12), asked).faults
    assert fault == "there are 12 classes, of 15 different ones 5 train, 5 validate and 5 test"


@pytest.mark.parametrize(
    ("number", "images", "expected"),
    [
        (2, 6, (2, 1, 1)),
        (3, 10, (3, 1, 1)),
        (4, 20, (4, 2, 3)),
        (5, 40, (5, 5, 5)),
    ],
)
def test_fewer_are_split_by_image(number: int, images: int, expected: tuple[int, ...]) -> None:
    found = fit(classes(*[images] * number), Wanted())
    assert sizes(found) == (*expected, number, number, number)
    for name in classes(*[images] * number):
        parts = [set(found.rows[split][name]) for split in ("train", "val", "test")]
        assert set().union(*parts) == set(range(images))
        assert sum(map(len, parts)) == images  # no image in two splits
        assert len(parts[0]) * 2 >= images or images == 6
    told = summary("photos", classes(*[images] * number), found)
    assert "not new ones" in told
    other = fit(classes(*[images] * number), Wanted(split_seed=1))
    assert other.rows != found.rows


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"way": 4}, (4, 5, 5, 4, 4, 4)),
        ({"shot": 1}, (3, 1, 9, 6, 3, 3)),
        ({"queries": 8}, (3, 2, 8, 6, 3, 3)),
        ({"shot": 2, "queries": 2, "way": 2}, (2, 2, 2, 8, 2, 2)),
        ({"train_way": 8}, (2, 5, 5, 8, 2, 2)),
        ({"val_way": 2}, (3, 5, 5, 7, 2, 3)),
        ({"fractions": (0.5, 0.25, 0.25)}, (3, 5, 5, 6, 3, 3)),
        ({"split_by": "images", "way": 5}, (5, 1, 1, 12, 12, 12)),
        ({"unequal": True}, (3, 4, 5, 6, 3, 3)),
    ],
)
def test_what_is_asked_for_holds(wanted: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert sizes(fit(classes(*[10] * 12), Wanted(**wanted))) == expected


def test_small_classes_are_left_out_on_demand() -> None:
    counts = classes(*[10] * 12, 1, 3)
    assert "'c12' (1)" in fit(counts, Wanted()).faults[0]
    found = fit(counts, Wanted(min_examples=4))
    assert sizes(found) == (3, 5, 5, 6, 3, 3)
    assert found.left_out == ("c12", "c13")
    assert "left out as too small: 'c12', 'c13'" in summary("photos", counts, found)
    small = fit(counts, Wanted(min_examples=2))
    assert (small.shot, small.queries) == (1, 2)
    assert "the class 'c13' decides, as it has 3 images" in summary("photos", counts, small)


def test_given_splits_decide_the_way() -> None:
    counts = classes(*[10] * 12)
    given = {"train": list(counts)[:7], "val": list(counts)[7:9], "test": list(counts)[9:]}
    assert sizes(fit(counts, Wanted(), given)) == (2, 5, 5, 7, 2, 3)
    assert sizes(fit(counts, Wanted(way=3, val_way=2), given)) == (3, 5, 5, 7, 2, 3)
    assert fit(counts, Wanted(way=3), given).faults == (
        "in val there are 2 classes, an episode needs 3",
    )


@pytest.mark.parametrize(
    ("counts", "wanted", "works"),
    [
        ([10] * 12, {"way": 5}, {"way": "auto"}),
        ([10] * 12, {"queries": 15, "shot": 1}, {"queries": "auto"}),
        ([10] * 12, {"way": 5, "shot": 5, "queries": 15}, {"way": "auto", "shot": "auto", "queries": "auto"}),
        ([20] * 15 + [4], {"shot": 1, "queries": 15}, {"min_examples": 20}),
        ([20] * 12 + [0, 1], {}, {"min_examples": 2}),
        ([9, 1, 9, 9, 0], {}, {"min_examples": 2}),
        ([10, 10, 10], {"split_by": "classes"}, {"split_by": "images"}),
        ([10] * 12, {"min_examples": 11}, {"min_examples": 2}),
        ([10] * 12, {"way": 3, "train_way": 9}, {"train_way": None}),
        ([5, 5, 5], {}, None),
        ([100], {}, None),
    ],
)  # fmt: skip
def test_what_works_changes_as_little_as_possible(
    counts: list[int], wanted: dict[str, Any], works: dict[str, Any] | None
) -> None:
    asked = Wanted(**wanted)
    assert fit(classes(*counts), asked).faults
    assert remedy(classes(*counts), asked) == works


def test_every_fault_is_in_one_message() -> None:
    counts = classes(*[10] * 8, 1, 0)
    message = refusal("photos", counts, Wanted(way=5), None, ["a.png cannot be decoded (bad)"])
    assert "\n" not in message
    for part in (
        "no image is in 'c09'",
        "there are 9 classes, of 15 different ones 5 train, 5 validate and 5 test",
        "a class needs 2 images (shot 1 + queries 1), fewer are in 'c08' (1)",
        "a.png cannot be decoded (bad)",
    ):
        assert part in message
    works = "--data.skip_broken=true --data.way=auto --data.min_examples=2"
    assert message.endswith(f"what works: add {works} to the command")
    few = refusal("my photos", classes(5, 5, 5), Wanted(), None, [])
    assert few.endswith(
        "; what works without training: fewshot predict --backbone efficientnet_lite0 --support"
        " 'my photos' --query NEW; to train add images, until 6 classes have 2 or more each, or 2"
        " classes 6"
    )
    for counts, broken in ((classes(5), []), (classes(5, 5, 0), []), (classes(5, 5), ["a broken"])):
        hopeless = refusal("photos", counts, Wanted(), None, broken)
        assert "without training" not in hopeless, "that would be refused too"
        assert "; to train add images, until 6 classes" in hopeless
