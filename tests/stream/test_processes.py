"""The command in processes of its own: it follows, it stops when asked, it survives being killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from deltalake import DeltaTable


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def rows(tables: Any) -> int:
    """Return how many rows the output has."""
    if not (tables.output / "_delta_log").is_dir():
        return 0
    return int(DeltaTable(tables.output).count())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_follows_and_stops_when_asked(tables: Any, start: Any, number: signal.Signals) -> None:
    tables.add()
    process = start("--interval", "0.02", "--json")
    wait_for(lambda: rows(tables) == 10)
    tables.add()
    wait_for(lambda: rows(tables) == 20)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert json.loads(out)["rows"] == 20
    assert b"modelpack: version 1: 10 rows in" in err
    tables.check(20)


@pytest.mark.slow
def test_a_signal_during_a_commits_work_lets_it_be_finished(tables: Any, start: Any) -> None:
    tables.add()
    process = start("--param", "wait=1.5", "--interval", "0.02", "--quiet")
    # The output is made when the first rows are scored, and before they are committed.
    wait_for(lambda: tables.output.exists() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    tables.check(10)


@pytest.mark.slow
def test_prometheus_is_told_how_far_it_is(tables: Any, start: Any) -> None:
    tables.add()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start("--interval", "0.02", "--metrics-port", str(port))
    wait_for(lambda: rows(tables) == 10)
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found = dict(line.rpartition(" ")[::2] for line in page.splitlines() if not line.startswith("#"))
    assert float(found["modelpack_stream_source_version"]) == 0
    assert float(found["modelpack_stream_backlog_rows"]) == 0
    assert float(found["modelpack_stream_up"]) == 1
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/other")
    (tables.source / "_delta_log").rename(tables.folder / "elsewhere")
    second = start("--metrics-port", str(port))
    _, err = second.communicate(timeout=30)
    assert second.returncode == 2 and b"[table-missing]" in err
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and b"[source-replaced]" in err


@pytest.mark.slow
def test_rows_that_do_not_fit_end_it_with_file_and_row(tables: Any, start: Any) -> None:
    tables.add(3, x=[1.0, None, 2.0])
    process = start("--once")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b".parquet, row 2, column 'x': a missing value" in err
    assert b"With --on-error TABLE" in err


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--from", "a"], ["--once"], ["--max-rejects", "1"], ["--job", "a"],
                                   ["--from-version", "0"], ["--metrics-host", "::1"]])  # fmt: skip
def test_options_that_do_not_go_together_are_wrong_usage(words: list[str], command: list[str]) -> None:
    done = subprocess.run([*command, "pkg", *words], capture_output=True, env=dict(os.environ))
    assert done.returncode == 2
    assert b"[option-alone]" in done.stderr
