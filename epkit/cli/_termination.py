"""Exit cleanly on SIGTERM."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """Exit with 143 on SIGTERM, so that a command ends its processes and removes its files.

    Only for commands that wait for other processes: Python runs a signal handler only after ONNX Runtime returns, so a
    command that runs a model itself would not end before.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
