"""Which processes are there? Linux only."""

from __future__ import annotations

import os
from pathlib import Path


def alive(module: str, parent: int | None = None) -> list[int]:
    """Return the processes of a module that are alive: this one's children, those of `parent`, or with 0 anybody's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            state, its_parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        wanted = parent == 0 or int(its_parent) == (parent or os.getpid())
        if module.encode() in command and state != "Z" and wanted:
            found.append(int(process.name))
    return found
