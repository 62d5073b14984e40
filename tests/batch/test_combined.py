"""Filters, rejects, tables, folders and jobs together do what each does alone."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from modelpack.model import Model
from modelpack.signature import Column, Signature, Table
from modelpack_server.batch import Options, predict_files

KINDS = ["plain", "a b", "50%/ä", "", None]


@pytest.fixture
def model(make_model: Callable[..., Model]) -> Model:
    """A model that takes no missing x, and may be called several times at once."""
    signature = Signature(
        inputs=Table(columns=(Column(name="x", type="float64"),)),
        outputs=Table(columns=(Column(name="score", type="float64"),)),
    )
    made = make_model(signature, lambda columns, params: {"score": [2 * float(x) for x in columns["x"]]})
    made.candidate = SimpleNamespace(name="fake", trust="data")  # type: ignore[assignment]
    return made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of two days and five kinds, which the table is partitioned by; every seventh row has no x."""
    rows = [
        {"id": i, "x": None if i % 7 == 3 else float(i), "day": dt.date(2026, 1, 1 + i % 2), "kind": KINDS[i % 5]}
        for i in range(200)
    ]
    schema = pa.schema({"id": pa.int64(), "x": pa.float64(), "day": pa.date32(), "kind": pa.string()})
    for start in (0, 100):
        part = pa.Table.from_pylist(rows[start : start + 100], schema)
        write_deltalake(tmp_path / "table", part, mode="append", partition_by=["day", "kind"])
    return tmp_path / "table"


def stored(table: Path) -> list[dict[str, Any]]:
    """The rows as the table has them: an empty text that it is partitioned by is missing there."""
    found: list[dict[str, Any]] = DeltaTable(table).to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: row["id"])


# A filter on columns that the table is partitioned by, and the same in Python.
FILTERS: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("day = '2026-01-02'", lambda row: row["day"] == dt.date(2026, 1, 2)),
    ("day < '2026-01-02' and kind = 'a b'", lambda row: row["day"] == dt.date(2026, 1, 1) and row["kind"] == "a b"),
    ("kind in ('50%/ä', 'plain')", lambda row: row["kind"] in ("50%/ä", "plain")),
    ("kind is null", lambda row: row["kind"] is None),
    ("kind != 'plain'", lambda row: row["kind"] not in (None, "plain")),
    ("not (kind = 'plain' or day = '2026-01-01')",
     lambda row: row["kind"] not in (None, "plain") and row["day"] != dt.date(2026, 1, 1)),
    ("kind = 'plain' or id < 20", lambda row: row["kind"] == "plain" or row["id"] < 20),
]  # fmt: skip


@pytest.mark.parametrize(("text", "holds"), FILTERS, ids=[text for text, _ in FILTERS])
def test_partitions_are_filtered_like_columns(
    model: Model, table: Path, tmp_path: Path, text: str, holds: Callable[[dict[str, Any]], bool]
) -> None:
    taken = [row for row in stored(table) if holds(row)]
    good = [row | {"score": 2 * row["x"]} for row in taken if row["x"] is not None]
    assert len(good) > 5
    assert len(good) < len(taken) < 200
    options = Options(where=text, on_error=tmp_path / "bad.jsonl", jobs=3, batch_size=4)
    done = predict_files(model, [table], tmp_path / "out.arrow", options)
    with pa.OSFile(str(tmp_path / "out.arrow")) as file:
        found = pa.ipc.open_file(file).read_all().to_pylist()
    assert sorted(found, key=lambda row: row["id"]) == good
    refused = [json.loads(line)["record"]["id"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(refused) == [row["id"] for row in taken if row["x"] is None]
    assert (done.rows, done.rejected) == (len(good), len(refused))


@pytest.mark.parametrize("target", ["folder", "delta", "file"])
def test_jobs_change_neither_rows_nor_rejects(model: Model, table: Path, tmp_path: Path, target: str) -> None:
    found = []
    for jobs in (1, 3):
        out, bad = tmp_path / f"out{jobs}", tmp_path / f"bad{jobs}.jsonl"
        name = {"folder": f"{out}/", "delta": str(out), "file": f"{out}.parquet"}[target]
        options = Options(
            jobs=jobs,
            batch_size=3,
            on_error=bad,
            where="id >= 50",
            output_format="delta" if target == "delta" else None,
        )
        done = predict_files(model, [table], name, options)
        assert done.rows + done.rejected == 150
        assert done.rejected == len(bad.read_text().splitlines()) > 0
        if target == "delta":
            assert DeltaTable(out).version() == 0
            rows: Any = DeltaTable(out).to_pyarrow_table().to_pylist()
            found.append((sorted(rows, key=lambda row: row["id"]), bad.read_bytes()))
        else:
            files = sorted(out.rglob("*.parquet")) if target == "folder" else [Path(name)]
            found.append(([file.read_bytes() for file in files], bad.read_bytes()))
    assert found[0] == found[1]
    assert len(found[0][0]) > 0
