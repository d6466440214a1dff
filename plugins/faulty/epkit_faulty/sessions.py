"""What do faulty sessions do in their runs?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from epkit.runtime.session_wrapper import SessionWrapper

Result = TypeVar("Result")
Change = Callable[[Any], Any]
"""From an array to another of its shape and dtype."""

_SLEEP_S = 0.002
"""What is longer than this is slept, but for this much: a sleep ends late, at times by a millisecond."""


class Changed(SessionWrapper):
    """Gives other numbers than the session does."""

    def __init__(self, session: Any, change: Change) -> None:
        super().__init__(session)
        self._change = change

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], options: object | None = None) -> Any:
        """Run, and change the outputs."""
        outputs = self._session.run(names, feed, options)
        return [self._change(one) if hasattr(one, "dtype") and one.dtype.kind in "fiu" else one for one in outputs]

    def run_with_iobinding(self, binding: Any, options: object | None = None) -> None:
        """Run, and change the outputs where they are."""
        self._session.run_with_iobinding(binding, options)
        for value in binding.get_outputs_as_ortvaluevector():
            if value.has_value() and value.is_tensor() and value.data_type() in _NUMBERS:
                value.update_inplace(self._change(value.numpy()))


_NUMBERS = tuple(
    f"tensor({name})"
    for name in (
        *("float", "double", "float16"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)


def any_nan(array: Any) -> Any:
    """Make every float NaN."""
    import numpy as np

    return np.full_like(array, np.nan) if array.dtype.kind == "f" else array


def off(array: Any) -> Any:
    """Make every number a tenth and one larger; whole numbers one."""
    return (array * 1.1 + 1).astype(array.dtype) if array.dtype.kind == "f" else array + 1


_NARROW = {"i": "int32", "u": "int32", "f": "float32"}


def narrowed(array: Any) -> Any:
    """Send numbers of 64 bits through 32, as a provider does that has no wider ones."""
    import numpy as np

    with np.errstate(over="ignore"):
        return array.astype(_NARROW[array.dtype.kind]).astype(array.dtype) if array.dtype.itemsize == 8 else array


class Fused(SessionWrapper):
    """Does not heed that a run is to stop, once it has begun: ONNX Runtime looks between two nodes."""

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], options: Any = None) -> Any:
        """Run to the end."""
        return self._session.run(names, feed, _unstoppable(options))

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        """Run to the end."""
        self._session.run_with_iobinding(binding, _unstoppable(options))


def _unstoppable(options: Any) -> Any:
    return options if options is not None and options.terminate else None


class Failing(SessionWrapper):
    """Fails in one run, or in all."""

    def __init__(self, session: Any, error: Callable[[], Exception], at: int | None = None) -> None:
        super().__init__(session)
        self._error = error
        self._at = at
        self._numbers = itertools.count(1)

    def around(self, run: Callable[[], Result]) -> Result:
        """Run, or raise."""
        number = next(self._numbers)
        if self._at in (None, number):
            raise self._error()
        return run()


class Leaking(SessionWrapper):
    """Keeps memory after each run."""

    def __init__(self, session: Any, size: int) -> None:
        super().__init__(session)
        self._size = size
        self._kept: list[bytes] = []

    def around(self, run: Callable[[], Result]) -> Result:
        """Run, and keep memory."""
        result = run()
        self._kept.append(b"\1" * self._size)  # written to: a page of zeros takes no memory
        return result


class Slowed(SessionWrapper):
    """Waits after each run, for a share of the time that it took."""

    def __init__(self, session: Any, share: float, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(session)
        self._share = share
        self._clock = clock
        # On the way of every run, so looked up once.
        self._plain, self._bound = session.run, session.run_with_iobinding
        self._own = 0.0
        self._own = self._measured()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], options: object | None = None) -> Any:
        """Run, and wait."""
        began = self._clock()
        result = self._plain(names, feed, options)
        self._wait(began, self._clock())
        return result

    def run_with_iobinding(self, binding: Any, options: object | None = None) -> None:
        """Run, and wait."""
        began = self._clock()
        self._bound(binding, options)
        self._wait(began, self._clock())

    def _wait(self, began: float, ended: float) -> None:
        until = ended + (ended - began) * self._share - self._own
        left = until - ended
        if left > _SLEEP_S:
            time.sleep(left - _SLEEP_S)
        while self._clock() < until:
            pass

    def _measured(self) -> float:
        """Return what standing around a run costs by itself: a fast run would seem slower than it should."""
        bound, share = self._bound, self._share
        self._bound, self._share = lambda *_: None, 0.0
        costs = []
        for _ in range(200):
            began = self._clock()
            self.run_with_iobinding(None)
            costs.append(self._clock() - began)
        self._bound, self._share = bound, share
        return min(costs)
