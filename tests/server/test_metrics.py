"""``GET /metrics``: every line is read strictly, and says what was done."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from sklearn.linear_model import LinearRegression
from starlette.applications import Starlette
from starlette.routing import Mount

import modelpack
from modelpack import render
from modelpack.errors import InputError
from modelpack_server import problems
from modelpack_server.app import build
from modelpack_server.metrics import exposition, layout
from modelpack_server.metrics.ledger import SUPERVISOR, Ledger, Pages
from modelpack_server.metrics.meter import Meter

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 60.0
GOOD = {"dataframe_split": {"columns": ["age"], "data": [[1.5], [None]]}}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
TEXT = r'"(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:[a-z_]+={TEXT},?)+)\}})? (-?[0-9.e+-]+)")
LABEL = re.compile(rf"([a-z_]+)=({TEXT})(,|$)")
SUFFIXES = {"counter": {"_total"}, "gauge": {""}, "info": {"_info"}, "histogram": {"_bucket", "_count", "_sum"}}
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass
class Read:
    """A family as it was read."""

    kind: str
    words: str
    samples: dict[tuple[str, ...], float] = field(default_factory=dict)


def read(text: str, *, open_metrics: bool = False) -> dict[str, Read]:
    """Return the families of a page; whatever is not as the format says fails."""
    assert text.endswith("# EOF\n" if open_metrics else "\n")
    lines = text.split("\n")[: -2 if open_metrics else -1]
    families: dict[str, Read] = {}
    name = ""
    while lines:
        if lines[0].startswith("# HELP "):
            found = re.fullmatch(rf"# HELP ({NAME}) (\S.*)", lines.pop(0))
            kind = re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram|info)", lines.pop(0))
            assert found and kind and found[1] == kind[1] and found[1] not in families
            name = found[1]
            families[name] = Read(kind[2], found[2])
            continue
        sample = SAMPLE.fullmatch(lines[0])
        assert sample, lines[0]
        lines.pop(0)
        family = families[name]
        suffix = sample[1].removeprefix(name)
        assert suffix in (SUFFIXES[family.kind] if open_metrics or family.kind == "histogram" else {""}), sample[1]
        labels = [f"{key}={json.loads(value)}" for key, value, _ in LABEL.findall(sample[2] or "")]
        assert (suffix, *labels) not in family.samples
        family.samples[(suffix, *labels)] = float(sample[3])
    for name, family in families.items():
        assert family.kind != "counter" or name.endswith("_total") != open_metrics
        assert family.kind == "gauge" or min(family.samples.values(), default=0) >= 0
        if family.kind == "histogram":
            check(family)
    return families


def check(family: Read) -> None:
    """Hold a histogram to what one is."""
    buckets = {key[1].removeprefix("le="): value for key, value in family.samples.items() if key[0] == "_bucket"}
    bounds = [float(bound) for bound in buckets]
    assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf")
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets["+Inf"] == family.samples[("_count",)]
    assert (family.samples[("_sum",)] > 0) == (family.samples[("_count",)] > 0)


class Page:
    """What one look at ``/metrics`` showed."""

    def __init__(self, families: Mapping[str, Read]) -> None:
        self.families = families

    def __call__(self, name: str, *labels: str) -> float:
        """Return a number; one that was never counted is 0."""
        return self.families[f"modelpack_{name}"].samples.get(("", *labels), 0.0)

    def of(self, name: str, part: str) -> float:
        """Return the count or the sum of a histogram."""
        return self.families[f"modelpack_{name}"].samples[(f"_{part}",)]


Look = Callable[[Any], Page]


@pytest.fixture
def look() -> Look:
    """Return what reads the metrics of a client's server."""

    def look(client: Any) -> Page:
        reply = client.get("/metrics")
        assert (reply.status_code, reply.headers["content-type"]) == (200, exposition.TEXT)
        return Page(read(reply.text))

    return look


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Return what waits until something is so."""

    def until(so: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not so():
            assert time.monotonic() < end
            time.sleep(0.02)

    return until


class TestText:
    """The format itself."""

    FAMILIES = (
        exposition.counter("a", "Grows.", [({"x": 'q"\\\n'}, 3), ({"x": ""}, 0.5)]),
        exposition.gauge("b", "Up\nand \\ down.", -1),
        exposition.histogram("c_seconds", "Sizes.", (0.5, 2), (1, 0, 2), 9.25),
        exposition.info("d", "Says.", {"v": "1"}),
    )

    def test_prometheus(self) -> None:
        assert exposition.written(self.FAMILIES).decode() == (
            "# HELP a_total Grows.\n# TYPE a_total counter\n"
            'a_total{x="q\\"\\\\\\n"} 3\na_total{x=""} 0.5\n'
            "# HELP b Up\\nand \\\\ down.\n# TYPE b gauge\nb -1\n"
            "# HELP c_seconds Sizes.\n# TYPE c_seconds histogram\n"
            'c_seconds_bucket{le="0.5"} 1\nc_seconds_bucket{le="2.0"} 1\nc_seconds_bucket{le="+Inf"} 3\n'
            "c_seconds_count 3\nc_seconds_sum 9.25\n"
            '# HELP d_info Says.\n# TYPE d_info gauge\nd_info{v="1"} 1\n'
        )

    def test_open_metrics(self) -> None:
        text = exposition.written(self.FAMILIES, exposition.OPENMETRICS).decode()
        assert "# TYPE a counter\na_total" in text and '# TYPE d info\nd_info{v="1"} 1\n# EOF\n' in text

    @pytest.mark.parametrize(
        ("accept", "open_metrics"),
        [
            (None, False),
            ("*/*", False),
            ("text/html", False),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", False),
            ("application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ],
    )
    def test_who_asks_for_open_metrics_gets_it(
        self, serve: Any, ages: Any, accept: str | None, open_metrics: bool
    ) -> None:
        reply = serve(ages).get("/metrics", headers={"Accept": accept} if accept else {})
        assert reply.headers["content-type"] == (OPEN if open_metrics else exposition.TEXT)
        assert read(reply.text, open_metrics=open_metrics)


class TestDocuments:
    def test_the_table_in_the_docs_is_what_is_served(self, serve: Any, ages: Any, look: Look) -> None:
        page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
        table = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", page, re.MULTILINE)
        told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in table}
        client = serve(ages)
        client.score(GOOD)
        served = {
            name: (one.kind, {label.partition("=")[0] for key in one.samples for label in key[1:]} - {"le"})
            for name, one in look(client).families.items()
        }
        assert told == served

    def test_the_openapi_document_and_the_page_know_it(self, serve: Any, ages: Any) -> None:
        client = serve(ages)
        assert "/metrics" in client.get("/openapi.json").json()["paths"]
        assert 'href="metrics"' in client.get("/docs").text

    def test_it_can_be_turned_off(self, serve: Any, ages: Any) -> None:
        client = serve(ages, metrics=False)
        assert client.score(GOOD).status_code == 200
        assert client.get("/metrics").status_code == 404
        assert "/metrics" not in client.get("/openapi.json").json()["paths"]
        assert "metrics" not in client.get("/docs").text


class TestCounts:
    def test_requests_rows_and_calls(self, serve: Any, ages: Any, look: Look) -> None:
        client = serve(ages)
        bodies = [json.dumps(GOOD).encode()] * 3
        assert [client.score(body).status_code for body in bodies] == [200] * 3
        csv = b"age\n1\n2\n3\n"
        assert client.send(csv, "text/csv; charset=utf-8").status_code == 200
        assert client.score(b"{").status_code == 400
        assert client.send(b"", "Application/PDF").status_code == 415
        page = look(client)
        assert page("invocations_total", "media=application/json", "status=200") == 3
        assert page("invocations_total", "media=application/json", "status=400") == 1
        assert page("invocations_total", "media=text/csv", "status=200") == 1
        assert page("invocations_total", "media=other", "status=415") == 1
        assert page("http_requests_total", "path=/invocations", "status=200") == 4
        assert page("rows_total") == page.of("prediction_rows", "sum") == 9
        assert page.of("prediction_rows", "count") == page.of("prediction_duration_seconds", "count") == 4
        assert page.of("batch_requests", "sum") == page.of("batch_requests", "count") == 4
        assert page.of("invocation_duration_seconds", "count") == 6
        assert page("http_body_bytes_total") == sum(map(len, bodies)) + len(csv) + 1
        assert page("invocations_in_flight") == page("queue_requests") == page("queue_rows") == 0

    def test_other_paths_and_methods(self, serve: Any, ages: Any, look: Look) -> None:
        client = serve(ages)
        for path in ("/ping", "/ping", "/docs", "/invocations"):
            client.get(path)
        page = look(client)
        assert page("http_requests_total", "path=/ping", "status=200") == 2
        assert page("http_requests_total", "path=/docs", "status=200") == 1
        assert page("http_requests_total", "path=/invocations", "status=405") == 1
        assert page("http_requests_total", "path=/metrics", "status=200") == 0
        assert look(client)("http_requests_total", "path=/metrics", "status=200") == 1

    def test_nothing_that_is_sent_makes_a_name(self, serve: Any, ages: Any, look: Look) -> None:
        client = serve(ages)
        before = len(client.get("/metrics").text)
        for number in range(40):
            client.get(f"/m4rk3r-{number}")
            client.send(b"m4rk3r", f"application/m4rk3r-{number}", headers={"X-Request-Id": f"m4rk3r-{number}"})
            client.score({"inputs": {"age": [1.0], "m4rk3r": [1]}, "params": {f"m4rk3r{number}": 1}})
            client.request(f"M4RK3R{number}", "/ping")
        text = client.get("/metrics").text
        assert "m4rk3r" not in text.lower()
        assert len(text) < before + 1000
        assert look(client)("http_requests_total", "path=other", "status=404") == 40

    def test_a_model_that_fails(self, serve: Any, ages: Any, look: Look) -> None:
        def fail(rows: Any, params: Any) -> Any:
            raise {1.0: ValueError("m4rk3r"), 2.0: InputError("no", code="param-unsupported")}[params["factor"]]

        ages.function = fail
        client = serve(ages)
        assert client.score({**GOOD, "params": {"factor": 1.0}}).status_code == 500
        assert client.score({**GOOD, "params": {"factor": 2.0}}).status_code == 400
        page = look(client)
        assert page("prediction_failures_total") == 1
        assert page("rows_total") == 0
        assert page.of("prediction_duration_seconds", "count") == 2

    def test_a_body_that_is_too_large(self, serve: Any, ages: Any, look: Look) -> None:
        client = serve(ages, max_body=10)
        assert client.score(GOOD).status_code == 413
        assert look(client)("invocations_refused_total", "reason=body-too-large") == 1

    def test_pieces_and_lines(self, serve: Any, ages: Any, look: Look) -> None:
        client = serve(ages)
        body = b'{"age": 1}\n{"age": 2}\n'
        reply = client.send(body, "application/x-ndjson")
        assert len(reply.text.splitlines()) == 2
        page = look(client)
        assert page("invocations_total", "media=application/x-ndjson", "status=200") == 1
        assert (page("rows_total"), page("http_body_bytes_total")) == (2, len(body))
        assert page("invocations_in_flight") == 0

    def test_a_model_that_answers_piece_by_piece(self, serve: Any, ages: Any, look: Look) -> None:
        def pieces(frame: Any, params: Any) -> Iterator[Any]:
            yield {"word": "Once"}
            yield {"word": "upon"}
            if render.to(frame, "records")[0]["age"] < 0:
                raise ValueError("m4rk3r")

        ages.streams, ages.score_stream = True, pieces
        client = serve(ages)
        for age in (1.0, -1.0):
            reply = client.score({"inputs": {"age": [age]}}, headers={"Accept": "text/event-stream"})
            assert reply.text.count("upon") == 1
        page = look(client)
        assert page("invocations_total", "media=application/json", "status=200") == 2
        assert (page("rows_total"), page("prediction_failures_total")) == (1, 1)
        assert page.of("prediction_duration_seconds", "count") == 2

    def test_below_a_prefix_and_beside_another(self, ages: Any, tmp_path: Path, look: Look, serve: Any) -> None:
        x = np.arange(20, dtype=np.float64).reshape(10, 2)
        package = modelpack.save(LinearRegression().fit(x, x.sum(axis=1)), tmp_path / "line", example=x, name="line")
        inner = build(modelpack.load(package))
        other = serve(ages)
        whole = Starlette(routes=[Mount("/models/line", app=inner), Mount("/models/ages", app=other.app)])
        other.app = whole
        try:
            for _ in range(3):
                assert other.request("POST", "/models/line/invocations", json={"inputs": [[1, 2]]}).status_code == 200
            line = Page(read(other.get("/models/line/metrics").text))
            ages_page = Page(read(other.get("/models/ages/metrics").text))
        finally:
            inner.state.invocations.close()
        assert line("http_requests_total", "path=/invocations", "status=200") == line("rows_total") == 3
        assert ages_page("rows_total") == 0
        (about,) = line.families["modelpack_model_info"].samples
        version = f"version={package.manifest.version}"
        assert about == ("", "name=line", version, f"digest={package.digest}", "flavor=sklearn")


class TestShortWay:
    """Requests over a socket, which go past the edge."""

    @pytest.fixture
    def gate(self, ages: Any) -> Iterator[threading.Event]:
        """Return the event that the model waits for before it answers."""
        gate, plain = threading.Event(), ages.function

        def wait(rows: Any, params: Any) -> Any:
            assert gate.wait(PATIENCE)
            return plain(rows, params)

        ages.function = wait
        yield gate
        gate.set()

    @pytest.fixture
    def client(self, run: Any, ages: Any) -> Iterator[httpx.Client]:
        running = run(ages, threads=1, grace=1)
        with httpx.Client(base_url="http://{}:{}".format(*running.address), timeout=PATIENCE) as client:
            yield client

    def test_it_counts_as_the_ordinary_way_does(self, client: httpx.Client, look: Look) -> None:
        for target in ("/invocations", "/invocations?"):
            for _ in range(3):
                assert client.post(target, json=GOOD).status_code == 200
            assert client.post(target, json={"rows": []}).status_code == 400
        page = look(client)
        assert page("invocations_total", "media=application/json", "status=200") == 6
        assert page("invocations_total", "media=application/json", "status=400") == 2
        assert page.of("invocation_duration_seconds", "count") == 8
        assert page("rows_total") == 12
        sizes = [len(client.build_request("POST", "/", json=body).content) for body in (GOOD, {"rows": []})]
        assert page("http_body_bytes_total") == 6 * sizes[0] + 2 * sizes[1]

    def test_what_waits_and_who_leaves(
        self, client: httpx.Client, look: Look, gate: threading.Event, until: Callable[[Callable[[], bool]], None]
    ) -> None:
        def waits(requests: int) -> bool:
            page = look(client)
            return (page("invocations_in_flight"), page("queue_requests"), page("queue_rows")) == (
                requests,
                max(requests - 1, 0),
                2 * max(requests - 1, 0),
            )

        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(client.post, "/invocations", json=GOOD)]
            until(lambda: waits(1))
            asked += [pool.submit(client.post, "/invocations", json=GOOD) for _ in range(2)]
            until(lambda: waits(3))
            link = socket.create_connection((client.base_url.host, client.base_url.port or 80))
            body = json.dumps(GOOD).encode()
            head = (
                b"POST /invocations HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            )
            link.sendall(head % len(body) + body)
            until(lambda: waits(4))
            link.close()
            until(lambda: look(client)("invocations_abandoned_total") == 1)
            assert look(client)("invocations_in_flight") == 3
            gate.set()
            assert [one.result().status_code for one in asked] == [200] * 3
        until(lambda: waits(0))
        assert look(client)("invocations_total", "media=application/json", "status=200") == 3

    def test_what_is_refused_for_want_of_time(self, client: httpx.Client, look: Look, gate: threading.Event) -> None:
        assert client.post("/invocations", json=GOOD, headers={"X-Request-Timeout": "0.05"}).status_code == 504
        page = look(client)
        assert page("invocations_refused_total", "reason=deadline-exceeded") == 1
        assert page("invocations_total", "media=application/json", "status=504") == 1

    def test_what_is_refused_for_want_of_room(
        self, run: Any, ages: Any, look: Look, gate: threading.Event, until: Callable[[Callable[[], bool]], None]
    ) -> None:
        running = run(ages, threads=1, grace=1, queue=1)
        with (
            httpx.Client(base_url="http://{}:{}".format(*running.address), timeout=PATIENCE) as client,
            ThreadPoolExecutor(2) as pool,
        ):
            first = pool.submit(client.post, "/invocations", json=GOOD)
            until(lambda: look(client)("invocations_in_flight") == 1)
            second = pool.submit(client.post, "/invocations", json=GOOD)
            until(lambda: look(client)("queue_requests") == 1)
            assert client.post("/invocations", json=GOOD).status_code == 429
            assert look(client)("invocations_refused_total", "reason=overloaded") == 1
            gate.set()
            assert (first.result().status_code, second.result().status_code) == (200, 200)

    def test_a_head_that_does_not_end(self, client: httpx.Client, look: Look) -> None:
        with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=PATIENCE) as link:
            link.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)
            assert link.recv(100).startswith(b"HTTP/1.1 431")
        assert look(client)("http_requests_total", "path=other", "status=431") == 1

    def test_off(self, run: Any, ages: Any) -> None:
        running = run(ages, metrics=False)
        with httpx.Client(base_url="http://{}:{}".format(*running.address), timeout=PATIENCE) as client:
            assert [client.post(target, json=GOOD).status_code for target in ("/invocations", "/invocations?")] == [
                200,
                200,
            ]
            assert client.get("/metrics").status_code == 404
        with socket.create_connection(running.address, timeout=PATIENCE) as link:
            link.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)
            assert link.recv(100).startswith(b"HTTP/1.1 431")


class TestPages:
    """The memory that processes share."""

    @pytest.fixture
    def pages(self) -> Iterator[Pages]:
        pages = Pages()
        yield pages
        pages.close()

    def test_who_comes_next_goes_on_counting(self, pages: Pages) -> None:
        number = pages.take(3)
        ledger = Ledger(os.dup(pages.fd))
        first = Meter(ledger, number)
        first.answered(200, first.begin(), 10)
        first.begin()
        first.publish()
        before = pages.ledger.read()[number]
        assert (before[layout.SLOT], before[layout.PID], before[layout.OPEN]) == (3, os.getpid(), 1)
        pages.give_back(number)
        assert pages.ledger.read()[number][layout.PID] == 0
        assert pages.take(3) == number
        second = Meter(ledger, number)
        assert pages.ledger.read()[number][layout.OPEN] == 0
        second.answered(200, second.begin(), 10)
        second.publish()
        after = pages.ledger.read()[number]
        assert (before[layout.BODY_BYTES], after[layout.BODY_BYTES]) == (10, 20)
        assert after[layout.REQUESTS].sum() == 2
        assert after[layout.CPU] >= 2 * before[layout.CPU] > 0

    def test_no_two_processes_write_one(self, pages: Pages) -> None:
        numbers = [pages.take(slot) for slot in (0, 1, 0, 1)]
        assert len({SUPERVISOR, *numbers}) == 5
        pages.give_back(numbers[0])
        assert pages.take(1) not in numbers
        assert pages.take(0) == numbers[0]
        assert [int(page[layout.SLOT]) for page in pages.ledger.read()[1:]] == [0, 1, 0, 1, 1]

    def test_a_page_has_room_for_every_count(self) -> None:
        cells = {layout.visit(path, int(status)) for path in layout.PATHS for status in layout.STATUSES[:-1]}
        cells |= {layout.visit(path, 299) for path in layout.PATHS}
        starts = {layout.answer(media, int(status)) for media in layout.MEDIA for status in layout.STATUSES[:-1]}
        starts |= {layout.answer(media, 299) for media in layout.MEDIA}
        buckets = len(layout.REQUEST_SECONDS) + 1
        cells |= {start + bucket for start in starts for bucket in range(buckets)}
        for one in (layout.PREDICTIONS, layout.ROWS, layout.BATCHES):
            cells |= set(range(one.start, one.sum + 1))
        cells |= {layout.SECONDS, *range(layout.FAILURES + 1)}
        assert len(cells) == layout.CELLS - (layout.PREDICTIONS.start - layout.FAILURES - 1)
        assert max(cells) == layout.CELLS - 1

    def test_every_status_we_answer_with_has_a_place(self) -> None:
        sources = (ROOT / "server" / "modelpack_server").rglob("*.py")
        text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
        said = set(re.findall(r"(?:HttpProblem|response|_refuse)\(\s*(\d{3}),", text))
        assert {"406", "408", "413", "415", "429", "431", "500", "503", "504"} <= said <= set(layout.STATUSES)
        assert {str(status) for status in problems.ERROR_CODES} <= set(layout.STATUSES)


@pytest.mark.slow
class TestProcesses:
    """Several workers, of which any may be asked."""

    BODY: Mapping[str, Any] = {"inputs": [[1.0, 2.0]]}

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[str]:
        """Return the URL of a running server of three workers."""
        x = np.arange(20, dtype=np.float64).reshape(10, 2)
        package = modelpack.save(LinearRegression().fit(x, x.sum(axis=1)), tmp_path / "line", example=x)
        command = [str(Path(sys.executable).with_name("modelpack")), "serve", str(package.path), "--port", "0"]
        process = subprocess.Popen([*command, "--workers", "3"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found
            yield found[0]
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)

    def send(self, url: str, count: int) -> int:
        """Send requests, each on a connection of its own; return how many were answered."""

        def one(number: int) -> bool:
            try:
                return httpx.post(f"{url}/invocations", json=self.BODY, timeout=PATIENCE).status_code == 200
            except httpx.TransportError:
                return False

        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(one, range(count)))

    def test_one_look_tells_all_and_no_counter_falls_when_a_worker_is_killed(
        self, url: str, look: Look, until: Callable[[Callable[[], bool]], None]
    ) -> None:
        status = ("invocations_total", "media=application/json", "status=200")

        def fresh() -> Page:
            # A connection of its own each time: so each worker is asked in turn.
            with httpx.Client(base_url=url, timeout=PATIENCE) as client:
                return look(client)

        def pids() -> dict[str, float]:
            return fresh().families["process_start_time_seconds"].samples  # type: ignore[return-value]

        assert self.send(url, 60) == 60
        pages = [fresh() for _ in range(8)]
        assert [(page(*status), page("rows_total"), page("workers")) for page in pages] == [(60, 60, 3)] * 8
        started = pids()
        assert [key[1] for key in started] == ["worker=0", "worker=1", "worker=2"]
        memory = pages[0].families["process_resident_memory_bytes"].samples
        assert len(memory) == 3 and min(memory.values()) > 2**20

        victim = self.one_of(url)
        os.kill(victim, signal.SIGKILL)
        seen = [fresh()]
        until(lambda: seen.append(fresh()) or seen[-1]("worker_restarts_total", "reason=died") == 1)  # type: ignore[func-returns-value]
        answered = self.send(url, 30)
        until(lambda: seen.append(fresh()) or seen[-1]("workers") == 3)  # type: ignore[func-returns-value]
        assert seen[-1](*status) == 60 + answered
        assert len(set(pids().values()) - set(started.values())) == 1
        for before, after in zip([pages[0], *seen], seen, strict=False):
            for name, family in after.families.items():
                for key, value in family.samples.items():
                    if family.kind in ("counter", "histogram"):
                        assert value >= before.families[name].samples.get(key, 0.0), (name, key)

    def one_of(self, url: str) -> int:
        """Return the process of a worker: one that listens on the port, and is a child of another that does."""
        port = int(url.rpartition(":")[2])
        listening = [
            one
            for one in psutil.Process().children(recursive=True)
            if any(link.laddr.port == port for link in one.net_connections("tcp") if link.status == "LISTEN")
        ]
        return int(next(one.pid for one in listening if "modelpack_server.worker" in " ".join(one.cmdline())))
