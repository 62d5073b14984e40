"""Rows of JSON that lack an optional column: what becomes of them does not depend on the rows beside them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from modelpack.errors import InputError, OutputError
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server import stream
from modelpack_server.batch import Options, predict_files

SIGNATURE = Signature(
    inputs=Table(
        columns=(
            Column(name="x", type="int64"),
            Column(name="y", type="int64", optional=True),
            Column(name="z", type="utf8", nullable=True, optional=True),
        )
    ),
    outputs=Table(columns=(Column(name="seen", type="utf8"),)),
)
ROWS: list[dict[str, Any]] = [
    {"x": 1},
    {"x": 2, "y": 5},
    {"x": 3},
    {"x": 4, "z": None},
    {"x": 5, "y": 6, "z": "a"},
    {"x": 6, "y": 7},
]
SEEN = ["x=1", "x=2 y=5", "x=3", "x=4 z=None", "x=5 y=6 z=a", "x=6 y=7"]


def seen(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
    """Say which columns the model was given, and what was in them."""
    rows = zip(*columns.values(), strict=True)
    return {"seen": [" ".join(f"{n}={v}" for n, v in zip(columns, row, strict=True)) for row in rows]}


def written(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("size", [1, 2, 3, 100])
class TestRows:
    def test_are_scored_as_if_they_were_alone(self, make_model: Any, tmp_path: Path, size: int) -> None:
        model, out = make_model(SIGNATURE, seen), tmp_path / "out.jsonl"
        predict_files(model, [written(tmp_path / "in.jsonl", ROWS)], out, Options(batch_size=size))
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert found == [{**row, "seen": told} for row, told in zip(ROWS, SEEN, strict=True)]

    def test_keep_what_they_lack_as_missing_in_formats_with_columns(
        self, make_model: Any, tmp_path: Path, size: int
    ) -> None:
        model, out = make_model(SIGNATURE, seen), tmp_path / "out.parquet"
        source = written(tmp_path / "in.jsonl", ROWS)
        predict_files(model, [source], out, Options(batch_size=size, keep=["y", "x"]))
        table = pq.read_table(out)
        assert [str(kind) for kind in table.schema.types] == ["int64", "int64", "string"]
        expected = {"y": [None, 5, None, None, 6, 7], "x": [1, 2, 3, 4, 5, 6], "seen": SEEN}
        assert table.to_pydict() == expected

    def test_are_refused_for_what_is_wrong_with_them_and_not_for_others(
        self, make_model: Any, tmp_path: Path, size: int
    ) -> None:
        rows = [*ROWS, {"x": 1.5}, {"x": 7, "y": None}, [8], {"x": 9}, {"y": 1}]
        model, out, bad = make_model(SIGNATURE, seen), tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
        source = written(tmp_path / "in.jsonl", rows)
        done = predict_files(model, [source], out, Options(batch_size=size, on_error=bad))
        refused = [json.loads(line) for line in bad.read_text().splitlines()]
        assert [(r["row"], r["line"], r["column"], r["code"]) for r in refused] == [
            (7, 7, "x", "not-whole"),
            (8, 8, "y", "null-not-allowed"),
            (9, 9, None, "json-not-object"),
            (11, 11, "x", "column-missing"),
        ]
        assert [r["record"] for r in refused if r["row"] != 9] == [rows[6], rows[7], rows[10]]
        assert [json.loads(line)["seen"] for line in out.read_text().splitlines()] == [*SEEN, "x=9"]
        assert (done.rows, done.rejected) == (7, 4)

    def test_that_stop_the_run_are_the_first_ones(self, make_model: Any, tmp_path: Path, size: int) -> None:
        rows = [{"x": 1}, {"x": 2, "y": 2}, {"x": "a", "y": 2}, {"x": "b"}]
        source = written(tmp_path / "in.jsonl", rows)
        with pytest.raises(InputError, match=r"row 3 .*'x'") as caught:
            predict_files(make_model(SIGNATURE, seen), [source], tmp_path / "o.jsonl", Options(batch_size=size))
        assert caught.value.code == "type-mismatch"
        if size == 100:
            assert [fault.row for fault in caught.value.faults] == [3, 4]

    def test_of_tensors_may_lack_an_optional_one(self, make_model: Any, tmp_path: Path, size: int) -> None:
        signature = Signature(
            inputs=Tensors(
                tensors=(
                    Tensor(name="a", dtype="float64", shape=("N", 2)),
                    Tensor(name="w", dtype="float64", shape=("N",), optional=True),
                )
            ),
            outputs=Tensors(tensors=(Tensor(name="s", dtype="float64", shape=("N",)),)),
        )
        model = make_model(signature, lambda given, params: given["a"].sum(axis=1) * given.get("w", 1))
        rows = [{"a": [1, 2]}, {"a": [3, 4], "w": 10}, {"a": [5, 6]}]
        out = tmp_path / "out.jsonl"
        predict_files(model, [written(tmp_path / "in.jsonl", rows)], out, Options(keep=[], batch_size=size))
        assert out.read_text().split() == ['{"prediction":3.0}', '{"prediction":70.0}', '{"prediction":11.0}']


def test_answers_that_cannot_stand_in_one_table_are_an_error_of_the_model(make_model: Any, tmp_path: Path) -> None:
    model = make_model(
        Signature(inputs=SIGNATURE.inputs), lambda given, params: {"y" if "y" in given else "n": given["x"]}
    )
    source = written(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(OutputError) as caught:
        predict_files(model, [source], tmp_path / "out.jsonl", Options())
    assert caught.value.code == "output-changed"


class Patient:
    """Waits for a pipe for as long as it takes."""

    asked = False

    def wait(self, seconds: float | None, file: int | None = None) -> None:
        """Return at once: a read waits by itself."""


@pytest.mark.parametrize("size", [1, 2, 100])
def test_pipes_answer_the_same(make_model: Any, size: int) -> None:
    source, into = os.pipe()
    os.write(into, "".join(json.dumps(row) + "\n" for row in ROWS).encode())
    os.close(into)
    out = io.BytesIO()
    options = stream.Options(batch_size=size)
    with os.fdopen(source, "rb") as lines:
        stream.pipe.run(make_model(SIGNATURE, seen), lines, out, options, Patient())
    assert [json.loads(line)["seen"] for line in out.getvalue().splitlines()] == SEEN
