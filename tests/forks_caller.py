"""The program that `forks.python()` names: asks at a socket for a process, and is what it does.

`forks_caller.py SOCKET ARG...`: Python's arguments. It imports little, to start in an instant.
"""

import json
import os
import signal
import socket
import sys

HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Ask, hand signals on, and end as the process has ended."""
    call = socket.socket(socket.AF_UNIX)
    call.connect(sys.argv[1])
    asked = {"args": sys.argv[2:], "cwd": os.getcwd(), "environ": dict(os.environ)}
    content = json.dumps(asked).encode()
    socket.send_fds(call, [len(content).to_bytes(8, "little")], [0, 1, 2])
    call.sendall(content)
    for number in HANDED_ON:
        signal.signal(number, lambda number, frame: call.send(bytes([number])))
    code = int.from_bytes(call.recv(2), "little", signed=True)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
