"""Read the state of NVIDIA GPUs, and the memory of processes on them, from nvidia-smi.

nvidia-smi and not the driver's library: a process of its own can be given a time limit where a driver hangs. All of it
follows NVIDIA's documentation of the format.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from epkit._system.process import run_program

LIMIT_S = 5.0
INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""What Linux calls it, by a number fixed in its source."""

FACTS = (
    "name",
    "driver_version",
    "pstate",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "utilization.gpu",
    "memory.used",
    "memory.total",
)
SLOWED_BY = "slowed by"
"""The name of the reasons for lower clocks than possible."""
# The name in drivers from 535 on, and that in older ones.
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
_BITS = {
    0x1: "idle",
    0x2: "clocks set by the user",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x10: "clocks held together with other GPUs",
    0x20: "temperature",
    0x40: "temperature (hardware)",
    0x80: "power brake (hardware)",
    0x100: "clocks set for a display",
}


def gpus() -> tuple[Mapping[str, str], ...]:
    """Return the state of each NVIDIA GPU, by nvidia-smi's names; none where nvidia-smi is not installed."""
    for reasons in REASONS:
        text = _ask(f"--query-gpu={','.join((*FACTS, reasons))}")
        if text:
            return parse_gpus(text)
    return ()


def parse_gpus(text: str) -> tuple[Mapping[str, str], ...]:
    """Parse a line per GPU with `FACTS` and the reasons, `csv,noheader`; unknown values are left out."""
    found = []
    for cells in _cells(text):
        if len(cells) == len(FACTS) + 1:
            facts = dict(zip((*FACTS, SLOWED_BY), (*cells[:-1], slowed_by(cells[-1])), strict=True))
            found.append({name: value for name, value in facts.items() if value and not value.startswith("[")})
    return tuple(found)


def slowed_by(mask: str) -> str:
    """Name the reasons in a mask: `0x0000000000000004` is the power limit; empty for none."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return ""
    known = [reason for bit, reason in _BITS.items() if bits & bit]
    unknown = bits & ~sum(_BITS)
    return ", ".join([*known, f"{unknown:#x}"] if unknown else known)


def device_bytes(pid: int) -> int | None:
    """Return the memory of a process on all NVIDIA GPUs; None where it is not known.

    The driver uses the process ids of the host, so in a container the id may be that of another process there.
    """
    if not sees_all_processes():
        return None
    text = _ask("--query-compute-apps=pid,used_memory")
    return None if text is None else parse_apps(text).get(pid)


def used_and_free(found: Sequence[Mapping[str, str]]) -> tuple[int, int] | None:
    """Return the bytes that are used on all GPUs, and those free on the fullest one; None where it is not known."""
    sizes = [(_bytes(gpu.get("memory.used", "")), _bytes(gpu.get("memory.total", ""))) for gpu in found]
    known = [(used, total - used) for used, total in sizes if used is not None and total is not None]
    return (sum(used for used, _ in known), min(free for _, free in known)) if known else None


def parse_apps(text: str) -> Mapping[int, int]:
    """Parse the bytes of each process, `csv,noheader` with units; a process on several GPUs has several lines."""
    found: dict[int, int] = {}
    for cells in _cells(text):
        if len(cells) == 2 and cells[0].isdigit():
            size = _bytes(cells[1])
            if size is not None:
                found[int(cells[0])] = found.get(int(cells[0]), 0) + size
    return found


def sees_all_processes() -> bool:
    """Whether process ids here are those of the host: not in a container with ids of its own."""
    if sys.platform != "linux":
        return True
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _bytes(text: str) -> int | None:
    size, _, unit = text.partition(" ")
    return int(size) * 2**20 if size.isdigit() and unit == "MiB" else None


def _ask(query: str) -> str | None:
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    return None if program is None else run_program([program, query, "--format=csv,noheader"], LIMIT_S)


def _cells(text: str) -> list[Sequence[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), skipinitialspace=True)]
