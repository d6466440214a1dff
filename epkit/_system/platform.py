"""Read how many cores and how much memory this process may use, and how much it uses.

Tested on Linux. The code for Windows and macOS follows their documentation.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")


def core_limit() -> tuple[int, str] | None:
    """Return how many cores this process may use, and why; None if it may use all of the machine's."""
    if sys.platform != "linux":
        return None
    allowed = os.sched_getaffinity(0)
    return tightest_limit(
        cpus=os.cpu_count() or 1,
        cores=count_physical_cores(),
        allowed=allowed,
        allowed_cores=count_physical_cores(allowed),
        quota=_cgroup_limit("cpu", parse_cpu_quota, {2: ("cpu.max",), 1: ("cpu.cfs_quota_us", "cpu.cfs_period_us")}),
    )


def tightest_limit(
    *, cpus: int, cores: int, allowed: Collection[int], allowed_cores: int, quota: float | None
) -> tuple[int, str] | None:
    """Return the smallest core limit and its reason; the machine has `cpus` logical and `cores` physical cores."""
    limit: tuple[int, str] | None = None
    if len(allowed) < cpus:
        limit = max(1, allowed_cores), f"affinity {format_cpus(allowed)}"
    if quota is not None and max(1, math.ceil(quota)) < (limit[0] if limit else cores):
        limit = max(1, math.ceil(quota)), f"cgroup quota {quota:g} CPUs"
    return limit


def usable_cores() -> int:
    """Return how many physical cores this process may use."""
    limit = core_limit()
    return limit[0] if limit else count_physical_cores()


def count_physical_cores(cpus: Iterable[int] | None = None) -> int:
    """Count the machine's physical cores, or the physical cores of these logical CPUs."""
    if sys.platform == "darwin":
        count = ctypes.c_int(0)
        libc, size = ctypes.CDLL(None), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        libc.sysctlbyname(b"hw.physicalcpu", ctypes.byref(count), ctypes.byref(size), None, 0)
        return count.value or os.cpu_count() or 1
    chosen = [*range(os.cpu_count() or 1)] if cpus is None else [*cpus]
    siblings = {_read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in chosen}
    return max(1, len(siblings))


def memory_limit() -> int | None:
    """Return the memory limit of this process's cgroup in bytes; None if the machine has no more than that."""
    if sys.platform != "linux":
        return None
    limit = _cgroup_limit("memory", parse_memory_limit, {2: ("memory.max",), 1: ("memory.limit_in_bytes",)})
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(limit) if limit is not None and limit < machine else None


def free_memory() -> int | None:
    """Return the available memory in bytes, within the limit of the cgroup; None if unknown."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    limits = [int(found[1]) * 1024 if found else None, memory_limit()]
    return min((limit for limit in limits if limit is not None), default=None)


def peak_rss() -> int | None:
    """Return the peak resident memory of this process in bytes; None if unknown.

    On Linux, `ru_maxrss` is inherited from the parent process, so it is read from /proc.
    """
    if sys.platform == "linux":
        return _status("VmHWM")
    if sys.platform == "win32":
        return None
    import resource

    peak_of_self = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of_self if sys.platform == "darwin" else peak_of_self * 1024


def rss() -> int | None:
    """Return the resident memory of this process in bytes; None if unknown."""
    return _status("VmRSS") if sys.platform == "linux" else None


def reset_peak_rss() -> None:
    """Reset `peak_rss` to the current resident memory, if the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def trim_heap() -> None:
    """Return freed memory to the system. glibc would keep tens of MiB."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl has no such function, and keeps nothing
            ctypes.CDLL(None).malloc_trim(0)


def kill_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends, even while a library holds Python's lock."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _status(key: str) -> int | None:
    """Return a size in bytes from /proc/self/status."""
    found = re.search(rf"^{key}:\s*(\d+) kB", _read(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def format_cpus(cpus: Iterable[int]) -> str:
    """Format CPU numbers as Linux does: `0-3,8`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_cpu_quota(text: str) -> float | None:
    """Parse a CPU quota: `150000 100000` (microseconds per period) is 1.5 CPUs; `max` and -1 are None."""
    quota, _, period = text.strip().partition(" ")
    if quota in ("", "max", "-1") or not period:
        return None
    return int(quota) / int(period)


def parse_memory_limit(text: str) -> float | None:
    """Parse a memory limit in bytes; `max` is None."""
    return int(text) if text.strip().isdigit() else None


def list_cgroup_directories(membership: str, controller: str) -> Sequence[tuple[int, Path]]:
    """List the cgroup directories that limit a process, from the text of /proc/self/cgroup: (cgroup version, path).

    The process's own group comes first, then its parents up to the mount, whose limits apply too. In a container the
    path may be the host's: then only the mount exists.
    """
    found = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [(2, Path("/sys/fs/cgroup")), (2, Path("/sys/fs/cgroup/unified"))]
        elif controller in controllers.split(","):
            roots = [(1, Path("/sys/fs/cgroup") / controller)]
        else:
            continue
        own = Path(path.lstrip("/"))
        found += [(version, root / part) for version, root in roots for part in (own, *own.parents)]
    return found


def _cgroup_limit(
    controller: str, parse: Callable[[str], float | None], files: Mapping[int, Sequence[str]]
) -> float | None:
    """Read the smallest limit that applies to this process; `files` has the file names of each cgroup version."""
    limits = []
    for version, directory in list_cgroup_directories(_read(Path("/proc/self/cgroup")), controller):
        limits.append(parse(" ".join(_read(directory / name) for name in files[version])))
    return min((limit for limit in limits if limit is not None), default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
