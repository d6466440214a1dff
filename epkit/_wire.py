"""How is a protobuf message read without protobuf, and without reading its bulk?

A message is a row of fields: a key (field number and wire type), then a value. A long value says its length first, so
gigabytes of weights are stepped over; nothing is copied before `text` asks for it.

    for field in Message(buffer):
        match field:
            case 1, int(version): ...
            case 7, Message() as graph: ...

A field of another wire type than expected matches no case, and is ignored as an unknown one. That is protobuf's rule.
The encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import TypeAlias

Buffer: TypeAlias = bytes | mmap

_HIGHEST_FIELD = 2**29 - 1
_UINT64 = 2**64 - 1


class WireError(ValueError):
    """The bytes are not a message."""


class TruncatedError(WireError):
    """The buffer ends in the middle of a field."""


class Message:
    """A stretch of a buffer that holds fields, text or packed numbers: the schema knows which."""

    __slots__ = ("buffer", "start", "stop")

    def __init__(self, buffer: Buffer, start: int = 0, stop: int | None = None) -> None:
        self.buffer = buffer
        self.start = start
        self.stop = len(buffer) if stop is None else stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, int | Message]]:
        """Yield field number and value: a varint as an int, bytes as a Message. Fixed-width numbers are passed over."""
        at = self.start
        while at < self.stop:
            key, at = self._varint(at)
            number, kind = key >> 3, key & 7
            if not 1 <= number <= _HIGHEST_FIELD:
                raise WireError(f"field number {number} before byte {at:,}")
            match kind:
                case 0:
                    value, at = self._varint(at)
                    yield number, value
                case 2:
                    size, at = self._varint(at)
                    start, at = at, self._end(at, size)
                    yield number, Message(self.buffer, start, at)
                case 1 | 5:
                    at = self._end(at, 8 if kind == 1 else 4)
                case _:
                    raise WireError(f"wire type {kind} before byte {at:,}")

    def text(self) -> str:
        """Decode as UTF-8; what is not UTF-8 becomes the replacement character."""
        return self.buffer[self.start : self.stop].decode("utf-8", "replace")

    def integers(self) -> Iterator[int]:
        """Yield packed varints."""
        at = self.start
        while at < self.stop:
            value, at = self._varint(at)
            yield value

    def _end(self, at: int, size: int) -> int:
        if size > self.stop - at:
            raise self._cut(f"{size:,} bytes are announced at byte {at:,}, {self.stop - at:,} are there")
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
                raise WireError(f"a number of more than ten bytes before byte {at:,}")
        raise self._cut(f"a number is cut off at byte {at:,}")

    def _cut(self, what: str) -> WireError:
        """Tell a buffer that ends too early from a field that is longer than the message around it."""
        return TruncatedError(what) if self.stop == len(self.buffer) else WireError(what)


def signed(value: int) -> int:
    """Read a varint as int64: negative numbers come as their two's complement."""
    return value - 2**64 if value >= 2**63 else value
