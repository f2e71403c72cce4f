"""A `python` that starts in an instant: a fork of the test process as it was before the first test.

Collecting the tests has imported torch, Lightning and the package, which is all but half a second
of what most processes do that tests start. `begin` forks this process once, before anything has
run; that fork waits at a socket, forks itself for whoever calls, and is left when the tests end.
`python()` names a program that takes Python's command line (`-m`, `-c` or a script) and behaves
like the process: its output, folder, environment, exit code, and signals that it is sent.

It is no use where imports themselves are tested, or what the interpreter reads when it starts, such
as PYTHONHASHSEED. It holds on Linux; elsewhere `python()` is the interpreter.
"""

import atexit
import faulthandler
import gc
import json
import logging
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

CALLER = Path(__file__).with_name("forks_caller.py")
_program: list[str] = []
"""The path of the program, once there is one."""


def python() -> str:
    """The program."""
    return _program[0] if _program else sys.executable


def begin() -> None:
    """Fork the process that waits; once, before the first test."""
    if sys.platform != "linux" or _program:
        return
    folder = tempfile.mkdtemp(prefix="forks-")  # a socket's path has at most 107 characters
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/socket")
    listener.listen(64)
    program = Path(folder, "python")
    words = shlex.join([sys.executable, "-IS", str(CALLER), f"{folder}/socket"])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o700)
    _program.append(str(program))
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads: those of pytest's workers, which are not needed here
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _in_fork(lambda: _serve(listener, parent))
    listener.close()


def _in_fork(do: Callable[[], None]) -> NoReturn:
    """Do something in a fork, which must never go on with what the process was at."""
    try:
        do()
    finally:
        os._exit(0)


def _serve(listener: socket.socket, parent: int) -> None:
    """Wait for callers until the tests end; each gets a process that watches over its own."""
    atexit._clear()  # what the tests' process has to tidy up
    faulthandler.disable()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    kept = listener.fileno()
    os.closerange(3, kept)  # pipes of pytest's workers, which would never be closed
    os.closerange(kept + 1, 4096)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and they this
    while os.getppid() == parent:
        if select.select([listener], [], [], 1)[0]:
            call, _ = listener.accept()
            import_module("fewshot.cli.lightning")  # a few light tests alone have not
            if not os.fork():
                listener.close()
                _in_fork(lambda: _watch(call))  # noqa: B023  # called at once
            call.close()
    shutil.rmtree(Path(_program[0]).parent)


def _watch(call: socket.socket) -> None:
    """Start what a caller asks for, hand its signals on, and tell it how that has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(call, 8, 3)
    asked = json.loads(_received(call, int.from_bytes(size, "little")))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not (child := os.fork()):
        call.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _in_fork(lambda: os._exit(_run(asked["args"], asked["cwd"], asked["environ"])))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for file in files:
        os.close(file)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if select.select([call], [], [], 0.01)[0]:
            sent = call.recv(1)
            os.kill(child, sent[0] if sent else signal.SIGKILL)  # its caller was killed
            if not sent:
                break
    call.sendall(os.waitstatus_to_exitcode(ended[1]).to_bytes(2, "little", signed=True))


def _received(call: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        content += call.recv(size - len(content))
    return content


def _run(args: list[str], folder: str, environment: dict[str, str]) -> int:
    """Do as `python ARGS` would in this folder and environment; gives the exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = _program[0]  # what it starts is as quick
    gc.enable()
    _renew_output()
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
    _read_again(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    try:
        _execute([*args])
        code = 0
    except SystemExit as stop:
        code = _code(stop.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        raise
    except BaseException:
        traceback.print_exc()
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def _read_again(environment: Mapping[str, str]) -> None:
    """Do what torch and Lightning do with variables when they are imported."""
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    if threads := environment.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    ranks = (environment.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    rank_zero_only.rank = int(next((rank for rank in ranks if rank), 0))  # type: ignore[attr-defined]


def _execute(args: list[str]) -> None:
    while args[0] in ("-u", "-B"):
        del args[0]
    if args[0] == "-c":
        main = ModuleType("__main__")
        sys.modules["__main__"] = main
        sys.argv = ["-c", *args[2:]]
        sys.path.insert(0, "")
        exec(args[1], vars(main))
    elif args[0] == "-m":
        sys.argv = [args[1], *args[2:]]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = args
        sys.path.insert(0, str(Path(args[0]).resolve().parent))
        runpy.run_path(args[0], run_name="__main__")


def _code(code: object) -> int:
    """The exit code that `sys.exit(code)` gives."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _renew_output() -> None:
    """Print to where the caller prints; pytest has put files of its own there."""
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in [*getattr(logger, "handlers", ())]:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stderr)
            elif type(handler).__module__.startswith("_pytest"):
                logger.removeHandler(handler)  # type: ignore[union-attr]
