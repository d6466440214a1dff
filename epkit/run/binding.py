"""How is a session run many times on the same memory?

A binding's buffers are where the provider runs. An array that is there already is bound as it is, where it is large;
what is elsewhere, and what is small, is copied into a buffer that is kept. `Binding.copies` says what was copied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from epkit._arguments import kind_of
from epkit._cause import cause
from epkit.errors import InputError, RunError
from epkit.model import TensorInfo, parse_ort_type
from epkit.run.caller import LOOK_AGAIN_S, Caller
from epkit.run.copies import Copy, conversion
from epkit.run.device import CPU, DeviceArray, dlpack_place, taken
from epkit.run.dtypes import Array
from epkit.run.feeds import Feeds, OnDevice
from epkit.run.graph import Graph
from epkit.run.inputs import Inputs
from epkit.run.narrow import Narrowed
from epkit.run.outputs import Target
from epkit.run.results import Result, Results
from epkit.run.settled import OTHER_SHAPE, settled

MOST_GRAPHS = 8
"""How many combinations of shapes a binding keeps a captured graph for; those known longest make room."""


@dataclass(frozen=True, slots=True)
class Bindable:
    """What a binding knows of its session."""

    inputs: Inputs
    narrowed: Narrowed
    wanted: Sequence[TensorInfo]
    """The inputs that have to be given."""
    outputs: Sequence[TensorInfo]
    """The outputs that are wanted."""
    targets: Mapping[str, Target]
    """Buffers to write outputs into."""
    place: str
    """Where the buffers are: `cpu`, `cuda:0`."""
    runs_at: str
    """Where the provider runs."""

    why_not: str = ""
    """Why the tensors cannot be bound; empty when they can."""


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
        # Holds one element, unless a run is under way: cheaper than a lock.
        self._free: list[None] = [None]
        self._closed = False
        self._why_not = model.why_not
        self._feed: dict[str, Any] = {}  # of what cannot be bound
        self._passed: list[Copy] = []
        self._bound: _Bound | None = None
        self._steady: _Steady | None = None
        self._graphs: dict[tuple[object, ...], _Bound] = {}
        self._captures = caller.graphs is not None and model.place != CPU and not self._why_not
        with caller.under_way:
            if not self._why_not:
                self._bound = _Bound(caller, model, captures=self._captures)
            self._refill(inputs, some=False)
            caller.bindings.add(self)

    def run(self, inputs: Mapping[str, object] | object | None = None) -> dict[str, Result]:
        """Run once, and return the outputs by name: NumPy arrays on the CPU, `DeviceArray`s on a device.

        `inputs` refills what it names, and leaves the rest as it was; without it, the run repeats with what is bound.
        Shapes may change. The results view the binding's buffers: the next run writes over them.

        Raises InputError when an input does not fit the model or cannot be bound, RunError, SessionClosed.
        """
        try:
            self._free.pop()
        except IndexError:
            told = "this binding is running in another thread"
            raise RunError(told, hint="bind once in each thread: session.bind") from None
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
                if OTHER_SHAPE in str(error):
                    return self._run(inputs)
                raise RunError(f"the run failed: {cause(error)}") from error
            return fixed.copy()
        finally:
            self._free.append(None)

    @property
    def copies(self) -> tuple[Copy, ...]:
        """What the last run copied, and why; empty when nothing was."""
        if self._bound is None:
            return tuple(self._passed)
        return (*self._bound.feeds.copies(), *self._bound.results.copied)

    def close(self) -> None:
        """Let go of the buffers, and of what was bound as it is. Results that were handed out stay valid."""
        while True:
            # Each time, since a run that ends may set it: one after the other must not keep the door shut.
            self._closed, self._steady = True, None
            try:
                self._free.pop()
                break
            except IndexError:
                time.sleep(LOOK_AGAIN_S)
        with self._caller.turn:
            for bound in (*self._graphs.values(), self._bound):
                if bound is not None and bound.graph is not None:
                    bound.graph.release()
            self._bound = self._steady = None
            self._graphs.clear()
            self._feed.clear()
        self._free.append(None)

    def __enter__(self) -> Binding:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        names = self._bound.feeds.shapes if self._bound is not None else self._feed
        return f"<epkit.Binding on {self.device}: {', '.join(names)}{' (closed)' if self._closed else ''}>"

    def _run(self, inputs: object) -> dict[str, Result]:
        self._steady = None
        with self._under_way:
            if self._closed:
                raise RunError("the binding is closed", hint="bind again: session.bind(inputs)")
            if self._bound is None:
                return self._plain(inputs)
            if inputs is None:
                if self._model.narrowed:
                    self._model.narrowed.check(self._bound.feeds.held)
                self._bound.feeds.again()
            elif not self._bound.feeds.copy(inputs):
                self._refill(inputs, some=True)
            results = self._bound.run()
        if self._caller.free:
            self._steady = self._bound.steady()
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

    def _for_shapes(self, last: _Bound, shapes: Mapping[str, tuple[int, ...]]) -> _Bound:
        """Return the buffers and the graph for other shapes, and keep those of the last."""
        self._graphs[_key(last.feeds.shapes)] = last
        found = self._graphs.pop(_key(shapes), None)
        if found is None:
            found = _Bound(self._caller, self._model, captures=True)
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
        self._model.inputs.check(name, dtype, shape, f"{kind_of(value)} on {self.device}")
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
        sizes = [(name, "in", value) for name, value in self._feed.items()]
        sizes += [(name, "out", value) for name, value in results.items()]
        self._passed = [
            Copy(name, "in" if way == "in" else "out", value.nbytes, self._why_not)
            for name, way, value in sizes
            if isinstance(value, np.ndarray)
        ]
        return results


class _Bound:
    """The buffers of a binding; with a captured graph, for one combination of shapes."""

    def __init__(self, caller: Caller, model: Bindable, *, captures: bool) -> None:
        session = caller.session
        self.binding = session.io_binding()
        self.run_bound = session.run_with_iobinding
        self.graph: Graph | None = caller.graphs.new(self.binding) if captures and caller.graphs else None
        self._uncaptured = caller.graphs.uncaptured if caller.graphs else None
        trusts = caller.writes_in_place(model.place) and model.place in (CPU, model.runs_at)
        # Buffers for the outputs, once their shapes are known; until then, ONNX Runtime makes new ones in each run.
        self._fixes = captures or (trusts and settled(model.wanted, model.outputs))
        self.results = Results(
            session,
            self.binding,
            model.place,
            model.runs_at,
            model.outputs,
            model.targets,
            trusts=trusts,
            turn=caller.turn,
        )
        self.feeds = Feeds(
            session,
            self.binding,
            model.place,
            model.runs_at,
            self.results.is_output,
            in_place=caller.in_place(model.place) and not model.narrowed,
            pinned=captures,
        )

    def steady(self) -> _Steady | None:
        """Return what further runs need, where that is nothing but new contents of the inputs' buffers."""
        if self.graph is None and self.results.fixed is not None and self.results.seen_there:
            return _Steady(self.feeds.copy, self.run_bound, self.binding, self.results.fixed)
        return None

    def put(self, values: dict[str, tuple[Array | OnDevice, str]]) -> None:
        """Bind inputs; where their shapes change, those of the outputs do too."""
        before = self.feeds.shapes
        self.feeds.put(values)
        if self.feeds.shapes != before:
            self.results.fixed = None

    def run(self) -> dict[str, Result]:
        """Run once with what is bound."""
        if self.results.fixed is None:
            return self._first()
        if self.graph is not None:
            self.graph.run()
            return dict(self.results.fixed)
        try:
            self.run_bound(self.binding)
        except RuntimeError as error:
            if OTHER_SHAPE not in str(error):
                raise self._misfit(error) from error
            # The model declares a shape that follows from the inputs', and it does not.
        else:
            if self.results.proven():
                return dict(self.results.fixed)
        self._fixes = False
        return self._first()

    def _first(self) -> dict[str, Result]:
        """Run with new buffers for the outputs, and keep such buffers where that can be."""
        self.results.bind_new()
        try:
            self.run_bound(self.binding, self._uncaptured)
        except RuntimeError as error:
            raise self._misfit(error) from error
        results = self.results.taken(self.feeds.holds)
        if not self._fixes or not self.results.as_declared(results):
            return results
        fixed = self.results.fix(results)
        if self.graph is not None:
            try:
                self.graph.prove(self.feeds, self.results)
            except BaseException:
                self.graph.release()
                self.results.fixed = None
                raise
        return dict(fixed)

    def _misfit(self, error: RuntimeError) -> RunError:
        if self.results.given and OTHER_SHAPE in str(error):
            told = f"an output has not the shape of the buffer that was given for it: {cause(error)}"
            return RunError(told, hint="give a buffer of that shape, or none")
        return RunError(f"the run failed: {cause(error)}")


class _Steady(NamedTuple):
    """What a run takes when nothing changes but the contents of small inputs."""

    copy: Callable[[object], bool]
    run_bound: Callable[[Any], None]
    binding: Any
    fixed: dict[str, Result]


def _key(shapes: Mapping[str, tuple[int, ...]]) -> tuple[object, ...]:
    return tuple(sorted(shapes.items()))
