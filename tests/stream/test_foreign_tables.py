"""Tables that other writers made: columns with other names in the files, and deletion vectors.

`tables_of_sail.zip` holds three tables that Sail 0.7.2 wrote: `name` and `id`, by the mode of their column mapping,
with the rows below, the first two in one commit; and `vectors` with deletion vectors, of (1, 0.5), (2, 1.5) and
(3, 2.5), the second of them deleted in a commit, and (4, 3.5) behind it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from modelpack.errors import InputError
from modelpack.model import Model
from modelpack_server.batch import Options, predict_files

ROWS = [
    {"id": 1, "x": 0.5, "tags": ["u", "v"], "part": "p q", "score": 1.0},
    {"id": 2, "x": 1.5, "tags": None, "part": None, "score": 3.0},
    {"id": 3, "x": 2.5, "tags": [], "part": "r", "score": 5.0},
]
KEEP = ("id", "x", "tags", "part")


@pytest.fixture(autouse=True)
def made(tmp_path: Path) -> None:
    """Unpack the tables."""
    with zipfile.ZipFile(Path(__file__).with_name("tables_of_sail.zip")) as archive:
        archive.extractall(tmp_path)


def actions(root: Path, version: int) -> list[dict[str, Any]]:
    """Return the actions of a commit."""
    text = (root / "_delta_log" / f"{version:020d}.json").read_text()
    return [json.loads(line) for line in text.splitlines()]


def commit(root: Path, version: int, *some: dict[str, Any]) -> None:
    """Write a commit by hand."""
    (root / "_delta_log" / f"{version:020d}.json").write_text("\n".join(map(json.dumps, some)))


def metadata(root: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the metadata of a table, and its columns, which are still part of it."""
    found = next(action["metaData"] for action in actions(root, 0) if "metaData" in action)
    found["schemaString"] = json.loads(found["schemaString"])
    return found, {column["name"]: column for column in found["schemaString"]["fields"]}


def changed(found: dict[str, Any]) -> dict[str, Any]:
    """Return an action that sets the metadata."""
    return {"metaData": {**found, "schemaString": json.dumps(found["schemaString"])}}


@pytest.mark.parametrize("mode", ["name", "id"])
@pytest.mark.parametrize("start", [None, 0], ids=["as it is", "commit by commit"])
def test_columns_are_found_by_what_the_files_call_them(tables: Any, model: Model, mode: str, start: int | None) -> None:
    tables.source = tables.folder / mode
    assert DeltaTable(tables.source).metadata().configuration["delta.columnMapping.mode"] == mode
    tables.run(model, keep=KEEP, from_version=start)
    assert tables.scored() == ROWS


@pytest.mark.parametrize("mode", ["name", "id"])
def test_batches_find_them_too(tables: Any, model: Model, mode: str) -> None:
    options = Options(keep=KEEP, where="part = 'r' or x < 1")
    predict_files(model, [tables.folder / mode], tables.folder / "out.parquet", options)
    found = pq.read_table(tables.folder / "out.parquet").to_pylist()
    assert sorted(found, key=lambda row: row["id"]) == [ROWS[0], ROWS[2]]


@pytest.mark.parametrize("mode", ["name", "id"])
def test_a_column_may_be_renamed(tables: Any, model: Model, mode: str) -> None:
    tables.source = tables.folder / mode
    found, columns = metadata(tables.source)
    columns["tags"]["name"] = "labels"
    columns["part"]["name"] = "Section"
    found["partitionColumns"] = ["Section"]
    commit(tables.source, 3, changed(found))
    tables.run(model, keep=("id", "labels", "Section"), from_version=0)
    assert tables.scored() == [
        {"id": row["id"], "labels": row["tags"], "Section": row["part"], "score": row["score"]} for row in ROWS
    ]


def test_a_column_of_a_name_that_was_used_before_is_another_one(tables: Any, model: Model) -> None:
    tables.source = tables.folder / "name"
    found, columns = metadata(tables.source)
    columns["tags"]["metadata"] = {"delta.columnMapping.id": 9, "delta.columnMapping.physicalName": "col-new"}
    commit(tables.source, 3, changed(found))
    tables.run(model, keep=("id", "tags"))
    assert [row["tags"] for row in tables.scored()] == [None, None, None]


def test_with_numbers_the_names_in_the_files_do_not_count(tables: Any, model: Model) -> None:
    tables.source = tables.folder / "id"
    found, columns = metadata(tables.source)
    swapped = columns["id"]["metadata"], columns["x"]["metadata"]
    names = [which["delta.columnMapping.physicalName"] for which in swapped]
    swapped[0]["delta.columnMapping.physicalName"], swapped[1]["delta.columnMapping.physicalName"] = names[::-1]
    commit(tables.source, 3, changed(found))
    tables.run(model, keep=KEEP)
    assert tables.scored() == ROWS


def test_files_without_the_numbers_are_refused(tables: Any, model: Model) -> None:
    tables.source = tables.folder / "id"
    path = next(path for path in tables.source.rglob("*.parquet") if "=r" in str(path))
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.cast(pa.schema([field.remove_metadata() for field in table.schema])), path)
    with pytest.raises(InputError, match="has columns without the numbers") as caught:
        tables.run(model, keep=KEEP)
    assert caught.value.code == "table-unsupported" and caught.value.path == str(path)


@pytest.mark.parametrize("mode", ["name", "id"])
def test_structs_are_refused_where_they_are_needed(tables: Any, model: Model, mode: str) -> None:
    tables.source = tables.folder / mode
    with pytest.raises(InputError, match="the column 's' holds structs") as caught:
        tables.run(model)
    assert caught.value.code == "table-unsupported"


@pytest.mark.parametrize(
    ("mode", "lost"),
    [("name", "delta.columnMapping.physicalName"), ("id", "delta.columnMapping.id"), ("later", "")],
)
def test_a_mapping_that_is_not_known_is_refused(tables: Any, model: Model, mode: str, lost: str) -> None:
    tables.source = tables.folder / ("id" if mode == "id" else "name")
    tables.run(model, keep=KEEP)
    found, columns = metadata(tables.source)
    columns["x"]["metadata"].pop(lost, None)
    found["configuration"]["delta.columnMapping.mode"] = mode
    commit(tables.source, 3, changed(found))
    with pytest.raises(InputError) as caught:
        tables.run(model, keep=KEEP)
    assert caught.value.code in ("table-unsupported", "table-unreadable")


def test_changes_are_followed_in_a_mapped_table(tables: Any, model: Model) -> None:
    """An update as a writer with a change data feed commits it: old and new row under the names of the files."""
    root = tables.source = tables.folder / "name"
    found, columns = metadata(root)
    found["configuration"]["delta.enableChangeDataFeed"] = "true"
    commit(root, 3, changed(found))
    inner = {name: column["metadata"]["delta.columnMapping.physicalName"] for name, column in columns.items()}
    rows = {inner["id"]: [3, 3], inner["x"]: [2.5, 7.0], inner["tags"]: [["a"], ["b"]]}
    (root / "_change_data").mkdir()
    kinds = ["update_preimage", "update_postimage"]
    pq.write_table(pa.table({**rows, "_change_type": kinds}), root / "_change_data" / "c.parquet")
    add = next(action["add"] for action in actions(root, 2) if "add" in action)
    change = {"path": "_change_data/c.parquet", "partitionValues": {inner["part"]: "r"}, "size": 1, "dataChange": False}
    remove = {"path": add["path"], "dataChange": True, "deletionTimestamp": 1}
    options = {"keep": KEEP, "changes": "upsert", "key": ("part", "id")}
    with pytest.raises(InputError, match="a missing value in a column of the key"):
        tables.run(model, **options)
    options["key"] = ("id",)
    tables.run(model, lambda: commit(root, 4, {"cdc": change}, {"remove": remove}), **options)
    assert tables.scored() == [*ROWS[:2], {"id": 3, "x": 7.0, "tags": ["b"], "part": "r", "score": 14.0}]


def test_deletion_vectors_in_files_of_their_own_are_read(tables: Any, model: Model) -> None:
    tables.source = tables.folder / "vectors"
    tables.run(model)
    assert [(row["id"], row["score"]) for row in tables.scored()] == [(1, 1.0), (3, 5.0), (4, 7.0)]
    tables.output = tables.folder / "from the first version on"
    tables.run(model, from_version=0, changes="append")
    assert tables.ids() == [1, 2, 3, 4]
