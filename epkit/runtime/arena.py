"""Decide which runs return memory to the system, and set the run option for it.

ONNX Runtime's arena keeps what the largest run needed. A run that carries an option gives back, at its end, what is
free by then. Its own outputs are not: they stay in the arena until the user drops them, so the next run after that
carries the option too. glibc may keep what the arena or a session without one frees; `malloc_trim` returns that too.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epkit._system import fork

SHRINK = "memory.enable_memory_arena_shrinkage"


def count_bytes(values: Mapping[str, Any]) -> int:
    """Return the bytes of inputs or outputs; texts and maps count as nothing."""
    return sum(array.nbytes for array in _arrays(values))


class ArenaShrinkage:
    """Shrinkage of the memory arenas of one session. Thread-safe."""

    def __init__(self, above: int, arenas: Sequence[str]) -> None:
        """Runs with more bytes than `above` in inputs or outputs give back what is free in the `arenas` ("cpu:0").

        Only arenas that the session has may be named: for others ONNX Runtime fails the run with InvalidArgument.
        """
        self._above = above
        self._arenas = ";".join(arenas)
        self._lock = fork.make_lock()
        self._large_outputs: list[weakref.ref[Any]] = []

    def should_shrink(self, feed: Mapping[str, Any]) -> bool:
        """Whether this run is to return memory when it ends."""
        if count_bytes(feed) > self._above:
            return True
        if not self._large_outputs:
            return False
        with self._lock:
            outputs = list(self._large_outputs)
            if not outputs or any(output() is not None for output in outputs):
                return False
            del self._large_outputs[: len(outputs)]  # this thread may have added to it: `__del__` can run anything
        return True

    @property
    def pending(self) -> bool:
        """Whether the memory of earlier large outputs is still to be returned."""
        return bool(self._large_outputs)

    def set_option(self, options: Any) -> None:
        """Put the option into ONNX Runtime's RunOptions."""
        if self._arenas:
            options.add_run_config_entry(SHRINK, self._arenas)

    def record_results(self, results: Mapping[str, Any]) -> None:
        """Record outputs that are too large to leave in the arena once the user has dropped them."""
        if count_bytes(results) > self._above:
            outputs = [weakref.ref(array) for array in _arrays(results)]
            with self._lock:
                self._large_outputs += outputs


def _arrays(values: Mapping[str, Any]) -> list[Any]:
    return [
        array
        for value in values.values()
        for array in (value if isinstance(value, list) else (value,))
        if isinstance(array, np.ndarray)
    ]
