"""A large Parquet file is made in pieces of whole row groups, and nobody can tell it from one made at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, WriterProperties, write_deltalake

from modelpack.errors import InputError, ModelError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, pieces, predict_files
from modelpack_server.batch.plan import make

GROUPS, ROWS = 6, 10


def rows(x: Any = None) -> pa.Table:
    count = GROUPS * ROWS
    names = [f"row {number}" for number in range(count)]
    numbers = list(range(count))
    return pa.table({"x": numbers if x is None else x, "n": numbers, "name": names})


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of six row groups, of which two make a piece."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(rows(), "large.parquet", row_group_size=ROWS)
    smaller(monkeypatch, Path("large.parquet"))
    return Path("large.parquet")


def smaller(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make two of a file's row groups large enough for a piece."""
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(GROUPS)]
    sizes = [sum(group.column(place).total_compressed_size for place in range(3)) for group in groups]
    monkeypatch.setattr(pieces, "PIECE_BYTES", int(1.3 * max(sizes)))


def found(folder: str) -> list[dict[str, Any]]:
    return list(ds.dataset(sorted(Path(folder).glob("*.parquet"))).to_table().to_pylist())


def test_a_folder_gets_a_file_for_each_piece(large: Path, model: Model) -> None:
    done = predict_files(model, [large], "out/")
    assert done.outputs == [f"out/large-0000{number}.parquet" for number in range(3)]
    assert (done.rows, done.files) == (60, 1)
    assert [pq.read_metadata(path).num_rows for path in done.outputs] == [20, 20, 20]
    predict_files(model, [large], "one.parquet")
    assert found("out") == pq.read_table("one.parquet").to_pylist()


def test_the_manifest_says_what_of_the_file_a_piece_is(large: Path, model: Model) -> None:
    predict_files(model, [large], "out/")
    manifest = json.loads(Path("out/_manifest.json").read_bytes())
    assert [entry["row_groups"] for entry in manifest["inputs"]] == [[0, 1], [2, 3], [4, 5]]
    assert {entry["size"] for entry in manifest["inputs"]} == {large.stat().st_size}
    assert manifest["files"][1]["inputs"] == [f"{large.absolute()} (row groups 2 to 3)"]


def test_a_file_of_less_than_two_pieces_is_one(large: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", large.stat().st_size // 2 + 1)
    assert predict_files(model, [large], "out/").outputs == ["out/large.parquet"]


def test_what_is_left_of_a_file_is_a_piece_too(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", int(pieces.PIECE_BYTES * 2.3))
    plan = make([large], "out/", Options())
    assert [source.piece.groups() for source in plan.sources if source.piece] == [[0, 1, 2, 3], [4, 5]]
    assert sum(source.piece.rows for source in plan.sources if source.piece) == 60


@pytest.mark.parametrize("where", ["n >= 35 and n < 52", "n in (3, 4)", "name = 'row 59'"])
def test_rows_are_chosen_as_without_pieces(where: str, large: Path, model: Model) -> None:
    predict_files(model, [large], "out/", Options(where=where))
    predict_files(model, [large], "one.parquet", Options(where=where))
    assert found("out") == pq.read_table("one.parquet").to_pylist() != []


def test_rows_have_the_numbers_that_they_have_in_the_file(large: Path, model: Model) -> None:
    texts = ["x" if number in (7, 33, 59) else str(number) for number in range(GROUPS * ROWS)]
    pq.write_table(rows(texts), large, row_group_size=ROWS)
    predict_files(model, [large], "out/", Options(on_error=Path("bad.jsonl")))
    bad = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [(line["file"], line["row"]) for line in bad if line["record"]["x"] == "x"] == [
        ("large.parquet", 8),
        ("large.parquet", 34),
        ("large.parquet", 60),
    ]


def test_a_run_goes_on_behind_the_pieces_that_are_made(large: Path, make_model: Callable[..., Model]) -> None:
    bad, seen = {47}, []

    def score(columns: Mapping[str, Any], _: Any) -> Any:
        seen.extend(int(n) for n in columns["n"])
        if bad & set(seen):
            raise MemoryError
        return {"score": [float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    model = make_model(function=score)
    with pytest.raises(ModelError, match=r"large\.parquet, rows 41 to 60"):
        predict_files(model, [large], "out/")
    bad.clear()
    seen.clear()
    done = predict_files(model, [large], "out/")
    assert (done.rows, done.resumed) == (60, 2)
    assert seen == list(range(40, 60))
    assert [row["n"] for row in found("out")] == list(range(60))


def test_a_file_that_has_become_another_ends_what_had_begun(large: Path, make_model: Callable[..., Model]) -> None:
    def fail(columns: Mapping[str, Any], _: Any) -> Any:
        if 30 in columns["n"]:
            raise MemoryError
        return {"score": [0.0] * len(columns["x"]), "label": [""] * len(columns["x"])}

    model = make_model(function=fail)
    with pytest.raises(ModelError):
        predict_files(model, [large], "out/")
    pq.write_table(rows(), large, row_group_size=2 * ROWS)
    with pytest.raises(UsageError, match=r"large\.parquet \(row groups 0 to 0\) is new") as caught:
        predict_files(model, [large], "out/")
    assert caught.value.code == "run-changed"


def test_a_table_gets_a_data_file_for_each_piece(large: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small inputs go together into one data file, and pieces are not small.
    monkeypatch.setattr("modelpack_server.batch.plan._PART_BYTES", 1)
    predict_files(model, [large], "scores", Options(output_format="delta"))
    table = DeltaTable("scores")
    assert len(table.file_uris()) == 3
    assert sorted(table.to_pyarrow_table()["n"].to_pylist()) == list(range(60))


def test_a_large_file_of_a_table_has_pieces_too(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch, add_vector: Callable[[Path, list[int]], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_deltalake("features", rows(), writer_properties=WriterProperties(max_row_group_size=ROWS))
    path = Path(DeltaTable("features").file_uris()[0])
    assert pq.read_metadata(path).num_row_groups == GROUPS
    smaller(monkeypatch, path)
    dead = [0, 19, 20, 45, 59]
    add_vector(Path("features"), dead)
    done = predict_files(model, ["features"], "out/", Options(where="n != 30"))
    assert [Path(path).name for path in done.outputs] == [f"features-00000-0000{n}.parquet" for n in range(3)]
    assert [row["n"] for row in found("out")] == [n for n in range(60) if n not in (*dead, 30)]


def test_a_large_file_that_is_none_says_so(large: Path, model: Model) -> None:
    large.write_bytes(large.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(InputError, match="cannot be read as parquet"):
        predict_files(model, [large], "out/")


def test_pieces_of_a_file_behind_a_url(large: Path, model: Model) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/pieces/large.parquet", large.read_bytes())
    done = predict_files(model, ["memory://pieces/large.parquet"], "memory://pieces/out/")
    assert done.outputs == [f"memory://pieces/out/large-0000{number}.parquet" for number in range(3)]
    tables = [pq.read_table(pa.BufferReader(files.cat(url.removeprefix("memory:/")))) for url in done.outputs]
    assert pa.concat_tables(tables)["n"].to_pylist() == list(range(60))
