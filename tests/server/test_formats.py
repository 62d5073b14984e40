"""The same rows give the same answers through every format in and every format out."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack import coerce, render
from modelpack.dtypes import DecimalType, DictionaryType, DurationType, Element, ListType, TimestampType
from modelpack.errors import OutputError
from modelpack.frame import Frame
from modelpack.signature import Column, Json, Param, Signature, Table, Tensor, Tensors
from modelpack_server.codecs import ENCODERS, decoder, encoder, possible
from modelpack_server.problems import HttpProblem

Serve = Callable[..., Any]

JSON, CSV, LINES = "application/json", "text/csv", "application/x-ndjson"
ARROW, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"
PARQUET, NPY, NPZ = "application/vnd.apache.parquet", "application/x-npy", "application/x-npz"

MIXED = Table(
    columns=(
        Column(name="whole", type="int64"),
        Column(name="gaps", type="int16", nullable=True),
        Column(name="real", type="float32", nullable=True),
        Column(name="flag", type="bool", nullable=True),
        Column(name="text", type="utf8"),
        Column(name="maybe", type="utf8", nullable=True),
        Column(name="blob", type="binary"),
        Column(name="day", type="date32", nullable=True),
        Column(name="there", type=TimestampType(unit="us", tz="Europe/Berlin")),
        Column(name="naive", type=TimestampType(unit="ns"), nullable=True),
        Column(name="long", type=DurationType(unit="ms")),
        Column(name="money", type=DecimalType(precision=20, scale=2), nullable=True),
        Column(name="kind", type=DictionaryType(categories=("a", "b")), nullable=True),
        Column(name="list", type=ListType(items=Element(type="float64", nullable=True))),
    )
)
ROWS: list[dict[str, Any]] = [
    {
        "whole": 2**60 + 1,
        "gaps": -7,
        "real": 0.1,
        "flag": True,
        "text": 'say "hi",\nyou',
        "maybe": "",
        "blob": b"\x00\xff\x00",
        "day": dt.date(2020, 2, 29),
        "there": dt.datetime(2020, 1, 1, 12, 30, 0, 123456, tzinfo=dt.UTC),
        "naive": np.datetime64("2020-01-01T00:00:00.123456789", "ns"),
        "long": dt.timedelta(days=1, milliseconds=5),
        "money": Decimal("-12345678901234567.89"),
        "kind": "b",
        "list": [1.5, None],
    },
    {
        "whole": -1,
        "gaps": None,
        "real": None,
        "flag": None,
        "text": "é 漢",
        "maybe": None,
        "blob": b"",
        "day": None,
        "there": dt.datetime(1969, 12, 31, tzinfo=dt.UTC),
        "naive": None,
        "long": dt.timedelta(0),
        "money": None,
        "kind": None,
        "list": [],
    },
]
NUMBERS = Table(columns=tuple(Column(name=name, type="float64", nullable=True) for name in ("a", "b", "c")))
CUBE = Tensors(tensors=(Tensor(name="cube", dtype="float32", shape=(None, 2, 3)),))
MATRIX = Tensors(tensors=(Tensor(name="x", dtype="float64", shape=(None, 3), nullable=True),))
PAIR = Tensors(
    tensors=(
        Tensor(name="ids", dtype="int32", shape=("n",)),
        Tensor(name="mask", dtype="bool", shape=("n", 2)),
    )
)


def echo(inputs: Any) -> Signature:
    return Signature(inputs=inputs, outputs=inputs)


def stream(table: pa.Table, *, file: bool = False, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    make = pa.ipc.new_file if file else pa.ipc.new_stream
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def written(frame: Frame, media: str) -> bytes:
    """Return a request body that says the frame."""
    if media == JSON:
        # Replies hold records, or nested lists, which are two of the forms of requests.
        predictions = json.loads(encoder(JSON)(frame))["predictions"]
        return json.dumps({"inputs" if frame.columns is None else "dataframe_records": predictions}).encode()
    if media == FILE:
        return stream(render.to_arrow(frame), file=True, compression="lz4")
    if media == ARROW:
        return stream(render.to_arrow(frame))
    if media == CSV and frame.columns is None:
        # The rows of a matrix have no header.
        return encoder(CSV)(frame).partition(b"\n")[2]
    return encoder(media)(frame)


def read(body: bytes, media: str, io_: Any) -> Frame:
    """Return what a reply says, taken as inputs of the same signature."""
    signature = Signature(inputs=io_)
    if media == JSON:
        data = json.loads(body)["predictions"]
        return coerce.inputs(data, signature, wire="json")
    if media == CSV and isinstance(io_, Tensors):
        body = body.partition(b"\n")[2]
    decoded = decoder(media)(body, signature)
    return coerce.inputs(decoded.data, signature, wire=decoded.wire)


def same(one: Frame, other: Frame) -> None:
    assert one.rows == other.rows
    if one.columns is None:
        assert list(one.tensors or {}) == list(other.tensors or {})
        for name, array in (one.tensors or {}).items():
            found = (other.tensors or {})[name]
            assert (array.dtype, array.shape) == (found.dtype, found.shape)
            np.testing.assert_array_equal(array, found)
        return
    assert list(one.columns) == list(other.columns or {})
    for name, vector in one.columns.items():
        twin = (other.columns or {})[name]
        assert (vector.type, vector.data.dtype) == (twin.type, twin.data.dtype)
        gaps = np.zeros(one.rows, bool) if vector.missing is None else vector.missing
        twin_gaps = np.zeros(one.rows, bool) if twin.missing is None else twin.missing
        np.testing.assert_array_equal(gaps, twin_gaps, err_msg=name)
        assert vector.data[~gaps].tolist() == twin.data[~gaps].tolist(), name


CASES = {
    "mixed": (MIXED, ROWS[:1] + ROWS, {JSON, ARROW, FILE, PARQUET, LINES}),
    "numbers": (NUMBERS, {"a": [1.5, None], "b": [-0.0, 2.0], "c": [1e300, 5e-324]}, {*ENCODERS, FILE}),
    "cube": (CUBE, np.arange(12, dtype="f4").reshape(2, 2, 3) / 3, {*ENCODERS, FILE} - {CSV, LINES}),
    "matrix": (MATRIX, np.array([[1.5, 2, 3], [4, np.nan, 6]]), {*ENCODERS, FILE} - {CSV, LINES}),
    "pair": (PAIR, {"ids": [1, -2], "mask": [[True, False], [False, False]]}, {JSON, ARROW, FILE, NPZ}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_format_in_and_out_says_the_same(serve: Serve, model: Any, case: str) -> None:
    io_, data, sendable = CASES[case]
    signature = echo(io_)
    expected = coerce.inputs(data, signature)
    client = serve(model(signature, lambda frame, params: frame_of(frame), form="frame"))
    for sent in sorted(sendable):
        for wanted in possible(signature):
            if wanted == CSV and case != "numbers":
                continue  # Columns of lists and of bytes are text in CSV, which is another test.
            if wanted == LINES and isinstance(io_, Tensors):
                continue  # Rows go out as objects, each number of a row a member: see below.
            reply = client.send(written(expected, sent), sent, headers={"Accept": wanted})
            assert (reply.status_code, reply.headers["content-type"]) == (200, wanted), (sent, wanted, reply.content)
            if wanted in (ARROW, PARQUET) and case in ("matrix", "pair"):
                continue  # A matrix goes out as one column for each of its own: see below.
            same(read(reply.content, wanted, io_), expected)


def frame_of(frame: Frame) -> Any:
    """Return a frame as an answer of a model."""
    return frame if frame.columns is not None else dict(frame.tensors or {})


def test_arrow_has_the_exact_types_of_the_signature() -> None:
    frame = coerce.inputs(ROWS, echo(MIXED))
    table = pa.ipc.open_stream(encoder(ARROW)(frame)).read_all()
    assert table.schema.equals(render.to_arrow(frame).schema)
    assert table.schema.field("there").type == pa.timestamp("us", "Europe/Berlin")
    assert table.schema.field("money").type == pa.decimal128(20, 2)
    assert parquet.read_table(io.BytesIO(encoder(PARQUET)(frame))).equals(table)


def test_csv_has_the_cells_of_json() -> None:
    body = encoder(CSV)(coerce.inputs(ROWS, echo(MIXED))).decode()
    head, *_ = body.splitlines()
    assert head == ",".join(column.name for column in MIXED.columns)
    assert '"say ""hi"",\nyou","",AP8A,2020-02-29,2020-01-01T12:30:00.123456Z' in body
    assert "PT86400.005S" in body
    assert '"[1.5,null]"' in body


def test_tensors_are_columns_as_in_files_of_batches() -> None:
    def names(outputs: Tensors, data: Any) -> list[str]:
        frame = coerce.inputs(data, Signature(inputs=outputs))
        return list(pa.ipc.open_stream(encoder(ARROW)(frame)).schema.names)

    assert names(Tensors(tensors=(Tensor(name="y", dtype="int64", shape=("n",)),)), [1, 2]) == ["prediction"]
    assert names(MATRIX, np.ones((2, 3))) == ["prediction_0", "prediction_1", "prediction_2"]
    assert names(PAIR, CASES["pair"][1]) == ["ids", "mask_0", "mask_1"]
    ones = coerce.inputs(np.ones((1, 3)), Signature(inputs=MATRIX))
    assert encoder(CSV)(ones).splitlines()[0] == b"prediction_0,prediction_1,prediction_2"
    assert encoder(LINES)(ones) == b'{"prediction_0":1.0,"prediction_1":1.0,"prediction_2":1.0}\n'


def test_nan_is_missing_in_tables_and_nan_in_arrays() -> None:
    frame = coerce.inputs(np.array([[1, np.nan, 3]]), Signature(inputs=MATRIX))
    table = pa.ipc.open_stream(encoder(ARROW)(frame)).read_all()
    assert table["prediction_1"].to_pylist() == [None]
    assert np.isnan(np.load(io.BytesIO(encoder(NPY)(frame)))[0, 1])


@pytest.mark.parametrize(
    ("outputs", "media"),
    [
        (None, tuple(ENCODERS)),
        (Json(), (JSON,)),
        (MIXED, (JSON, ARROW, PARQUET, CSV, LINES)),
        (NUMBERS, tuple(ENCODERS)),
        (
            Table(columns=(Column(name="a", type="utf8"), Column(name="b", type="int8"))),
            (JSON, ARROW, PARQUET, NPZ, CSV, LINES),
        ),
        (MATRIX, tuple(ENCODERS)),
        (PAIR, (JSON, ARROW, PARQUET, NPZ, CSV, LINES)),
        (Tensors(tensors=(Tensor(name="x", dtype="int8", shape=()),)), (JSON, NPY, NPZ)),
        (
            Tensors(tensors=(Tensor(name="x", dtype="int8", shape=(2,)), Tensor(name="y", dtype="int8", shape=(3,)))),
            (JSON, NPZ),
        ),
    ],
)
def test_the_signature_tells_what_is_possible(outputs: Any, media: tuple[str, ...]) -> None:
    assert possible(Signature(outputs=outputs)) == media
    changing = Param(name="how", type="utf8", default="x", changes_outputs=True)
    assert possible(Signature(outputs=outputs, params=(changing,))) == tuple(ENCODERS)


def test_what_cannot_be_said_is_406_and_told_before_the_model_is_asked(serve: Serve, typed: Any, row: Any) -> None:
    client = serve(typed)
    reply = client.score({"dataframe_records": [row]}, headers={"Accept": NPY})
    assert (reply.status_code, reply.json()["code"]) == (406, "not-acceptable")
    assert reply.json()["hint"] == f"Accept {JSON}, {ARROW}, {PARQUET}, {CSV}, {LINES}."
    assert typed.calls == 0


@pytest.mark.parametrize(
    ("answer", "media", "others"),
    [
        ({"free": ["json"], "form": {"x": 1}}, ARROW, f"{JSON}."),
        ({"a": np.zeros(2), "b": np.zeros(3)}, CSV, f"{JSON}, {NPZ}."),
        ({"a": np.zeros(2), "b": np.zeros(3)}, NPY, f"{JSON}, {NPZ}."),
        (np.array(["ends with\0"], object), NPY, f"{JSON}, {ARROW}, {PARQUET}, {NPZ}, {CSV}, {LINES}."),
        (np.array(["x" * 100_000] + ["y"] * 1000, object), NPY, f"{JSON}, {ARROW}, {PARQUET}, {NPZ}, {CSV}, {LINES}."),
    ],
)
def test_what_only_the_answer_shows_is_406_too(serve: Serve, model: Any, answer: Any, media: str, others: str) -> None:
    rows = Tensors(tensors=(Tensor(name="x", dtype="int64", shape=(None,)),))
    client = serve(model(Signature(inputs=rows), lambda data, params: answer, form="numpy"))
    sent = {"inputs": [0] * (len(answer) if isinstance(answer, np.ndarray) else 1)}
    if isinstance(answer, dict):
        with pytest.raises((HttpProblem, OutputError)):
            encoder(media)(coerce.outputs(answer, None))
        return
    reply = client.score(sent, headers={"Accept": media})
    assert (reply.status_code, reply.json()["code"]) == (406, "not-acceptable")
    assert reply.json()["hint"] == f"This answer can be sent as {others}"


def test_columns_without_gaps_are_arrays_of_numpy() -> None:
    table = Table(
        columns=(
            Column(name="t", type="utf8", nullable=True),
            Column(name="day", type="date32", nullable=True),
            Column(name="when", type=TimestampType(unit="ms"), nullable=True),
            Column(name="long", type=DurationType(unit="s")),
            Column(name="kind", type=DictionaryType(categories=("a", "b"))),
            Column(name="gaps", type="int8", nullable=True),
        )
    )
    whole = {"t": ["x"], "day": [None], "when": [None], "long": [dt.timedelta(seconds=1)], "kind": ["b"], "gaps": [1]}
    found = np.load(io.BytesIO(encoder(NPZ)(coerce.inputs(whole, Signature(inputs=table)))))
    assert {name: array.dtype.str for name, array in found.items()} == {
        "t": "<U1",
        "day": "<M8[D]",
        "when": "<M8[ms]",
        "long": "<m8[s]",
        "kind": "<U1",
        "gaps": "|i1",
    }
    assert np.isnat(found["day"]).all()
    for gap in ("t", "gaps"):
        with pytest.raises(HttpProblem, match="numpy has no dtype"):
            encoder(NPZ)(coerce.inputs({**whole, gap: [None]}, Signature(inputs=table)))
    with pytest.raises(HttpProblem, match="is no table"):
        encoder(CSV)(coerce.outputs({"free": "form"}, Json()))


def test_labels_are_texts_of_numpy() -> None:
    frame = coerce.outputs(np.array(["setosa", "é"], object), None)
    assert np.load(io.BytesIO(encoder(NPY)(frame))).tolist() == ["setosa", "é"]
    frame = coerce.outputs(np.array([b"ab"], object), None)
    assert np.load(io.BytesIO(encoder(NPY)(frame))).tolist() == [b"ab"]


def test_params_of_binary_bodies_are_in_the_query(serve: Serve, ages: Any) -> None:
    body = stream(pa.table({"age": [1.0, None]}))
    reply = serve(ages).send(body, ARROW, headers={"Accept": ARROW}, params={"params": '{"factor": 3}'})
    assert pa.ipc.open_stream(reply.content).read_all().to_pydict() == {"double": [6.0, None]}


def test_no_rows_have_columns(serve: Serve, ages: Any) -> None:
    client = serve(ages)
    body = stream(pa.table({"age": pa.array([], pa.float64())}))
    assert pa.ipc.open_stream(client.send(body, ARROW, headers={"Accept": ARROW}).content).read_all().schema == (
        pa.schema([("double", pa.float64())])
    )
    assert client.send(body, ARROW, headers={"Accept": CSV}).content == b"double\n"
    assert np.load(io.BytesIO(client.send(body, ARROW, headers={"Accept": NPY}).content)).shape == (0, 1)
    assert ages.calls == 0


def test_faults_are_told_as_in_json(serve: Serve, typed: Any, row: Any) -> None:
    client = serve(typed)
    wrong = client.score({"inputs": {name: [value] for name, value in {**row, "int32": 2**40}.items()}}).json()
    good = coerce.inputs([row], Signature(inputs=typed.signature.inputs), wire="json")
    table = render.to_arrow(good).drop_columns(["int32"]).append_column("int32", pa.array([2**40]))
    for media, body in ((ARROW, stream(table)), (FILE, stream(table, file=True))):
        told = client.send(body, media).json()
        assert {**told, "path": "inputs." + told["path"], "detail": ""} == {**wrong, "detail": ""}


FLOATS = st.floats(width=32, allow_nan=False) | st.none()
COLUMNS = st.integers(0, 6).flatmap(
    lambda rows: st.fixed_dictionaries(
        {
            "f": st.lists(FLOATS, min_size=rows, max_size=rows),
            "i": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=rows, max_size=rows),
            "s": st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=rows, max_size=rows),
            "t": st.lists(
                st.none() | st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)), min_size=rows, max_size=rows
            ),
            "b": st.lists(st.none() | st.binary(), min_size=rows, max_size=rows),
        }
    )
)
ANY = Table(
    columns=(
        Column(name="f", type="float32", nullable=True),
        Column(name="i", type="int64", nullable=True),
        Column(name="s", type="utf8", nullable=True),
        Column(name="t", type=TimestampType(unit="us"), nullable=True),
        Column(name="b", type="binary", nullable=True),
    )
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(COLUMNS, st.sampled_from([None, "lz4", "zstd"]), st.booleans())
def test_tables_come_back_as_they_were(columns: dict[str, Any], compression: str | None, file: bool) -> None:
    signature = Signature(inputs=ANY)
    frame = coerce.inputs(columns, signature)
    for media in (ARROW, PARQUET):
        same(read(encoder(media)(frame), media, ANY), frame)
    sent = stream(render.to_arrow(frame), file=file, compression=compression)
    same(read(sent, FILE if file else ARROW, ANY), frame)


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(["float16", "float32", "float64", "int8", "uint64", "bool"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_tensors_come_back_as_they_were(dtype: Any, shape: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    inputs = Tensors(tensors=(Tensor(name="x", dtype=dtype, shape=(None,) * len(shape)),))
    frame = coerce.inputs(values, Signature(inputs=inputs))
    for media in (NPY, NPZ):
        same(read(encoder(media)(frame), media, inputs), frame)
    if len(shape) != 2 and values.size:
        same(read(stream(render.to_arrow(frame)), ARROW, inputs), frame)
