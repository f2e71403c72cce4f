"""Public names are imported when they are asked for, and stated once."""

import importlib
import subprocess
import sys

import pytest
from forks import python

import fewshot
from fewshot.lazy import public_names

ROOMS = ("fewshot", "fewshot.backbones", "fewshot.datamodules", "fewshot.learners")


@pytest.mark.parametrize("package", ROOMS)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(module.__all__) > 20
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
        assert name in dir(module)
    assert set(module.__all__) == set(public_names(package))


def test_the_package_has_the_names_of_its_rooms() -> None:
    for room in ROOMS[1:]:
        module = importlib.import_module(room)
        for name in module.__all__:
            assert getattr(fewshot, name) is getattr(module, name)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'fewshot' has no attribute 'MALM'") as error:
        _ = fewshot.MALM  # type: ignore[attr-defined]
    assert (error.value.name, error.value.obj) == ("MALM", fewshot)  # Python adds what is meant
    with pytest.raises(ImportError, match="MALM"):
        importlib.import_module("fewshot.learners.MALM")
    assert not hasattr(fewshot, "np")


def fresh(code: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_name_loads_its_own_module_alone() -> None:
    code = (
        "import sys, fewshot; before = 'torch' in sys.modules; fewshot.FewshotError; fewshot.Episode;"
        " print(before, 'torch' in sys.modules, 'lightning' in sys.modules)"
    )
    assert fresh(code).split() == ["False", "True", "False"]


FIRST = {
    "all at once": "from fewshot import *; print(MAML.__name__, Conv4.__name__, load.__name__)",
    **{
        room: f"import fewshot.{room}; print('done')"
        for room in ("learners.base", "tasks", "deployment.load", "cli.lightning")
    },
}
FORKS = """
import os, sys, lightning, torchmetrics.functional, jsonargparse
for name in [name for name in sys.modules if name.partition(".")[0] == "fewshot"]:
    del sys.modules[name]
for code in sys.argv[1:]:
    sys.stdout.flush()
    if not (child := os.fork()):
        exec(code, {})
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def test_any_room_can_be_imported_first_and_everything_at_once() -> None:
    """Each in a fork of one process that has imported what others wrote, which takes seconds."""
    done = subprocess.run(
        [python(), "-c", FORKS, *FIRST.values()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["MAML Conv4 load", *["done"] * 4]
