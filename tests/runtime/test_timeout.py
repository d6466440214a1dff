"""Time limits, and runs that are awaited: they stop where a provider stops, and what goes on harms nothing."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from capabilities import SECOND, needs
from models import identity, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from running import ADD, check_same, floats, full, wanted_of
from slow_model import LONG, SHORT, slow
from texts import says
from together import together

import epkit
from epkit.errors import ConfigError, InputError, RunError, RunTimeout, SessionClosed
from epkit.runtime import timeout as background


@pytest.fixture(scope="module")
def session():
    with epkit.open(slow(), "cpu", session_options={"intra_op_num_threads": 1}) as opened:
        started = time.monotonic()
        opened.run(LONG)
        assert time.monotonic() - started > 0.5, "it must take long enough to be stopped"
        yield opened


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run have all the time it needs to stop, as on a busy machine."""
    monkeypatch.setattr(background, "_GRACE_S", 60.0)


def all_ended(session: epkit.Session) -> bool:
    """Wait until no run is under way, for far less than the run would take."""
    running = session._caller.active_runs.running
    started = time.monotonic()
    while running and time.monotonic() - started < 20:
        time.sleep(0.01)
    return not running


def test_a_run_that_takes_too_long_stops_and_the_session_goes_on(session, patient):
    for _ in range(3):
        with says(RunTimeout) as error:
            session.run(LONG, timeout=0.05)
        assert not session._caller.active_runs.running
        assert isinstance(error.value, TimeoutError)
        assert isinstance(error.value, RunError)
        assert error.value.hint
        check_same(session.run(SHORT), {"y": SHORT})
    check_same(session.run(LONG), {"y": LONG})


def test_runs_of_the_same_shape_are_right_after_one_was_stopped():
    """Small inputs borrow buffers, which a run that was stopped may not have left half full."""
    iterations = model(
        [
            helper.make_node(
                "Loop", ["n", "", "x"], ["y"],
                body=helper.make_graph(
                    [
                        helper.make_node("Add", ["v", "one"], ["w"]),
                        helper.make_node("Identity", ["c"], ["d"]),
                    ],
                    "body",
                    [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("v", ["N"])],
                    [value("d", [], TensorProto.BOOL), value("w", ["N"])],
                ),
            )
        ],
        [value("n", [], TensorProto.INT64), value("x", ["N"])],
        [value("y", ["N"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )  # fmt: skip
    with epkit.open(iterations, "cpu") as opened, opened.bind({"n": np.array(1), "x": full(0, 4)}) as binding:
        for number in range(6):
            feed = {"n": np.array(number), "x": full(1, 4)}
            for _ in range(4):
                check_same(opened.run(feed)["y"], full(1 + number, 4))
                check_same(binding.run(feed)["y"], full(1 + number, 4))
            with pytest.raises(RunTimeout):
                opened.run({"n": np.array(2**40), "x": full(1, 4)}, timeout=0.05)
            with pytest.raises(RunTimeout):
                asyncio.run(opened.run_async({"n": np.array(2**40), "x": full(1, 4)}, timeout=0.05))


@needs("openvino")
def test_on_a_provider_that_made_one_node_of_the_model_the_caller_is_let_go_and_closing_waits():
    opened = epkit.open(slow(), "openvino", session_options={"intra_op_num_threads": 1})
    check_same(opened.run(SHORT), {"y": SHORT})
    big = np.ones((1500, 768), np.float32)
    with says(RunTimeout) as error:
        opened.run(big, timeout=0.05)
    assert "closing" in error.value.hint
    running = opened._caller.active_runs.running
    assert running
    opened.close()
    assert not running
    with pytest.raises(SessionClosed):
        opened.run(SHORT, timeout=1)


def test_a_run_within_its_time_gives_what_a_run_gives():
    with epkit.open(mlp(), "cpu") as opened:
        for seed in range(5):
            feed = {"x": floats(2, 16, seed=seed)}
            check_same(opened.run(feed, timeout=600), wanted_of(mlp(), feed))
            check_same(opened.run(feed, ["y"], timeout=float("inf")), wanted_of(mlp(), feed))
            check_same(opened.run(feed, timeout=np.float32(600)), wanted_of(mlp(), feed))


@pytest.mark.parametrize("provider", ["cpu", SECOND])
@pytest.mark.parametrize("timeout", [0, -1, 0.0, float("nan"), float("-inf"), True, False, "1", [1]])
def test_a_limit_that_is_none_is_an_error(provider, timeout):
    with epkit.open(identity(), provider) as opened:
        with says(ConfigError):
            opened.run([1.0], timeout=timeout)
        with says(ConfigError):
            asyncio.run(opened.run_async([1.0], timeout=timeout))


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 10**400], ids=["inf", "1e300", "10**400"])
@pytest.mark.parametrize("provider", ["cpu", SECOND])
def test_a_limit_beyond_what_can_be_waited_for_is_none(provider, seconds):
    with epkit.open(mlp(), provider) as opened:
        feed = {"x": floats(2000, 16)}
        check_same(opened.run(feed, timeout=seconds), wanted_of(mlp(), feed))
        check_same(asyncio.run(opened.run_async(feed, timeout=seconds)), wanted_of(mlp(), feed))


@pytest.mark.skipif(sys.platform == "win32", reason="it has no timers that interrupt")
def test_a_wait_that_is_interrupted_stops_the_run(session):
    class Interrupted(BaseException):
        """What Ctrl-C raises, by another name."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            session.run(np.tile(LONG, (40, 1)), timeout=600)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all_ended(session)


# -- awaited


@pytest.mark.parametrize("provider", ["cpu", SECOND])
def test_fifty_runs_are_awaited_at_once(provider):
    feeds = [{"x": floats(1 + number % 5, 16, seed=number)} for number in range(50)]

    async def together(opened: epkit.Session) -> list[object]:
        return await asyncio.gather(*(opened.run_async(feed) for feed in feeds))

    with epkit.open(mlp(), provider) as opened:
        for found, feed in zip(asyncio.run(together(opened)), feeds, strict=True):
            check_same(found, wanted_of(mlp(), feed))


def test_the_event_loop_goes_on_meanwhile(session):
    async def both() -> int:
        ticks = 0
        run = asyncio.ensure_future(session.run_async(LONG))
        while not run.done():
            await asyncio.sleep(0.01)
            ticks += 1
        check_same(await run, {"y": LONG})
        return ticks

    assert asyncio.run(both()) > 3


def test_an_awaited_run_that_takes_too_long_stops(session, patient):
    with says(RunTimeout):
        asyncio.run(session.run_async(LONG, timeout=0.05))
    check_same(session.run(SHORT), {"y": SHORT})


@pytest.mark.parametrize("after", [0, 0.05])
def test_a_task_that_is_cancelled_stops_its_run(session, after):
    async def cancelled() -> None:
        run = asyncio.ensure_future(session.run_async(LONG))
        await asyncio.sleep(after)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.run_async(LONG), 0.05)

    asyncio.run(cancelled())
    assert all_ended(session)
    check_same(session.run(SHORT), {"y": SHORT})


def test_errors_of_awaited_runs_are_those_of_runs():
    async def all_of_them(opened: epkit.Session) -> None:
        for wrong in ({}, {"a": [1.0]}, {"a": [1.0], "b": None}, 3):
            with pytest.raises(InputError):
                await opened.run_async(wrong)
        with pytest.raises(InputError):
            await opened.run_async({"a": [1.0], "b": [1.0]}, ["nope"])
        with says(RunError):
            await opened.run_async({"a": full(1, 3), "b": full(1, 5)})
        check_same(await opened.run_async({"a": full(1, 3), "b": full(1, 3)}, "y"), {"y": full(2, 3)})
        failing = [opened.run_async({"a": full(1, 3), "b": full(1, 5)}) for _ in range(5)]
        results = await asyncio.gather(*failing, return_exceptions=True)
        assert all(isinstance(one, RunError) for one in results)

    with epkit.open(ADD, "cpu") as opened:
        asyncio.run(all_of_them(opened))
    gc.collect()  # an exception that nobody asked for would be an error of this test


def test_a_session_that_is_closed_meanwhile_lets_a_run_end_and_begins_none(session):
    opened = epkit.open(slow(), "cpu", session_options={"intra_op_num_threads": 1})

    async def closed_meanwhile() -> list[object]:
        runs = [asyncio.ensure_future(opened.run_async(LONG[:60])) for _ in range(12)]
        while not opened._caller.active_runs.running:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(opened.close)
        with pytest.raises(SessionClosed):
            await opened.run_async(SHORT)
        return await asyncio.gather(*runs, return_exceptions=True)

    results = asyncio.run(closed_meanwhile())
    ended = [one for one in results if isinstance(one, dict)]
    assert ended
    for one in ended:
        check_same(one, {"y": LONG[:60]})
    assert all(isinstance(one, SessionClosed) for one in results if not isinstance(one, dict))
    with pytest.raises(SessionClosed):
        opened.run(SHORT, timeout=1)
    with pytest.raises(SessionClosed):
        asyncio.run(opened.run_async(SHORT))


def test_time_limits_in_many_threads_stop_nothing_else(session):
    def work(number: int) -> None:
        for _ in range(3):
            if number % 2:
                with pytest.raises(RunTimeout):
                    session.run(LONG, timeout=0.02)
            else:
                check_same(session.run(SHORT), {"y": SHORT})
                check_same(session.run(SHORT, timeout=600), {"y": SHORT})

    together(work, 4)


LET_GO = """
import asyncio
import numpy as np
import epkit
from slow_model import slow

session = epkit.open(slow(), "openvino", session_options={"intra_op_num_threads": 1})
big = np.ones((800, 768), np.float32)
for timeout in (0.05, 0.05):
    try:
        asyncio.run(session.run_async(big, timeout=timeout))
    except epkit.errors.RunTimeout as error:
        print("goes on" in str(error))
session.run(big[:1])
session.close()
print("closed")
"""


@pytest.mark.slow
@needs("openvino")
def test_a_run_that_outlives_its_event_loop_says_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LET_GO],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\nTrue\nclosed\n", "", 0)
