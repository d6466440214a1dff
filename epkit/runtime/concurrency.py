"""Count the runs of a session that are active, and hold the lock of providers that allow one call at a time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

from epkit._system import fork
from epkit._system.text import describe_error
from epkit.errors import EpkitError, RunError, SessionClosed

POLL_S = 0.001
PROCESS = fork.make_lock()
"""Held while a session of a provider with concurrency "per-process" is opened, run or closed."""

Result = TypeVar("Result")


class ActiveRuns:
    """The active runs of a session: `close` waits for them, and what they raise becomes a RunError.

    A run is counted inside its `try`, since an interrupt may come as soon as it is counted.
    """

    __slots__ = ("_turn", "_waiting", "refusal", "released", "running")

    def __init__(self, turn: threading.RLock | None) -> None:
        self._turn: Any = turn
        # A list, since appending and popping need no lock.
        self.running: list[None] = []
        self.refusal: tuple[str, str] | None = None
        """Why runs are refused, and a hint; None while they are not."""
        self.released = False
        """Whether the session was released."""
        self._waiting: list[int] = []
        """For each thread that waits, how many runs it is itself inside of."""

    def do(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Call `work` as a run, possibly inside another; raises RunError and SessionClosed."""
        running = self.running
        try:
            # First, so that `close` waits for this run, or this run sees that the session is closed.
            running.append(None)
            self.check()
            if self._turn is None:
                return work(*arguments)
            with self._turn:
                return work(*arguments)
        except EpkitError:
            raise
        except Exception as error:
            if self.released:  # by this very thread, in the middle of the run
                self.check()
            raise RunError(f"the run failed: {describe_error(error)}") from error
        finally:
            running.pop()

    def check(self) -> None:
        """Raise SessionClosed if runs are refused."""
        if self.refusal is not None:
            message, hint = self.refusal
            raise SessionClosed(message, hint=hint)

    def refuse(self, message: str, hint: str) -> None:
        """Refuse all further runs; the first reason stays."""
        self.refusal = self.refusal or (message, hint)

    def wait(self, own: int) -> None:
        """Wait for all runs but the `own` ones of this thread, which continue only when this returns.

        Two threads that close the session in the middle of their runs do not wait for each other.
        """
        try:
            self._waiting.append(own)
            # Once Python shuts down, other threads never go on.
            while len(self.running) > sum(tuple(self._waiting)) and not sys.is_finalizing():
                time.sleep(POLL_S)
        finally:
            self._waiting.remove(own)

    def after_fork(self, own: int) -> None:
        """Forget the runs of threads that are not in this process."""
        self.running[:] = [None] * own
        self._waiting.clear()


def on_stack(functions: Sequence[Callable[..., Any]], variable: str, value: object) -> int:
    """Count the calls of these functions on this thread's stack whose local `variable` is `value`.

    The call that asks, through a function in between, does not count.
    """
    found, codes = 0, [function.__code__ for function in functions]
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        if frame.f_code in codes and frame.f_locals.get(variable) is value:
            found += 1
        frame = frame.f_back
    return found
