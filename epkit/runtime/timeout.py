"""Wait for a run no longer than it may take, or while an event loop goes on.

The run goes to another thread. When its time is over it is told to stop, which ONNX Runtime heeds between two nodes of
the graph: a provider that made one node of the whole model (OpenVINO, TensorRT) runs to its end, and whoever waits is
let go before that. What such a run holds is held until it ends, and closing the session waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeAlias

import numpy as np

from epkit._system import fork
from epkit._system.arguments import type_name
from epkit.errors import ConfigError, RunError, RunTimeout
from epkit.runtime.execution import Caller
from epkit.runtime.threads import Threads

# How long a run may take to stop before it counts as one that goes on.
_GRACE_S = 0.1
MOST_AWAITED = min(32, (os.cpu_count() or 1) + 4)
"""How many runs an event loop has under way at once, as with `asyncio.to_thread`; further ones wait."""
MOST_LEFT = MOST_AWAITED
"""How many runs whose time is over may go on before further ones wait for one of them."""
_LONGER = "give it a longer timeout"

Results: TypeAlias = dict[str, Any]


class Background:
    """Runs a caller's session in threads of its own."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._threads = Threads()
        weakref.finalize(self, self._threads.close).atexit = False
        self._jobs: set[_Job] = set()
        """The runs that have not ended."""
        self._gates: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        fork.register(self)

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None, seconds: float, options: Any = None) -> Results:
        """Run once, and wait `seconds` at most; raises RunTimeout, and what `Caller.run` raises.

        `options` are ONNX Runtime's, of this run alone.
        """
        job = _Job(self._caller, feed, names, _limit(seconds), options)
        self._room(job)
        try:
            self._begin(job)
            wait([job.future], job.left)
            if job.future.done():
                return job.future.result()
        finally:  # also where Ctrl-C ends the wait, or comes before it
            job.options.terminate = True
            job.future.cancel()
        if job.begun:
            wait([job.future], _GRACE_S)
        raise job.too_long()

    async def run_async(
        self, feed: Mapping[str, Any], names: Sequence[str] | None, seconds: float | None, options: Any = None
    ) -> Results:
        """Run once, while the event loop goes on; a cancelled task tells the run to stop."""
        job = _Job(self._caller, feed, names, None if seconds is None else _limit(seconds), options)
        loop, gate = asyncio.get_running_loop(), self._gate()
        try:
            async with asyncio.timeout(job.left):
                await gate.acquire()
        except TimeoutError:
            raise job.too_long() from None
        try:
            return await self._awaited(job)
        finally:
            job.future.cancel()
            # A run that goes on still counts as one of those under way.
            job.future.add_done_callback(lambda _: _release(gate, loop))

    async def _awaited(self, job: _Job) -> Results:
        waiting = asyncio.wrap_future(job.future)
        try:
            self._begin(job)
            await asyncio.wait([waiting], timeout=job.left)
            if waiting.done():
                return waiting.result()
            job.options.terminate = True
            if job.begun:
                await asyncio.wait([waiting], timeout=_GRACE_S)
            raise job.too_long()
        finally:
            job.options.terminate = True
            if not waiting.done():
                # Then nobody is told how it ended, not even a loop that is closed by then.
                waiting.cancel()
            elif not waiting.cancelled():
                waiting.exception()

    def close(self) -> None:
        """Begin no further run, and wait for those that have a time limit until it is over."""
        self._threads.close()
        for job in tuple(self._jobs):
            if job.left is not None and job.future.running():
                # Whoever waits for it may be this very thread, in a signal handler: then nobody else stops it.
                wait([job.future], job.left)
                job.options.terminate = True

    def after_fork(self) -> None:
        """Know, in a forked process, of no run of its parent."""
        self._jobs, self._gates = set(), {}

    def _begin(self, job: _Job) -> None:
        self._caller.under_way.check()
        job.future.add_done_callback(lambda _: self._jobs.discard(job))
        self._jobs.add(job)
        try:
            self._threads.begin(job.run)
        except RuntimeError as error:  # the system has no further thread, or Python shuts down
            self._jobs.discard(job)
            raise RunError(f"no thread for a run with a time limit: {error}", hint="run without a timeout") from error

    def _room(self, job: _Job) -> None:
        """Wait while too many runs go on whose time is over; raises RunTimeout."""
        left = [one.future for one in tuple(self._jobs) if one.options.terminate]
        if len(left) >= MOST_LEFT and not wait(left, job.left, FIRST_COMPLETED).done:
            raise job.too_long()

    def _gate(self) -> asyncio.Semaphore:
        """Return what keeps the runs of this event loop from being too many at once."""
        loop = asyncio.get_running_loop()
        for gone in [one for one in tuple(self._gates) if one.is_closed()]:
            self._gates.pop(gone, None)
        return self._gates.setdefault(loop, asyncio.Semaphore(MOST_AWAITED))


def _release(gate: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # a loop that is closed needs no gate
        loop.call_soon_threadsafe(gate.release)


class _Job:
    """A run for another thread."""

    def __init__(
        self,
        caller: Caller,
        feed: Mapping[str, Any],
        names: Sequence[str] | None,
        seconds: float | None,
        options: Any,
    ) -> None:
        self.options = caller.options() if options is None else options
        self.future: Future[Results] = Future()
        self.begun = False
        """Whether it is in ONNX Runtime, or was."""
        self._caller = caller
        self._feed = feed
        self._names = names
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """The seconds that are left; None without a limit."""
        return None if self._deadline is None else min(max(0.0, self._deadline - time.monotonic()), _LONGEST_S)

    def run(self) -> None:
        """Run, and leave what comes of it in `future`."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            results = self._caller.under_way.do(self._run_now)
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            self.future.set_exception(error)
        else:
            self.future.set_result(results)

    def _run_now(self) -> Results:
        """Run, now that it is this run's turn."""
        if self.options.terminate:
            raise self.too_long()
        self.begun = True
        return self._caller.run_now(self._feed, self._names, self.options)

    def too_long(self) -> RunTimeout:
        """Return what to raise when its time is over."""
        told = f"longer than {self._seconds or 0.0:g} s"
        if not self.begun:
            hint = f"{_LONGER}, or begin fewer at once"
            return RunTimeout(f"the run waited {told} for others of this session to end, and did not begin", hint=hint)
        if self.future.done():
            return RunTimeout(f"the run took {told} and was stopped", hint=_LONGER)
        told = f"the run took {told} and goes on until its provider is done with a node"
        return RunTimeout(told, hint=f"{_LONGER}; closing the session waits for the run")


_LONGEST_S = threading.TIMEOUT_MAX


def _limit(seconds: object) -> float:
    """Return for how long to wait; raises ConfigError."""
    if isinstance(seconds, int | float | np.floating) and not isinstance(seconds, bool) and seconds > 0:
        return float(min(seconds, _LONGEST_S))
    shown = repr(seconds) if isinstance(seconds, int | float | str) else type_name(seconds)
    raise ConfigError(f"timeout is {shown}", hint="give seconds above 0, or None for no limit")
