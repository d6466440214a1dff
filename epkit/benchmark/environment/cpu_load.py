"""Measure how much CPU time other processes used while a benchmark ran.

Linux counts the CPU time of the whole machine; what this process and its children used is subtracted.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Clock:
    """CPU seconds since some moment: of all processes, of this one and its ended children, and stolen by the host."""

    at: float
    busy_s: float
    own_s: float
    stolen_s: float


@dataclass(frozen=True, slots=True)
class CpuLoad:
    """What others used, as a number of cores: 0.5 is half of one."""

    others: float
    stolen: float


def clock() -> Clock | None:
    """Read the clocks; None where the system has none."""
    if sys.platform != "linux":
        return None
    try:
        text = Path("/proc/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    own = os.times()
    return parse_stat(text, os.sysconf("SC_CLK_TCK"), own.user + own.system + own.children_user + own.children_system)


def parse_stat(text: str, ticks: int, own_s: float) -> Clock | None:
    """Read the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, in ticks."""
    name, _, rest = text.partition("\n")[0].partition(" ")
    counts = rest.split()
    if name != "cpu" or len(counts) < 8 or not all(map(str.isdigit, counts)):
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(count) / ticks for count in counts[:8])
    return Clock(time.monotonic(), user + nice + system + irq + softirq, own_s, steal)


def between(first: Clock | None, second: Clock | None) -> CpuLoad | None:
    """Return what others used between two readings; None where that is not known."""
    if first is None or second is None or second.at <= first.at:
        return None
    seconds = second.at - first.at
    own = second.own_s - first.own_s
    others = max(0.0, second.busy_s - first.busy_s - own)
    return CpuLoad(round(others / seconds, 3), round(max(0.0, second.stolen_s - first.stolen_s) / seconds, 3))
