"""What is given to a constructor from Python is refused as the command line refuses it."""

import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, get_args, get_origin

import numpy as np
import pytest
from torch import nn

from fewshot.arguments import Count, NonNegative, Part, Positive, Range, Share, fault
from fewshot.cli.catalogue import benchmarks, learners, networks
from fewshot.errors import FewshotError
from fewshot.hyperparameters import (
    ChecksArguments,
    check_arguments,
    describe,
    parameter_names,
    signatures,
)
from fewshot.tasks import KINDS, make_task, task_class

if TYPE_CHECKING:
    from decimal import Decimal

CLASSES = [
    *(entry.cls for entry in (*benchmarks(), *learners(), *networks())),
    *(task_class(kind) for kind in KINDS),
]


class Own(ChecksArguments):
    """A class of a user's own, with one argument of each type."""

    def __init__(
        self,
        rate: Positive = 0.1,
        steps: Count = 1,
        clip: Positive | None = None,
        sizes: Sequence[Count] = (1,),
        pair: tuple[NonNegative, NonNegative] = (0.0, 1.0),
        distance: Literal["cosine", "euclidean"] = "cosine",
        channels: Literal[1, 3] = 3,
        on: bool = False,
        compile: bool | Literal["capture"] = False,
        file: str | None = None,
        table: Mapping[str, list[int]] | None = None,
        network: nn.Module | None = None,
        make: Callable[[], int] = int,
        late: "Optional[Share]" = None,  # noqa: UP045  # as older code has it
    ) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0; set rate > 0"),
        ({"rate": -1}, "rate is -1; set rate > 0"),
        ({"rate": math.nan}, "rate is nan; give a number"),
        ({"rate": math.inf}, "rate is inf; give a finite number"),
        ({"rate": "0.1"}, "rate is '0.1'; give a number"),
        ({"rate": True}, "rate is True; give a number"),
        ({"rate": None}, "rate is None; give a number"),
        ({"steps": 0}, "steps is 0; set steps >= 1"),
        ({"steps": 2.0}, "steps is 2.0; give an integer"),
        ({"steps": True}, "steps is True; give an integer"),
        ({"clip": -0.5}, "clip is -0.5; set clip > 0 or leave it out"),
        ({"clip": "x"}, "clip is 'x'; give a number or leave it out"),
        ({"sizes": [2, 0]}, "sizes[1] is 0; set sizes[1] >= 1"),
        ({"sizes": 3}, "sizes is 3; give a list"),
        ({"sizes": "34"}, "sizes is '34'; give a list"),
        ({"pair": (1.0,)}, "pair is (1.0,); give 2 values"),
        ({"pair": (1.0, -1.0)}, "pair[1] is -1.0; set pair[1] >= 0"),
        ({"distance": "Euclidean"}, "distance is 'Euclidean'; did you mean 'euclidean'?"),
        ({"distance": "x"}, "distance is 'x'; give cosine or euclidean"),
        ({"channels": True}, "channels is True; give 1 or 3"),
        ({"on": 1}, "on is 1; give true or false"),
        ({"compile": "captrue"}, "compile is 'captrue'; did you mean 'capture'?"),
        ({"compile": 1}, "compile is 1; give true or false or capture"),
        ({"file": 3}, "file is 3; give a text or leave it out"),
        ({"table": {"a": [1, "b"]}}, "table['a'][1] is 'b'; give an integer or leave it out"),
        ({"table": {1: [1]}}, "a key of table is 1; give a text or leave it out"),
        ({"network": "ReLU"}, "network is 'ReLU'; give an instance of Module or leave it out"),
        ({"make": 1}, "make is 1; give something to call"),
        ({"late": 1.0}, "late is 1.0; set late in [0, 1) or leave it out"),
        ({"stesp": 1}, "Own has no argument 'stesp'; did you mean 'steps'?"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError) as caught:
        Own(**arguments)
    assert str(caught.value) == message


def test_what_fits_is_taken() -> None:
    own: Any = Own  # what a checker of types would not have, and what a checkpoint holds
    own(2, np.int64(3), np.float32(0.5), [1, 2], [0, 1], "euclidean", 1, True, "capture")
    own(file=Path("x"), table={"a": [1]}, network=nn.ReLU(), make=lambda: 1, late=0.5)
    own(network={"class_path": "torch.nn.ReLU", "init_args": {}})


def test_what_cannot_be_judged_is_taken() -> None:
    class Unknown(ChecksArguments):
        def __init__(self, number: "Decimal") -> None: ...

    check_arguments(Unknown, (3,), {})
    assert fault("anything", object(), Any) is None


def test_a_class_that_takes_any_keyword_takes_any() -> None:
    class Loose(ChecksArguments):
        def __init__(self, steps: Count = 1, **kwargs: Any) -> None: ...

    class Base(ChecksArguments):
        def __init__(self, size: Count) -> None: ...

    class Strict(Base):
        def __init__(self, *, depth: Count = 1, **kwargs: Any) -> None: ...

    Loose(other=3)
    Strict(size=3)
    with pytest.raises(FewshotError, match=r"^size is 0; set size >= 1$"):
        Strict(size=0)
    with pytest.raises(FewshotError, match=r"^Strict needs the argument size; pass size=\.\.\.$"):
        Strict(depth=2)
    with pytest.raises(FewshotError, match=r"^Strict has no argument 'sise'; did you mean 'size'"):
        Strict(sise=3)


@pytest.mark.parametrize(
    ("hint", "inside", "outside"),
    [
        (Positive, (1e-9, 3), (0, -1)),
        (NonNegative, (0, 3), (-1e-9,)),
        (Share, (0, 0.99), (1, -0.1)),
        (Part, (1, 0.01), (0, 1.1)),
        (Annotated[int, Range(0, 4)], (0, 4), (-1, 5)),
    ],
)
def test_ranges(hint: Any, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    assert [fault("it", value, hint) for value in inside] == [None] * len(inside)
    assert all(fault("it", value, hint) for value in outside)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_choice_number_and_range_of_every_class_is_held_to(cls: type) -> None:
    """Every argument refuses what is of no kind at all, every choice one that nobody offers."""
    assert issubclass(cls, ChecksArguments)
    known = {p.name: p for level in reversed(list(signatures(cls))) for p in level}
    for name in parameter_names(cls):
        hint = known[name].annotation
        if hint is Any:
            continue
        with pytest.raises(FewshotError, match=rf"^{name} is "):
            check_arguments(cls, (), {name: object()})
        assert hint not in (int, float), f"{name} of {cls.__name__} states no range"
        if get_origin(hint) is Literal and all(isinstance(c, str) for c in get_args(hint)):
            wrong = get_args(hint)[0].upper() + "_"
            with pytest.raises(FewshotError, match=rf"^{name} is '{wrong}'; (did you mean|give) "):
                check_arguments(cls, (), {name: wrong})
    if parameter_names(cls) and not any(p.kind is p.VAR_KEYWORD for p in list(signatures(cls))[-1]):
        wrong = f"{parameter_names(cls)[0]}x"
        with pytest.raises(FewshotError, match=f"^{cls.__name__} has no argument '{wrong}'; did"):
            check_arguments(cls, (), {wrong: 1})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_defaults_are_what_their_hints_say(cls: type) -> None:
    for level in signatures(cls):
        for p in level:
            if p.default is not p.empty:
                assert fault(p.name, p.default, p.annotation) is None


def test_a_task_kind_is_checked() -> None:
    with pytest.raises(FewshotError, match=r"^way is '5'; give an integer or null$"):
        make_task({"kind": "classification", "way": "5"})


def test_numpys_numbers_and_paths_are_plain_in_a_checkpoint() -> None:
    plain = describe([np.int64(3), np.float64(0.5), Path("a/b")])
    assert plain == [3, 0.5, "a/b"]
    assert [type(value) for value in plain] == [int, float, str]


def test_checking_imports_nothing_heavy() -> None:
    code = "import sys, fewshot.hyperparameters; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "False\n"
