"""Which buffers does a run borrow?

ONNX Runtime's `run` spends more on a small model's arguments than on the model itself: names are looked up, values made
and taken apart. A binding is set up once. So small inputs are copied into the buffers of a binding that was set up
before, and small outputs out of them; each run has its binding to itself for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from epkit._system.text import describe_error
from epkit.errors import RunError
from epkit.model.dtypes import Array, DType, numpy_dtype
from epkit.model.file import TensorInfo
from epkit.model.shapes import SHAPE_MISMATCH, can_preallocate, matches_declared

_NDARRAY = np.ndarray  # looked up once
Key: TypeAlias = tuple[Any, ...]

# Past this, copying costs more than it saves: measured with Identity on one core.
MOST_BYTES = 64 * 1024
MOST_SHAPES = 32
MOST_IDLE = 16
"""How many bindings wait, for each combination of shapes: as many as ran at once, at most this."""


class Lease:
    """A binding with buffers of its own, for inputs and outputs of one combination of shapes."""

    __slots__ = ("binding", "inputs", "outputs", "proven")

    def __init__(self, session: Any, feed: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        self.binding = session.io_binding()
        self.inputs = [(name, np.empty(array.shape, array.dtype)) for name, array in feed.items()]
        self.outputs = [(name, np.empty(array.shape, array.dtype)) for name, array in results.items()]
        self.proven = False
        for name, buffer in self.inputs:
            self.binding.bind_cpu_input(name, buffer)
        for name, buffer in self.outputs:
            self.binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)

    def prove(self) -> bool:
        """Say, after a run, whether the outputs are in their buffers.

        An output that is an input passed through is not: ONNX Runtime puts the input's memory into its place.
        """
        found = self.binding.get_outputs_as_ortvaluevector()
        self.proven = all(
            found[position].data_ptr() == buffer.ctypes.data
            for position, (_, buffer) in enumerate(self.outputs)
            if buffer.nbytes
        )
        return self.proven


class Leases:
    """The bindings of one session that wait for a run.

    Any number of threads may call it, also in the middle of a call of their own (signal handlers, `__del__`): so it has
    no lock, and what it does to its dictionary and lists is done in one call each.
    """

    def __init__(
        self, session: Any, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], running: list[None]
    ) -> None:
        """`running` holds an element for each run that is under way."""
        self._session = session
        self._run_bound = session.run_with_iobinding
        self._running = running
        self._outputs = outputs
        self._idle: dict[Key, list[Lease]] = {}
        self._lends = bool(inputs) and can_preallocate(inputs, outputs)
        dtypes = [(one.name, numpy_dtype(one.dtype)) for one in inputs] if self._lends else []
        only: tuple[str, DType | None] = dtypes[0] if len(dtypes) == 1 else ("", None)
        self._only, self._dtype = only
        self._wanted = dtypes

    def run(self, inputs: object) -> dict[str, Any] | None:
        """Run at once, where a binding waits for inputs like these; None where none does.

        A binding was made for inputs that had been checked, so that the same dtypes and shapes need no other check;
        memory in any order is copied rightly. Raises RunError.
        """
        running = self._running
        try:
            # First, so that whoever closes the session waits for this run, or this run finds no binding any more.
            running.append(None)
            if self._dtype is not None:
                array: Any = inputs[self._only] if type(inputs) is dict and len(inputs) == 1 else inputs
                if type(array) is not _NDARRAY or array.dtype is not self._dtype:
                    return None
                idle = self._idle[array.shape]
                lease = idle.pop()
                lease.inputs[0][1][...] = array
            else:
                if type(inputs) is not dict or len(inputs) != len(self._wanted):
                    return None
                shapes = []
                for name, dtype in self._wanted:
                    array = inputs[name]
                    if type(array) is not np.ndarray or array.dtype is not dtype:
                        return None
                    shapes.append(array.shape)
                idle = self._idle[tuple(shapes)]
                lease = idle.pop()
                for name, buffer in lease.inputs:
                    buffer[...] = inputs[name]
        except (KeyError, IndexError):  # no binding yet, or all of them are running
            return None
        else:
            return self._with(lease, idle)
        finally:
            running.pop()

    def _with(self, lease: Lease, idle: list[Lease]) -> dict[str, Any] | None:
        try:
            self._run_bound(lease.binding)
        except Exception as error:
            if SHAPE_MISMATCH not in str(error):
                raise RunError(f"the run failed: {describe_error(error)}") from error
            # The model declares a shape that follows from the inputs', and it does not.
            self.stop()
            return None
        if not lease.proven and not lease.prove():
            self.stop()
            return None
        results = {}
        for name, buffer in lease.outputs:
            results[name] = buffer.copy()
        if len(idle) < MOST_IDLE:
            idle.append(lease)
        return results

    def remember(self, feed: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        """Set up a binding for small shapes that come a second time; those known longest make room.

        `feed` fits the model, and `results` are what it gave for it.
        """
        known = self._idle  # before the question, so that what was stopped meanwhile lends nothing
        if not self._lends or len(feed) != len(self._wanted) or len(results) != len(self._outputs):
            return
        if sum(array.nbytes for array in (*feed.values(), *results.values())) > MOST_BYTES:
            return
        shapes = tuple(feed[name].shape for name, _ in self._wanted)
        key = shapes if self._dtype is None else shapes[0]
        idle = known.get(key)
        if idle is None:
            if len(known) >= MOST_SHAPES:
                known.pop(next(iter(tuple(known))), None)
            known.setdefault(key, [])
        elif len(idle) < MOST_IDLE and all(matches_declared(one, results[one.name].shape) for one in self._outputs):
            idle.append(Lease(self._session, feed, results))

    def stop(self) -> None:
        """Lend no more."""
        self._lends = False
        self._idle = {}
