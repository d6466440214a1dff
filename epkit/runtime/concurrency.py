"""Count the runs of a session that are active, and hold the lock of providers that allow one call at a time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

from epkit._system import fork
from epkit._system.cause import cause
from epkit.errors import EpkitError, RunError, SessionClosed

POLL_S = 0.001
PROCESS = fork.lock()
"""Held while a session of a provider with concurrency "per-process" is opened, run or closed."""

Result = TypeVar("Result")


class ActiveRuns:
    """The runs that are under way: closing waits for them, and what they raise is a RunError.

    A run counts from within its `try`, since an interrupt may come as soon as it is counted.
    """

    __slots__ = ("_turn", "_waiting", "refusal", "released", "running")

    def __init__(self, turn: threading.RLock | None) -> None:
        self._turn: Any = turn
        # A list, since appending and popping need no lock.
        self.running: list[None] = []
        self.refusal: tuple[str, str] | None = None
        """Why no run begins any more, and what to do."""
        self.released = False
        """Whether the session is gone."""
        self._waiting: list[int] = []
        """How many runs each thread that waits is itself in the middle of."""

    def do(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Do the work of a run, which may be within another; raises RunError and SessionClosed."""
        running = self.running
        try:
            # First, so that whoever closes the session waits for this run, or this run sees that it is closed.
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
            raise RunError(f"the run failed: {cause(error)}") from error
        finally:
            running.pop()

    def check(self) -> None:
        """Raise SessionClosed where no run may begin."""
        if self.refusal is not None:
            message, hint = self.refusal
            raise SessionClosed(message, hint=hint)

    def refuse(self, message: str, hint: str) -> None:
        """Let no run begin any more."""
        self.refusal = self.refusal or (message, hint)

    def wait(self, own: int) -> None:
        """Wait for all runs but the `own` ones of this thread, which go on only when this returns.

        Nor do two threads wait for each other that close the session in the middle of their runs.
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
    """Count the calls of these functions that this thread is in, and whose local variable is `value`.

    The one that asks through another does not count.
    """
    found, codes = 0, [function.__code__ for function in functions]
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        if frame.f_code in codes and frame.f_locals.get(variable) is value:
            found += 1
        frame = frame.f_back
    return found
