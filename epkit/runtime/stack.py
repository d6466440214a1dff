"""Tell what this thread is in the middle of, for code that may have interrupted it: signal handlers, `__del__`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any


def on_stack(functions: Sequence[Callable[..., Any]], variable: str, value: object) -> int:
    """Count the calls of these functions that this thread is in, and whose local variable is `value`.

    The one that asks through another does not count.
    """
    found, codes = 0, [function.__code__ for function in functions]
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        if frame.f_code in codes and frame.f_locals.get(variable) is value:
            found += 1
        frame = frame.f_back
    return found
