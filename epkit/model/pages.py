"""Read a file through a `bytes`-like interface, one page at a time, so that weights are never read.

A memory map would crash the process with SIGBUS if the file is truncated meanwhile, for example by copying over it.
"""

from __future__ import annotations

import os
from typing import BinaryIO, overload

PAGE = 1 << 16


class ChangedError(OSError):
    """The file was truncated while it was read."""


class Pages:
    """The contents of a file that is open for unbuffered reading."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._start = 0
        self._page = b""

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, offset: int) -> int: ...

    @overload
    def __getitem__(self, offset: slice) -> bytes: ...

    def __getitem__(self, offset: int | slice) -> int | bytes:
        if isinstance(offset, int):
            if not 0 <= offset - self._start < len(self._page):
                self._load(offset)
            return self._page[offset - self._start]
        start, stop, _ = offset.indices(self._size)
        if stop - start > PAGE:
            return self._read(start, stop - start)
        if not self._start <= start <= stop <= self._start + len(self._page):
            self._load(start)
        return self._page[start - self._start : stop - self._start]

    def _load(self, offset: int) -> None:
        """Read the page that begins at an offset."""
        if not 0 <= offset <= self._size:
            raise IndexError(offset)
        self._page, self._start = self._read(offset, min(PAGE, self._size - offset)), offset

    def _read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        parts: list[bytes] = []
        while size > 0:
            part = self._file.read(size)
            if not part:
                raise ChangedError("it became shorter while it was read")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
