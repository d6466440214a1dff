"""Read protobuf messages without the protobuf package, and without reading their large fields.

A message is a sequence of fields: a key (field number and wire type), then a value. A value of bytes begins with its
length, so gigabytes of weights are skipped; bytes are copied only by `text`.

    for field in Message(buffer):
        match field:
            case 1, int(version): ...
            case 7, Message() as graph: ...

A field with an unexpected wire type matches no case, and is ignored like an unknown one: that is protobuf's rule.
The encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from epkit.model.pages import PAGE, Pages

Buffer: TypeAlias = bytes | Pages

_HIGHEST_FIELD = 2**29 - 1
_UINT64 = 2**64 - 1


class WireError(ValueError):
    """The bytes are not a message."""


class TruncatedError(WireError):
    """The buffer ends in the middle of a field."""


class Message:
    """A range of a buffer that holds fields, text or packed numbers; the schema decides which."""

    __slots__ = ("_base", "_ends", "buffer", "start", "stop")

    def __init__(
        self, buffer: Buffer, start: int = 0, stop: int | None = None, *, base: int = 0, ends: bool = True
    ) -> None:
        """`base` is the offset of the buffer in the file, and `ends` whether it reaches the end of the file."""
        self.buffer = buffer
        self.start = start
        self.stop = len(buffer) if stop is None else stop
        self._base = base
        self._ends = ends

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, int | Message]]:
        """Yield field number and value: a varint as an int, bytes as a Message. Fixed-width numbers are skipped."""
        self._copy_small()
        at = self.start
        while at < self.stop:
            key, at = self._varint(at)
            number, kind = key >> 3, key & 7
            if not 1 <= number <= _HIGHEST_FIELD:
                raise WireError(f"field number {number} before byte {self._base + at:,}")
            match kind:
                case 0:
                    value, at = self._varint(at)
                    yield number, value
                case 2:
                    size, at = self._varint(at)
                    start, at = at, self._end(at, size)
                    yield number, Message(self.buffer, start, at, base=self._base, ends=self._ends)
                case 1 | 5:
                    at = self._end(at, 8 if kind == 1 else 4)
                case _:
                    raise WireError(f"wire type {kind} before byte {self._base + at:,}")

    def text(self) -> str:
        """Decode as UTF-8; invalid bytes become the replacement character."""
        return self.buffer[self.start : self.stop].decode("utf-8", "replace")

    def integers(self) -> Iterator[int]:
        """Yield packed varints."""
        at = self.start
        while at < self.stop:
            value, at = self._varint(at)
            yield value

    def _end(self, at: int, size: int) -> int:
        if size > self.stop - at:
            raise self._cut_off(
                f"{size:,} bytes are announced at byte {self._base + at:,}, {self.stop - at:,} are there"
            )
        return at + size

    def _varint(self, at: int) -> tuple[int, int]:
        value, shift = 0, 0
        while at < self.stop:
            byte = self.buffer[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _UINT64, at
            shift += 7
            if shift == 70:
                raise WireError(f"a number of more than ten bytes before byte {self._base + at:,}")
        raise self._cut_off(f"a number is cut off at byte {self._base + at:,}")

    def _cut_off(self, what: str) -> WireError:
        """Return TruncatedError if the file ends too early, WireError if a field is longer than its message."""
        return TruncatedError(what) if self._ends and self.stop == len(self.buffer) else WireError(what)

    def _copy_small(self) -> None:
        """Copy a small message of a file that is read in pages: its fields are read byte by byte."""
        if isinstance(self.buffer, Pages) and len(self) <= PAGE:
            self._ends = self.stop == len(self.buffer)
            self.buffer, self._base = self.buffer[self.start : self.stop], self.start
            self.start, self.stop = 0, len(self)


def signed(value: int) -> int:
    """Interpret a varint as int64, in two's complement."""
    return value - 2**64 if value >= 2**63 else value
