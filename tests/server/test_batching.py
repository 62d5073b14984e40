"""When requests run, and with which others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from modelpack_server.invocation import Batcher, Limits
from modelpack_server.invocation.costs import Costs
from modelpack_server.problems import HttpProblem

NEVER = float("inf")


class Recorder:
    """Work that notes which batches it was given, and on which thread; it waits while ``gate`` is closed."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.threads.append(threading.current_thread().name)
        self.started.release()
        assert self.gate.wait(20)
        return [item if isinstance(item, Exception) else f"<{item}>" for item in items]


@contextmanager
def batching(work: Any, **limits: Any) -> Iterator[Batcher[Any]]:
    batcher = Batcher(work, Limits(**limits))
    try:
        yield batcher
    finally:
        batcher.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def started(work: Recorder) -> None:
    """Wait until the work has begun on one more batch."""
    while not work.started.acquire(blocking=False):
        await asyncio.sleep(0.001)


def known_to_be_quick(batcher: Batcher[Any]) -> None:
    for rows in (1, 2, 4, 8):
        batcher.costs.add(rows, 0.0)


def test_what_arrives_in_one_turn_of_the_loop_is_taken_together_and_in_order() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work) as batcher:
            known_to_be_quick(batcher)
            futures = [batcher.put(i, key="k", rows=1, timeout=NEVER) for i in range(5)]
            assert await asyncio.gather(*futures) == [f"<{i}>" for i in range(5)]

    run(test)
    assert work.batches == [[0, 1, 2, 3, 4]]


def test_what_is_known_to_be_quick_runs_on_the_loop_and_what_is_not_in_a_thread() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work) as batcher:
            await batcher.put("unknown", key="k", rows=1, timeout=NEVER)
            batcher.costs.add(1, 0.0)
            assert batcher._quick(batcher.costs, 1)
            await batcher.put("quick", key="k", rows=1, timeout=NEVER)
            for _ in range(30):
                batcher.costs.add(1, 1.0)
            assert not batcher._quick(batcher.costs, 1)
            await batcher.put("slow", key="k", rows=1, timeout=NEVER)

    run(test)
    assert [name.startswith("invocation") for name in work.threads] == [True, False, True]


def test_nothing_runs_on_the_loop_where_that_is_not_allowed() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, inline=False) as batcher:
            known_to_be_quick(batcher)
            await batcher.put("code", key="k", rows=1, timeout=NEVER)

    run(test)
    assert work.threads[0].startswith("invocation")


def test_what_arrives_during_a_prediction_waits_for_its_end_and_goes_together() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            work.gate.clear()
            first = batcher.put("first", key="k", rows=1, timeout=NEVER)
            await started(work)
            others = [batcher.put(i, key="k", rows=1, timeout=NEVER) for i in range(4)]
            await asyncio.sleep(0)
            assert batcher.running == 5
            work.gate.set()
            assert await asyncio.gather(first, *others) == ["<first>", "<0>", "<1>", "<2>", "<3>"]
            assert batcher.running == 0

    run(test)
    assert work.batches == [["first"], [0, 1, 2, 3]]


def test_only_equal_keys_go_together_and_none_goes_with_nobody() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            known_to_be_quick(batcher)
            puts = [("a1", "a"), ("b1", "b"), ("a2", "a"), ("n1", None), ("n2", None), ("b2", "b")]
            futures = [batcher.put(item, key=key, rows=1, timeout=NEVER) for item, key in puts]
            assert await asyncio.gather(*futures) == [f"<{item}>" for item, _ in puts]

    run(test)
    assert work.batches == [["a1", "a2"], ["b1", "b2"], ["n1"], ["n2"]]


def test_a_batch_has_at_most_so_many_rows_unless_one_request_has_more() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, batch_rows=10) as batcher:
            known_to_be_quick(batcher)
            sizes = [4, 4, 4, 25, 1]
            futures = [batcher.put(i, key="k", rows=rows, timeout=NEVER) for i, rows in enumerate(sizes)]
            await asyncio.gather(*futures)

    run(test)
    assert work.batches == [[0, 1, 4], [2], [3]]


def test_a_failing_member_fails_alone() -> None:
    work = Recorder()
    failure = ValueError("poison")

    async def test() -> None:
        with batching(work) as batcher:
            futures = [batcher.put(item, key="k", rows=1, timeout=NEVER) for item in ("a", failure, "b")]
            assert await asyncio.gather(*futures, return_exceptions=True) == ["<a>", failure, "<b>"]

    run(test)


def test_work_that_breaks_its_promise_fails_its_batch_and_no_other() -> None:
    def work(items: Sequence[Any]) -> list[Any]:
        if "broken" in items:
            raise RuntimeError
        return list(items)

    async def test() -> None:
        with batching(work) as batcher:
            with pytest.raises(RuntimeError):
                await batcher.put("broken", key=None, rows=1, timeout=NEVER)
            assert await batcher.put("whole", key=None, rows=1, timeout=NEVER) == "whole"

    run(test)


def test_a_cancelled_member_loses_its_own_place_only() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            work.gate.clear()
            running = batcher.put("running", key="k", rows=1, timeout=NEVER)
            await started(work)
            waiting = [batcher.put(i, key="k", rows=1, timeout=60) for i in range(4)]
            waiting[1].cancel()
            running.cancel()
            work.gate.set()
            replies = await asyncio.gather(*waiting, return_exceptions=True)
            assert [replies[i] for i in (0, 2, 3)] == ["<0>", "<2>", "<3>"]
            assert isinstance(replies[1], asyncio.CancelledError)
            assert batcher.running == 0

    run(test)
    assert work.batches == [["running"], [0, 2, 3]]


@pytest.mark.parametrize("limits", [{"queue": 2}, {"queue_rows": 20}])
def test_what_is_too_much_is_refused_at_once(limits: dict[str, int]) -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1, **limits) as batcher:
            work.gate.clear()
            running = batcher.put("running", key="k", rows=10, timeout=NEVER)
            await started(work)
            waiting = [batcher.put(i, key="k", rows=10, timeout=NEVER) for i in range(2)]
            with pytest.raises(HttpProblem) as caught:
                batcher.put("refused", key="k", rows=10, timeout=NEVER)
            assert (caught.value.status, caught.value.code) == (429, "overloaded")
            assert caught.value.headers == {"Retry-After": "1"}
            work.gate.set()
            assert await asyncio.gather(running, *waiting) == ["<running>", "<0>", "<1>"]
            assert await batcher.put("later", key="k", rows=10, timeout=NEVER) == "<later>"

    run(test)


def test_what_would_be_answered_later_than_long_calls_last_is_refused_unless_few_are_there() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            work.gate.clear()
            # 20 ms a row, however many: a long call takes 100 ms.
            for rows in (1, 2, 4, 8, 16):
                batcher.costs.add(rows, 0.02 * rows)
            running = batcher.put("running", key="k", rows=1, timeout=NEVER)
            await started(work)
            waiting = [batcher.put(i, key="k", rows=1, timeout=NEVER) for i in range(31)]
            with pytest.raises(HttpProblem) as caught:
                batcher.put("refused", key="k", rows=1, timeout=NEVER)
            assert caught.value.status == 429
            work.gate.set()
            await asyncio.gather(running, *waiting)

    run(test)


def test_what_runs_counts_as_well_as_what_waits() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            work.gate.clear()
            # Whatever the number of rows, a call takes 5 seconds.
            for size in range(11):
                batcher.costs.add(2**size, 5.0)
            first = batcher.put("first", key="k", rows=1, timeout=NEVER)
            await started(work)
            assert 1 < batcher.delay < 5
            waiting = [batcher.put(i, key="k", rows=1, timeout=NEVER) for i in range(64)]
            with pytest.raises(HttpProblem) as caught:
                batcher.put("hasty", key="k", rows=1, timeout=1)
            assert caught.value.status == 429
            work.gate.set()
            await asyncio.gather(first, *waiting)
            assert batcher.delay == 0

    run(test)
    assert [len(batch) for batch in work.batches] == [1, 64]


def test_a_thread_need_not_wait_for_the_loop_to_begin_the_next_call() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1, inline=False) as batcher:
            batcher.costs.add(1, 0.001)
            work.gate.clear()
            replies = [batcher.put(i, key=None, rows=1, timeout=NEVER) for i in range(3)]
            await started(work)
            await asyncio.sleep(0)
            work.gate.set()
            # The loop does not come round.
            assert work.started.acquire(timeout=20)
            assert work.started.acquire(timeout=20)
            assert await asyncio.gather(*replies) == ["<0>", "<1>", "<2>"]

    run(test)


def test_what_a_thread_was_given_is_not_done_if_nobody_waits_any_more() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1, inline=False) as batcher:
            batcher.costs.add(1, 0.001)
            work.gate.clear()
            first, second, third = (batcher.put(i, key=None, rows=1, timeout=NEVER) for i in range(3))
            await started(work)
            await asyncio.sleep(0)
            second.cancel()
            work.gate.set()
            assert await asyncio.gather(first, third) == ["<0>", "<2>"]
            assert batcher.running == 0

    run(test)
    assert work.batches == [[0], [2]]


def test_what_can_still_be_gathered_is_not_given_away_before() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1, inline=False) as batcher:
            batcher.costs.add(1, 0.001)
            work.gate.clear()
            first = batcher.put(0, key="k", rows=1, timeout=NEVER)
            await started(work)
            second = batcher.put(1, key="k", rows=1, timeout=NEVER)
            await asyncio.sleep(0.01)
            third = batcher.put(2, key="k", rows=1, timeout=NEVER)
            work.gate.set()
            await asyncio.gather(first, second, third)

    run(test)
    assert work.batches == [[0], [1, 2]]


def test_a_loop_that_is_kept_busy_does_more_than_one_call_each_time() -> None:
    work = Recorder()
    turns = 0

    async def test() -> None:
        loop = asyncio.get_running_loop()

        def others() -> None:
            nonlocal turns
            turns += 1
            time.sleep(0.01)
            loop.call_soon(others)

        with batching(work) as batcher:
            known_to_be_quick(batcher)
            loop.call_soon(others)
            await asyncio.gather(*(batcher.put(i, key=None, rows=1, timeout=NEVER) for i in range(40)))

    run(test)
    assert turns < 20


@pytest.mark.parametrize("key", ["k", None])
def test_what_would_wait_longer_than_its_own_time_is_refused_before(key: str | None) -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            work.gate.clear()
            for rows in (1, 2, 4, 8, 16):
                batcher.costs.add(rows, 0.5 * rows)
            running = batcher.put("running", key=key, rows=1, timeout=NEVER)
            await started(work)
            patient = [batcher.put(i, key=key, rows=1, timeout=60) for i in range(4)]
            with pytest.raises(HttpProblem) as caught:
                batcher.put("hasty", key=key, rows=1, timeout=1)
            assert caught.value.status == 429
            work.gate.set()
            await asyncio.gather(running, *patient)
            # Nothing waits any more: it is as if nothing ever had.
            assert batcher.delay == 0
            assert await batcher.put("hasty", key=key, rows=1, timeout=1) == "<hasty>"

    run(test)


def test_requests_that_were_given_up_take_no_place() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1, queue=4) as batcher:
            work.gate.clear()
            running = batcher.put("running", key=None, rows=1, timeout=NEVER)
            await started(work)
            late = [batcher.put(i, key=None, rows=1, timeout=0.01) for i in range(4)]
            assert all(isinstance(reply, HttpProblem) for reply in await asyncio.gather(*late, return_exceptions=True))
            patient = batcher.put("patient", key=None, rows=1, timeout=NEVER)
            work.gate.set()
            assert await asyncio.gather(running, patient) == ["<running>", "<patient>"]

    run(test)


def test_no_more_bytes_wait_than_may() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1, queue_bytes=100) as batcher:
            work.gate.clear()

            def put(item: str, size: int) -> asyncio.Future[Any]:
                reply = asyncio.get_running_loop().create_future()
                batcher.take(item, key=None, rows=0, timeout=NEVER, reply=reply, size=size)
                return reply

            # Whatever its size: nothing waits.
            replies = [put("running", 1000)]
            await started(work)
            replies.append(put("large", 90))
            with pytest.raises(HttpProblem) as caught:
                put("refused", 20)
            assert caught.value.status == 429
            replies.append(put("small", 10))
            work.gate.set()
            assert await asyncio.gather(*replies) == ["<running>", "<large>", "<small>"]
            replies = [put("again", 100)]
            assert await replies[0] == "<again>"

    run(test)


def test_requests_of_unknown_rows_are_measured_by_their_size_and_kind() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work) as batcher:

            async def ask(name: str, size: int, kind: str) -> None:
                reply = asyncio.get_running_loop().create_future()
                batcher.take(name, key=None, rows=0, timeout=NEVER, reply=reply, size=size, kind=kind)
                assert await reply == f"<{name}>"

            await ask("unknown", 1000, "a")
            await ask("quick", 1000, "a")
            await ask("of another kind", 1000, "b")
            for _ in range(20):
                batcher._kinds["a"].add(1000, 1.0)
            await ask("slow", 1000, "a")
            # Of no kind: nothing is known of it.
            await ask("large", 1000, "")
            await ask("large again", 1000, "")

    run(test)
    assert [name != "MainThread" for name in work.threads] == [True, False, True, True, True, True]


class TestWorthwhile:
    def test_as_many_as_may_be_while_nothing_is_known(self) -> None:
        assert Costs().worthwhile(1024) == 1024

    def test_all_that_may_be_if_the_number_of_rows_hardly_matters(self) -> None:
        costs = Costs()
        for size in range(11):
            costs.add(2**size, 0.02 + 2**size * 1e-6)
        assert costs.worthwhile(1024) == 1024
        assert costs.per_row < 0.001

    def test_no_more_than_a_short_call_takes_if_each_row_costs_the_same(self) -> None:
        costs = Costs()
        for size in range(8):
            costs.add(2**size, 0.01 * 2**size)
        # Up to 50 ms, since no row gets cheaper.
        assert costs.worthwhile(1024) == 7

    def test_one_row_of_a_slow_model(self) -> None:
        costs = Costs()
        costs.add(1, 3.0)
        costs.add(2, 6.0)
        costs.add(4, 12.0)
        assert costs.worthwhile(1024) == 1

    def test_no_more_than_a_long_call_takes_if_rows_get_cheaper(self) -> None:
        costs = Costs()
        for size in range(8):
            costs.add(2**size, 0.04 + 0.001 * 2**size)
        assert costs.worthwhile(1024) == 63

    def test_what_waits_is_weighed_by_what_was_measured_not_by_what_is_hoped(self) -> None:
        """Each row takes 0.3 ms; that a call of more could be cheaper must not let more wait."""
        costs = Costs()
        costs.add(1, 0.0006)
        costs.add(8, 0.0027)
        for _ in range(20_000):
            rows = min(costs.worthwhile(1024) // 8, 64) * 8
            costs.add(rows, 0.0003 + 0.0003 * rows)
            assert costs.worthwhile(1024) < 512
            assert costs.per_row > 0.00028

    def test_a_step_at_a_time_beyond_what_was_measured(self) -> None:
        costs = Costs()
        costs.add(1, 0.01)
        assert costs.worthwhile(1024) == 15
        costs.add(15, 0.01)
        assert costs.worthwhile(1024) == 127

    def test_a_size_that_was_slow_is_tried_again_some_day(self) -> None:
        costs = Costs()
        for rows, seconds in ((1, 0.01), (2, 0.01), (4, 5.0)):
            costs.add(rows, seconds)
        assert costs.worthwhile(1024) == 3
        for _ in range(10_000):
            costs.add(2, 0.01)
            if costs.worthwhile(1024) > 3:
                return
        pytest.fail("it was never tried again")

    def test_calls_of_unknown_size_have_a_mean_of_their_own(self) -> None:
        costs = Costs()
        assert costs.alone(0) == costs.alone(5) == 0.0
        costs.add(0, 2.0)
        costs.add(0, 1.0)
        assert costs.alone(0) == pytest.approx(1.7)
        costs.add(4, 3.0)
        assert costs.alone(5) == 3.0


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, queue_rows=5) as batcher:
            assert await batcher.put("large", key="k", rows=1000, timeout=NEVER) == "<large>"

    run(test)


def test_a_deadline_that_passes_while_waiting_is_told_and_the_work_is_not_done() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            work.gate.clear()
            running = batcher.put("running", key="k", rows=1, timeout=NEVER)
            await started(work)
            late = batcher.put("late", key="k", rows=1, timeout=0.01)
            patient = batcher.put("patient", key="k", rows=1, timeout=NEVER)
            with pytest.raises(HttpProblem) as caught:
                await late
            assert (caught.value.status, caught.value.code) == (504, "deadline-exceeded")
            work.gate.set()
            assert await asyncio.gather(running, patient) == ["<running>", "<patient>"]

    run(test)
    assert work.batches == [["running"], ["patient"]]


def test_a_deadline_that_passes_during_the_prediction_is_told_too() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            work.gate.clear()
            future = batcher.put("slow", key="k", rows=1, timeout=0.01)
            with pytest.raises(HttpProblem) as caught:
                await future
            assert caught.value.status == 504
            assert batcher.running == 1
            work.gate.set()

    run(test)


def test_the_time_of_what_is_quick_alone_and_goes_to_a_thread_together_runs_out() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=1) as batcher:
            batcher.costs.add(1, 0.001)
            work.gate.clear()
            replies = [batcher.put(i, key="k", rows=1, timeout=0.2) for i in range(64)]
            assert batcher._quick(batcher.costs, 1)
            await started(work)
            assert batcher._line
            told = await asyncio.gather(*replies, return_exceptions=True)
            assert [getattr(one, "status", None) for one in told] == [504] * 64
            work.gate.set()

    run(test)
    assert work.threads[0].startswith("invocation")


def test_pieces_that_have_not_begun_count_as_what_waits() -> None:
    async def test() -> None:
        gate = threading.Event()
        with batching(Recorder(), threads=1, queue=2) as batcher:
            pieces = [asyncio.ensure_future(batcher.run(lambda: gate.wait(20))) for _ in range(2)]
            await asyncio.sleep(0)
            assert batcher.waiting == (1, 0)
            batcher.admit()
            pieces.append(asyncio.ensure_future(batcher.run(lambda: gate.wait(20))))
            await asyncio.sleep(0)
            assert batcher.waiting == (2, 0)
            with pytest.raises(HttpProblem) as caught:
                batcher.admit()
            assert (caught.value.status, caught.value.code) == (429, "overloaded")
            gate.set()
            assert await asyncio.gather(*pieces) == [True] * 3
            assert batcher.waiting == (0, 0)
            batcher.admit()

    run(test)


def test_a_deadline_that_has_passed_before_the_work_begins_stops_it() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work) as batcher:
            known_to_be_quick(batcher)
            with pytest.raises(HttpProblem) as caught:
                await batcher.put("late", key="k", rows=1, timeout=-1)
            assert caught.value.status == 504

    run(test)
    assert work.batches == []


def test_so_many_predictions_at_a_time_as_there_are_threads() -> None:
    work = Recorder()

    async def test() -> None:
        with batching(work, threads=2) as batcher:
            work.gate.clear()
            futures = [batcher.put("one", key="k", rows=1, timeout=NEVER)]
            await started(work)
            futures.append(batcher.put("two", key="k", rows=1, timeout=NEVER))
            await started(work)
            futures += [batcher.put(i, key="k", rows=1, timeout=NEVER) for i in range(3)]
            await asyncio.sleep(0.01)
            assert work.batches == [["one"], ["two"]]
            work.gate.set()
            await asyncio.gather(*futures)

    run(test)
    assert work.batches == [["one"], ["two"], [0, 1, 2]]


def test_a_loop_that_is_gone_gets_nothing() -> None:
    work = Recorder()
    work.gate.clear()
    with batching(work) as batcher:

        async def leave() -> None:
            batcher.put("left", key="k", rows=1, timeout=NEVER)
            await started(work)

        asyncio.run(leave())
        work.gate.set()
    assert work.batches == [["left"]]


def test_costs_are_running_means_by_powers_of_two() -> None:
    costs = Costs()
    assert costs.expected(1) == NEVER
    costs.add(8, 0.010)
    assert costs.expected(8) == costs.expected(15) == 0.010
    assert costs.expected(1) == 0.010  # fewer rows than ever measured: no more than the least
    assert costs.expected(16) == 0.020
    assert costs.expected(100) == 0.080
    costs.add(8, 0.020)
    assert costs.expected(8) == pytest.approx(0.013)
    costs.add(0, 99.0)
    assert costs.expected(0) == NEVER
    assert costs.expected(1) == pytest.approx(0.013)


def test_refused_requests_do_not_make_a_slow_model_look_quick() -> None:
    async def test() -> None:
        with batching(Recorder()) as batcher:
            batcher.costs.add(1, 10.0)
            for _ in range(40):
                with pytest.raises(ValueError, match="bad"):
                    await batcher.put(ValueError("bad"), key="k", rows=1, timeout=NEVER)
            assert batcher.costs.expected(1) == 10.0

    run(test)
