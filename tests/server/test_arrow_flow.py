"""Record batches that are answered as they come: an Arrow stream in, an Arrow stream out, both at once."""

from __future__ import annotations

import http.client
import json
import select
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table
from modelpack_server.codecs.arrow_messages import BATCH, END, Splitter, at, field
from modelpack_server.endpoints.wires import Batches
from modelpack_server.problems import HttpProblem

ARROW = "application/vnd.apache.arrow.stream"
BOTH = {"Content-Type": ARROW, "Accept": ARROW}
SCHEMA = pa.schema([("age", pa.float64())])


class Pipe:
    """What an Arrow writer writes, taken out piece by piece."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: Any) -> int:
        self.written += bytes(data)
        return len(data)

    def take(self) -> bytes:
        data, self.written = self.written, b""
        return data

    closed = False

    def flush(self) -> None:
        pass


class Talk:
    """A request that is being sent, and its answer as Arrow reads it from the socket."""

    def __init__(
        self, address: tuple[str, int], schema: pa.Schema = SCHEMA, target: str = "/invocations", **options: Any
    ) -> None:
        self.link = http.client.HTTPConnection(*address, timeout=30)
        self.link.putrequest("POST", target)
        for name, value in {**BOTH, "Transfer-Encoding": "chunked"}.items():
            self.link.putheader(name, value)
        self.link.endheaders()
        self.pipe = Pipe()
        self.writer = pa.ipc.new_stream(self.pipe, schema, options=pa.ipc.IpcWriteOptions(**options))
        self._reply: Any = None
        self._reader: Any = None

    def say(self, *ages: float | None, batch: Any = None) -> None:
        """Send a batch."""
        self.writer.write_batch(pa.record_batch([pa.array(ages, pa.float64())], SCHEMA) if batch is None else batch)
        self.send(self.pipe.take())

    def send(self, data: bytes) -> None:
        self.link.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self, *, close: bool = True) -> None:
        if close:
            self.writer.close()
            self.send(self.pipe.take())
        self.link.send(b"0\r\n\r\n")

    @property
    def reply(self) -> http.client.HTTPResponse:
        self._reply = self._reply or self.link.getresponse()
        return self._reply  # type: ignore[no-any-return]

    @property
    def reader(self) -> Any:
        self._reader = self._reader or pa.ipc.open_stream(self.reply)
        return self._reader

    def hear(self) -> list[Any]:
        """Return the next batch of the answer."""
        return self.reader.read_next_batch().to_pydict()["double"]  # type: ignore[no-any-return]

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()


def stream(*batches: pa.RecordBatch) -> bytes:
    """Return an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def ages_of(*ages: float | None) -> pa.RecordBatch:
    return pa.record_batch([pa.array(ages, pa.float64())], SCHEMA)


def test_each_batch_is_answered_before_the_next_is_sent(run: Any, ages: Any) -> None:
    with Talk(run(ages).address) as talk:
        for batch in ([1.0], [2.5, None, 3.0], [4.0]):
            talk.say(*batch)
            assert talk.hear() == [None if age is None else 2 * age for age in batch]
        talk.end()
        with pytest.raises(StopIteration):
            talk.hear()
        assert talk.reply.read() == b""
    assert talk.reply.status == 200 and talk.reply.headers["Content-Type"] == ARROW


def test_the_answers_are_those_that_the_body_gets_at_once(run: Any, ages: Any) -> None:
    body = stream(*(ages_of(*range(n, 2 * n)) for n in range(1, 30)))
    server = run(ages)
    link = http.client.HTTPConnection(*server.address, timeout=30)
    link.request("POST", "/invocations", body, BOTH)  # its length is told
    once = link.getresponse()
    assert once.headers["Content-Length"]
    whole = pa.ipc.open_stream(once.read()).read_all()
    link.request("POST", "/invocations", iter([body[:77], body[77:1000], body[1000:]]), BOTH)
    parts = link.getresponse()
    assert parts.headers["Content-Length"] is None
    found = pa.ipc.open_stream(parts.read()).read_all()
    assert found == whole and found.num_rows == sum(range(1, 30))
    assert (whole.column(0).num_chunks, found.column(0).num_chunks) == (1, 29)
    link.close()


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
def test_pieces_may_be_cut_anywhere(run: Any, ages: Any, step: int) -> None:
    body = stream(ages_of(1.0), ages_of(2.0, 3.0))
    with Talk(run(ages).address) as talk:
        for start in range(0, len(body), step):
            talk.send(body[start : start + step])
        talk.end(close=False)
        assert (talk.hear(), talk.hear()) == ([2.0], [4.0, 6.0])


def test_a_batch_without_rows_is_answered_by_none(run: Any, ages: Any) -> None:
    with Talk(run(ages).address) as talk:
        talk.say(1.0)
        talk.say()
        talk.say(2.0)
        assert (talk.hear(), talk.hear()) == ([2.0], [4.0])


def test_params_are_in_the_query(run: Any, ages: Any) -> None:
    with Talk(run(ages).address, target='/invocations?params={"factor":10}') as talk:
        talk.say(1.0)
        assert talk.hear() == [20.0]


def test_a_stream_without_batches_has_an_answer_without_rows(run: Any, ages: Any) -> None:
    with Talk(run(ages).address) as talk:
        talk.end()
        assert talk.reader.read_all().num_rows == 0
        assert talk.reader.schema.names == ["double"]


@pytest.mark.parametrize("end", [b"", b"\0\0\0\0"], ids=["none", "as before Arrow 0.15"])
def test_the_end_may_be_left_out_or_short(run: Any, ages: Any, end: bytes) -> None:
    with Talk(run(ages).address) as talk:
        talk.send(stream(ages_of(1.0))[:-8] + end)
        talk.end(close=False)
        assert talk.reader.read_all().to_pydict() == {"double": [2.0]}


def test_dictionaries_are_kept_replaced_and_added_to(run: Any, model: Any) -> None:
    words = Signature(
        inputs=Table(columns=(Column(name="x", type="utf8"),)), outputs=Table(columns=(Column(name="y", type="utf8"),))
    )
    schema = pa.schema([("x", pa.dictionary(pa.int8(), pa.string()))])
    said = [(["a", "b"], [1, 0]), (["a", "b", "c"], [2, 2]), (["z"], [0]), (["z"], [0, 0])]
    server = run(model(words, lambda rows, params: [{"y": row["x"]} for row in rows]))
    for delta in (False, True):
        with Talk(server.address, schema, emit_dictionary_deltas=delta) as talk:
            for values, places in said:
                column = pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), values)
                talk.say(batch=pa.record_batch([column], schema))
                assert talk.reader.read_next_batch().to_pydict()["y"] == [values[place] for place in places]


def test_a_fault_in_the_first_batch_is_a_problem(run: Any, ages: Any) -> None:
    with Talk(run(ages).address, pa.schema([("age", pa.string())])) as talk:
        talk.say(batch=pa.record_batch([pa.array(["x"])], ["age"]))
        talk.end()
        problem = json.loads(talk.reply.read())
    assert (talk.reply.status, problem["code"], problem["row"]) == (400, "type-mismatch", 0)


@pytest.fixture
def whole(model: Any) -> Any:
    """A model of whole numbers, which takes floats that are whole."""
    columns = Table(columns=(Column(name="age", type="int32"),))
    answers = Table(columns=(Column(name="double", type="int64"),))
    return model(Signature(inputs=columns, outputs=answers), lambda rows, p: [{"double": 2 * r["age"]} for r in rows])


def test_a_later_fault_is_noticed_by_every_reader_and_told(run: Any, whole: Any) -> None:
    with Talk(run(whole).address) as talk:
        talk.say(1.0, 2.0)
        assert talk.hear() == [2, 4]
        talk.say(3.0, 4.5)
        batch, metadata = talk.reader.read_next_batch_with_custom_metadata()
        problem = json.loads(metadata["modelpack.error"])
        assert batch.num_rows == 0
        assert (problem["code"], problem["row"], problem["path"]) == ("not-whole", 3, "age[3]")
        assert "4.5" not in json.dumps(problem)
        with pytest.raises(pa.ArrowInvalid):
            talk.reader.read_next_batch()
        assert talk.reply.read() == b""  # HTTP itself has ended as it should
    with Talk(run(whole).address) as talk:  # who reads all at once notices too
        talk.say(1.0)
        talk.say(1.5)
        with pytest.raises(pa.ArrowInvalid):
            talk.reader.read_all()


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (stream(ages_of(5.0))[-40:-8], "arrow-invalid"),
        (b"\xff\xff\xff\xff\x08\0\0\0\xff\xff\xff\x7f\xff\xff\xff\x7f", "arrow-invalid"),
        (stream(ages_of(5.0)), "arrow-invalid"),  # a second schema
        (b"\xff\xff\xff\xff\0\0\0\0x", "arrow-invalid"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "body-too-large"),
        (b"\xff\xff\xff\xff\x18", "arrow-invalid"),
    ],
    ids=["no message", "points outside", "schema", "behind the end", "huge", "cut"],
)
def test_what_is_no_arrow_ends_it(run: Any, ages: Any, tail: bytes, code: str) -> None:
    with Talk(run(ages).address) as talk:
        talk.say(1.0)
        assert talk.hear() == [2.0]
        talk.send(tail)
        talk.end(close=False)
        _, metadata = talk.reader.read_next_batch_with_custom_metadata()
        assert json.loads(metadata["modelpack.error"])["code"] == code


@pytest.mark.parametrize("body", [b"", b"hello, world, this is no arrow", stream(ages_of(5.0))[50:]])
def test_what_is_no_arrow_from_the_start_is_a_problem(run: Any, ages: Any, body: bytes) -> None:
    with Talk(run(ages).address) as talk:
        if body:
            talk.send(body)
        talk.end(close=False)
        problem = json.loads(talk.reply.read())
    assert talk.reply.status in (400, 413) and problem["code"] in ("arrow-invalid", "body-too-large")


def test_the_limit_is_that_of_a_batch(run: Any, ages: Any) -> None:
    with Talk(run(ages, max_body=2000).address) as talk:
        for _ in range(20):
            talk.say(*range(100))  # 800 bytes and what is around them
            assert talk.hear() == [2.0 * age for age in range(100)]
        talk.say(*range(1000))
        _, metadata = talk.reader.read_next_batch_with_custom_metadata()
        assert json.loads(metadata["modelpack.error"])["code"] == "body-too-large"


def test_dictionaries_count_as_part_of_each_batch() -> None:
    schema = pa.schema([("x", pa.dictionary(pa.int8(), pa.string()))])
    column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), ["x" * 1500])
    body = stream(pa.record_batch([column], schema))
    assert len(list(Batches(len(body) + 8).feed(body, last=True))) == 1
    largest = max(len(message.data) for message in Splitter(10_000).feed(body))
    with pytest.raises(HttpProblem, match="with its dictionaries"):
        list(Batches(largest + 10).feed(body, last=True))


def words(count: int, *, deltas: bool) -> list[Any]:
    """Return the messages of a stream in which each batch brings a word more."""
    schema = pa.schema([("x", pa.dictionary(pa.int16(), pa.string()))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)) as writer:
        for number in range(1, count + 1):
            known = [f"word {place}" for place in range(number)]
            column = pa.DictionaryArray.from_arrays(pa.array([number - 1], pa.int16()), known)
            writer.write_batch(pa.record_batch([column], schema))
    body = sink.getvalue().to_pybytes()
    return list(Splitter(len(body)).feed(body))


def test_dictionaries_that_are_added_to_without_end_are_refused_before_a_batch_comes() -> None:
    kept = b"".join(message.data for message in words(100, deltas=True) if message.kind != BATCH)
    with pytest.raises(HttpProblem, match="with its dictionaries"):
        list(Batches(len(kept) - 1).feed(kept, last=False))
    assert not list(Batches(len(kept)).feed(kept, last=False))


def test_dictionaries_that_are_replaced_do_not_add_up() -> None:
    messages = words(100, deltas=False)
    body = b"".join(message.data for message in messages)
    schema, *_, dictionary, batch = (len(message.data) for message in messages)
    most = schema + dictionary + batch + len(END)
    assert most < len(body) / 10
    found = list(Batches(most).feed(body, last=True))
    assert len(found) == 100
    for number, (part, _) in enumerate(found):
        assert pa.ipc.open_stream(part).read_all().to_pydict() == {"x": [f"word {number}"]}


def claiming(body: bytes, rows: int) -> bytes:
    """Return a stream whose batches say that they have so many rows."""
    said = []
    for message in Splitter(len(body)).feed(body):
        data = bytearray(message.data)
        if message.kind == BATCH:
            meta = memoryview(data)[8:]
            header = at(meta, field(meta, at(meta, 0), 2))
            struct.pack_into("<q", meta, field(meta, header, 0), rows)
        said.append(bytes(data))
    return b"".join(said)


def test_a_batch_of_fewer_than_no_rows_is_damaged() -> None:
    assert len(list(Batches(10_000).feed(claiming(stream(ages_of(1.0)), 1), last=True))) == 1
    with pytest.raises(InputError, match="not Arrow IPC"):
        list(Batches(10_000).feed(claiming(stream(ages_of(1.0)), -1), last=True))


def test_a_batch_that_claims_many_rows_keeps_nobody_out(run: Any, ages: Any, model: Any) -> None:
    go = threading.Event()

    def wait(rows: Any, params: Any) -> Any:
        if rows[0]["age"] == 0:
            assert go.wait(30)
        return [{"double": 2 * row["age"]} for row in rows]

    server = run(model(ages.signature, wait), threads=1, batching="off", timeout=3600.0)
    links = [http.client.HTTPConnection(*server.address, timeout=30) for _ in range(2)]

    def ask(link: http.client.HTTPConnection, age: int) -> None:
        body = json.dumps({"inputs": {"age": [age]}})
        link.request("POST", "/invocations", body, {"Content-Type": "application/json"})

    def waits(count: int) -> bool:
        return bool(server.app.state.invocations.running >= count)

    ask(links[1], 1)  # how long a call takes is known then
    assert links[1].getresponse().read()
    ask(links[0], 0)
    while not waits(1):
        time.sleep(0.005)
    with Talk(server.address) as talk:
        talk.send(claiming(stream(ages_of(1.0)), 2**40))
        while not waits(2):
            time.sleep(0.005)
        ask(links[1], 3)
        while not waits(3) and not select.select([links[1].sock], [], [], 0.005)[0]:
            continue
        go.set()
        assert [link.getresponse().status for link in links] == [200, 200]
        assert talk.reply.status == 400
    for link in links:
        link.close()


def test_several_small_messages_may_come_at_once() -> None:
    body = stream(*(ages_of(float(i)) for i in range(50)))
    assert len(body) > 5000
    assert len(list(Batches(1000).feed(body, last=True))) == 50


def test_damaged_streams_are_refused_or_read_never_more() -> None:
    body = stream(ages_of(1.0, 2.0), ages_of(3.0))
    rng = np.random.default_rng(3)
    for _ in range(3000):
        spoiled = bytearray(body)
        for place in rng.integers(0, len(body), rng.integers(1, 4)):
            spoiled[place] = rng.integers(0, 256)
        try:
            list(Batches(100_000).feed(bytes(spoiled), last=True))
        except (InputError, HttpProblem):
            continue


def test_a_model_that_answers_with_other_columns_than_before_ends_it(run: Any, model: Any) -> None:
    free = Signature(inputs=Table(columns=(Column(name="age", type="float64"),)), outputs=None)
    with Talk(
        run(model(free, lambda rows, p: {"double" if rows[0]["age"] else "zero": [1.0]}, form="records")).address
    ) as talk:
        talk.say(1.0)
        assert talk.hear() == [1.0]
        talk.say(0.0)
        _, metadata = talk.reader.read_next_batch_with_custom_metadata()
        assert json.loads(metadata["modelpack.error"])["code"] == "output-changed"


def test_a_stop_ends_it(run: Any, ages: Any) -> None:
    server = run(ages)
    with Talk(server.address) as talk:
        talk.say(1.0)
        assert talk.hear() == [2.0]
        server.app.state.server.draining = True
        _, metadata = talk.reader.read_next_batch_with_custom_metadata()
        assert json.loads(metadata["modelpack.error"])["code"] == "server-stopping"


def test_who_leaves_is_forgotten(run: Any, ages: Any) -> None:
    server = run(ages)
    with Talk(server.address) as talk:
        talk.say(1.0)
        assert talk.hear() == [2.0]
    while server.server.server_state.tasks or server.app.state.invocations.running:
        time.sleep(0.005)


def test_a_client_that_does_not_read_is_waited_for(run: Any, model: Any) -> None:
    words = Signature(
        inputs=Table(columns=(Column(name="x", type="utf8"),)), outputs=Table(columns=(Column(name="y", type="utf8"),))
    )
    scorer = model(words, lambda rows, params: [{"y": row["x"]} for row in rows])
    with Talk(run(scorer).address, pa.schema([("x", pa.string())])) as talk:
        talk.link.sock.settimeout(0.5)
        batch = pa.record_batch([pa.array(["x" * 50_000])], ["x"])
        with pytest.raises(TimeoutError):
            for _ in range(10_000):
                talk.say(batch=batch)
        assert scorer.calls < 5000


@pytest.mark.parametrize("accept", [None, "application/json", "*/*"])
def test_with_another_answer_the_body_is_read_to_its_end(run: Any, ages: Any, accept: str | None) -> None:
    def pieces() -> Iterator[bytes]:
        yield stream(ages_of(1.0), ages_of(2.0))

    link = http.client.HTTPConnection(*run(ages).address, timeout=30)
    headers = {"Content-Type": ARROW, **({} if accept is None else {"Accept": accept})}
    link.request("POST", "/invocations", pieces(), headers)
    reply = link.getresponse()
    assert json.loads(reply.read()) == {"predictions": [{"double": 2.0}, {"double": 4.0}]}
    link.close()
