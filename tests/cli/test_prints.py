"""What a model prints, by whatever means, is not among the answers on standard output."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

import modelpack
from modelpack import Package
from modelpack.signature import Column, Signature, Table

SOURCE = """
import atexit
import ctypes
import os
import subprocess
import sys


def say(when):
    print("python", when)
    sys.__stdout__.write(f"first {when}\\n")
    sys.__stdout__.flush()
    os.write(1, f"descriptor {when}\\n".encode())
    ctypes.CDLL(None).puts(f"native {when}".encode())
    subprocess.run(["echo", "child", when], check=True)


say("on load")
atexit.register(say, "at the end")


def predict(data):
    say("meanwhile")
    return {"score": [2 * x for x in data["x"]]}
"""
SIGNATURE = Signature(
    inputs=Table(columns=(Column(name="x", type="float64"),)),
    outputs=Table(columns=(Column(name="score", type="float64"),)),
)
SAID = {
    f"{how} {when}"
    for how in ("python", "first", "descriptor", "native", "child")
    for when in ("on load", "meanwhile", "at the end")
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package that prints in all ways there are, in each of its phases."""
    folder = tmp_path_factory.mktemp("prints")
    source = folder / "talker.py"
    source.write_text(SOURCE.replace('\nsay("on load")\natexit.register(say, "at the end")\n', ""))
    spec = importlib.util.spec_from_file_location("talker", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source.write_text(SOURCE)
    options = {"form": "columns"}
    return modelpack.save(module.predict, folder / "pkg", signature=SIGNATURE, code=[source], options=options)


def rows(format_: str, x: list[float]) -> bytes:
    if format_ == "jsonl":
        return b"".join(json.dumps({"x": value}).encode() + b"\n" for value in x)
    sink = pa.BufferOutputStream()
    table = pa.table({"x": x})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def answers(format_: str, told: bytes) -> list[float]:
    if format_ == "jsonl":
        return [json.loads(line)["score"] for line in told.splitlines()]
    raw = pa.BufferReader(told)
    found = pa.ipc.open_stream(raw).read_all()["score"].to_pylist()
    assert raw.read() == b""
    return found  # type: ignore[no-any-return]


COMMANDS = {
    "stream": [],
    "predict": ["-i", "-", "-o", "-", "--input-format", "{0}", "--output-format", "{0}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["jsonl", "arrows"])
@pytest.mark.parametrize("command", COMMANDS)
def test_answers_are_alone_on_standard_output(warm: Path, package: Package, command: str, format_: str) -> None:
    words = [word.format(format_) for word in COMMANDS[command]]
    line = [str(warm), command, str(package.path), "--allow-code", package.digest, *words]
    done = subprocess.run(line, input=rows(format_, [1.0, 2.5]), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert answers(format_, done.stdout) == [2.0, 5.0]
    assert set(done.stderr.decode().splitlines()) == SAID


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_is_told_behind_the_answers_and_without_the_prints(warm: Path, package: Package, command: str) -> None:
    words = [word.format("jsonl") for word in COMMANDS[command]]
    line = [str(warm), command, str(package.path), "--allow-code", package.digest, *words, "--json"]
    done = subprocess.run(line, input=b'{"x": "text"}\n', capture_output=True, timeout=60)
    assert done.returncode == 1
    told, _ = json.JSONDecoder().raw_decode(done.stdout.decode())
    assert told["error"]["code"] == "type-mismatch"


@pytest.mark.slow
def test_a_file_of_answers_leaves_the_prints_where_they_were(warm: Path, package: Package, tmp_path: Path) -> None:
    line = [str(warm), "predict", str(package.path), "--allow-code", package.digest, "-i", "-", "-o", "out.jsonl"]
    done = subprocess.run(line, input=b'{"x": 1}\n', capture_output=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert set(done.stdout.decode().splitlines()) == SAID
