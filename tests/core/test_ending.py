"""How our processes end, in real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# A reader of Arrow's that is left while its thread is still inside Python.
LEFT = """
    import pyarrow.csv, time

    class Slow:
        closed = False
        reads = 0

        def read(self, size):
            Slow.reads += 1
            if Slow.reads > 2:
                time.sleep(0.3)
            return b"x\\n" + b"1\\n" * 1000

    reader = pyarrow.csv.open_csv(Slow(), read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=1000))
    reader.read_next_batch()
"""


def end(work: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a process whose whole work is the code given."""
    body = textwrap.indent(textwrap.dedent(work), " " * 4)
    code = f"from modelpack import ending\ndef work():\n{body}\nending.run(work)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": env, **more}
    return subprocess.run([sys.executable, "-c", code], text=True, timeout=60, **given)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        ("return 3", 3, ""),
        ("pass", 0, ""),
        ("raise SystemExit(4)", 4, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('why')", 1, "why\n"),
    ],
)
def test_the_code_is_what_the_work_says(work: str, code: int, said: str) -> None:
    done = end(work)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_what_nobody_handles_is_shown() -> None:
    done = end("1 / 0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_library_s_thread_that_wants_python_does_no_harm() -> None:
    done = end(LEFT + "    return 5")
    assert (done.returncode, done.stderr) == (5, "")


def test_all_output_is_out() -> None:
    done = end("""
        import atexit, ctypes, threading, time
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        atexit.register(print, "atexit")
        atexit.register(ctypes.CDLL(None).puts, b"native")
        print("work")
    """)
    assert done.returncode == 0
    assert done.stdout == "work\nthread\natexit\nnative\n"


def test_output_that_cannot_be_written_is_told_by_the_code() -> None:
    with Path("/dev/full").open("w") as full:
        assert end("print('lost')", stdout=full).returncode == 120
        # What went wrong before says more.
        assert end("print('lost'); return 3", stdout=full).returncode == 3


def test_a_fork_ends_as_it_likes() -> None:
    done = end("""
        import os, sys
        if os.fork() == 0:
            raise SystemExit(6)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        return 7
    """)
    assert (done.returncode, done.stdout) == (7, "6\n")
