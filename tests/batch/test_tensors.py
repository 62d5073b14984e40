"""Models of tensors score files too: columns by name, or all of them side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelpack.errors import InputError, OutputError
from modelpack.model import Model
from modelpack.signature import Signature, Tensor, Tensors
from modelpack_server.batch import Options, predict_files


@pytest.fixture
def matrix_model(make_model: Any) -> Model:
    """Add up rows of three numbers."""
    tensor = Tensor(name="input", dtype="float64", shape=(None, 3))
    model: Model = make_model(
        Signature(inputs=Tensors(tensors=(tensor,))), lambda data, params: data["input"].sum(axis=1)
    )
    return model


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow", "arrows"])
def test_columns_side_by_side_are_a_matrix(
    matrix_model: Model, write: Any, read: Any, tmp_path: Path, suffix: str
) -> None:
    table = pa.table({"a": [1.0, 10.0], "b": [2.0, 20.0], "c": [3.5, 30.0]})
    source = write(table, tmp_path / f"in.{suffix}")
    predict_files(matrix_model, [source], tmp_path / "o.jsonl", Options(keep=()))
    assert read(tmp_path / "o.jsonl") == [{"prediction": 6.5}, {"prediction": 60.0}]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_kept_columns_are_left_out_if_the_matrix_is_too_wide(
    matrix_model: Model, write: Any, read: Any, tmp_path: Path, suffix: str
) -> None:
    table = pa.table({"id": ["p", "q"], "a": [1, 10], "b": [2.0, 20.0], "c": [3.5, 30.0]})
    source = write(table, tmp_path / f"in.{suffix}")
    predict_files(matrix_model, [source], tmp_path / "o.jsonl", Options(keep=("id",)))
    assert read(tmp_path / "o.jsonl") == [{"id": "p", "prediction": 6.5}, {"id": "q", "prediction": 60.0}]
    with pytest.raises(InputError):
        predict_files(matrix_model, [source], tmp_path / "o2.jsonl")


def test_a_column_of_lists_named_like_the_tensor(matrix_model: Model, write: Any, read: Any, tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "input": pa.array([[1.0, 2.0, 3.5], [1.0, 1.0, 1.0]], pa.list_(pa.float64(), 3))})
    for suffix in ("parquet", "jsonl"):
        source = write(table, tmp_path / f"in.{suffix}")
        predict_files(matrix_model, [source], tmp_path / f"{suffix}.jsonl", Options(keep=("id",)))
        assert read(tmp_path / f"{suffix}.jsonl") == [{"id": 1, "prediction": 6.5}, {"id": 2, "prediction": 3.0}]


@pytest.mark.parametrize("kind", [pa.list_(pa.float64(), 3), pa.list_(pa.float64())])
def test_lists_of_arrow_go_to_the_model_without_python_objects(
    matrix_model: Model, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType
) -> None:
    from modelpack_server.batch import feed

    pq.write_table(pa.table({"input": pa.array([[1.0, 2.0, 3.5]] * 5, kind)}), tmp_path / "in.parquet")
    monkeypatch.setattr(feed, "_shaped", None)
    for number, aside in enumerate((None, tmp_path / "aside.jsonl")):
        options = Options(keep=(), on_error=aside)
        predict_files(matrix_model, [tmp_path / "in.parquet"], tmp_path / f"{number}.jsonl", options)
        assert read(tmp_path / f"{number}.jsonl") == [{"prediction": 6.5}] * 5


def test_a_list_that_does_not_fit_is_told_by_its_row(matrix_model: Model, tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2.0, 3.5], [1.0, None, 3.0]], pa.list_(pa.float64(), 3))
    pq.write_table(pa.table({"input": lists}), tmp_path / "in.parquet")
    with pytest.raises(InputError) as caught:
        predict_files(matrix_model, [tmp_path / "in.parquet"], tmp_path / "o.jsonl")
    assert [(fault.code, fault.row) for fault in caught.value.faults] == [("null-not-allowed", 2)]


def test_several_tensors_are_columns_by_name(make_model: Any, write: Any, read: Any, tmp_path: Path) -> None:
    tensors = (Tensor(name="ids", dtype="int64", shape=("n",)), Tensor(name="vec", dtype="float32", shape=("n", 2)))
    model = make_model(Signature(inputs=Tensors(tensors=tensors)), lambda d, p: d["vec"].sum(axis=1) + d["ids"])
    table = pa.table({"ids": [1, 2], "vec": [[0.5, 0.5], [1.0, 2.0]]})
    for suffix in ("parquet", "jsonl"):
        source = write(table, tmp_path / f"in.{suffix}")
        predict_files(model, [source], tmp_path / f"{suffix}.jsonl", Options(keep=()))
        assert [row["prediction"] for row in read(tmp_path / f"{suffix}.jsonl")] == [2.0, 5.0]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_bad_rows_of_tensors_are_written_aside(matrix_model: Model, read: Any, tmp_path: Path, suffix: str) -> None:
    if suffix == "csv":
        (tmp_path / "in.csv").write_text("a,b,c\n1,2,3\n1,oops,3\n4,5,6\n")
    elif suffix == "jsonl":
        (tmp_path / "in.jsonl").write_text('{"input":[1,2,3]}\n{"input":[1,"oops",3]}\n{"input":[4,5,6]}\n')
    else:
        columns = {"a": [1.0, 1.0, 4.0], "b": pa.array([2.0, None, 5.0]), "c": [3.0, 3.0, 6.0]}
        pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    options = Options(keep=(), on_error=tmp_path / "bad.jsonl")
    summary = predict_files(matrix_model, [tmp_path / f"in.{suffix}"], tmp_path / "o.jsonl", options)
    assert (summary.rows, summary.rejected) == (2, 1)
    assert read(tmp_path / "o.jsonl") == [{"prediction": 6.0}, {"prediction": 15.0}]
    assert read(tmp_path / "bad.jsonl")[0]["row"] == 2


def test_a_file_of_nothing_but_bad_rows(matrix_model: Model, read: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"input":["a",2,3]}\n{"other":1}\n')
    options = Options(keep=(), on_error=tmp_path / "bad.jsonl")
    summary = predict_files(matrix_model, [tmp_path / "in.jsonl"], tmp_path / "o.jsonl", options)
    assert (summary.rows, summary.rejected) == (0, 2)
    with pytest.raises(InputError, match=r"row 2 \(line 2\), column 'input'"):
        predict_files(matrix_model, [tmp_path / "in.jsonl"], tmp_path / "o2.jsonl")


def test_without_a_signature_the_model_sees_the_columns(make_model: Any, read: Any, tmp_path: Path) -> None:
    model = make_model(Signature(), lambda data, params: np.asarray(data["x"]) * 2)
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "in.parquet")
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "o.jsonl")
    assert read(tmp_path / "o.jsonl") == [{"x": 1.0, "prediction": 2.0}, {"x": 2.0, "prediction": 4.0}]


TOKENS = [[1, 2, 3], [4], [5, 6, 7], [], [8, 9], [1]]
LONG = [{"tokens": tokens, "id": number} for number, tokens in enumerate(TOKENS)]


def token_model(make_model: Any, shape: tuple[Any, ...] = (None, "length")) -> Model:
    """Add up a row's tokens, and note the sizes of what the model is given."""
    inputs = (Tensor(name="tokens", dtype="int64", shape=shape),)
    outputs = (Tensor(name="sum", dtype="int64", shape=(None,)),)
    signature = Signature(inputs=Tensors(tensors=inputs), outputs=Tensors(tensors=outputs))
    model: Model = make_model(
        signature, lambda data, params: data["tokens"].reshape(len(data["tokens"]), -1).sum(axis=1)
    )
    return model


def lists(tokens: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"tokens": pa.array(tokens, kind or pa.list_(pa.int64())), "id": range(len(tokens))})


class TestSizesThatAreFree:
    """Where a shape leaves sizes free, what becomes of a row does not depend on the rows beside it."""

    @pytest.mark.parametrize("size", [1, 2, 100])
    @pytest.mark.parametrize("suffix", ["jsonl", "parquet", "arrow"])
    @pytest.mark.parametrize("shape", [(None, None), ("batch", "length")])
    def test_each_row_has_its_own(
        self, make_model: Any, read: Any, write: Any, tmp_path: Path, shape: Any, suffix: str, size: int
    ) -> None:
        source, out = tmp_path / f"in.{suffix}", tmp_path / "out.jsonl"
        if suffix == "jsonl":
            source.write_text("".join(json.dumps(row) + "\n" for row in LONG))
        else:
            write(lists(TOKENS), source)
        predict_files(token_model(make_model, shape), [source], out, Options(batch_size=size, keep=("id",)))
        assert read(out) == [{"id": number, "prediction": sum(row)} for number, row in enumerate(TOKENS)]

    @pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
    def test_a_row_that_is_ragged_in_itself_is_told_by_its_number(
        self, make_model: Any, read: Any, tmp_path: Path, suffix: str
    ) -> None:
        rows = [[[1], [2]], [[3, 4]], [[5], [6, 7]], [[8, 9]]]
        source, out, aside = tmp_path / f"in.{suffix}", tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
        if suffix == "jsonl":
            source.write_text("".join(json.dumps({"tokens": row}) + "\n" for row in rows))
        else:
            pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.list_(pa.int64())))}), source)
        model = token_model(make_model, (None, None, None))
        with pytest.raises(InputError) as caught:
            predict_files(model, [source], out, Options(keep=()))
        assert [(fault.code, fault.row) for fault in caught.value.faults] == [("ragged", 3)]
        done = predict_files(model, [source], out, Options(keep=(), on_error=aside))
        assert [row["prediction"] for row in read(out)] == [3, 7, 17]
        assert (done.rejected, json.loads(aside.read_text())["row"]) == (1, 3)

    def test_answers_of_other_shapes_cannot_be_one_output(self, make_model: Any, tmp_path: Path) -> None:
        inputs = (Tensor(name="tokens", dtype="int64", shape=(None, None)),)
        model = make_model(Signature(inputs=Tensors(tensors=inputs)), lambda data, params: data["tokens"])
        pq.write_table(lists(TOKENS), tmp_path / "in.parquet")
        with pytest.raises(OutputError, match="of another shape") as caught:
            predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out.jsonl", Options(keep=()))
        assert caught.value.code == "output-changed"
