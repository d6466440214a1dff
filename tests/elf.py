"""Libraries as Linux loads them, made for the tests."""

from __future__ import annotations

import struct


def elf(names: list[str]) -> bytes:
    """Make the least that a loader would call a library needing `names`; its addresses differ from its offsets."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    place, address = 64 + 2 * 56, 0x7000
    table, offsets = place + len(strings), []
    for name in names:
        offsets.append(1 + sum(len(one.encode()) + 1 for one in names[: len(offsets)]))
        assert strings[offsets[-1] :].startswith(name.encode())
    dynamic = b"".join(struct.pack("<qQ", 1, offset) for offset in offsets)
    dynamic += struct.pack("<qQ", 5, address + place) + struct.pack("<qQ", 0, 0)
    size = table + len(dynamic)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size, size, 4096)
    entries = struct.pack("<IIQQQQQQ", 2, 6, table, address + table, address + table, len(dynamic), len(dynamic), 8)
    return header + load + entries + strings + dynamic
