"""How does one thread keep what it prints to itself, while the others go on printing?

`contextlib.redirect_stdout` puts one stream in the place of another for the whole process: two threads that overlap
leave it there for good.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from epkit._system import fork

_lock = fork.lock()
_blocks: dict[object, tuple[int, Sequence[str]]] = {}
"""The thread of each `hushed` block, and the streams on which it is silent."""


class _Muted:
    """A stream that passes on what threads write that are not silent; everything else is the stream's own."""

    def __init__(self, name: str, stream: Any) -> None:
        self.stream = stream
        self._name = name

    def write(self, text: str) -> int:
        me = threading.get_ident()
        silent = [streams for thread, streams in tuple(_blocks.values()) if thread == me and self._name in streams]
        return len(text) if silent else int(self.stream.write(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def hushed(*streams: str) -> Iterator[None]:
    """Swallow what this thread writes to `sys.stdout`, `sys.stderr` or both: "stdout", "stderr"."""
    block = object()
    try:  # around all of it: interrupted anywhere, the thread is heard again
        with _lock:
            _blocks[block] = threading.get_ident(), streams
            for name in streams:
                stream = getattr(sys, name)
                if stream is not None and not isinstance(stream, _Muted):
                    setattr(sys, name, _Muted(name, stream))
        yield
    finally:
        _blocks.pop(block, None)
        with _lock:
            for name in streams:
                stream, others = getattr(sys, name), [one for _, one in tuple(_blocks.values()) if name in one]
                if isinstance(stream, _Muted) and not others:
                    setattr(sys, name, stream.stream)


def _forget_others() -> None:
    """Drop, in a forked process, the blocks of threads that it does not have."""
    for block in [block for block, (thread, _) in _blocks.items() if thread != threading.get_ident()]:
        del _blocks[block]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_others)
