"""What the supervisor does when something happens to a worker; the processes here are only names."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from modelpack.cli import main
from modelpack.frame import Frame
from modelpack_server import cores, supervisor
from modelpack_server.metrics import layout
from modelpack_server.pulse import Marked, Pulse
from modelpack_server.settings import Settings, Source
from modelpack_server.supervisor import Event, Supervisor, Worker

MEGABYTE = 1024**2
READY = {"name": "m", "version": "1", "digest": "sha256:00", "flavor": "python"}


class Process:
    """Writes down what is done to it."""

    pid = 0

    def __init__(self) -> None:
        self.got: list[str] = []

    def kill(self) -> None:
        self.got.append("kill")

    def terminate(self) -> None:
        self.got.append("terminate")

    def send_signal(self, number: int) -> None:
        self.got.append(signal.Signals(number).name)


class Watched(Supervisor):
    """A supervisor that starts no process, and whose timers are a list."""

    def __init__(self, settings: Settings, server: socket.socket) -> None:
        self.timers: list[tuple[float, Event]] = []
        self.announcements: list[Any] = []
        super().__init__(Source(package="m"), settings, server, lambda *told: self.announcements.append(told))

    def _start(self, slot: int, deaths: int = 0, *, old: Worker | None = None) -> None:
        self.workers.append(Worker(slot, Process(), Pulse(-1), deaths, self.pages.take(slot), old=old))  # type: ignore[arg-type]

    def _later(self, seconds: float, event: Event) -> None:
        self.timers.append((seconds, event))

    def begin(self, *slots: int) -> list[Worker]:
        """Start workers and let them be ready."""
        for slot in slots:
            self._start(slot)
            self.happens("ready", self.workers[-1], dict(READY))
        return list(self.workers)

    def happens(self, kind: Any, worker: Worker | None = None, detail: Any = None) -> None:
        getattr(self, f"_on_{kind}")(Event(kind, worker, detail))

    def got(self, worker: Worker) -> list[str]:
        process: Any = worker.process
        return list(process.got)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, as the supervisor sees it: one number that a test may change."""
    now = [1000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    yield now


@pytest.fixture
def watched(clock: list[float]) -> Iterator[Any]:
    servers = []

    def make(**settings: Any) -> Watched:
        servers.append(socket.create_server(("127.0.0.1", 0)))
        return Watched(Settings(**{"workers": 2, **settings}), servers[-1])

    yield make
    for server in servers:
        server.close()


class TestDeath:
    def test_the_first_is_made_good_at_once_and_others_later_and_later(self, watched: Any, clock: list[float]) -> None:
        one = watched()
        one.begin(0, 1)
        pauses = []
        for _ in range(8):
            dead = next(worker for worker in one.workers if worker.slot == 0)
            one.happens("exited", dead, -9)
            pause, event = one.timers[-1]
            pauses.append(pause)
            one.happens("restart", detail=event.detail)
        assert pauses == [0, 1, 2, 4, 8, 16, 30, 30]

    def test_after_a_while_it_is_the_first_again(self, watched: Any, clock: list[float]) -> None:
        one = watched()
        (first, _) = one.begin(0, 1)
        first.deaths = 5
        clock[0] += supervisor.STABLE_SECONDS
        one.happens("exited", first, 1)
        assert one.timers[-1] == (0.0, Event("restart", detail=(0, 0)))


class TestCounted:
    def test_why_workers_were_replaced(self, watched: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Worker, "memory", property(lambda one: (102 if one.slot == 2 else 1) * MEGABYTE))
        one = watched(workers=3, hang=8, max_memory=100 * MEGABYTE)
        first, second, third = one.begin(0, 1, 2)
        one.happens("exited", first, -9)
        for _ in range(5):
            clock[0] += 2
            third.pulse.beat()
            one.happens("check")
        one.happens("exited", second, -9)
        one.happens("ready", one.workers[-1], dict(READY))
        one.happens("exited", third, 0)
        own = one.pages.own
        assert (own[layout.DIED], own[layout.HUNG], own[layout.GREW]) == (1, 1, 1)
        assert one.pages.take(0) == first.page


class TestSilence:
    def check(self, one: Any, clock: list[float], seconds: float) -> None:
        clock[0] += seconds
        one.happens("check")

    def test_a_worker_that_is_silent_too_long_is_killed_once(self, watched: Any, clock: list[float]) -> None:
        one = watched(hang=8)
        first, second = one.begin(0, 1)
        for _ in range(6):
            second.pulse.beat()
            self.check(one, clock, 2)
        assert (one.got(first), one.got(second)) == (["kill"], [])
        assert one.timers[-1] == (2.0, Event("check"))

    def test_a_prediction_may_take_its_time(self, watched: Any, clock: list[float]) -> None:
        one = watched(hang=8)
        (first, _) = one.begin(0, 1)
        first.pulse.enter()
        for _ in range(100):
            self.check(one, clock, 2)
        assert one.got(first) == []
        first.pulse.leave()
        for _ in range(4):
            self.check(one, clock, 2)
        assert one.got(first) == ["kill"]

    def test_a_machine_that_was_suspended_is_no_silence(self, watched: Any, clock: list[float]) -> None:
        one = watched(hang=8)
        (first, _) = one.begin(0, 1)
        self.check(one, clock, 3600)
        assert one.got(first) == []

    def test_one_that_still_loads_is_not_asked(self, watched: Any, clock: list[float]) -> None:
        one = watched(hang=8)
        one._start(0)
        for _ in range(10):
            self.check(one, clock, 2)
        assert one.got(one.workers[0]) == []

    def test_nobody_is_asked_while_all_stop(self, watched: Any, clock: list[float]) -> None:
        one = watched(hang=8)
        (first, _) = one.begin(0, 1)
        one.happens("stop")
        before = list(one.timers)
        for _ in range(10):
            self.check(one, clock, 2)
        assert one.got(first) == ["terminate"]
        assert one.timers == before

    def test_it_can_be_left_out(self, watched: Any) -> None:
        assert watched(hang=0).interval == 0
        assert watched(hang=0, max_memory=1).interval == supervisor.MEMORY_SECONDS


class TestMemory:
    @pytest.fixture
    def sizes(self, monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
        """The memory of the worker in each slot, in MB."""
        found: dict[int, int] = {}
        monkeypatch.setattr(Worker, "memory", property(lambda one: found.get(one.slot, 1) * MEGABYTE))
        return found

    def test_one_that_is_too_large_leaves_when_another_is_ready(self, watched: Any, sizes: dict[int, int]) -> None:
        one = watched(max_memory=100 * MEGABYTE)
        first, second = one.begin(0, 1)
        sizes[0] = 101
        one.happens("check")
        successor = one.workers[-1]
        assert (successor.slot, successor.old, one.got(first)) == (0, first, [])
        one.happens("ready", successor, dict(READY))
        assert (one.got(first), one.got(second)) == (["SIGUSR2"], [])
        one.happens("exited", first, 0)
        assert one.workers == [second, successor]
        assert not [event for _, event in one.timers if event.kind == "restart"]

    def test_one_that_does_not_leave_is_killed(self, watched: Any, sizes: dict[int, int]) -> None:
        one = watched(max_memory=100 * MEGABYTE, grace=3)
        (first, _) = one.begin(0, 1)
        sizes[0] = 101
        one.happens("check")
        one.happens("ready", one.workers[-1], dict(READY))
        (overdue,) = [(seconds, event) for seconds, event in one.timers if event.kind == "overdue"]
        assert overdue[0] > 30 + 3
        one.happens("overdue", first)
        assert one.got(first) == ["SIGUSR2", "kill"]
        one.happens("exited", first, -9)
        one.happens("overdue", first)
        assert one.got(first) == ["SIGUSR2", "kill"]

    def test_only_one_at_a_time(self, watched: Any, sizes: dict[int, int]) -> None:
        one = watched(max_memory=100 * MEGABYTE)
        one.begin(0, 1)
        sizes.update({0: 101, 1: 101})
        one.happens("check")
        one.happens("check")
        assert [worker.slot for worker in one.workers] == [0, 1, 0]

    def test_one_that_is_too_large_from_the_start_is_replaced_less_and_less_often(
        self, watched: Any, sizes: dict[int, int], clock: list[float]
    ) -> None:
        one = watched(max_memory=100 * MEGABYTE, workers=1)
        one.begin(0)
        sizes[0] = 101
        starts = []
        for _ in range(100):
            one.happens("check")
            successor = one.workers[-1]
            if successor.old is not None:
                starts.append(clock[0] - 1000)
                old = successor.old
                one.happens("ready", successor, dict(READY))
                one.happens("exited", old, 0)
            clock[0] += 1
        assert starts == [0, 2, 6, 14, 30, 60, 90]

    def test_one_that_cannot_be_replaced_stays(
        self, watched: Any, sizes: dict[int, int], clock: list[float], caplog: pytest.LogCaptureFixture
    ) -> None:
        one = watched(max_memory=100 * MEGABYTE)
        (first, second) = one.begin(0, 1)
        sizes[0] = 101
        one.happens("check")
        one.happens("exited", one.workers[-1], -9)
        assert "before it could take over" in caplog.text
        one.happens("check")
        assert one.workers == [first, second]
        clock[0] += 2
        one.happens("check")
        assert one.workers[-1].old is first

    def test_one_that_dies_before_is_replaced_by_the_one_that_comes(self, watched: Any, sizes: dict[int, int]) -> None:
        one = watched(max_memory=100 * MEGABYTE)
        (first, _) = one.begin(0, 1)
        sizes[0] = 101
        one.happens("check")
        one.happens("exited", first, -9)
        assert not [event for _, event in one.timers if event.kind == "restart"]
        successor = one.workers[-1]
        one.happens("ready", successor, dict(READY))
        one.happens("exited", successor, 1)
        assert one.timers[-1][1].kind == "restart"

    def test_it_is_what_the_system_says(self) -> None:
        process: Any = Process()
        gone = Worker(0, process, Pulse(-1))
        gone.process.pid = 2**22 + 1
        assert gone.memory == 0
        process.pid = "self"
        assert (Worker(0, process, Pulse(-1)).memory > MEGABYTE) == (sys.platform == "linux")


class TestPulse:
    def test_predictions_are_counted_from_all_threads(self) -> None:
        pulse = Pulse(-1)

        def work() -> None:
            for _ in range(2000):
                pulse.enter()
                pulse.leave()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not pulse.predicting

    def test_memory_is_shared(self) -> None:
        fd = Pulse.memory()
        one, other = Pulse(fd), Pulse(fd)
        one.beat()
        one.enter()
        assert (other.beats, other.predicting) == (1, True)

    def test_a_model_that_fails_is_no_longer_at_work(self, ages: Any) -> None:
        pulse = Pulse(-1)

        def fail(rows: Any, params: Any) -> Any:
            assert pulse.predicting
            raise ValueError

        ages.function = fail
        marked = Marked(ages, pulse)
        with pytest.raises(Exception, match="ValueError"):
            marked.score(Frame(rows=0, columns={}), {"factor": 1.0})
        assert not pulse.predicting
        assert marked.signature is ages.signature


class TestCommand:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Settings]]:
        """The settings a command would serve with."""
        seen: list[Settings] = []
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(supervisor, "serve", lambda source, settings, announce: seen.append(settings) or 0)
        yield seen

    def test_auto_is_a_worker_for_each_core(self, asked: list[Settings]) -> None:
        assert CliRunner().invoke(main, ["serve", "m", "--workers", "auto"]).exit_code == 0
        assert asked[0].workers == cores.usable_cores()

    def test_limits_are_handed_on(self, asked: list[Settings]) -> None:
        arguments = ["--workers", "3", "--hang", "0", "--max-memory", "2G"]
        assert CliRunner().invoke(main, ["serve", "m", *arguments]).exit_code == 0
        assert (asked[0].workers, asked[0].hang, asked[0].max_memory) == (3, 0.0, 2**31)

    @pytest.mark.parametrize("workers", ["0", "513", "-1", "two", "1.5", "\u00b2"])
    def test_other_numbers_are_refused(self, asked: list[Settings], workers: str) -> None:
        done = CliRunner().invoke(main, ["serve", "m", "--workers", workers])
        assert done.exit_code == 2
        assert "neither auto nor a number from 1 to 512" in done.output

    def test_one_worker_with_a_limit_has_a_supervisor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Supervisor, "run", lambda self: 7)
        monkeypatch.setattr(supervisor.logs, "configure", lambda settings: None)
        assert supervisor.serve(Source(package="m"), Settings(port=0, max_memory=1), lambda *_: None) == 7
