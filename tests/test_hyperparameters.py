import copy
import functools
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from fewshot.backbones import MLP, Backbone, Conv4
from fewshot.errors import FewshotError
from fewshot.hyperparameters import (
    RemembersArguments,
    build,
    check_arguments,
    constructor_arguments,
    describe,
    parameter_names,
)


class Base:
    def __init__(self, first: int, second: str = "two", third: float = 3.0) -> None: ...


class Middle(Base):
    def __init__(self, own: int, second: str = "deux", **kwargs: Any) -> None: ...


class Leaf(Middle):
    """Has no constructor of its own."""


class Starred(Leaf):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class Closed(Base):
    def __init__(self, only: int = 1) -> None: ...


def test_arguments_are_collected_along_a_chain_of_kwargs() -> None:
    expected = {"own": 1, "first": 2, "second": "deux", "third": 3.0}
    assert constructor_arguments(Leaf, (1,), {"first": 2}) == expected
    assert constructor_arguments(Leaf, (), {"own": 1, "first": 2}) == expected
    assert constructor_arguments(Leaf, (1, "dos"), {"first": 2, "third": 0.0}) == {
        "own": 1,
        "second": "dos",
        "first": 2,
        "third": 0.0,
    }
    # what stands in ``*args`` belongs to the base
    assert constructor_arguments(Starred, (1, "dos"), {"first": 2})["second"] == "dos"
    check_arguments(Starred, (1,), {"first": 2})
    with pytest.raises(FewshotError, match="Starred needs the argument first; pass first="):
        check_arguments(Starred, (1,), {})
    # hands nothing on: the base has nothing to add
    assert constructor_arguments(Closed, (), {}) == {"only": 1}
    assert parameter_names(Leaf) == ["own", "second", "first", "second", "third"]


def test_an_object_remembers_positional_arguments_and_defaults() -> None:
    assert Conv4(1, 16, width=8).init_args == {
        "in_channels": 1,
        "image_size": 16,
        "width": 8,
        "downsample": "pool",
        "output": "flatten",
        "norm": "batch",
        "pooled_blocks": 4,
    }


@pytest.mark.parametrize(
    "network",
    [
        Conv4(3, 16, 8, output="mean", norm="group"),
        Conv4(1),
        MLP(4, (5, 6), norm="layer"),
        MLP(in_features=2),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_backbone_is_rebuilt_from_its_description(network: Backbone) -> None:
    description = describe(network)
    assert description["class_path"] == f"fewshot.{type(network).__name__}", "whatever its file"
    assert_plain(description)
    twin = build(description, nn.Module, "backbone")
    assert type(twin) is type(network)
    assert {name: p.shape for name, p in twin.named_parameters()} == {
        n: p.shape for n, p in network.named_parameters()
    }
    assert str(twin) == str(network)
    assert describe(twin) == description


def test_a_class_of_ones_own_is_described_by_where_it_is() -> None:
    own = type("MLP", (MLP,), {"__module__": __name__})  # the name of one of the package's
    assert describe(own)["class_path"] == f"{__name__}.MLP"


@pytest.mark.parametrize(
    "path",
    ["fewshot.backbones.mlp.MLP", "fewshot.before.a.move.MLP", "fewshot.MLP", "fewshot.errors.MLP"],
)
def test_the_packages_own_classes_are_found_by_their_names(path: str) -> None:
    """Version 0.1.0 wrote the file's path, which ends with the move of the file."""
    description = {"class_path": path, "init_args": {"in_features": 3}}
    assert type(build(description, nn.Module, "backbone")) is MLP


def assert_plain(value: object) -> None:
    """What ``torch.load(weights_only=True)`` takes without further permission."""
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        for item in value.values():
            assert_plain(item)
    elif isinstance(value, list):
        for item in value:
            assert_plain(item)
    else:
        assert value is None or type(value) in (bool, int, float, str)


def make_something() -> None: ...


def test_everything_has_a_plain_description() -> None:
    described = describe(
        {
            "partial": functools.partial(torch.optim.SGD, lr=0.1, nesterov=True),
            "class": torch.optim.Adam,
            "function": make_something,
            "module": nn.Linear(2, 2),
            "tuple": (1, [2.0, "three"], None, False),
            7: "number as a key",
        }
    )
    assert_plain(described)
    assert described == {
        "partial": {
            "class_path": "torch.optim.sgd.SGD",
            "init_args": {"lr": 0.1, "nesterov": True},
        },
        "class": {"class_path": "torch.optim.adam.Adam", "init_args": {}},
        "function": {"class_path": f"{__name__}.make_something", "init_args": {}},
        "module": {"class_path": "torch.nn.modules.linear.Linear", "init_args": None},
        "tuple": [1, [2.0, "three"], None, False],
        "7": "number as a key",
    }


def test_what_is_no_description_passes_through() -> None:
    network = nn.Linear(1, 1)
    assert build(network, nn.Module, "backbone") is network
    assert build({"way": 5}, dict, "task") == {"way": 5}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            {"class_path": "torch.optim.Adam", "init_args": {}},
            "backbone torch.optim.Adam is not a Module; pass one",
        ),
        ({"class_path": "torch.relu", "init_args": {}}, "backbone torch.relu is not a Module"),
        (
            {"class_path": "no.such.Thing", "init_args": {}},
            "backbone is no.such.Thing, and a checkpoint imports nothing: `import no.such` before",
        ),
        (
            {"class_path": "torch.nn.Nothing", "init_args": {}},
            "backbone is torch.nn.Nothing, which this fewshot and what is imported do not have",
        ),
        ({"class_path": "Thing", "init_args": {}}, "backbone is Thing, which this fewshot and"),
        (
            {"class_path": "fewshot.backbones.gone.Nothing", "init_args": {}},
            "backbone is fewshot.backbones.gone.Nothing, which this .* do not have; pass backbone=",
        ),
        (
            {"class_path": "torch.nn.Linear", "init_args": None},
            (
                "does not hold the arguments of backbone torch.nn.Linear; pass backbone=<the"
                " module> to load_from_check"
            ),
        ),
        (
            {"class_path": "torch.nn.Linear"},
            "does not hold the arguments of backbone torch.nn.Linear",
        ),
    ],
)
def test_what_cannot_be_rebuilt_is_an_error(description: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        build(description, nn.Module, "backbone")


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, copy.copy, lambda o: pickle.loads(pickle.dumps(o))]
)
def test_copies_keep_the_arguments_and_the_weights(clone: Any) -> None:
    network = MLP(3, [4], norm="batch")
    twin = clone(network)
    given = {"in_features": 3, "hidden": [4], "norm": "batch"}
    assert twin.init_args == {**given, "activation": "relu"}
    x = torch.randn(5, 3)
    assert torch.equal(twin(x), network(x))


def test_remembering_asks_nothing_of_the_constructor() -> None:
    class Silent(RemembersArguments):
        pass

    assert Silent().init_args == {}
