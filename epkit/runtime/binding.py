"""How is a session run many times on the same memory?

A binding's buffers are where the provider runs. An array that is there already is bound as it is, where it is large;
what is elsewhere, and what is small, is copied into a buffer that is kept. `Binding.copies` says what was copied.
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
from epkit.runtime.bindable import Bindable, Steady
from epkit.runtime.bound_buffers import Bound
from epkit.runtime.bound_inputs import OnDevice
from epkit.runtime.bound_outputs import Result
from epkit.runtime.copies import Copy, conversion, passed
from epkit.runtime.device_array import CPU, DeviceArray, dlpack_place, taken
from epkit.runtime.execution import LOOK_AGAIN_S, Caller
from epkit.runtime.stack import on_stack

MOST_GRAPHS = 8
"""How many combinations of shapes a binding keeps a captured graph for; those known longest make room."""


class Binding:
    """Buffers that are bound once, and run many times: what `Session.bind` returns.

    It belongs to one thread at a time, and its results view its buffers: the next run writes over them. (Where a
    provider takes no buffers for its outputs, as OpenVINO, each run has results of its own.) It keeps alive what it
    points at, until it is closed.
    """

    def __init__(self, caller: Caller, model: Bindable, inputs: object) -> None:
        self.device = model.place
        """Where the buffers are: `cpu`, `cuda:0`, `webgpu:0`."""
        self._caller = caller
        self._under_way = caller.under_way
        self._model = model
        # Is there, unless a run is under way: cheaper than a lock.
        self._free = None
        self._closed = False
        self._why_not = model.why_not
        self._feed: dict[str, Any] = {}  # of what cannot be bound
        self._passed: list[Copy] = []
        self._bound: Bound | None = None
        self._steady: Steady | None = None
        self._graphs: dict[tuple[object, ...], Bound] = {}
        self._captures = caller.graphs is not None and model.place != CPU and not self._why_not
        caller.under_way.do(self._begin, inputs)

    def run(self, inputs: Mapping[str, object] | object | None = None) -> dict[str, Result]:
        """Run once, and return the outputs by name: NumPy arrays on the CPU, `DeviceArray`s on a device.

        `inputs` refills what it names, and leaves the rest as it was; without it, the run repeats with what is bound.
        Shapes may change. The results view the binding's buffers: the next run writes over them.

        Raises InputError when an input does not fit the model or cannot be bound, RunError, SessionClosed.
        """
        try:
            del self._free  # no call, after which an interrupt could come before the `try` that gives it back
        except AttributeError:
            raise self._refusal() from None
        try:
            # What was seen to go the same way before takes none of the questions below.
            steady = self._steady
            if steady is None or inputs is None:
                return self._run(inputs)
            copy, run_bound, binding, fixed = steady
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
        """What the last run copied, and why; empty when nothing was."""
        if self._bound is None:
            return tuple(self._passed)
        return (*self._bound.feeds.copies(), *self._bound.results.copied)

    def close(self) -> None:
        """Let go of the buffers, and of what was bound as it is. Results that were handed out stay valid.

        A run in whose middle this thread is holds them until it ends.
        """
        while True:
            # Each time, since a run that ends may set it: one after the other must not keep the door shut.
            self._closed, self._steady = True, None
            if self._under_way_here():
                self._let_go()
                return
            try:
                del self._free
                break
            except AttributeError:
                if sys.is_finalizing():
                    return  # the thread that runs it never goes on
                time.sleep(LOOK_AGAIN_S)
        try:
            self._let_go()
        finally:
            self._free = None

    def after_fork(self, *, survives: bool) -> None:
        """Take it, in a forked process, from a thread that is not there and may have left it half filled."""
        self._steady = None
        if not survives:
            fork.never_free((self._bound, dict(self._graphs)))
            self._bound = None
            self._graphs.clear()
        if not survives or (not hasattr(self, "_free") and not self._under_way_here()):
            self._closed = True
            self._free = None

    def _under_way_here(self) -> bool:
        """Whether this thread is in the middle of a run, or of closing: a signal handler may ask."""
        return bool(on_stack((Binding.run, Binding.close), "self", self))

    def _refusal(self) -> RunError:
        """Return why a run cannot have the binding: its session was closed, it was, or it is running."""
        self._under_way.check()
        if self._closed:
            return RunError("the binding is closed", hint="bind again: session.bind(inputs)")
        return RunError(
            "this binding is running in another thread, or further up in this one",
            hint="bind once in each thread: session.bind",
        )

    def _let_go(self) -> None:
        with self._caller.turn:
            for bound in (*self._graphs.values(), self._bound):
                if bound is not None and bound.graph is not None:
                    bound.graph.release()
            self._bound = self._steady = None
            self._graphs, self._feed = {}, {}

    def __enter__(self) -> Binding:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        names = self._bound.feeds.shapes if self._bound is not None else self._feed
        return f"<epkit.Binding on {self.device}: {', '.join(names)}{' (closed)' if self._closed else ''}>"

    def _begin(self, inputs: object) -> None:
        if not self._why_not:
            self._bound = Bound(self._caller, self._model, captures=self._captures)
        self._refill(inputs, some=False)
        self._caller.bindings.add(self)

    def _run(self, inputs: object) -> dict[str, Result]:
        self._steady = None
        return self._under_way.do(self._run_unless_closed, inputs)

    def _run_unless_closed(self, inputs: object) -> dict[str, Result]:
        if self._closed:
            raise self._refusal()
        try:
            return self._run_now(inputs)
        except AttributeError as error:
            if self._closed:  # by this very thread, in the middle of the run
                raise self._refusal() from error
            raise

    def _run_now(self, inputs: object) -> dict[str, Result]:
        if self._bound is None:
            return self._plain(inputs)
        if inputs is None:
            if self._model.narrowed:
                self._model.narrowed.check(self._bound.feeds.held)
            self._bound.feeds.again()
        elif not self._bound.feeds.copy(inputs):
            self._refill(inputs, some=True)
        bound = self._bound
        results = bound.run()
        if self._caller.free and not self._closed:
            self._steady = bound.steady()
        return results

    def _refill(self, given: object, *, some: bool) -> None:
        """Check and convert what was given, then bind it: nothing is bound unless all of it fits."""
        named = self._model.inputs.named(given, some=some)
        ready = {name: self._ready(name, value) for name, value in named.items()}
        if self._bound is None:
            gone = given.keys() - named.keys() if isinstance(given, Mapping) else ()
            feed = {name: value for name, value in self._feed.items() if name not in gone} | ready
            if self._model.narrowed:
                self._model.narrowed.check(feed)
            self._feed = feed
            return
        for name in ready.keys() - {one.name for one in self._model.wanted}:
            told = f"input {name!r} stands for an initializer, which ONNX Runtime's Python interface cannot bind"
            raise InputError(told, hint="give it to session.run")
        feeds = self._bound.feeds
        if self._model.narrowed:
            self._model.narrowed.check(feeds.held | ready)
        values = {name: (value, conversion(named[name], value)) for name, value in ready.items()}
        shapes = {**feeds.shapes, **{name: value.shape for name, value in ready.items()}}
        try:
            if self._captures and feeds.shapes not in ({}, shapes):
                values = {name: (array, "") for name, array in feeds.read().items()} | values
                self._bound = self._for_shapes(self._bound, shapes)
            self._bound.put(values)
        except BaseException:
            # What failed to bind once aborts the process when it is bound again.
            self._closed = True
            raise

    def _for_shapes(self, last: Bound, shapes: Mapping[str, tuple[int, ...]]) -> Bound:
        """Return the buffers and the graph for other shapes, and keep those of the last."""
        self._graphs[_key(last.feeds.shapes)] = last
        found = self._graphs.pop(_key(shapes), None)
        if found is None:
            found = Bound(self._caller, self._model, captures=True)
            if len(self._graphs) >= MOST_GRAPHS:
                oldest = self._graphs.pop(next(iter(self._graphs)))
                assert oldest.graph is not None
                oldest.graph.release()
        return found

    def _ready(self, name: str, value: object) -> Any:
        """Return an array that fits the model, or what is in the memory of this binding's device."""
        place = value.device if isinstance(value, DeviceArray) else dlpack_place(value)
        if self._why_not or place is None or (place != self.device and isinstance(value, DeviceArray)):
            return self._model.inputs.value(name, value)
        if place != self.device:
            told = f"input {name!r} is on {place}, and the binding on {self.device}"
            raise InputError(told, hint=f"copy it to the CPU first, or bind on {place}")
        held = taken(self._caller.runtime, self._caller.session, value, name)
        dtype, shape = parse_ort_type(held.data_type()), tuple(held.shape())
        self._model.inputs.check(name, dtype, shape, f"{type_name(value)} on {self.device}")
        return OnDevice(value, held, np.dtype(dtype), shape, held.tensor_size_in_bytes())

    def _plain(self, inputs: object) -> dict[str, Result]:
        """Run without a binding what cannot be bound; only what is given for outputs is written into."""
        if inputs is not None:
            self._refill(inputs, some=True)
        results = self._caller.run(self._feed, [one.name for one in self._model.outputs])
        for name, target in self._model.targets.items():
            if results[name].shape != target.array.shape:
                told = f"output {name!r} came out as {list(results[name].shape)}, not as the buffer given for it"
                raise RunError(told, hint="give a buffer of that shape, or none")
            target.array[...] = results[name]
            results[name] = target.given
        self._passed = passed(self._feed, results, self._why_not)
        return results


def _key(shapes: Mapping[str, tuple[int, ...]]) -> tuple[object, ...]:
    return tuple(sorted(shapes.items()))
