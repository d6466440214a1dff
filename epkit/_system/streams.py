"""Silence stdout and stderr for one thread, while other threads print.

`contextlib.redirect_stdout` replaces the stream for the whole process: two threads that use it at the same time can
leave it replaced for ever.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from epkit._system import fork

_lock = fork.make_lock()
_blocks: dict[object, tuple[int, Sequence[str]]] = {}
"""Of each active `silence` block: its thread, and the names of the streams that it silences."""


class _Muted:
    """A stream that drops what silenced threads write, and is the original stream otherwise."""

    def __init__(self, name: str, stream: Any) -> None:
        self.stream = stream
        self._name = name

    def write(self, text: str) -> int:
        own = threading.get_ident()
        silenced = any(thread == own and self._name in streams for thread, streams in tuple(_blocks.values()))
        return len(text) if silenced else int(self.stream.write(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def silence(*streams: str) -> Iterator[None]:
    """Drop what this thread writes to these streams: "stdout", "stderr" or both."""
    block = object()
    try:  # around everything, so that an interrupt at any point restores the streams
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
                stream, in_use = getattr(sys, name), any(name in streams for _, streams in tuple(_blocks.values()))
                if isinstance(stream, _Muted) and not in_use:
                    setattr(sys, name, stream.stream)


def _drop_other_threads() -> None:
    """Drop, in a forked process, the blocks of threads that it lacks."""
    for block in [block for block, (thread, _) in _blocks.items() if thread != threading.get_ident()]:
        del _blocks[block]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_other_threads)
