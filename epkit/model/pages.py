"""Read a file as if it were bytes, a page at a time, so that gigabytes of weights are never read.

A memory map would do the same, but ends the process with SIGBUS when somebody makes the file shorter meanwhile, as
copying another one over it does.
"""

from __future__ import annotations

import os
from typing import BinaryIO, overload

PAGE = 1 << 16


class ChangedError(OSError):
    """The file became shorter while it was read."""


class Pages:
    """The contents of a file that is open for reading without a buffer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._at = 0
        self._page = b""

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> bytes: ...

    def __getitem__(self, place: int | slice) -> int | bytes:
        if isinstance(place, int):
            if not 0 <= place - self._at < len(self._page):
                self._turn(place)
            return self._page[place - self._at]
        start, stop, _ = place.indices(self._size)
        if stop - start > PAGE:
            return self._read(start, stop - start)
        if not self._at <= start <= stop <= self._at + len(self._page):
            self._turn(start)
        return self._page[start - self._at : stop - self._at]

    def _turn(self, place: int) -> None:
        """Take the page that begins at a place."""
        if not 0 <= place <= self._size:
            raise IndexError(place)
        self._page, self._at = self._read(place, min(PAGE, self._size - place)), place

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
