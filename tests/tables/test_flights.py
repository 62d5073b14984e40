"""Real rows, mixed types, zones and missing values: the same answers whichever way they are scored."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

import modelpack
import modelpack.spark
from modelpack.model import Model
from modelpack_server import batch, stream
from modelpack_server.app import build
from modelpack_server.codecs import cells
from modelpack_server.spark import SparkEngine

pytestmark = [
    # pyspark leaves the closing of its sockets to the collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
Answers = dict[int, dict[str, Any]]


class Once:
    """Lets a stream catch up and stop."""

    asked = False

    def wait(self, seconds: float | None, file: int | None = None) -> None:
        """Stop at the first pause."""
        self.asked = True


def by_id(rows: Sequence[dict[str, Any]]) -> Answers:
    """Return rows by id, each there once."""
    found = {int(row.pop("id")): {name: settled(value) for name, value in row.items()} for row in rows}
    assert len(found) == len(rows)
    return found


def settled(value: Any) -> Any:
    """Return a value so that missing numbers and instants are equal where they mean the same."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.astimezone(dt.UTC).isoformat() if isinstance(value, dt.datetime) else value


def read_json(lines: Sequence[Any]) -> Answers:
    """Return rows of JSON, their one column of times read."""
    for row in lines:
        if row.get("leaves") is not None:
            row["leaves"] = dt.datetime.fromisoformat(row["leaves"])
    return by_id(lines)


def by_call(model: Model, flights: SimpleNamespace) -> Answers:
    """Score in one call in Python."""
    rows = flights.rows
    answer = model.predict(rows)
    columns = answer if isinstance(answer, dict) else {"prediction": list(answer)}
    found = {name: [getattr(v, "item", lambda v=v: v)() for v in column] for name, column in columns.items()}
    return by_id([dict(zip(found, values, strict=True)) | {"id": number} for number, values in
                  zip(rows["id"].to_pylist(), zip(*found.values(), strict=True), strict=True)])  # fmt: skip


def over_http(model: Model, flights: SimpleNamespace) -> Answers:
    """Score in requests of JSON of 512 rows."""
    app = build(model)
    answers: list[Any] = []

    async def ask() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            for part in flights.rows.to_batches(512):
                names = part.schema.names
                columns = [cells.plain(pa.chunked_array([column])) for column in part.columns]
                rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
                reply = await client.post("/invocations", json={"dataframe_records": rows})
                assert reply.status_code == 200, reply.text
                found = reply.json()["predictions"]
                for row, answer in zip(rows, found, strict=True):
                    answer = answer if isinstance(answer, dict) else {"prediction": answer}
                    answers.append({"id": row["id"], **answer})

    try:
        asyncio.run(ask())
    finally:
        app.state.invocations.close()
    return read_json(answers)


def in_batch(model: Model, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score the table into Parquet."""
    batch.predict_files(model, [flights.table], folder / "b.parquet", batch.Options(keep=("id",), batch_size=1000))
    return by_id(pq.read_table(folder / "b.parquet").to_pylist())


def in_batch_lines(model: Model, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score the table into JSON Lines."""
    batch.predict_files(model, [flights.table], folder / "b.jsonl", batch.Options(keep=("id",)))
    return read_json([json.loads(line) for line in (folder / "b.jsonl").read_text().splitlines()])


def in_batch_from_text(model: Model, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score the table as CSV."""
    text = [cells.texts(column) for column in flights.rows.columns]
    pa.csv.write_csv(pa.table(text, names=flights.rows.column_names), folder / "in.csv")
    batch.predict_files(model, [folder / "in.csv"], folder / "c.parquet", batch.Options(keep=("id",)))
    return by_id(pq.read_table(folder / "c.parquet").to_pylist())


def in_stream(model: Model, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score the table as a stream into another one."""
    options = stream.Options(once=True, keep=("id",), max_rows=2000)
    stream.run(model, flights.table, folder / "s", options, Once())
    return by_id(DeltaTable(folder / "s").to_pyarrow_table().to_pylist())


def in_spark(spark: Any, package: Path, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score a DataFrame of Spark, in a session whose zone is not that of the rows' instants."""
    pq.write_table(flights.rows, folder / "in.parquet")
    scored = modelpack.spark.score(spark.read.parquet(str(folder / "in.parquet")), package, keep=["id"])
    return by_id([row.asDict() for row in scored.collect()])


def in_spark_streaming(spark: Any, package: Path, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score rows of Structured Streaming, a file at a time."""
    (folder / "ins").mkdir()
    for number, start in enumerate(range(0, len(flights.rows), 4000)):
        pq.write_table(flights.rows.slice(start, 4000), folder / "ins" / f"{number}.parquet")
    rows = spark.read.parquet(str(folder / "ins"))
    rows = spark.readStream.schema(rows.schema).option("maxFilesPerTrigger", 1).parquet(str(folder / "ins"))
    query = modelpack.spark.score(rows, package, keep=["id"]).writeStream.format("parquet").trigger(availableNow=True)
    query.option("checkpointLocation", str(folder / "checkpoint")).start(str(folder / "outs")).awaitTermination()
    return by_id([row.asDict() for row in spark.read.parquet(str(folder / "outs")).collect()])


def in_batch_by_spark(spark: Any, model: Model, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score the table into a folder with `--engine spark`."""
    options = batch.Options(keep=("id",), engine=SparkEngine(spark.sparkContext))
    batch.predict_files(model, [flights.table], f"{folder}/spark/", options)
    return by_id(pq.ParquetDataset(list((folder / "spark").glob("**/*.parquet"))).read().to_pylist())


def in_stream_by_spark(spark: Any, model: Model, flights: SimpleNamespace, folder: Path) -> Answers:
    """Score the table as a stream with `--engine spark`: the first commit, with one month, tells the columns."""
    options = stream.Options(once=True, keep=("id",), max_rows=1, engine=SparkEngine(spark.sparkContext))
    stream.run(model, flights.table, folder / "ss", options, Once())
    return by_id(DeltaTable(folder / "ss").to_pyarrow_table().to_pylist())


@pytest.fixture
def model(package: Path) -> Model:
    """The loaded package."""
    return modelpack.load(package)


def test_the_table_is_as_hard_as_it_should_be(flights: SimpleNamespace) -> None:
    rows = flights.rows
    assert len(rows) > 5000
    assert all(rows[name].null_count > 50 for name in ("dep_time", "arr_delay", "air_time", "tailnum"))
    assert {str(kind) for kind in rows.schema.types} >= {
        "int64", "double", "string", "timestamp[us, tz=UTC]", "timestamp[us]"
    }  # fmt: skip


def test_every_way_of_scoring_gives_the_same_answers(
    model: Model, package: Path, flights: SimpleNamespace, spark: Any, tmp_path: Path
) -> None:
    answers = in_batch(model, flights, tmp_path)
    assert answers.keys() == set(flights.rows["id"].to_pylist())
    ways = {
        "http": over_http(model, flights),
        "call": by_call(model, flights),
        "lines": in_batch_lines(model, flights, tmp_path),
        "text": in_batch_from_text(model, flights, tmp_path),
        "stream": in_stream(model, flights, tmp_path),
        "spark": in_spark(spark, package, flights, tmp_path),
        "spark streaming": in_spark_streaming(spark, package, flights, tmp_path),
        "batch by spark": in_batch_by_spark(spark, model, flights, tmp_path),
        "stream by spark": in_stream_by_spark(spark, model, flights, tmp_path),
    }
    for name, found in ways.items():
        assert found.keys() == answers.keys(), name
        assert [(i, found[i], row) for i, row in answers.items() if found[i] != row][:3] == [], name


@pytest.mark.parametrize("package", ["story"], indirect=True)
def test_a_filter_takes_the_rows_that_arrow_takes(flights: SimpleNamespace, model: Model, tmp_path: Path) -> None:
    text = (
        "month >= 6 and carrier in ('AA', 'UA') and tailnum is not null"
        " and time_hour < '2013-11-01T00:00:00Z' and not dep_delay > 10.5"
    )
    summary = batch.predict_files(model, [flights.table], tmp_path / "some.parquet", batch.Options(where=text))
    expected = [
        row["id"]
        for row in flights.rows.to_pylist()
        if row["month"] >= 6
        and row["carrier"] in ("AA", "UA")
        and row["tailnum"] is not None
        and row["time_hour"] < dt.datetime(2013, 11, 1, tzinfo=dt.UTC)
        and row["dep_delay"] is not None
        and row["dep_delay"] <= 10.5
    ]
    assert summary.rows == len(expected) > 100
    assert summary.files == 7
    assert sorted(pq.read_table(tmp_path / "some.parquet")["id"].to_pylist()) == expected
