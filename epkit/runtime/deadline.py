"""Tell runs to stop, in the thread that runs them, once their time is over.

ONNX Runtime heeds it between two nodes of the graph, as for a run with a time limit of its own.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from epkit._system import fork
from epkit.runtime.execution import Caller


class Deadline:
    """A time that is over so many seconds after a `with` block was entered."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._lock = fork.make_lock()
        self._options: Any = None
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True

    def options(self, caller: Caller) -> Any:
        """Return options for the next run, which is told to stop when the time is over."""
        options = caller.options()
        with self._lock:
            self._options = options
            if self.passed:
                options.terminate = True
        return options

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._timer.cancel()

    def _pass(self) -> None:
        with self._lock:
            self.passed = True
            if self._options is not None:
                self._options.terminate = True
