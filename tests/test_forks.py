"""The `python` that tests start behaves as the interpreter does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from forks import python

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the program is the interpreter itself"
)


def ran(program: str, *args: str, **kwargs: Any) -> tuple[int, str, str]:
    done = subprocess.run(
        [program, *args], capture_output=True, text=True, timeout=60, check=False, **kwargs
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import os, sys; print(sys.argv, os.getcwd(), os.environ['OWN'], sys.path[0], __name__)",
        "import sys; print('half', end=''); print('said', file=sys.stderr); sys.exit(3)",
        "raise SystemExit('told')",
        "import warnings; warnings.warn('of the user'); warnings.warn('old', DeprecationWarning)",
        "import sys; sys.stdout.write(sys.stdin.read().upper())",
        "import atexit; atexit.register(print, 'last')",
        "import threading, time; threading.Timer(0.05, print, ['later']).start()",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "raise KeyboardInterrupt",
        "import logging; logging.warning('logged')",
    ],
)
def test_it_is_as_the_interpreter(code: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("print(1)")
    given: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "OWN": "yes"}, "input": "a"}
    expected, found = (ran(one, "-c", code, "x", **given) for one in (sys.executable, python()))
    told = [[line for line in err.splitlines() if line[:1] != " "] for *_, err in (expected, found)]
    assert found[:2] == expected[:2]
    assert told[0] == told[1]


def test_scripts_and_modules_find_what_lies_beside_them(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 5")
    script = tmp_path / "script.py"
    script.write_text("import sys, beside; print(beside.value, sys.argv, __name__)")
    for args in ((str(script), "a"), ("-u", str(script)), ("-m", "script", "b")):
        assert ran(python(), *args, cwd=tmp_path) == ran(sys.executable, *args, cwd=tmp_path)


def test_it_has_all_imports_and_nothing_of_pytest_in_its_way() -> None:
    code = (
        "import sys, logging; print('torch' in sys.modules, 'lightning' in sys.modules);"
        "print(logging.root.handlers, sys.executable)"
    )
    assert ran(python(), "-c", code) == (0, f"True True\n[] {python()}\n", "")


def test_signals_reach_it_and_it_does_not_outlive_its_caller(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: print('got'));"
        "print(os.getpid(), flush=True); time.sleep(0.3); sys.stdout.flush(); time.sleep(60)"
    )
    command = [python(), "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "got\n"
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
