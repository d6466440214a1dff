"""How do checked inputs become results, and how many runs are under way?"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from epkit._system import fork
from epkit._system.platform import trim_heap
from epkit._system.text import describe_error
from epkit.errors import EpkitError, RunError, SessionClosed
from epkit.model.dtypes import needs_ml_dtypes
from epkit.model.file import TensorInfo
from epkit.provider import Concurrency
from epkit.runtime.arena import Shrink
from epkit.runtime.captured_graph import Graphs
from epkit.runtime.concurrency import PROCESS
from epkit.runtime.device_array import CPU, CPU_MEMORY
from epkit.runtime.fast_path import Leases
from epkit.runtime.raw_tensors import run_raw
from epkit.runtime.stack import on_stack

LOOK_AGAIN_S = 0.001
REOPEN = "open it again with epkit.open"

Result = TypeVar("Result")


class UnderWay:
    """The runs that are under way: closing waits for them, and what they raise is a RunError.

    A run counts from within its `try`, since an interrupt may come as soon as it is counted.
    """

    __slots__ = ("_closers", "_turn", "let_go", "refusal", "running")

    def __init__(self, turn: threading.RLock | None) -> None:
        self._turn: Any = turn
        # A list, since appending and popping need no lock.
        self.running: list[None] = []
        self.refusal: tuple[str, str] | None = None
        """Why no run begins any more, and what to do."""
        self.let_go = False
        """Whether the session is gone."""
        self._closers: list[int] = []
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
            if self.let_go:  # by this very thread, in the middle of the run
                self.check()
            raise RunError(f"the run failed: {describe_error(error)}") from error
        finally:
            running.pop()

    def check(self) -> None:
        """Raise SessionClosed where no run may begin."""
        if self.refusal is not None:
            told, hint = self.refusal
            raise SessionClosed(told, hint=hint)

    def refuse(self, told: str, hint: str) -> None:
        """Let no run begin any more."""
        self.refusal = self.refusal or (told, hint)

    def wait(self, own: int) -> None:
        """Wait for all runs but the `own` ones of this thread, which go on only when this returns.

        Nor do two threads wait for each other that close the session in the middle of their runs.
        """
        try:
            self._closers.append(own)
            # Once Python shuts down, other threads never go on.
            while len(self.running) > sum(tuple(self._closers)) and not sys.is_finalizing():
                time.sleep(LOOK_AGAIN_S)
        finally:
            self._closers.remove(own)

    def after_fork(self, own: int) -> None:
        """Forget the runs of threads that are not in this process."""
        self.running[:] = [None] * own
        self._closers.clear()


class Caller:
    """Runs one ONNX Runtime session, from any number of threads, in the quickest way that its types allow."""

    def __init__(
        self,
        session: Any,
        runtime: Any,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        *,
        exotic: bool = False,
        concurrency: Concurrency = "free",
        validates_output_shape: bool = False,
        lends: bool = False,
        graphs: Graphs | None = None,
        shrink: Shrink | None = None,
        unforkable: str = "",
    ) -> None:
        """`runtime` is the onnxruntime module. `exotic` sessions take types that plain `run` cannot carry.

        `validates_output_shape` allows output buffers that are made beforehand: the providers refuse another shape.
        `lends` allows small inputs to borrow a binding. `graphs` are those of a session that captures.
        `shrink` says which runs give memory back. `unforkable` is what a forked process lacks to run
        the session; empty where it lacks nothing.
        """
        self.session = session
        self.runtime = runtime
        self.validates_output_shape = validates_output_shape
        self._on_cpu = [one.name == CPU_MEMORY for one in session.get_input_memory_infos()]
        self._from_cpu = [one.name == CPU_MEMORY for one in session.get_output_memory_infos()]
        self.graphs = graphs
        self._shrink = shrink
        self._unforkable = unforkable
        turns: dict[Concurrency, Any] = {"free": None, "per-session": fork.make_lock(), "per-process": PROCESS}
        self.turn: AbstractContextManager[Any] = turns[concurrency] or nullcontext()
        self.free = concurrency == "free"
        """Whether any number of runs may be under way."""
        self.under_way = UnderWay(turns[concurrency])
        self._outputs = {one.name: one for one in outputs}
        self._names = tuple(self._outputs)
        self._raw = exotic or any(needs_ml_dtypes(one.dtype) for one in outputs)
        self.bindings: weakref.WeakSet[Any] = weakref.WeakSet()
        """What `close` closes too."""
        self._leases: Leases | None = None
        self.lent: Callable[[object], dict[str, Any] | None] = _none_lent
        """Runs inputs as they came, where a binding waits for such; see `Leases.run`."""
        if lends and validates_output_shape and self.in_place(CPU) and not self._raw and self.free:
            self._leases = Leases(session, inputs, outputs, self.under_way.running)
            self.lent = self._leases.run if shrink is None else self._lent_unless_owed
        fork.register(self)

    def run(
        self, feed: Mapping[str, Any], names: Sequence[str] | None = None, options: object | None = None
    ) -> dict[str, Any]:
        """Run once for the outputs `names`, or for all; raises RunError and SessionClosed.

        `feed` fits the model; `options` are ONNX Runtime's RunOptions.
        """
        return self.under_way.do(self.run_now, feed, names, options)

    def run_now(self, feed: Mapping[str, Any], names: Sequence[str] | None, options: object | None) -> dict[str, Any]:
        """Run once, as work that `under_way` does."""
        wanted = self._names if names is None else names
        if self._shrink is not None:
            return self._frugal(self._shrink, feed, wanted, options)
        if options is None and self.graphs is not None:
            options = self.graphs.uncaptured
        return self._run(feed, wanted, options)

    def _run(self, feed: Mapping[str, Any], wanted: Sequence[str], options: object | None) -> dict[str, Any]:
        if self._raw:
            outputs = [self._outputs[name] for name in wanted]
            return dict(zip(wanted, run_raw(self.session, outputs, feed, options), strict=True))
        results = dict(zip(wanted, self.session.run(wanted, feed, options), strict=True))
        if self._leases is not None:
            self._leases.remember(feed, results)
        return results

    def _frugal(
        self, shrink: Shrink, feed: Mapping[str, Any], wanted: Sequence[str], options: object | None
    ) -> dict[str, Any]:
        options = self.options() if options is None else options
        gives_back = shrink.wanted(feed)
        if gives_back:
            shrink.tell(options)
        results = self._run(feed, wanted, options)
        if gives_back:
            trim_heap()
        shrink.returned(results)
        return results

    def _lent_unless_owed(self, inputs: object) -> dict[str, Any] | None:
        """Lend no binding while memory is to be given back: such a run carries options."""
        leases, shrink = self._leases, self._shrink
        return None if leases is None or shrink is None or shrink.owes else leases.run(inputs)

    def in_place(self, place: str) -> bool:
        """Whether what is bound at a place is read at each run.

        Where an input is consumed on another device, ONNX Runtime copies it when it is bound, and what is written to
        it later is not seen.
        """
        return all(on_cpu == (place == CPU) for on_cpu in self._on_cpu)

    def writes_in_place(self, place: str) -> bool:
        """Whether outputs are written into buffers at a place, and those of another shape refused.

        What is made on another device is copied into the buffer, whatever its shape.
        """
        return self.validates_output_shape and all(from_cpu == (place == CPU) for from_cpu in self._from_cpu)

    def options(self) -> Any:
        """Return options for one run, which may be told to stop by setting their `terminate`."""
        return self.graphs.options(-1) if self.graphs is not None else self.runtime.RunOptions()

    def refuse(self, told: str = "the session is closed", hint: str = REOPEN) -> None:
        """Let no run begin any more."""
        self.under_way.refuse(told, hint)
        if self._leases is not None:
            self._leases.stop()
        self.lent = _none_lent

    def close(self) -> None:
        """Let no run begin any more, wait for those of other threads, and let go of the session.

        In the middle of a run of this thread, that run still holds it, and ends.
        """
        self.refuse()
        self.under_way.wait(self._own())
        for binding in tuple(self.bindings):  # no further one is bound by now
            binding.close()
        with self.turn:
            self.under_way.let_go = True
            self.session = self.graphs = self._leases = None

    def _own(self) -> int:
        """Return how many runs this thread is in the middle of: in a signal handler, an observer, a `__del__`."""
        return on_stack((UnderWay.do, Leases.run), "running", self.under_way.running)

    def after_fork(self) -> None:
        """Forget, in a forked process, what other threads of its parent did.

        ONNX Runtime would wait for its own threads when the session is freed, and a device be asked for what it never
        gave to this process: so the session stays, at exit too.
        """
        fork.never_free(self.session)
        self.under_way.after_fork(self._own())
        for binding in tuple(self.bindings):
            binding.after_fork(survives=not self._unforkable)
        if self._unforkable:
            told = f"the session was opened before a fork, and this process does not have {self._unforkable}"
            self.refuse(told, "open it in each process, after the fork")


def _none_lent(inputs: object) -> None:  # noqa: ARG001
    return None
