"""When does a run give memory back to the system?

ONNX Runtime's arena keeps what the largest run needed. A run that carries an option gives back, at its end, what is
free by then. Its own outputs are not: they lie in the arena until the caller drops them. So the next run after that
carries the option too. What the arena gives back, and what a session without one frees, glibc may keep: so it is told
to give it back as well.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epkit._system import fork

SHRINK = "memory.enable_memory_arena_shrinkage"


def size(values: Mapping[str, Any]) -> int:
    """Return the bytes of inputs or outputs; texts and maps count as nothing."""
    return sum(array.nbytes for array in _arrays(values))


class Shrink:
    """Which runs of one session give memory back. Any number of threads may call it."""

    def __init__(self, above: int, arenas: Sequence[str]) -> None:
        """Runs with more bytes than `above` in inputs or outputs give back what is free in the `arenas` ("cpu:0").

        Only arenas that the session has may be named: for others ONNX Runtime fails the run with InvalidArgument.
        """
        self._above = above
        self._arenas = ";".join(arenas)
        self._lock = fork.make_lock()
        self._kept: list[weakref.ref[Any]] = []

    def wanted(self, feed: Mapping[str, Any]) -> bool:
        """Whether memory is to be given back after this run."""
        if size(feed) > self._above:
            return True
        if not self._kept:
            return False
        with self._lock:
            asked = list(self._kept)
            if not asked or any(kept() is not None for kept in asked):
                return False
            del self._kept[: len(asked)]  # this thread may have added to it: `__del__` can run anything
        return True

    @property
    def owes(self) -> bool:
        """Whether outputs are out that will have to be given back."""
        return bool(self._kept)

    def tell(self, options: Any) -> None:
        """Put the option into ONNX Runtime's RunOptions."""
        if self._arenas:
            options.add_run_config_entry(SHRINK, self._arenas)

    def returned(self, results: Mapping[str, Any]) -> None:
        """Take note of outputs that are too large to leave in the arena once the caller has dropped them."""
        if size(results) > self._above:
            kept = [weakref.ref(array) for array in _arrays(results)]
            with self._lock:
                self._kept += kept


def _arrays(values: Mapping[str, Any]) -> list[Any]:
    return [
        array
        for value in values.values()
        for array in (value if isinstance(value, list) else (value,))
        if isinstance(array, np.ndarray)
    ]
