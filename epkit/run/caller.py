"""How do checked inputs become results, and how many runs are under way?"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from epkit._cause import cause
from epkit.errors import RunError, SessionClosed
from epkit.model import TensorInfo
from epkit.provider import Concurrency
from epkit.run.dtypes import is_exotic
from epkit.run.lease import Leases, Run
from epkit.run.raw import run_raw
from epkit.run.turn import PROCESS

_LOOK_AGAIN_S = 0.001


class Caller:
    """Runs one ONNX Runtime session, from any number of threads, in the quickest way that its types allow."""

    def __init__(
        self,
        session: Any,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        *,
        exotic: bool = False,
        concurrency: Concurrency = "free",
        lends: bool = False,
    ) -> None:
        """`exotic` sessions take types that plain `run` cannot carry.

        `lends` allows bindings with fixed output buffers, where ONNX Runtime itself checks each output's shape; a
        plugin library may write a smaller one into the buffer and say nothing.
        """
        self.session = session
        self._outputs = {one.name: one for one in outputs}
        raw = exotic or any(is_exotic(one.dtype) for one in outputs)
        self._run: Run = self._raw if raw else session.run
        self._leases = Leases(session, self._run, inputs, outputs, lends=lends)
        turns: dict[Concurrency, AbstractContextManager[Any] | None] = {
            "free": None,
            "per-session": threading.RLock(),
            "per-process": PROCESS,
        }
        self._turn = turns[concurrency]
        # A list, since appending and popping need no lock: this is on the way of every run.
        self._running: list[None] = []
        self._closed = False

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once for the outputs `names`, or for all; raises RunError and SessionClosed."""
        running = self._running
        running.append(None)
        try:
            if self._closed:
                raise SessionClosed("the session is closed", hint="open it again with epkit.open")
            if self._turn is None:
                return self._leases.run(feed, names)
            with self._turn:
                return self._leases.run(feed, names)
        except RunError:
            raise
        except Exception as error:
            raise RunError(f"the run failed: {cause(error)}") from error
        finally:
            running.pop()

    def close(self) -> None:
        """Let no run begin any more, wait for those that are under way, and let go of the session."""
        self._closed = True
        while self._running:
            time.sleep(_LOOK_AGAIN_S)
        with self._turn or nullcontext():
            self.session = None
            self.__dict__.pop("_leases", None)
            self.__dict__.pop("_run", None)

    def _raw(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        return run_raw(self.session, [self._outputs[name] for name in names], feed)
