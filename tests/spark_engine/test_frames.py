"""`modelpack.spark.score` on real executors: the answers, types and missing values of `load().predict`; refusals."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

import modelpack
import modelpack.spark
from modelpack.dtypes import DurationType, Element, ListType
from modelpack.errors import InputError, IntegrityError, OutputError, TrustError, UsageError
from modelpack.model import Model
from modelpack.signature import Column, Param, Signature, Table
from modelpack_server.spark import SparkEngine, started
from modelpack_server.spark.columns import expected
from modelpack_server.spark.shipping import Shipped, ship

pytestmark = [
    # pyspark leaves the closing of its sockets to the collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
RECORDS = [
    {
        "id": row,
        "x": None if row % 5 == 0 else row / 3,
        "n": None if row % 7 == 0 else row,
        "text": None if row % 3 == 0 else f"'ü{row}",
        "when": None if row % 4 == 0 else NOON + dt.timedelta(microseconds=row),
        "a.b": f"not for the model {row}",
    }
    for row in range(60)
]
SCHEMA = "id bigint, x double, n int, text string, when timestamp, `a.b` string"


class Fake:
    """A DataFrame as far as it is looked at before the package is loaded."""

    sparkSession = SimpleNamespace(sparkContext=None)


def test_answers_are_those_of_the_model_in_the_types_of_its_signature(spark: Any, typed: Path, loaded: Path):
    """Twelve tasks in two workers, which load the package once each."""
    df = spark.createDataFrame(RECORDS, SCHEMA).repartition(12)
    table = pa.Table.from_pylist(
        RECORDS, pa.schema([("id", pa.int64()), ("x", pa.float64()), ("n", pa.int32()), ("text", pa.string()),
                            ("when", pa.timestamp("us", "UTC")), ("a.b", pa.string())])
    )  # fmt: skip
    answers = modelpack.load(typed).predict(table, params={"factor": 3.0})

    scored = modelpack.spark.score(df, typed, keep=["id", "a.b"], params={"factor": 3.0})
    found = sorted(map(tuple, scored.collect()))

    assert [(f.name, f.dataType.simpleString(), f.nullable) for f in scored.schema] == [
        ("id", "bigint", True),
        ("a.b", "string", True),
        ("score", "double", True),
        ("whole", "bigint", True),
        ("id_prediction", "string", False),
        ("when", "timestamp", True),
        ("many", "array<double>", True),
        ("yes", "boolean", False),
    ]
    whens = [None if record["when"] is None else record["when"].timestamp() for record in RECORDS]
    wanted = zip([r["id"] for r in RECORDS], [r["a.b"] for r in RECORDS], answers["score"], answers["whole"],
                 answers["id"], whens, answers["many"], answers["yes"], strict=True)  # fmt: skip
    assert [(*row[:5], None if row[5] is None else row[5].timestamp(), *row[6:]) for row in found] == list(wanted)
    loads = Counter(loaded.read_text().split())
    assert set(loads.values()) == {1}
    assert len(loads) <= 2


def test_what_cannot_be_scored_is_refused_by_name_before_a_row_is_read(
    spark: Any, typed: Path, tmp_path: Path, save: Callable[[Path, str, Signature | None], Path]
):
    df = spark.createDataFrame(RECORDS, SCHEMA)

    with pytest.raises(InputError, match="no column 'n', which the model needs"):
        modelpack.spark.score(df.drop("n"), typed)
    with pytest.raises(InputError, match="no column 'other' to keep"):
        modelpack.spark.score(df, typed, keep=["other"])
    with pytest.raises(InputError, match="two columns 'x'"):
        modelpack.spark.score(df.withColumnRenamed("a.b", "x"), typed)
    unknown = save(tmp_path / "unknown", "def predict(data):\n    return data", None)
    with pytest.raises(UsageError, match="not known beforehand") as caught:
        modelpack.spark.score(df, unknown)
    assert caught.value.code == "columns-unknown"


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("uint64", "'big' is of the type uint64"),
        (DurationType(unit="ns"), "'big' is of the type duration"),
        (ListType(items=Element(type="uint64")), "'big' is of the type list<item: uint64 not null>"),
    ],
    ids=["uint64", "duration", "list of uint64"],
)
def test_answers_of_a_type_that_spark_lacks_are_refused_by_name(kind: Any, shown: str):
    signature = Signature(outputs=Table(columns=(Column(name="big", type=kind),)))

    with pytest.raises(OutputError, match=shown) as caught:
        expected(signature, {}, [])
    assert caught.value.code == "type-not-spark"


def test_a_param_that_changes_the_answers_leaves_their_columns_unknown():
    signature = Signature(
        outputs=Table(columns=(Column(name="score", type="float64"),)),
        params=(Param(name="method", type="utf8", default="predict", changes_outputs=True),),
    )

    assert expected(signature, {"method": "predict"}, ["score"]).schema.names == ["score_prediction"]
    with pytest.raises(UsageError, match="a param changes what the model gives"):
        expected(signature, {"method": "other"}, [])


def test_the_driver_decides_about_code_and_executors_about_nothing(typed: Path, trust_store: Path, tmp_path: Path):
    digest = modelpack.open(typed).digest
    grants = [path.read_bytes() for path in trust_store.glob("*.json")]
    assert grants

    # An executor whose own store grants the code runs it only if the driver says so.
    with pytest.raises(TrustError, match="can run any code"):
        Shipped(digest=digest, flavor="python", granted=False).load_from(typed)
    assert Shipped(digest=digest, flavor="python", granted=True).load_from(typed).digest == digest
    # The driver says so for one digest.
    with pytest.raises(IntegrityError, match="not sha256:0000"):
        Shipped(digest=f"sha256:{'0' * 64}", flavor="python", granted=True).load_from(typed)
    module = next(typed.rglob("answering.py"))
    module.chmod(0o644)
    module.write_text(module.read_text().replace("2.0", "9.0"))
    with pytest.raises(IntegrityError):
        Shipped(digest=digest, flavor="python", granted=True).load_from(typed)


def test_a_package_that_nobody_allowed_is_refused_on_the_driver(typed: Path, trust_store: Path):
    for grant in trust_store.glob("*.json"):
        grant.unlink()

    with pytest.raises(TrustError, match="can run any code"):
        modelpack.spark.score(Fake(), typed)


@pytest.mark.parametrize(
    ("names", "minds", "shown"),
    [
        (["id", "x", "id"], "true", "two columns 'id'"),
        (["id", "x", "ID"], "false", "two columns 'id' and 'ID', which are one to Spark"),
        (["id", "X", "x"], "false", "two columns 'X' and 'x', which are one to Spark"),
        (["id", "x", "X"], "true", None),
    ],
)
def test_columns_that_are_one_to_spark_are_refused(names: list[str], minds: str, shown: str | None, quick: Path):
    """And where Spark minds the case of letters they are two."""
    session = SimpleNamespace(sparkContext=None, conf=SimpleNamespace(get=lambda *_: minds))
    df: Any = SimpleNamespace(sparkSession=session, columns=names)
    # What follows needs a session that is real.
    with pytest.raises(AttributeError if shown is None else InputError, match=shown) as caught:
        modelpack.spark.score(df, quick)
    assert shown is None or getattr(caught.value, "code", "") == "columns-repeated"


def test_an_answer_that_is_one_with_a_kept_column_to_spark_has_another_name():
    signature = Signature(outputs=Table(columns=(Column(name="Score", type="float64"),)))

    assert expected(signature, {}, ["score"]).schema.names == ["Score_prediction"]


def test_a_text_is_no_list_of_columns_to_keep(quick: Path):
    with pytest.raises(UsageError, match=r"not a list of names.*keep=\['id'\]") as caught:
        modelpack.spark.score(Fake(), quick, keep="id")
    assert (caught.value.code, caught.value.path) == ("keep-invalid", "keep")


def test_a_package_is_sent_once_also_by_two_threads(quick: Path):
    sent: list[str] = []

    def slowly(archive: str) -> None:
        time.sleep(0.2)
        sent.append(archive)

    context = SimpleNamespace(applicationId=f"app of {quick}", addArchive=slowly)
    model = modelpack.load(quick)
    threads = [threading.Thread(target=ship, args=(context, model)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(sent) == 1


def test_a_worker_keeps_the_models_that_it_used_last(monkeypatch: pytest.MonkeyPatch):
    loads: list[str] = []

    def load(shipped: Shipped, path: Path) -> Any:
        loads.append(shipped.digest)
        return shipped

    monkeypatch.setattr(Shipped, "load_from", load)
    monkeypatch.setattr("pyspark.SparkFiles.get", lambda name: name)
    for digest in "abcdeea":
        Shipped(digest=f"kept {digest}", flavor="python", granted=False).model()
    assert loads == [f"kept {digest}" for digest in "abcdea"]


class SparkOnly:
    """A predictor that needs a driver of its own, as one of Spark ML without its twin."""

    form = "arrow"
    driver_only = True


def test_a_model_that_executors_cannot_load_is_refused_before_spark_starts(quick: Path):
    loaded = modelpack.load(quick)
    model = Model(loaded.package, SparkOnly(), loaded.candidate)  # type: ignore[arg-type]
    assert (model.driver_only, loaded.driver_only) == (True, False)
    calls: list[Callable[[], Any]] = [
        lambda: ship(None, model),
        lambda: started("no://master", model).__enter__(),
        lambda: next(SparkEngine(None).each(model, lambda *_: None, [1])),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="Save it with its twin, the flavor spark_numpy") as caught:
            call()
        assert caught.value.code == "model-driver-only"


def test_without_pyspark_the_message_says_what_to_install(typed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)

    with pytest.raises(UsageError, match=r"pip install 'modelpack\[spark\]'"):
        modelpack.spark.score(Fake(), typed)


STREAM = """
import sys
import modelpack.spark
from pyspark.sql import SparkSession


def queries(spark, package, folder):
    '''Start a query of Parquet files and one of Delta tables, each with four batches to do.'''
    files = spark.readStream.schema("id bigint, x double").option("maxFilesPerTrigger", 1).parquet(f"{folder}/in")
    modelpack.spark.register(spark)
    table = spark.readStream.format("modelpack_delta").load(f"{folder}/table")
    for kind, rows, sink in [("files", files, "parquet"), ("tables", table, "modelpack_delta")]:
        query = modelpack.spark.score(rows, package, keep=["id"]).writeStream.format(sink)
        query = query.option("checkpointLocation", f"{folder}/{kind}.checkpoint").trigger(availableNow=True)
        yield query.start(f"{folder}/{kind}")


if __name__ == "__main__":
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.log.level", "ERROR").getOrCreate()
    for query in list(queries(spark, *sys.argv[1:])):
        query.awaitTermination()
"""


def test_structured_streams_that_are_killed_go_on_and_score_each_row_once(spark: Any, slow: Path, tmp_path: Path):
    """The driver is killed; the queries go on in another application, where their checkpoints say."""
    (tmp_path / "in").mkdir()
    for number in range(4):
        ids = list(range(50 * number, 50 * number + 50))
        table = pa.table({"id": pa.array(ids, pa.int64()), "x": [None if i % 9 == 0 else i / 7 for i in ids]})
        pq.write_table(table, tmp_path / "in" / f"{number}.parquet")
        write_deltalake(tmp_path / "table", table, mode="append")
    command = [sys.executable, "-c", STREAM, str(slow), str(tmp_path)]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    offsets, commits = tmp_path / "tables.checkpoint" / "offsets", tmp_path / "files.checkpoint" / "commits"
    try:
        while not (list(commits.glob("[0-9]*")) and list(offsets.glob("[0-9]*"))):
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert len(list(commits.glob("[0-9]*"))) < 4

    names: dict[str, Any] = {"__name__": "again"}
    exec(STREAM, names)
    for query in list(names["queries"](spark, slow, tmp_path)):
        query.awaitTermination()

    expected = [(i, None if i % 9 == 0 else 2 * (i / 7)) for i in range(200)]
    assert sorted(tuple(row) for row in spark.read.parquet(str(tmp_path / "files")).collect()) == expected
    found = pa.table(DeltaTable(tmp_path / "tables").to_pyarrow_table())
    assert sorted(zip(found["id"].to_pylist(), found["score"].to_pylist(), strict=True)) == expected
    files = sorted(map(str, (tmp_path / "tables").glob("*.parquet")))
    assert sorted(DeltaTable(tmp_path / "tables").file_uris()) == files
