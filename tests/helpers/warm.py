"""Runs `modelpack` commands in a fork of a process that has imported what most of them need, which saves its seconds.

``python warm.py SOCKET`` says a line when it is ready and serves until its standard input ends. :data:`CLIENT` is the
program to put on PATH: it hands over its arguments, directory, environment and file descriptors, passes signals on, and
ends as the command ends; when it is killed, the command is killed a moment later. Servers start for real: their workers
are processes of their own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

IMPORTS = (
    "deltalake", "modelpack.cli.inspection", "modelpack.cli.predict", "modelpack.cli.selftest", "modelpack.cli.stream",
    "modelpack_flavors.sklearn", "modelpack_server.batch", "modelpack_server.stream", "pandas", "pyarrow.csv",
    "pyarrow.dataset", "pyarrow.parquet", "scipy.stats", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline",
)  # fmt: skip

CLIENT = """\
#!{python} -ISs
import json, os, signal, socket, sys

if "serve" in sys.argv[1:2]:
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [b"!"], [0, 1, 2])
task = dict(words=sys.argv[1:], folder=os.getcwd(), environ=dict(os.environ))
server.sendall(json.dumps(task).encode() + b"\\n")
answers = server.makefile("r")
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def received(connection: socket.socket) -> None:
    """Become the process that a client asks for: its descriptors, directory, environment and arguments."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r") as lines:
        task = json.loads(lines.readline())
    pid = os.fork()
    if pid:
        connection.sendall(f"{pid}\n".encode())
        if connection in select.select([connection, os.pidfd_open(pid)], [], [])[0]:
            os.kill(pid, signal.SIGKILL)  # the client is gone
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["environ"])
    sys.argv = ["modelpack", *task["words"]]


def serve(path: str) -> bool:
    """Fork for each client; return True in the process that is to run its command, and False at the end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        sources: list[Any] = [listener, 0]
        while 0 not in select.select(sources, [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                received(connection)
                return True
            connection.close()
    return False


if __name__ == "__main__":
    os.environ |= {"OPENBLAS_NUM_THREADS": "1"}  # else it has threads, which no fork would have
    for name in IMPORTS:
        importlib.import_module(name)
    # Those of jemalloc, which Arrow brings, are made for forks; no others are there yet.
    threads = [Path(f"/proc/self/task/{one}/comm").read_text().strip() for one in os.listdir("/proc/self/task")]
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1, threads
    gc.freeze()
    if serve(sys.argv[1]):
        from modelpack.__main__ import run

        run()
