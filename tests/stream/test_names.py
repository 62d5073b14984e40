"""Tables in directories with odd names: the one that is named is meant, or it is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from modelpack.errors import ModelpackError, UsageError
from modelpack.model import Model
from modelpack_server import batch
from modelpack_server.delta.tables import location

FEED = {"delta.enableChangeDataFeed": "true"}
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])
PLAIN = ["a b", "100%", "%zz", "a#b?c", "a+b&c=d;e", "ü日😀", "[x]{y}", "a|b^c`d", 'it\'s "q"', "s3:", "~", "*", " a "]
REFUSED = ["a%20b", "a%2Fb", "%7e", "a\\b", "a\nb", "a\x7fb", "a\udce4b"]


@pytest.mark.parametrize("name", PLAIN)
def test_a_table_is_in_the_directory_that_is_named(tables: Any, model: Model, name: str) -> None:
    DeltaTable.create(tables.source, SCHEMA, configuration=FEED)
    tables.add(3)
    real = tables.source
    DeltaTable(real).update(updates={"x": "x + 1"}, predicate="id = 1")
    DeltaTable(real).delete("id = 2")
    tables.source, tables.output = (tables.folder / which / name for which in ("from", "to"))
    shutil.copytree(real, tables.source)
    options = {"changes": "upsert", "key": ("id",)}
    tables.run(model, from_version=0, max_rows=1, **options)
    assert sorted(tables.output.parent.iterdir()) == [tables.output]
    assert tables.scored() == [{"id": 0, "x": 0.0, "score": 0.0}, {"id": 1, "x": 1.25, "score": 2.5}]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("which", ["source", "output", "rejects"])
def test_a_name_that_delta_rs_takes_for_another_is_refused(tables: Any, model: Model, which: str, name: str) -> None:
    tables.add(3)
    real, odd = tables.source, tables.folder / name
    setattr(tables, which, odd)
    if which == "source":
        shutil.copytree(real, odd)
    with pytest.raises(UsageError, match="cannot be the place of a Delta table") as caught:
        tables.run(model, on_error=tables.rejects)
    assert caught.value.code == "table-location"
    assert which == "source" or not odd.exists()
    assert which == "output" or not tables.output.exists()


def test_directories_above_the_table_count_however_they_are_named(
    tables: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = tables.folder / "a%20b"
    above.mkdir()
    (tables.folder / "link").symlink_to(above)
    monkeypatch.chdir(above)
    for table in Path("out"), tables.folder / "link" / "out":
        with pytest.raises(UsageError, match="%20"):
            location(table)


def test_batch_refuses_such_tables_too(tables: Any, model: Model) -> None:
    tables.add(3)
    odd = tables.folder / "a%20b"
    options = batch.Options(output_format="delta")
    with pytest.raises(ModelpackError) as caught:
        batch.predict_files(model, [tables.source], odd, options)
    assert (caught.value.code, odd.exists()) == ("table-location", False)
    shutil.copytree(tables.source, odd)
    shutil.copytree(tables.source, tables.folder / "a b")
    with pytest.raises(ModelpackError) as caught:
        batch.predict_files(model, [odd], tables.folder / "out.csv", batch.Options())
    assert caught.value.code == "table-location"


@pytest.mark.parametrize("name", ["a%20b", "a#b", "a?b"])
def test_urls_that_delta_rs_takes_for_others_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        location(f"s3://bucket/{name}/table")
    assert caught.value.code == "table-location"
    assert location("s3://bucket/100% ü/table") == "s3://bucket/100% ü/table"
