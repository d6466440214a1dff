"""End a command cleanly that another process ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """Exit with 143 on SIGTERM, so that a command takes its processes and files with it.

    Only for commands that wait for other processes: Python runs the handler of a signal when ONNX Runtime returns, so
    in a command that runs a model itself, the signal would end nothing until then.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
