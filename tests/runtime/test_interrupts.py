"""Interrupts at any point of a call: the session still runs, gives right numbers, and closes."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import mlp
from running import ADD, check_same, floats, full, wanted_of

import epkit
from epkit._system import streams
from epkit.errors import RunError, SessionClosed

# What is raised where Python finalizes something, it reports and drops: nobody is interrupted by that.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

HOME = str(Path(epkit.__file__).parent)
SMALL, LARGE = floats(2, 16), floats(2000, 16)


class Interrupted(BaseException):
    """What Ctrl-C raises, by another name."""


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """End a test that waits for ever, with the stacks of all threads."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def at_point(point: int, action: Callable[[], object], call: Callable[[], object]) -> bool:
    """Make a call, and do something at its n-th point where Python looks for signals; False when it has fewer.

    Python runs the handlers of signals when a function begins, and after each call of native code: so those are where
    an exception out of nowhere can be raised.
    """
    points = itertools.count()
    done = False

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal done
        here = event in ("call", "c_return") and frame.f_code.co_filename.startswith(HOME)
        if here and not done and next(points) == point:
            done = True
            action()

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return done


def interrupt() -> None:
    raise Interrupted


def interrupted_at(point: int, call: Callable[[], object]) -> bool:
    """Make a call, and interrupt it at its n-th point; False when it has fewer."""
    try:
        return at_point(point, interrupt, call)
    except Interrupted:
        return True


def every_interrupt(call: Callable[[], object]) -> Iterator[int]:
    """Interrupt a call at one point after the other, as long as it has any."""
    for point in itertools.count():
        if not interrupted_at(point, call):
            return
        yield point


def in_time(work: Callable[[], object]) -> None:
    """Do the work in another thread, which must end: as closing does from wherever a program closes."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for what never ends"


CALLS = {
    "run": lambda session, feed: session.run(feed),
    "run of some outputs": lambda session, feed: session.run(feed, ["y"]),
    "run with a time limit": lambda session, feed: session.run(feed, timeout=600),
    "run_async": lambda session, feed: asyncio.run(session.run_async(feed)),
    "bind": lambda session, feed: session.bind(feed).run(),
}


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", CALLS)
def test_a_session_runs_and_closes_after_an_interrupt_at_any_point(name, size):
    feed = {"x": SMALL if size == "small" else LARGE}
    wanted = wanted_of(mlp(), feed)
    session = epkit.open(mlp(), "cpu")
    for _ in range(3):
        session.run(feed)

    def runs_right(_: int) -> bool:
        check_same(session.run(feed), wanted)
        return True

    points = [point for point in every_interrupt(lambda: CALLS[name](session, feed)) if runs_right(point)]
    assert len(points) >= 5
    in_time(session.close)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu=per-session", "memory given back"])
def test_a_session_that_takes_turns_or_gives_memory_back_does_too(name, install):
    if name == "cpu=per-session":
        source = """
from epkit.hookspecs import hookimpl
from epkit.provider import Limits
from epkit_cpu.provider import Cpu
class Shy(Cpu):
    name = "shy"
    limits = Limits(concurrency="per-session")
@hookimpl
def epkit_providers():
    return [Shy()]
"""
        install("shy", source)
        session = epkit.open(mlp(), "shy")
    else:
        config = {"targets": {"t": {"provider": "cpu", "shrink_above": 1000}}}
        session = epkit.open(mlp(), "t", config=config)
    feed = {"x": LARGE}
    wanted = wanted_of(mlp(), feed)
    for _ in every_interrupt(lambda: session.run(feed)):
        in_time(lambda: check_same(session.run(feed), wanted))
    in_time(session.close)


@pytest.mark.parametrize("refill", [True, False])
@pytest.mark.parametrize("size", [3, 20000])
def test_a_binding_runs_right_or_is_closed_after_an_interrupt_at_any_point(size, refill):
    """One that was interrupted while it was bound is closed; no other is, and none gives half a result."""
    session = epkit.open(ADD, "cpu")
    feed = {"a": full(1, size), "b": full(2, size)}
    wanted = {"y": full(3, size), "z": full(-1, size)}

    def fresh() -> epkit.Binding:
        return session.bind({name: array.copy() for name, array in feed.items()})

    for runs_before in (0, 1, 3):
        for point in itertools.count():
            binding = fresh()
            for _ in range(runs_before):
                binding.run(feed)
            if not interrupted_at(point, lambda binding=binding: binding.run(feed if refill else None)):
                break
            for _ in range(3):
                if not binding._closed:
                    check_same(binding.run(feed), wanted)
            in_time(binding.close)
        assert point >= 3
    in_time(session.close)


@pytest.mark.slow
def test_closing_that_was_interrupted_is_done_by_closing_again():
    for what in ("session", "binding"):
        for point in itertools.count():
            session = epkit.open(mlp(), "cpu")
            binding = session.bind({"x": SMALL})
            binding.run()
            if not interrupted_at(point, session.close if what == "session" else binding.close):
                break
            in_time(binding.close)
            if what == "session":
                in_time(session.close)
                with pytest.raises(RunError, match="closed"):
                    session.run(SMALL)
        assert point >= 3


def test_a_thread_that_was_silent_is_heard_again_after_an_interrupt_at_any_point(capsys):
    def silently() -> None:
        with streams.silence("stdout", "stderr"):
            sys.stdout.write("nobody hears this")

    for point in every_interrupt(silently):
        capsys.readouterr()
        sys.stdout.write(f"{point}")
        assert capsys.readouterr().out == f"{point}"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no timers that interrupt")
@pytest.mark.slow
def test_a_session_outlives_thousands_of_real_interrupts():
    session = epkit.open(mlp(), "cpu")
    binding = session.bind({"x": SMALL})
    wanted = wanted_of(mlp(), {"x": SMALL})
    for _ in range(3):
        session.run(SMALL)
        binding.run(SMALL)

    before = signal.signal(signal.SIGALRM, lambda *_: interrupt())
    try:
        for turn in range(3000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + turn % 50 * 0.00001)
                while True:
                    session.run(SMALL)
                    binding.run(SMALL)
            except Interrupted:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    check_same(session.run(SMALL), wanted)
    check_same(binding.run(SMALL), wanted)
    in_time(binding.close)
    in_time(session.close)


# -- what is called in the middle of a run


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("limit", [None, 600])
def test_a_run_in_the_middle_of_a_run_gives_the_right_numbers(size, limit):
    """As a signal handler and a `__del__` do; also while buffers are lent and set up."""
    feed = {"x": SMALL if size == "small" else LARGE}
    other = {"x": feed["x"] + 1}
    wanted, wanted_other = wanted_of(mlp(), feed), wanted_of(mlp(), other)
    for before in range(3):
        for point in itertools.count():
            session = epkit.open(mlp(), "cpu")  # each time, since the first runs of a shape go other ways
            for _ in range(before):
                session.run(feed)
            if not at_point(
                point,
                lambda session=session: check_same(session.run(other), wanted_other),
                lambda session=session: check_same(session.run(feed, timeout=limit), wanted),
            ):
                break
            check_same(session.run(feed), wanted)
            in_time(session.close)


@pytest.mark.parametrize("way", ["run", "run with a time limit", "bind"])
def test_closing_in_the_middle_of_a_run_returns_and_the_run_ends_or_says_closed(way):
    feed, outcomes = {"x": SMALL}, set()
    wanted = wanted_of(mlp(), feed)
    for before in (0, 3):
        for point in itertools.count():
            session = epkit.open(mlp(), "cpu")
            binding = session.bind(feed) if way == "bind" else None
            call = (lambda b=binding: b.run(feed)) if binding else (lambda s=session: CALLS[way](s, feed))
            for _ in range(before):
                call()
            try:
                if not at_point(point, session.close, lambda call=call: outcomes.add(str(check_same(call(), wanted)))):
                    break
            except SessionClosed:
                outcomes.add("closed")
            with pytest.raises(SessionClosed):
                session.run(feed)
            assert session._caller.session is None
            if binding is not None:
                with pytest.raises(SessionClosed):
                    binding.run(feed)
                assert binding._bound is None
            in_time(session.close)
    assert outcomes == {"None", "closed"}


def test_an_observer_may_close_the_session_whose_run_it_is_told_of():
    sessions: list[epkit.Session] = []

    def observer(event: object) -> None:
        if type(event).__name__ == "Ran":
            sessions[0].close()

    with epkit.observe(observer):
        sessions.append(epkit.open(mlp(), "cpu"))
        in_time(lambda: check_same(sessions[0].run(SMALL), wanted_of(mlp(), {"x": SMALL})))
    with pytest.raises(SessionClosed):
        sessions[0].run(SMALL)


def test_two_threads_that_close_a_session_in_their_runs_do_not_wait_for_each_other():
    together = threading.Barrier(2)

    def observer(event: object) -> None:
        if type(event).__name__ == "Ran":
            together.wait(60)
            session.close()

    with epkit.observe(observer):
        session = epkit.open(mlp(), "cpu")
        threads = [threading.Thread(target=session.run, args=(LARGE,), daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="it has no timers that interrupt")
@pytest.mark.parametrize("limit", [None, 600, 1])
def test_a_signal_handler_may_close_the_session(limit):
    from slow_model import slow

    session = epkit.open(slow(), "cpu", session_options={"intra_op_num_threads": 1})
    big = np.ones((60 if limit != 1 else 4000, 768), np.float32)
    begun = time.monotonic()
    before = signal.signal(signal.SIGALRM, lambda *_: session.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            check_same(session.run(big, timeout=limit), {"y": big})
        except (SessionClosed, RunError):
            assert limit is not None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    while session._caller.session is not None and time.monotonic() - begun < 60:
        time.sleep(0.01)
    with pytest.raises(SessionClosed):
        session.run(big)
