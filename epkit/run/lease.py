"""Which buffers does a run borrow?

ONNX Runtime's `run` spends more on a small model's arguments than on the model itself: names are looked up, values made
and taken apart. A binding is set up once. So small inputs are copied into the buffers of a binding that was set up
before, and small outputs out of them; each run has its binding to itself for as long as it takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from epkit.model import TensorInfo
from epkit.run.dtypes import Array

Key: TypeAlias = tuple[Any, ...]
Run: TypeAlias = "Callable[[Sequence[str], Mapping[str, Any]], list[Any]]"
"""What runs a session for the outputs that are named, without a binding."""

# Past this, copying costs more than it saves: measured with Identity on one core.
MOST_BYTES = 64 * 1024
MOST_SHAPES = 32
MOST_IDLE = 16
"""How many bindings wait, for each combination of shapes: as many as ran at once, at most this."""
_INTEGERS = [f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)]
_PLAIN = frozenset(["float16", "float32", "float64", "bool", *_INTEGERS])
_OTHER_SHAPE = "but the computed output shape for this run is"


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
    """The bindings of one session that wait for a run. Any number of threads may call it."""

    def __init__(
        self, session: Any, run: Run, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], *, lends: bool
    ) -> None:
        self._session = session
        self._run = run
        self._run_bound = session.run_with_iobinding
        self._inputs = [one.name for one in inputs]
        self._only = self._inputs[0] if len(self._inputs) == 1 else None
        self._outputs = [one.name for one in outputs]
        self._idle: dict[Key, list[Lease]] = {}
        self._lock = threading.Lock()
        self._lends = lends and settled(inputs, outputs)

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once on values that fit the model, for the outputs `names` or for all; the results are the caller's own.

        Raises what ONNX Runtime raises.
        """
        if not self._lends or names is not None or len(feed) != len(self._inputs):
            return self._plain(feed, self._outputs if names is None else names)
        only = self._only
        key = feed[only].shape if only is not None else tuple([feed[name].shape for name in self._inputs])
        try:
            idle = self._idle[key]
            lease = idle.pop()
        except (KeyError, IndexError):  # no binding yet, or all of them are running
            results = self._plain(feed, self._outputs)
            self._remember(key, feed, results)
            return results
        for name, buffer in lease.inputs:
            buffer[...] = feed[name]
        try:
            self._run_bound(lease.binding)
        except RuntimeError as error:
            if _OTHER_SHAPE not in str(error):
                raise
            # The model declares a shape that follows from the inputs', and it does not.
            self._lends = False
            return self._plain(feed, self._outputs)
        if not lease.proven and not lease.prove():
            self._lends = False
            return self._plain(feed, self._outputs)
        results = {name: buffer.copy() for name, buffer in lease.outputs}
        if len(idle) < MOST_IDLE:
            idle.append(lease)
        return results

    def _plain(self, feed: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        return dict(zip(names, self._run(names, feed), strict=True))

    def _remember(self, key: Key, feed: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        """Set up a binding for small shapes that come a second time; those known longest make room."""
        if sum(array.nbytes for array in (*feed.values(), *results.values())) > MOST_BYTES:
            return
        with self._lock:
            idle = self._idle.get(key)
            if idle is None:
                if len(self._idle) >= MOST_SHAPES:
                    del self._idle[next(iter(self._idle))]
                self._idle[key] = []
            elif len(idle) < MOST_IDLE:
                idle.append(Lease(self._session, feed, results))


def settled(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> bool:
    """Whether the shapes of the outputs follow from those of the inputs, as far as the model says."""
    if not all(one.dtype in _PLAIN and one.shape is not None for one in (*inputs, *outputs)):
        return False
    sizes = {size for one in inputs for size in one.shape or () if isinstance(size, str)}
    return all(isinstance(size, int) or size in sizes for one in outputs for size in one.shape or ())
