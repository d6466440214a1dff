"""What does this operating system call things, and how many cores may this process use?

Linux is where this was tried. What is written for Windows and macOS follows their documentation.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import signal
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

_LOADER_CACHE = Path("/etc/ld.so.cache")
_CPUS = Path("/sys/devices/system/cpu")


# Shared libraries


def shared_library(stem: str) -> str:
    """Return the file name of a library without a version: `libx.so`, `x.dll`, `libx.dylib`."""
    match sys.platform:
        case "win32":
            return f"{stem}.dll"
        case "darwin":
            return f"lib{stem}.dylib"
        case _:
            return f"lib{stem}.so"


def find_library(name: str, directories: Iterable[Path] = ()) -> Path | None:
    """Find the file that loading `name` would open, without loading it: in `directories`, then where the system looks.

    None is no proof of absence: a system without the loader's cache (musl) finds libraries in ways of its own.
    Then `load_error` knows.
    """
    for directory in (*directories, *_search_path()):
        if (path := directory / name).is_file():
            return path
    return next((path for path in _cached(re.escape(name)) if path.is_file()), None)


def load_error(name: str) -> str:
    """Load a library and return what the system said against it; empty when it loads."""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return str(error).removesuffix(": No such file or directory")
    return ""


def other_versions(name: str, directories: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the names of other major versions of `libx.so.13` that are there: `libx.so.12`."""
    stem, dot, _ = name.rpartition(".so.")
    if not dot:
        return ()
    pattern = re.escape(stem) + r"\.so\.\d+"
    there = {path.name for place in (*directories, *_search_path()) for path in place.glob(f"{stem}.so.*")}
    there |= {path.name for path in _cached(pattern)}
    return tuple(sorted(one for one in there - {name} if re.fullmatch(pattern, one)))


def needed_libraries(path: Path) -> tuple[str, ...]:
    """Read which libraries a 64-bit Linux library asks the loader for; empty for any other file."""
    try:
        with path.open("rb") as file:
            header = file.read(64)
            if header[:6] != b"\x7fELF\x02\x01":
                return ()
            start, size, count = *struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54)
            file.seek(start)
            table = file.read(size * count)
            # type, flags, offset in the file, address, physical address, size in the file, in memory, alignment
            segments = [struct.unpack_from("<IIQQQQQQ", table, index * size) for index in range(count)]
            dynamic = next(segment for segment in segments if segment[0] == 2)
            file.seek(dynamic[2])
            entries = [*struct.iter_unpack("<qQ", file.read(dynamic[5] // 16 * 16))]
            address = next(value for tag, value in entries if tag == 5)
            strings = next(s[2] + address - s[3] for s in segments if s[0] == 1 and s[3] <= address < s[3] + s[5])
            names = []
            for value in (value for tag, value in entries if tag == 1):
                file.seek(strings + value)
                names.append(file.read(256).partition(b"\0")[0].decode())
            return tuple(names)
    except (OSError, ValueError, struct.error, StopIteration):
        return ()


def _search_path() -> Iterator[Path]:
    variable = "PATH" if sys.platform == "win32" else "LD_LIBRARY_PATH"
    return (Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part)


def _cached(pattern: str) -> Iterator[Path]:
    try:
        cache = _LOADER_CACHE.read_bytes()
    except OSError:
        return
    for match in re.finditer(rb"/[^\0]*/" + pattern.encode() + rb"(?=\0)", cache):
        yield Path(os.fsdecode(match[0]))


# Cores and memory


def core_limit() -> tuple[int, str] | None:
    """Return how many cores this process may use, and why, where that is fewer than the machine has."""
    if sys.platform != "linux":
        return None
    allowed = os.sched_getaffinity(0)
    return tightest_limit(
        cpus=os.cpu_count() or 1,
        cores=physical_cores(),
        allowed=allowed,
        allowed_cores=physical_cores(allowed),
        quota=_cgroup_limit("cpu", cpu_quota, {2: ("cpu.max",), 1: ("cpu.cfs_quota_us", "cpu.cfs_period_us")}),
    )


def tightest_limit(
    *, cpus: int, cores: int, allowed: Collection[int], allowed_cores: int, quota: float | None
) -> tuple[int, str] | None:
    """Compare what a process may use with what the machine has (`cpus` logical ones, `cores` physical ones)."""
    limit: tuple[int, str] | None = None
    if len(allowed) < cpus:
        limit = max(1, allowed_cores), f"affinity {ranges(allowed)}"
    if quota is not None and max(1, math.ceil(quota)) < (limit[0] if limit else cores):
        limit = max(1, math.ceil(quota)), f"cgroup quota {quota:g} CPUs"
    return limit


def usable_cores() -> int:
    """Return how many threads can compute at once in this process: physical cores, less where it is limited."""
    limit = core_limit()
    return limit[0] if limit else physical_cores()


def physical_cores(cpus: Iterable[int] | None = None) -> int:
    """Count the machine's physical cores, or those that carry the logical `cpus`."""
    if sys.platform == "darwin":
        count = ctypes.c_int(0)
        libc, size = ctypes.CDLL(None), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        libc.sysctlbyname(b"hw.physicalcpu", ctypes.byref(count), ctypes.byref(size), None, 0)
        return count.value or os.cpu_count() or 1
    chosen = [*range(os.cpu_count() or 1)] if cpus is None else [*cpus]
    siblings = {_read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in chosen}
    return max(1, len(siblings))


def memory_limit() -> int | None:
    """Return the bytes that this process's cgroup may take, where that is less than the machine has."""
    if sys.platform != "linux":
        return None
    limit = _cgroup_limit("memory", memory_bytes, {2: ("memory.max",), 1: ("memory.limit_in_bytes",)})
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(limit) if limit is not None and limit < machine else None


def free_memory() -> int | None:
    """Return the bytes that programs may still take, as far as the system tells, within the limit of the cgroup."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    limits = [int(found[1]) * 1024 if found else None, memory_limit()]
    return min((one for one in limits if one is not None), default=None)


def peak_rss() -> int | None:
    """Return the most memory that this process has held, in bytes; None where the system does not tell.

    Linux hands `ru_maxrss` on from the process that started this one, so there it is read from /proc.
    """
    if sys.platform == "linux":
        return _status("VmHWM")
    if sys.platform == "win32":
        return None
    import resource

    peak_of_self = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of_self if sys.platform == "darwin" else peak_of_self * 1024


def rss() -> int | None:
    """Return the memory that this process holds now, in bytes; None where the system does not tell."""
    return _status("VmRSS") if sys.platform == "linux" else None


def reset_peak() -> None:
    """Let `peak_rss` count anew from what is held now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def trim() -> None:
    """Give memory that was freed back to the system, where the allocator would keep it: glibc does, by tens of MiB."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl keeps none, and has no such function
            ctypes.CDLL(None).malloc_trim(0)


def end_with_parent() -> None:
    """Have this process ended when the thread that started it is gone, even while a library keeps Python's lock."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _status(key: str) -> int | None:
    found = re.search(rf"^{key}:\s*(\d+) kB", _read(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def ranges(cpus: Iterable[int]) -> str:
    """Write CPU numbers as Linux does: `0-3,8`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def cpu_quota(text: str) -> float | None:
    """Read a CPU quota: `150000 100000` (microseconds in each period) is 1.5 CPUs; `max` and -1 are none."""
    quota, _, period = text.strip().partition(" ")
    if quota in ("", "max", "-1") or not period:
        return None
    return int(quota) / int(period)


def memory_bytes(text: str) -> float | None:
    """Read a memory limit in bytes; `max` is none."""
    return int(text) if text.strip().isdigit() else None


def cgroup_directories(membership: str, controller: str) -> Sequence[tuple[int, Path]]:
    """List where a process's limits lie, from the text of /proc/self/cgroup: (cgroup version, directory).

    A group's own directory comes first, then its parents up to the mount, whose limits hold as well. In a container
    the path may be the host's, and only the mount itself is there.
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
    """Read the smallest limit that holds for this process, from `files` by cgroup version."""
    limits = []
    for version, directory in cgroup_directories(_read(Path("/proc/self/cgroup")), controller):
        limits.append(parse(" ".join(_read(directory / name) for name in files[version])))
    return min((limit for limit in limits if limit is not None), default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
