"""Run small inputs through a pool of IO bindings that were set up by earlier runs.

ONNX Runtime's `run` spends more on a small model's arguments than on the model itself: names are looked up, values made
and taken apart. A binding is set up once. So small inputs are copied into the buffers of a binding that was set up
before, and small outputs out of them; each run takes a binding out of the pool until it ends.
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
from epkit.runtime.output_buffers import are_written

_NDARRAY = np.ndarray  # looked up once
Key: TypeAlias = tuple[Any, ...]

# Past this, copying costs more than it saves: measured with Identity on one core.
MOST_BYTES = 64 * 1024
MOST_SHAPES = 32
MOST_IDLE = 16
"""How many bindings wait, for each combination of shapes: as many as ran at once, at most this."""


class PooledBinding:
    """A binding with buffers of its own, for inputs and outputs of one combination of shapes."""

    __slots__ = ("binding", "inputs", "outputs", "verified")

    def __init__(self, session: Any, feed: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        self.binding = session.io_binding()
        self.inputs = [(name, np.empty(array.shape, array.dtype)) for name, array in feed.items()]
        self.outputs = [(name, np.empty(array.shape, array.dtype)) for name, array in results.items()]
        self.verified = False
        for name, buffer in self.inputs:
            self.binding.bind_cpu_input(name, buffer)
        for name, buffer in self.outputs:
            self.binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)

    def verify(self) -> bool:
        """Return, after a run, whether the outputs are in their buffers, and remember it if they are."""
        addresses = [buffer.ctypes.data if buffer.nbytes else None for _, buffer in self.outputs]
        found = self.binding.get_outputs_as_ortvaluevector()
        self.verified = are_written(addresses, [found[position] for position in range(len(addresses))])
        return self.verified


class BindingPool:
    """The idle IO bindings of one session, by input shapes.

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
        self._idle: dict[Key, list[PooledBinding]] = {}
        self._enabled = bool(inputs) and can_preallocate(inputs, outputs)
        dtypes = [(declared.name, numpy_dtype(declared.dtype)) for declared in inputs] if self._enabled else []
        only: tuple[str, DType | None] = dtypes[0] if len(dtypes) == 1 else ("", None)
        self._only, self._dtype = only
        self._wanted = dtypes

    def run(self, inputs: object) -> dict[str, Any] | None:
        """Run with an idle binding for these dtypes and shapes; return None if there is none.

        A binding was made for inputs that had been checked, so that the same dtypes and shapes need no other check;
        arrays of any memory layout are copied correctly. Raises RunError.
        """
        running = self._running
        try:
            # First, so that `close` waits for this run, or this run finds no binding any more.
            running.append(None)
            if self._dtype is not None:
                array: Any = inputs[self._only] if type(inputs) is dict and len(inputs) == 1 else inputs
                if type(array) is not _NDARRAY or array.dtype is not self._dtype:
                    return None
                idle = self._idle[array.shape]
                pooled = idle.pop()
                pooled.inputs[0][1][...] = array
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
                pooled = idle.pop()
                for name, buffer in pooled.inputs:
                    buffer[...] = inputs[name]
        except (KeyError, IndexError):  # no binding yet, or all of them are running
            return None
        else:
            return self._run_bound_buffers(pooled, idle)
        finally:
            running.pop()

    def _run_bound_buffers(self, pooled: PooledBinding, idle: list[PooledBinding]) -> dict[str, Any] | None:
        try:
            self._run_bound(pooled.binding)
        except Exception as error:
            if SHAPE_MISMATCH not in str(error):
                raise RunError(f"the run failed: {describe_error(error)}") from error
            # The model declares a shape that follows from the inputs', and it does not.
            self.stop()
            return None
        if not pooled.verified and not pooled.verify():
            self.stop()
            return None
        results = {}
        for name, buffer in pooled.outputs:
            results[name] = buffer.copy()
        if len(idle) < MOST_IDLE:
            idle.append(pooled)
        return results

    def add(self, feed: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        """Add a binding for small inputs whose shapes come a second time; the oldest shapes are dropped first.

        `feed` fits the model, and `results` are what it gave for it.
        """
        known = self._idle  # before the question, so that what was stopped meanwhile lends nothing
        if not self._enabled or len(feed) != len(self._wanted) or len(results) != len(self._outputs):
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
        elif len(idle) < MOST_IDLE and all(
            matches_declared(output, results[output.name].shape) for output in self._outputs
        ):
            idle.append(PooledBinding(self._session, feed, results))

    def stop(self) -> None:
        """Empty the pool, and add no more bindings to it."""
        self._enabled = False
        self._idle = {}
