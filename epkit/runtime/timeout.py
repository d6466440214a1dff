"""Run sessions with a time limit, or without blocking an event loop.

The run goes to another thread. When its time limit is over, `terminate` is set in its run options, which ONNX Runtime
checks between two nodes of the graph. A provider that makes one node of the whole model (OpenVINO, TensorRT) runs to
its end; the waiting thread gets RunTimeout before that. Such a run keeps its memory until it ends, and closing the
session waits for it.
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
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from epkit._system import fork
from epkit._system.arguments import type_name
from epkit.errors import ConfigError, RunError, RunTimeout
from epkit.runtime.execution import Executor
from epkit.runtime.threads import WorkerThreads

# How long a run may take to stop before it counts as one that goes on.
_GRACE_S = 0.1
MOST_AWAITED = min(32, (os.cpu_count() or 1) + 4)
"""How many runs an event loop has under way at once, as with `asyncio.to_thread`; further ones wait."""
MOST_LEFT = MOST_AWAITED
"""How many runs whose time is over may go on before further ones wait for one of them."""
_LONGER = "give it a longer timeout"

BoundOutputs: TypeAlias = dict[str, Any]


class BackgroundRunner:
    """Runs an executor in background threads."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._threads = WorkerThreads()
        weakref.finalize(self, self._threads.close).atexit = False
        self._jobs: set[_Job] = set()
        """The runs that have not ended."""
        self._semaphores: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        fork.register(self)

    def run(
        self, feed: Mapping[str, Any], names: Sequence[str] | None, seconds: float, options: Any = None
    ) -> BoundOutputs:
        """Run once, and wait `seconds` at most; raises RunTimeout, and what `Executor.run` raises.

        `options` are ONNX Runtime's, of this run alone.
        """
        job = _Job(self._executor, feed, names, _check_limit(seconds), options)
        self._wait_for_slot(job)
        try:
            self._submit(job)
            wait([job.future], job.left)
            if job.future.done():
                return job.future.result()
        finally:  # also where Ctrl-C ends the wait, or comes before it
            job.options.terminate = True
            job.future.cancel()
        if job.started:
            wait([job.future], _GRACE_S)
        raise job.build_timeout()

    async def run_async(
        self, feed: Mapping[str, Any], names: Sequence[str] | None, seconds: float | None, options: Any = None
    ) -> BoundOutputs:
        """Run once without blocking the event loop; cancelling the task terminates the run."""
        job = _Job(self._executor, feed, names, None if seconds is None else _check_limit(seconds), options)
        loop, semaphore = asyncio.get_running_loop(), self._get_semaphore()
        try:
            async with asyncio.timeout(job.left):
                await semaphore.acquire()
        except TimeoutError:
            raise job.build_timeout() from None
        try:
            return await self._await(job)
        finally:
            job.future.cancel()
            # A run that goes on still counts as one of those under way.
            job.future.add_done_callback(lambda _: _release(semaphore, loop))

    async def _await(self, job: _Job) -> BoundOutputs:
        waiting = asyncio.wrap_future(job.future)
        try:
            self._submit(job)
            await asyncio.wait([waiting], timeout=job.left)
            if waiting.done():
                return waiting.result()
            job.options.terminate = True
            if job.started:
                await asyncio.wait([waiting], timeout=_GRACE_S)
            raise job.build_timeout()
        finally:
            job.options.terminate = True
            if not waiting.done():
                # Then its outcome is dropped, also by a loop that is closed by then.
                waiting.cancel()
            elif not waiting.cancelled():
                waiting.exception()

    def close(self) -> None:
        """Begin no further run, and wait for those that have a time limit until it is over."""
        self._threads.close()
        for job in tuple(self._jobs):
            if job.left is not None and job.future.running():
                # This thread may itself be waiting for it, in a signal handler: then no other stops it.
                wait([job.future], job.left)
                job.options.terminate = True

    def after_fork(self) -> None:
        """Forget, in a forked process, the runs of its parent."""
        self._jobs, self._semaphores = set(), {}

    def _submit(self, job: _Job) -> None:
        self._executor.active_runs.check()
        job.future.add_done_callback(lambda _: self._jobs.discard(job))
        self._jobs.add(job)
        try:
            self._threads.submit(job.run)
        except RuntimeError as error:  # the system has no further thread, or Python shuts down
            self._jobs.discard(job)
            raise RunError(f"no thread for a run with a time limit: {error}", hint="run without a timeout") from error

    def _wait_for_slot(self, job: _Job) -> None:
        """Wait while too many runs go on whose time is over; raises RunTimeout."""
        left = [other.future for other in tuple(self._jobs) if other.options.terminate]
        if len(left) >= MOST_LEFT and not wait(left, job.left, FIRST_COMPLETED).done:
            raise job.build_timeout()

    def _get_semaphore(self) -> asyncio.Semaphore:
        """Return the semaphore that limits the active runs of this event loop."""
        loop = asyncio.get_running_loop()
        for gone in [known for known in tuple(self._semaphores) if known.is_closed()]:
            self._semaphores.pop(gone, None)
        return self._semaphores.setdefault(loop, asyncio.Semaphore(MOST_AWAITED))


def _release(semaphore: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # a loop that is closed needs no gate
        loop.call_soon_threadsafe(semaphore.release)


class Deadline:
    """A time limit, in seconds from entering a `with` block, for the runs inside it."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = fork.make_lock()
        self._options: Any = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def options(self, executor: Executor) -> Any:
        """Return RunOptions for the next run, which is terminated when the time is over."""
        options = executor.options()
        with self._lock:
            self._options = options
            if self.expired:
                options.terminate = True
        return options

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            if self._options is not None:
                self._options.terminate = True


class _Job:
    """A run for another thread."""

    def __init__(
        self,
        executor: Executor,
        feed: Mapping[str, Any],
        names: Sequence[str] | None,
        seconds: float | None,
        options: Any,
    ) -> None:
        self.options = executor.options() if options is None else options
        self.future: Future[BoundOutputs] = Future()
        self.started = False
        """Whether it is in ONNX Runtime, or was."""
        self._executor = executor
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
            results = self._executor.active_runs.do(self._run_now)
        except BaseException as error:  # noqa: BLE001 - for the thread that waits
            self.future.set_exception(error)
        else:
            self.future.set_result(results)

    def _run_now(self) -> BoundOutputs:
        """Run, now that it is this run's turn."""
        if self.options.terminate:
            raise self.build_timeout()
        self.started = True
        return self._executor.run_now(self._feed, self._names, self.options)

    def build_timeout(self) -> RunTimeout:
        """Return what to raise when its time is over."""
        message = f"longer than {self._seconds or 0.0:g} s"
        if not self.started:
            hint = f"{_LONGER}, or begin fewer at once"
            return RunTimeout(
                f"the run waited {message} for others of this session to end, and did not begin", hint=hint
            )
        if self.future.done():
            return RunTimeout(f"the run took {message} and was stopped", hint=_LONGER)
        message = f"the run took {message} and goes on until its provider is done with a node"
        return RunTimeout(message, hint=f"{_LONGER}; closing the session waits for the run")


_LONGEST_S = threading.TIMEOUT_MAX


def _check_limit(seconds: object) -> float:
    """Return for how long to wait; raises ConfigError."""
    if isinstance(seconds, int | float | np.floating) and not isinstance(seconds, bool) and seconds > 0:
        return float(min(seconds, _LONGEST_S))
    shown = repr(seconds) if isinstance(seconds, int | float | str) else type_name(seconds)
    raise ConfigError(f"timeout is {shown}", hint="give seconds above 0, or None for no limit")
