"""Run a session on checked inputs, from any number of threads, and close it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from epkit._system import fork
from epkit._system.platform import trim_heap
from epkit.model.dtypes import needs_ml_dtypes
from epkit.model.file import TensorInfo
from epkit.provider import Concurrency
from epkit.runtime.arena import ArenaShrinkage
from epkit.runtime.captured_graph import CapturedGraphs
from epkit.runtime.concurrency import PROCESS, ActiveRuns, on_stack
from epkit.runtime.device_array import CPU, CPU_MEMORY
from epkit.runtime.fast_path import BindingPool
from epkit.runtime.raw_tensors import run_raw

REOPEN = "open it again with epkit.open"


class Executor:
    """Executor of one ONNX Runtime session: runs it in the fastest way that its types allow. Thread-safe."""

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
        pools_bindings: bool = False,
        graphs: CapturedGraphs | None = None,
        shrink: ArenaShrinkage | None = None,
        unforkable: str = "",
    ) -> None:
        """`runtime` is the onnxruntime module. `exotic` sessions take types that plain `run` cannot carry.

        `validates_output_shape` allows output buffers that are made beforehand: the providers refuse another shape.
        `pools_bindings` lets small inputs run through a pool of bindings. `graphs` are those of a session that
        captures. `shrink` decides which runs return memory. `unforkable` names what a forked process lacks to run the
        session; empty if it lacks nothing.
        """
        self.session = session
        self.runtime = runtime
        self.validates_output_shape = validates_output_shape
        self._inputs_on_cpu = [memory.name == CPU_MEMORY for memory in session.get_input_memory_infos()]
        self._outputs_on_cpu = [memory.name == CPU_MEMORY for memory in session.get_output_memory_infos()]
        self.graphs = graphs
        self._shrink = shrink
        self._unforkable = unforkable
        locks: dict[Concurrency, Any] = {"free": None, "per-session": fork.make_lock(), "per-process": PROCESS}
        self.turn: AbstractContextManager[Any] = locks[concurrency] or nullcontext()
        self.free = concurrency == "free"
        """Whether any number of runs may be active at once."""
        self.active_runs = ActiveRuns(locks[concurrency])
        self._outputs = {output.name: output for output in outputs}
        self._names = tuple(self._outputs)
        self._raw = exotic or any(needs_ml_dtypes(output.dtype) for output in outputs)
        self.bindings: weakref.WeakSet[Any] = weakref.WeakSet()
        """The open bindings of the session; `close` closes them too."""
        self._pool: BindingPool | None = None
        self.run_pooled: Callable[[object], dict[str, Any] | None] = _run_none
        """Runs unchecked inputs through the pool, or returns None; see `BindingPool.run`."""
        if pools_bindings and validates_output_shape and self.in_place(CPU) and not self._raw and self.free:
            self._pool = BindingPool(session, inputs, outputs, self.active_runs.running)
            self.run_pooled = self._pool.run if shrink is None else self._run_pooled_unless_pending
        fork.register(self)

    def run(
        self, feed: Mapping[str, Any], names: Sequence[str] | None = None, options: object | None = None
    ) -> dict[str, Any]:
        """Run once for the outputs `names`, or for all; raises RunError and SessionClosed.

        `feed` fits the model; `options` are ONNX Runtime's RunOptions.
        """
        return self.active_runs.do(self.run_now, feed, names, options)

    def run_now(self, feed: Mapping[str, Any], names: Sequence[str] | None, options: object | None) -> dict[str, Any]:
        """Run once, inside `active_runs.do`."""
        wanted = self._names if names is None else names
        if self._shrink is not None:
            return self._run_and_shrink(self._shrink, feed, wanted, options)
        if options is None and self.graphs is not None:
            options = self.graphs.uncaptured
        return self._run(feed, wanted, options)

    def _run(self, feed: Mapping[str, Any], wanted: Sequence[str], options: object | None) -> dict[str, Any]:
        if self._raw:
            outputs = [self._outputs[name] for name in wanted]
            return dict(zip(wanted, run_raw(self.session, outputs, feed, options), strict=True))
        results = dict(zip(wanted, self.session.run(wanted, feed, options), strict=True))
        if self._pool is not None:
            self._pool.add(feed, results)
        return results

    def _run_and_shrink(
        self, shrink: ArenaShrinkage, feed: Mapping[str, Any], wanted: Sequence[str], options: object | None
    ) -> dict[str, Any]:
        options = self.options() if options is None else options
        shrinks = shrink.should_shrink(feed)
        if shrinks:
            shrink.set_option(options)
        results = self._run(feed, wanted, options)
        if shrinks:
            trim_heap()
        shrink.record_results(results)
        return results

    def _run_pooled_unless_pending(self, inputs: object) -> dict[str, Any] | None:
        """Run through the pool, unless memory is to be returned: that takes run options."""
        pool, shrink = self._pool, self._shrink
        return None if pool is None or shrink is None or shrink.pending else pool.run(inputs)

    def in_place(self, place: str) -> bool:
        """Whether what is bound at a place is read at each run.

        Where an input is consumed on another device, ONNX Runtime copies it when it is bound, and what is written to
        it later is not seen.
        """
        return all(on_cpu == (place == CPU) for on_cpu in self._inputs_on_cpu)

    def writes_in_place(self, place: str) -> bool:
        """Whether outputs are written into buffers at a place, and those of another shape refused.

        What is made on another device is copied into the buffer, whatever its shape.
        """
        return self.validates_output_shape and all(from_cpu == (place == CPU) for from_cpu in self._outputs_on_cpu)

    def options(self) -> Any:
        """Return RunOptions for one run; setting their `terminate` stops it."""
        return self.graphs.options(-1) if self.graphs is not None else self.runtime.RunOptions()

    def refuse(self, message: str = "the session is closed", hint: str = REOPEN) -> None:
        """Refuse all further runs."""
        self.active_runs.refuse(message, hint)
        if self._pool is not None:
            self._pool.stop()
        self.run_pooled = _run_none

    def close(self) -> None:
        """Refuse further runs, wait for those of other threads, and release the session.

        If this thread is in the middle of a run, that run keeps the session until it ends.
        """
        self.refuse()
        self.active_runs.wait(self._count_own_runs())
        for binding in tuple(self.bindings):  # no further one is bound by now
            binding.close()
        with self.turn:
            self.active_runs.released = True
            self.session = self.graphs = self._pool = None

    def _count_own_runs(self) -> int:
        """Return how many runs this thread is inside of, as in a signal handler, an observer or a `__del__`."""
        return on_stack((ActiveRuns.do, BindingPool.run), "running", self.active_runs.running)

    def after_fork(self) -> None:
        """Forget, in a forked process, what other threads of its parent did.

        ONNX Runtime would wait for its own threads when the session is freed, and a device be asked for what it never
        gave to this process: so the session stays, at exit too.
        """
        fork.never_free(self.session)
        self.active_runs.after_fork(self._count_own_runs())
        for binding in tuple(self.bindings):
            binding.after_fork(survives=not self._unforkable)
        if self._unforkable:
            message = f"the session was opened before a fork, and this process does not have {self._unforkable}"
            self.refuse(message, "open it in each process, after the fork")


def _run_none(inputs: object) -> None:  # noqa: ARG001
    return None
