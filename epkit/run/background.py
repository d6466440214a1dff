"""How is a run waited for, and no longer than it may take?

The run goes to another thread. When its time is over it is told to stop, which ONNX Runtime heeds between two nodes of
the graph: a provider that made one node of the whole model (OpenVINO, TensorRT) runs to its end, and whoever waits is
let go before that. What such a run holds is held until it ends, and closing the session waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from epkit._arguments import kind_of
from epkit.errors import ConfigError, RunTimeout, SessionClosed
from epkit.run.caller import Caller

# How long a run may take to stop before it counts as one that goes on.
_GRACE_S = 0.1


class Background:
    """Runs a caller's session in threads of its own."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._pool = ThreadPoolExecutor(thread_name_prefix="epkit-run")

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None, seconds: float) -> dict[str, Any]:
        """Run once, and wait `seconds` at most; raises RunTimeout, and what `Caller.run` raises."""
        seconds = _limit(seconds)
        options, future = self._begun(feed, names)
        try:
            wait([future], seconds)
            if future.done():
                return future.result()
        finally:  # also where Ctrl-C ends the wait
            options.terminate = True
            future.cancel()
        wait([future], _GRACE_S)
        raise _too_long(seconds, future)

    async def run_async(
        self, feed: Mapping[str, Any], names: Sequence[str] | None, seconds: float | None
    ) -> dict[str, Any]:
        """Run once, while the event loop goes on; a cancelled task tells the run to stop."""
        seconds = None if seconds is None else _limit(seconds)
        options, future = self._begun(feed, names)
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait([waiting], timeout=seconds)
            if waiting.done():
                return waiting.result()
            options.terminate = True
            await asyncio.wait([waiting], timeout=_GRACE_S)
            raise _too_long(seconds or 0.0, future)
        finally:
            if not waiting.done():
                options.terminate = True
                # Then nobody is told how it ended, not even a loop that is closed by then.
                waiting.cancel()
            elif not waiting.cancelled():
                waiting.exception()

    def close(self) -> None:
        """Begin no further run; those that are waiting for a thread fail as the session is closed."""
        self._pool.shutdown(wait=False)

    def _begun(self, feed: Mapping[str, Any], names: Sequence[str] | None) -> tuple[Any, Future[dict[str, Any]]]:
        options = self._caller.options()
        try:
            return options, self._pool.submit(self._caller.run, feed, names, options)
        except RuntimeError as error:  # the pool is shut down, or Python is
            raise SessionClosed(f"the session is closed: {error}", hint="open it again with epkit.open") from error


def _limit(seconds: object) -> float:
    """Return for how long to wait; raises ConfigError."""
    if isinstance(seconds, int | float | np.floating) and not isinstance(seconds, bool) and seconds > 0:
        return float(min(seconds, threading.TIMEOUT_MAX))
    shown = repr(seconds) if isinstance(seconds, int | float | str) else kind_of(seconds)
    raise ConfigError(f"timeout is {shown}", hint="give seconds above 0, or None for no limit")


def _too_long(seconds: float, future: Future[dict[str, Any]]) -> RunTimeout:
    if future.done():
        return RunTimeout(f"the run took longer than {seconds:g} s and was stopped", hint="give it a longer timeout")
    told = f"the run took longer than {seconds:g} s and goes on until its provider is done with a node"
    return RunTimeout(told, hint="give it a longer timeout; closing the session waits for the run")
