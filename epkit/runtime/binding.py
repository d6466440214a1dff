"""Bind buffers to a session once, and run it on them many times.

A binding's buffers are in the memory where the provider runs. A large array that is there already is bound without a
copy; small arrays, and those in other memory, are copied into a buffer of the binding. `Binding.copies` lists the
copies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from epkit._system import fork
from epkit._system.arguments import type_name
from epkit._system.text import describe_error
from epkit.errors import InputError, RunError
from epkit.model.file import parse_ort_type
from epkit.model.shapes import SHAPE_MISMATCH
from epkit.runtime.bound_buffers import BindingSpec, BoundBuffers, RefillRun
from epkit.runtime.bound_inputs import DeviceInput
from epkit.runtime.bound_outputs import Result
from epkit.runtime.concurrency import POLL_S, on_stack
from epkit.runtime.copies import Copy, describe_conversion, list_copies
from epkit.runtime.device_array import CPU, DeviceArray, find_dlpack_place, to_ort_value
from epkit.runtime.execution import Executor

MOST_GRAPHS = 8
"""For how many combinations of shapes a binding keeps a captured graph; the oldest is released first."""


class Binding:
    """Buffers that are bound once, and run many times: what `Session.bind` returns.

    One thread at a time may use it. Its results view its buffers: the next run writes over them. (Where a provider
    takes no buffers for its outputs, as OpenVINO, each run returns new arrays.) It keeps what is bound alive until it
    is closed.
    """

    def __init__(self, executor: Executor, model: BindingSpec, inputs: object) -> None:
        self.device = model.place
        """Where the buffers are: `cpu`, `cuda:0`, `webgpu:0`."""
        self._executor = executor
        self._active_runs = executor.active_runs
        self._model = model
        # Is there, unless a run is under way: cheaper than a lock.
        self._free = None
        self._closed = False
        self._why_not = model.why_not
        self._feed: dict[str, Any] = {}  # of what cannot be bound
        self._plain_copies: list[Copy] = []
        self._bound: BoundBuffers | None = None
        self._refill_run: RefillRun | None = None
        self._graphs: dict[tuple[object, ...], BoundBuffers] = {}
        self._captures = executor.graphs is not None and model.place != CPU and not self._why_not
        executor.active_runs.do(self._begin, inputs)

    def run(self, inputs: Mapping[str, object] | object | None = None) -> dict[str, Result]:
        """Run once, and return the outputs by name: NumPy arrays on the CPU, `DeviceArray`s on a device.

        `inputs` maps input names to arrays of the model's dtypes (one array where the model has one input). It replaces
        the inputs that it names and keeps the others; None repeats the run on what is bound. Shapes may change from
        run to run, within those that the model declares. The outputs have the dtypes and shapes of the model; they
        view the binding's buffers, and the next run writes over them.

        Raises InputError when an input does not fit the model or cannot be bound, RunError when ONNX Runtime fails or
        the binding is closed or already running, SessionClosed when its session was closed.
        """
        try:
            del self._free  # no call, after which an interrupt could come before the `try` that gives it back
        except AttributeError:
            raise self._build_error() from None
        try:
            # An earlier run verified that only the inputs' contents change: skip the checks below.
            refill = self._refill_run
            if refill is None or inputs is None:
                return self._run(inputs)
            copy, run_bound, binding, fixed = refill
            if not copy(inputs):
                return self._run(inputs)
            try:
                run_bound(binding)
            except Exception as error:
                if SHAPE_MISMATCH in str(error):
                    return self._run(inputs)
                raise RunError(f"the run failed: {describe_error(error)}") from error
            return fixed.copy()
        finally:
            self._free = None

    @property
    def copies(self) -> tuple[Copy, ...]:
        """The tensors that the last run copied, with sizes in bytes and reasons; empty if none."""
        if self._bound is None:
            return tuple(self._plain_copies)
        return (*self._bound.inputs.copies(), *self._bound.results.copied)

    def close(self) -> None:
        """Release the buffers and the bound inputs. Arrays that were returned stay valid.

        If this thread is in the middle of a run (a signal handler, an observer), that run keeps them until it ends.
        """
        while True:
            # In each turn, since a run that ends may set `_refill_run` again.
            self._closed, self._refill_run = True, None
            if self._is_active_here():
                self._release()
                return
            try:
                del self._free
                break
            except AttributeError:
                if sys.is_finalizing():
                    return  # the thread that runs it never goes on
                time.sleep(POLL_S)
        try:
            self._release()
        finally:
            self._free = None

    def after_fork(self, *, survives: bool) -> None:
        """Make the binding consistent in a forked process, where the thread that was running it does not exist."""
        self._refill_run = None
        if not survives:
            fork.never_free((self._bound, dict(self._graphs)))
            self._bound = None
            self._graphs.clear()
        if not survives or (not hasattr(self, "_free") and not self._is_active_here()):
            self._closed = True
            self._free = None

    def _is_active_here(self) -> bool:
        """Whether this thread is in the middle of `run` or `close`, as in a signal handler."""
        return bool(on_stack((Binding.run, Binding.close), "self", self))

    def _build_error(self) -> RunError:
        """Return the error for a binding that is closed or already running; raises SessionClosed."""
        self._active_runs.check()
        if self._closed:
            return RunError("the binding is closed", hint="bind again: session.bind(inputs)")
        return RunError(
            "this binding is running in another thread, or further up in this one",
            hint="bind once in each thread: session.bind",
        )

    def _release(self) -> None:
        with self._executor.turn:
            for bound in (*self._graphs.values(), self._bound):
                if bound is not None and bound.graph is not None:
                    bound.graph.release()
            self._bound = self._refill_run = None
            self._graphs, self._feed = {}, {}

    def __enter__(self) -> Binding:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        names = self._bound.inputs.shapes if self._bound is not None else self._feed
        return f"<epkit.Binding on {self.device}: {', '.join(names)}{' (closed)' if self._closed else ''}>"

    def _begin(self, inputs: object) -> None:
        if not self._why_not:
            self._bound = BoundBuffers(self._executor, self._model, captures=self._captures)
        self._refill(inputs, some=False)
        self._executor.bindings.add(self)

    def _run(self, inputs: object) -> dict[str, Result]:
        self._refill_run = None
        return self._active_runs.do(self._run_unless_closed, inputs)

    def _run_unless_closed(self, inputs: object) -> dict[str, Result]:
        if self._closed:
            raise self._build_error()
        try:
            return self._run_now(inputs)
        except AttributeError as error:
            if self._closed:  # by this very thread, in the middle of the run
                raise self._build_error() from error
            raise

    def _run_now(self, inputs: object) -> dict[str, Result]:
        if self._bound is None:
            return self._run_plain(inputs)
        if inputs is None:
            if self._model.narrowed:
                self._model.narrowed.check(self._bound.inputs.held)
            self._bound.inputs.rebind()
        elif not self._bound.inputs.copy(inputs):
            self._refill(inputs, some=True)
        bound = self._bound
        results = bound.run()
        if self._executor.free and not self._closed:
            self._refill_run = bound.refill_run()
        return results

    def _refill(self, given: object, *, some: bool) -> None:
        """Check and convert the inputs, then bind them; if one does not fit, none is bound."""
        named = self._model.inputs.by_name(given, some=some)
        ready = {name: self._prepare(name, value) for name, value in named.items()}
        if self._bound is None:
            gone = given.keys() - named.keys() if isinstance(given, Mapping) else ()
            feed = {name: value for name, value in self._feed.items() if name not in gone} | ready
            if self._model.narrowed:
                self._model.narrowed.check(feed)
            self._feed = feed
            return
        for name in ready.keys() - {declared.name for declared in self._model.wanted}:
            message = f"input {name!r} stands for an initializer, which ONNX Runtime's Python interface cannot bind"
            raise InputError(message, hint="give it to session.run")
        inputs = self._bound.inputs
        if self._model.narrowed:
            self._model.narrowed.check(inputs.held | ready)
        values = {name: (value, describe_conversion(named[name], value)) for name, value in ready.items()}
        shapes = {**inputs.shapes, **{name: value.shape for name, value in ready.items()}}
        try:
            if self._captures and inputs.shapes not in ({}, shapes):
                values = {name: (array, "") for name, array in inputs.read().items()} | values
                self._bound = self._for_shapes(self._bound, shapes)
            self._bound.bind(values)
        except BaseException:
            # What failed to bind once aborts the process when it is bound again.
            self._closed = True
            raise

    def _for_shapes(self, last: BoundBuffers, shapes: Mapping[str, tuple[int, ...]]) -> BoundBuffers:
        """Return the buffers and the captured graph for these shapes, and keep those of the last."""
        self._graphs[_key(last.inputs.shapes)] = last
        found = self._graphs.pop(_key(shapes), None)
        if found is None:
            found = BoundBuffers(self._executor, self._model, captures=True)
            if len(self._graphs) >= MOST_GRAPHS:
                oldest = self._graphs.pop(next(iter(self._graphs)))
                assert oldest.graph is not None
                oldest.graph.release()
        return found

    def _prepare(self, name: str, value: object) -> Any:
        """Return an array that fits the model, or what is in the memory of this binding's device."""
        place = value.device if isinstance(value, DeviceArray) else find_dlpack_place(value)
        if self._why_not or place is None or (place != self.device and isinstance(value, DeviceArray)):
            return self._model.inputs.value(name, value)
        if place != self.device:
            message = f"input {name!r} is on {place}, and the binding on {self.device}"
            raise InputError(message, hint=f"copy it to the CPU first, or bind on {place}")
        held = to_ort_value(self._executor.runtime, self._executor.session, value, name)
        dtype, shape = parse_ort_type(held.data_type()), tuple(held.shape())
        self._model.inputs.check(name, dtype, shape, f"{type_name(value)} on {self.device}")
        return DeviceInput(value, held, np.dtype(dtype), shape, held.tensor_size_in_bytes())

    def _run_plain(self, inputs: object) -> dict[str, Result]:
        """Run without an IO binding, and copy the outputs into the buffers that were given for them."""
        if inputs is not None:
            self._refill(inputs, some=True)
        results = self._executor.run(self._feed, [output.name for output in self._model.outputs])
        for name, target in self._model.targets.items():
            if results[name].shape != target.array.shape:
                message = f"output {name!r} came out as {list(results[name].shape)}, not as the buffer given for it"
                raise RunError(message, hint="give a buffer of that shape, or none")
            target.array[...] = results[name]
            results[name] = target.given
        self._plain_copies = list_copies(self._feed, results, self._why_not)
        return results


def _key(shapes: Mapping[str, tuple[int, ...]]) -> tuple[object, ...]:
    return tuple(sorted(shapes.items()))
