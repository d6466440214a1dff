"""Wrap a session of ONNX Runtime, so that code runs around each of its runs.

class Slow(SessionWrapper):
    def around(self, run):
        time.sleep(0.1)
        return run()

def open(self, model, options, create):  # of a Provider
    return Slow(create())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")


class SessionWrapper:
    """An ONNX Runtime session whose runs go through `around`; everything else is the session's own."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def around(self, run: Callable[[], Result]) -> Result:
        """Do one run, plain or bound. What it returns is the outputs of a plain run, and None of a bound one."""
        return run()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], options: object | None = None) -> Any:
        """Run as `InferenceSession.run`."""
        return self.around(lambda: self._session.run(names, feed, options))

    def run_with_iobinding(self, binding: Any, options: object | None = None) -> None:
        """Run as `InferenceSession.run_with_iobinding`."""
        self.around(lambda: self._session.run_with_iobinding(binding, options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
