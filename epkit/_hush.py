"""How does one thread keep what it prints to itself, while the others go on printing?

`contextlib.redirect_stdout` puts one stream in the place of another for the whole process: two threads that overlap
leave it there for good.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_silent: dict[str, Counter[int]] = {"stdout": Counter(), "stderr": Counter()}
"""By stream, the threads that are silent, and how many times over."""


class _Muted:
    """A stream that passes on what threads write that are not silent; everything else is the stream's own."""

    def __init__(self, stream: Any, silent: Counter[int]) -> None:
        self.stream = stream
        self._silent = silent

    def write(self, text: str) -> int:
        return len(text) if self._silent[threading.get_ident()] else int(self.stream.write(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def hushed(*streams: str) -> Iterator[None]:
    """Swallow what this thread writes to `sys.stdout`, `sys.stderr` or both: "stdout", "stderr"."""
    me = threading.get_ident()
    with _lock:
        for name in streams:
            stream, silent = getattr(sys, name), _silent[name]
            silent[me] += 1
            if stream is not None and not isinstance(stream, _Muted):
                setattr(sys, name, _Muted(stream, silent))
    try:
        yield
    finally:
        with _lock:
            for name in streams:
                stream, silent = getattr(sys, name), _silent[name]
                silent[me] -= 1
                silent += Counter()  # forgets whoever is no longer silent
                if not silent and isinstance(stream, _Muted):
                    setattr(sys, name, stream.stream)
