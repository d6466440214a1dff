"""Capture CUDA graphs of a session's runs, and verify their replays.

A captured graph is the sequence of kernels of one run, recorded with the addresses of its buffers: a replay costs one
launch. It reads and writes the same buffers for ever, so each combination of shapes has a graph and buffers of its own.
ONNX Runtime checks none of the outputs; here, each capture is verified with other data than it was made from.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from epkit.errors import RunError
from epkit.model.dtypes import Array
from epkit.runtime.bound_inputs import BoundInputs
from epkit.runtime.bound_outputs import BoundOutputs
from epkit.runtime.concurrency import PROCESS

_ID = "gpu_graph_id"
# Of the largest number: a replay runs the same kernels, and only their order of summing may differ.
_TOLERANCE = 1e-3


class CapturedGraphs:
    """Numbers the graphs of one session: what `gpu_graph_id` holds in a run's options."""

    def __init__(self, session: Any, runtime: Any) -> None:
        self._session = session
        self._runtime = runtime
        self._numbers = itertools.count(1)
        self._dropped: list[int] = []  # by bindings that nobody closed
        self.uncaptured = self.options(-1)
        """The options of a run that captures and replays nothing."""

    def new(self, binding: Any) -> CapturedGraph:
        """Return a graph for the buffers of a binding, which is not captured yet."""
        while self._dropped:
            self._session.release_captured_graph(self._dropped.pop())
        return CapturedGraph(self._session, binding, self._number_graph, self.uncaptured, self._dropped)

    def options(self, number: int) -> Any:
        """Return options of a run that captures or replays the graph of this number."""
        options = self._runtime.RunOptions()
        options.add_run_config_entry(_ID, str(number))
        return options

    def _number_graph(self) -> tuple[int, Any]:
        number = next(self._numbers)
        return number, self.options(number)


class CapturedGraph:
    """One captured graph."""

    def __init__(
        self,
        session: Any,
        binding: Any,
        number_graph: Callable[[], tuple[int, Any]],
        uncaptured: Any,
        dropped: list[int],
    ) -> None:
        """`numbered` gives a number that no graph had, and options of its runs.

        `dropped` takes the numbers of graphs that nobody released: whoever forgets one may not hold the turn.
        """
        self._session = session
        self._binding = binding
        self._number_graph = number_graph
        self._number = 0
        self._options: Any = None
        self._uncaptured = uncaptured
        # CUDA keeps a graph with the thread that captured it. Not by its number: the system gives that to another.
        self._here = threading.local()
        self._captured = False
        self._dropped = dropped

    def __del__(self) -> None:
        if self._captured:
            self._dropped.append(self._number)

    def run_uncaptured(self) -> None:
        """Run once without a graph: buffers are allocated, and algorithms chosen."""
        self._session.run_with_iobinding(self._binding, self._uncaptured)

    def run(self) -> None:
        """Replay the graph, or capture it in a thread that has not done so."""
        if getattr(self._here, "captured", False):
            self._session.run_with_iobinding(self._binding, self._options)
        else:
            self._capture()

    def verify(self, feeds: BoundInputs, results: BoundOutputs) -> None:
        """Capture, and compare a replay with an uncaptured run of other data; raises RunError where they differ."""
        self._capture()
        first = results.read()
        given = feeds.read()
        try:
            feeds.write({name: alter(array) for name, array in given.items()})
            self.run()
            replayed = results.read()
            self.run_uncaptured()
            fresh = results.read()
        finally:
            feeds.write(given)
        for name, array in fresh.items():
            stale = are_identical(replayed[name], first[name]) and not are_identical(array, first[name])
            if stale or not are_close(replayed[name], array):
                message = f"a replay of the captured graph gives other numbers for {name!r} than a run without it"
                raise RunError(message, hint="leave cuda_graph out of the target")
        self.run()

    def release(self) -> None:
        """Give back what the graph holds; its buffers may then be bound anew."""
        if self._captured:
            self._session.release_captured_graph(self._number)
            self._captured = False
            self._here = threading.local()

    def _capture(self) -> None:
        # While CUDA captures, what another thread asks of it can fail: nothing else of epkit opens or captures now.
        with PROCESS:
            if not self._captured:
                # Never a number again: not every provider forgets a graph that was released.
                self._number, self._options = self._number_graph()
            self._captured = True  # a capture that fails leaves an empty graph behind, which would replay nothing
            self._session.run_with_iobinding(self._binding, self._options)
            self._here.captured = True
            self._session.run_with_iobinding(self._binding, self._options)


def alter(array: Array) -> Array:
    """Return data of the same shape that differ in each element, and that the model accepts as well.

    They are turned round, and floats halved. What is the same then goes a step towards zero, or to one from zero: what
    was an index remains one.
    """
    turned = np.flip(array)
    match array.dtype.kind:
        case "b":
            moved = ~array
        case "f":
            turned = turned / 2
            moved = np.where(np.isfinite(array), array + 1, 1)
        case _:
            moved = np.where(array > 0, array - np.minimum(array, 1), array + 1)
    return np.ascontiguousarray(np.where(turned == array, moved, turned), array.dtype)


def are_identical(first: Array, second: Array) -> bool:
    """Whether two outputs are the same to the last bit, or not numbers at the same places."""
    return np.array_equal(first, second, equal_nan=True)


def are_close(found: Array, wanted: Array) -> bool:
    """Whether two outputs of the same kernels agree."""
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0))
        return bool(np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * largest, equal_nan=True))
