"""Runs with a time limit begin at once: none waits, unseen, for others to end."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import numpy as np
import pytest
from models import mlp
from running import ADD, check_same, floats, full, wanted_of
from slow_model import LONG, SHORT, slow
from together import together

import epkit
from epkit.errors import RunError, RunTimeout, SessionClosed
from epkit.runtime import threads
from epkit.runtime import timeout as background

MANY = 12  # more than the threads of `concurrent.futures` on the machines of the tests


@pytest.fixture(scope="module")
def session():
    with epkit.open(slow(), "cpu", session_options={"intra_op_num_threads": 1}) as opened:
        opened.run(SHORT)
        yield opened


class Held:
    """A session of ONNX Runtime whose runs of the long input wait until they are let go."""

    def __init__(self, real: object) -> None:
        self.real = real
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def run(self, names, feed, options=None):
        if len(feed["x"]) > 2:
            self.begun.release()
            self.go_on.wait(60)
        return self.real.run(names, feed, options)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


@pytest.fixture
def held():
    """Give a session with many runs under way that do not end."""
    opened = epkit.open(mlp(), "cpu")
    waits = opened._caller.session = Held(opened._caller.session)
    yield opened, waits
    waits.go_on.set()
    opened.close()


def test_a_run_begins_beside_many_others_with_a_time_limit(held):
    session, waits = held
    callers = [threading.Thread(target=session.run, args=(floats(3, 16),), kwargs={"timeout": 60}) for _ in range(MANY)]
    for caller in callers:
        caller.start()
    for _ in callers:
        assert waits.begun.acquire(timeout=30)
    feed = {"x": floats(2, 16)}
    check_same(session.run(feed, timeout=20), wanted_of(mlp(), feed))
    waits.go_on.set()
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()
    assert len(session._background._threads._idle) <= threads.MOST_IDLE


def test_threads_stay_for_the_next_run_and_end_with_the_session():
    def of_epkit() -> int:
        return sum(thread.name == "epkit-run" for thread in threading.enumerate())

    before = of_epkit()
    session = epkit.open(mlp(), "cpu")
    for _ in range(20):
        session.run(floats(2, 16), timeout=60)
    assert of_epkit() <= before + 2  # one, and one more if it was not back yet
    session.close()
    begun = time.monotonic()
    while of_epkit() > before and time.monotonic() - begun < 30:
        time.sleep(0.01)
    assert of_epkit() <= before


def test_an_awaited_run_that_did_not_begin_in_time_says_so(held, monkeypatch):
    session, waits = held
    monkeypatch.setattr(background, "MOST_AWAITED", 2)

    async def beside() -> None:
        others = [asyncio.ensure_future(session.run_async(floats(3, 16))) for _ in range(2)]
        await asyncio.to_thread(lambda: [waits.begun.acquire(timeout=30) for _ in others])
        with pytest.raises(RunTimeout, match="did not begin") as error:
            await session.run_async(floats(2, 16), timeout=0.05)
        assert error.value.hint
        waits.go_on.set()
        await asyncio.gather(*others)
        feed = {"x": floats(2, 16)}
        check_same(await session.run_async(feed, timeout=60), wanted_of(mlp(), feed))

    asyncio.run(beside())


def test_runs_that_go_on_after_their_time_do_not_pile_up_without_end(held, monkeypatch):
    session, waits = held
    monkeypatch.setattr(background, "MOST_LEFT", 3)
    for _ in range(3):
        with pytest.raises(RunTimeout, match="goes on"):
            session.run(floats(3, 16), timeout=0.05)
        assert waits.begun.acquire(timeout=30)
    with pytest.raises(RunTimeout, match="did not begin") as error:
        session.run(floats(3, 16), timeout=0.05)
    assert error.value.hint
    assert not waits.begun.acquire(timeout=0.2)
    waits.go_on.set()
    feed = {"x": floats(2, 16)}
    check_same(session.run(feed, timeout=60), wanted_of(mlp(), feed))


def test_a_run_that_waited_for_its_turn_says_that_it_did_not_begin(held):
    session, _ = held
    lock = threading.RLock()
    session._caller.active_runs._turn = lock
    with lock:
        thread_says: list[RunTimeout] = []

        def work() -> None:
            with pytest.raises(RunTimeout, match="did not begin") as error:
                session.run(floats(2, 16), timeout=0.05)
            thread_says.append(error.value)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
    assert thread_says


def test_a_time_limit_holds_while_its_own_thread_closes_the_session(session):
    opened = epkit.open(slow(), "cpu", session_options={"intra_op_num_threads": 1})

    async def closed_in_the_loop() -> None:
        run = asyncio.ensure_future(opened.run_async(np.tile(LONG, (40, 1)), timeout=0.3))
        while not opened._caller.active_runs.running:
            await asyncio.sleep(0.001)
        opened.close()  # as a handler of the loop does: the loop stands still meanwhile
        with pytest.raises(RunError):
            await run

    asyncio.run(closed_in_the_loop())


# -- closing beside a binding


@pytest.mark.parametrize("refill", [True, False])
def test_a_binding_whose_session_is_closed_meanwhile_always_says_so(refill):
    """Never that another thread was running it: nobody else did."""
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(60):
            session = epkit.open(ADD, "cpu")
            feed = {"a": full(1, 4), "b": full(2, 4)}
            bindings = [session.bind(feed) for _ in range(3)]

            def work(number: int, session=session, bindings=bindings, feed=feed) -> None:
                if number == 3:
                    session.close()
                    return

                def runs_until_closed() -> None:
                    while True:
                        check_same(bindings[number].run(feed if refill else None)["y"], full(3, 4))

                with pytest.raises(SessionClosed):
                    runs_until_closed()

            together(work, 4)
    finally:
        sys.setswitchinterval(0.005)
