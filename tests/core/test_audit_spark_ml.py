"""Spark ML directories: what is taken, and every way in which one can lie about itself. Nothing here needs Spark."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelpack.audits.spark_ml import audit, inspect
from modelpack.errors import PackageError

HOME = "org.apache.spark.ml"
ENTRY = "m/metadata/part-00000"


class Files(dict[str, bytes]):
    def read(self, path: str) -> bytes:
        return self[path]

    def paths(self) -> list[str]:
        return sorted(self)


def metadata(name: str, uid: str = "u", **more: Any) -> bytes:
    params = {key: more.pop(key) for key in list(more) if key in ("stageUids", "inputCol", "inputCols", "language")}
    return json.dumps({"class": f"{HOME}.{name}", "uid": uid, "paramMap": params, **more}).encode() + b"\n"


def parquet(rows: list[dict[str, Any]], schema: dict[str, str] | None = None, kind: Any = None) -> bytes:
    table, sink = pa.Table.from_pylist(rows, schema=kind), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(schema or {})
    return sink.getvalue()


def table(name: str, *rows: dict[str, Any], schema: dict[str, str] | None = None, **more: Any) -> Files:
    return Files({ENTRY: metadata(name, **more), "m/data/part-00000.parquet": parquet(list(rows), schema)})


def node(number: int, left: int, right: int, feature: int = 0, values: Any = (0.5,), categories: int = -1) -> dict:  # type: ignore[type-arg]
    return {
        "id": number,
        "prediction": float(number),
        "impurityStats": [1.0, 2.0],
        "leftChild": left,
        "rightChild": right,
        "split": {
            "featureIndex": feature if left >= 0 else -1,
            "leftCategoriesOrThreshold": list(map(float, values)) if left >= 0 else [],
            "numCategories": categories,
        },
    }


def tree(*nodes: dict[str, Any]) -> Files:
    split = pa.struct(
        [
            ("featureIndex", pa.int32()),
            ("leftCategoriesOrThreshold", pa.list_(pa.float64())),
            ("numCategories", pa.int32()),
        ]
    )
    kind = pa.schema(
        [
            ("id", pa.int32()),
            ("prediction", pa.float64()),
            ("impurityStats", pa.list_(pa.float64())),
            ("leftChild", pa.int32()),
            ("rightChild", pa.int32()),
            ("split", split),
        ]
    )
    name = "classification.DecisionTreeClassificationModel"
    head = metadata(name, numFeatures=3, numClasses=2)
    return Files({ENTRY: head, "m/data/part-00000.parquet": parquet(list(nodes), kind=kind)})


def pipeline(*stages: tuple[str, bytes]) -> Files:
    files = Files({ENTRY: metadata("PipelineModel", stageUids=[uid for uid, _ in stages])})
    files |= {f"m/stages/{i}_{uid}/metadata/part-00000": raw for i, (uid, raw) in enumerate(stages)}
    return Files(files)


def refused(files: Files, entry: str = ENTRY) -> str:
    with pytest.raises(PackageError) as info:
        audit(files, entry)
    assert info.value.code == "payload-invalid"
    return info.value.message


BINARIZER = metadata("feature.Binarizer", "a", inputCol="x")
NUMBERS = {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0]}
SPARSE = {"type": 0, "size": 3, "indices": [0, 2], "values": [1.0, 2.0]}
MATRIX = {"type": 1, "numRows": 1, "numCols": 2, "colPtrs": None, "rowIndices": None, "values": [1.0, 2.0]}


def linear(coefficients: Any, **more: Any) -> Files:
    return table("regression.LinearRegressionModel", {"intercept": 0.0, "coefficients": coefficients}, **more)


def test_listed_stages_are_a_graph() -> None:
    found = audit(pipeline(("a", BINARIZER)), ENTRY)
    assert (found.trust, found.types, found.reasons) == ("graph", (f"{HOME}.feature.Binarizer",), ())


def test_spark_s_marks_and_checksums_may_be_there() -> None:
    files = pipeline(("a", BINARIZER))
    files |= {f"m/metadata/{name}": b"" for name in ("_SUCCESS", "._SUCCESS.crc", ".part-00000.crc")}
    assert audit(files, ENTRY).trust == "graph"


@pytest.mark.parametrize(
    "name",
    ["feature.SQLTransformer", "feature.RFormulaModel", "recommendation.ALSModel", "../Evil", "tuning.NewModel"],
)
def test_a_class_off_the_list_is_code(name: str) -> None:
    files = pipeline(("a", metadata(name, "a")))
    found = audit(files, ENTRY)
    assert (found.trust, found.unlisted) == ("code", (f"{HOME}.{name}",))
    assert name in found.reasons[0]


def test_a_pipeline_whose_stages_python_builds_is_code() -> None:
    files = pipeline(("a", BINARIZER))
    files[ENTRY] = metadata("PipelineModel", stageUids=["a"], language="Python")
    assert audit(files, ENTRY).trust == "code"


@pytest.mark.parametrize(
    "path", ["m/more", "m/data/part-00000.parquet", "m/metadata/x.py", "m/stages/0_a/data/evil", "other/part-00000"]
)
def test_a_file_where_spark_writes_none_is_refused(path: str) -> None:
    assert "where Spark writes none" in refused(Files({**pipeline(("a", BINARIZER)), path: b""}))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{}\n", "no params"),
        (b"[]", "no params"),
        (metadata("feature.Binarizer") * 2, "not one line"),
        (b'{"paramMap": {}, "uid": "u"}', "name no class"),
        (b'{"paramMap": {}, "class": "c", "uid": "../x"}', "no proper uid"),
        (b'{"paramMap": [], "class": "c", "uid": "x"}', "no params"),
        (metadata("feature.Binarizer", inputCol=3), "inputCol"),
        (metadata("feature.Binarizer", inputCols=[3]), "inputCols"),
        (metadata("PipelineModel"), "does not name its stages"),
        (metadata("PipelineModel", stageUids=["../a"]), "does not name its stages"),
        (metadata("PipelineModel", stageUids=["b"]), "no part file"),
    ],
)
def test_metadata_that_spark_does_not_write_are_refused(raw: bytes, message: str) -> None:
    assert message in refused(Files({ENTRY: raw}))


def test_repeated_keys_are_refused() -> None:
    assert refused(Files({ENTRY: b'{"class": "a", "class": "b", "uid": "u", "paramMap": {}}'}))


def test_a_second_part_of_the_metadata_is_refused() -> None:
    files = Files({ENTRY: BINARIZER, "m/metadata/part-00001": BINARIZER})
    assert "more than one part file" in refused(files)


def test_a_stage_with_another_uid_is_refused() -> None:
    assert "another uid" in refused(pipeline(("b", BINARIZER)))


def test_an_entry_that_is_no_metadata_is_refused() -> None:
    assert "entry" in refused(pipeline(("a", BINARIZER)), "m/data/part-00000")


def test_pipelines_in_pipelines_end() -> None:
    files, home = Files({ENTRY: metadata("PipelineModel", stageUids=["u"])}), "m/"
    for _ in range(12):
        home += "stages/0_u/"
        files[f"{home}metadata/part-00000"] = metadata("PipelineModel", stageUids=["u"])
    assert "too many stages" in refused(files)


@pytest.mark.parametrize("coefficients", [NUMBERS, SPARSE])
def test_vectors_are_taken(coefficients: Any) -> None:
    assert audit(linear(coefficients), ENTRY).trust == "graph"


@pytest.mark.parametrize(
    "change",
    [
        {"indices": [0, 3]},
        {"indices": [-1, 2]},
        {"indices": [0]},
        {"size": 2**31 - 1},
        {"size": -1},
        {"type": 7},
    ],
)
def test_a_vector_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    assert "vector" in refused(linear({**SPARSE, **change}))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_that_contradicts_itself_is_refused(transposed: bool) -> None:
    name = "feature.PCAModel"
    whole = {**MATRIX, "isTransposed": transposed}
    assert audit(table(name, {"pc": whole}), ENTRY).trust == "graph"
    assert "matrix" in refused(table(name, {"pc": {**whole, "numRows": 5}}))
    assert "matrix" in refused(table(name, {"pc": {**whole, "numRows": 2**20, "numCols": 2**20}}))
    sparse = {**whole, "type": 0, "colPtrs": [0, 9, 2], "rowIndices": [0, 0]}
    assert "matrix" in refused(table(name, {"pc": sparse}))


def schema(**udt: str) -> dict[str, str]:
    fields = [{"name": "coefficients", "type": {"type": "udt", **udt}}]
    return {"org.apache.spark.sql.parquet.row.metadata": json.dumps({"type": "struct", "fields": fields})}


def test_a_schema_may_name_spark_s_vectors() -> None:
    kinds = {"class": f"{HOME}.linalg.VectorUDT", "pyClass": "pyspark.ml.linalg.VectorUDT"}
    assert audit(linear(NUMBERS, schema=schema(**kinds)), ENTRY).trust == "graph"


@pytest.mark.parametrize("key", ["class", "pyClass", "serializedClass", "CLASS"])
def test_a_schema_that_names_another_class_is_refused(key: str) -> None:
    assert "names a class" in refused(linear(NUMBERS, schema=schema(**{key: "evil.Kind"})))


def test_a_parquet_file_that_says_more_or_is_none_is_refused() -> None:
    assert "more than Spark" in refused(linear(NUMBERS, schema={"pandas": "{}"}))
    assert "cannot be read" in refused(linear(NUMBERS, schema={**schema(), next(iter(schema())): "{"}))
    files = linear(NUMBERS)
    files["m/data/part-00000.parquet"] = b"PAR1 and nothing else PAR1"
    assert "cannot be read" in refused(files)
    assert "not parquet" in refused(Files({ENTRY: files[ENTRY], "m/data/part-00000.txt": b""}))


def test_trees_are_read() -> None:
    trees = inspect(tree(node(0, 1, 2), node(1, -1, -1), node(2, -1, -1)), ENTRY).trees
    assert trees is not None
    assert (trees.depth, trees.left.tolist(), trees.right.tolist()) == (1, [1, 1, 2], [2, 1, 2])


def test_the_order_of_the_rows_does_not_matter() -> None:
    trees = inspect(tree(node(2, -1, -1), node(0, 1, 2), node(1, -1, -1)), ENTRY).trees
    assert trees is not None
    assert trees.prediction.tolist() == [0.0, 1.0, 2.0]


ENDS = [node(1, -1, -1), node(2, -1, -1)]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node(0, 1, 3), *ENDS], "does not exist"),
        ([node(0, 1, 2), node(1, 0, 2), node(2, -1, -1)], "comes before"),
        ([node(0, 0, 1), node(1, -1, -1)], "comes before"),
        ([node(0, 1, 2), node(1, 2, 3), node(2, -1, -1), node(3, -1, -1)], "number of parents"),
        ([node(0, 1, 1), node(1, -1, -1)], "number of parents"),
        ([node(0, -1, -1), node(1, -1, -1)], "number of parents"),
        ([node(0, -1, 1), node(1, -1, -1)], "one child"),
        ([node(0, 1, 2), node(1, -1, -1), node(3, -1, -1)], "not numbered"),
        ([node(0, 1, 2), node(0, -1, -1), node(2, -1, -1)], "not numbered"),
        ([node(0, 1, 2, feature=3), *ENDS], "feature that does not exist"),
        ([node(0, 1, 2, feature=-1), *ENDS], "feature that does not exist"),
        ([node(0, 1, 2, values=()), *ENDS], "no threshold"),
        ([node(0, 1, 2, values=(1, 2)), *ENDS], "no threshold"),
        ([node(0, 1, 2, values=(0, 5), categories=4), *ENDS], "category does not exist"),
        ([node(0, 1, 2, values=(0.5,), categories=4), *ENDS], "category does not exist"),
        ([node(0, 1, 2, values=(0,), categories=-7), *ENDS], "no categories"),
        ([node(0, 1, 2, values=(0,), categories=2**30), *ENDS], "no categories"),
        ([{**node(0, -1, -1), "impurityStats": [1.0]}], "count the classes"),
        ([{**node(0, -1, -1), "prediction": None}], "lack what Spark writes"),
        ([], "number is not"),
    ],
)
def test_trees_that_cannot_be_followed_are_refused(nodes: list[dict[str, Any]], message: str) -> None:
    assert message in refused(tree(*nodes))


def forest(owners: list[int], described: list[dict[str, Any]]) -> Files:
    single = tree(node(0, -1, -1))
    kind = pq.read_table(io.BytesIO(single["m/data/part-00000.parquet"])).schema
    kind = pa.schema([("treeID", pa.int32()), ("nodeData", pa.struct(list(kind)))])
    name = "classification.RandomForestClassificationModel"
    return Files(
        {
            ENTRY: metadata(name, numFeatures=3, numClasses=2),
            "m/data/part-00000.parquet": parquet(
                [{"treeID": owner, "nodeData": node(0, -1, -1)} for owner in owners], kind=kind
            ),
            "m/treesMetadata/part-00000.parquet": parquet(described),
        }
    )


def described(number: int, name: str = "classification.DecisionTreeClassificationModel") -> dict[str, Any]:
    return {"treeID": number, "metadata": metadata(name).decode(), "weights": 1.0}


def test_a_forest_has_the_trees_it_says() -> None:
    assert audit(forest([0, 1], [described(1), described(0)]), ENTRY).trust == "graph"
    assert "not numbered in order" in refused(forest([0, 1], [described(0), described(2)]))
    assert "number is not" in refused(forest([0, 1], [described(0)]))
    assert "number is not" in refused(forest([0, 2], [described(0), described(1)]))
    assert "number is not" in refused(forest([-1], [described(0)]))
    assert "none" in refused(forest([0], [described(0, "feature.SQLTransformer")]))
    assert "size" in refused(Files({**forest([0], [described(0)]), ENTRY: metadata("regression.GBTRegressionModel")}))


def test_a_few_bytes_that_stand_for_gigabytes_are_refused_before_they_are_read() -> None:
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"coefficients": pa.array([0.5] * 1000).take(pa.array([0] * 15_000_000))}), sink, store_schema=False
    )
    files = table("regression.LinearRegressionModel", {"coefficients": 0.5})
    files["m/data/part-00000.parquet"] = sink.getvalue()

    assert len(sink.getvalue()) < 100_000
    with pytest.raises(PackageError, match="more data than is read") as info:
        inspect(files, ENTRY)
    assert info.value.code == "payload-invalid"
