"""Find shared libraries, and load them to see why they fail.

Tested on Linux. The code for Windows and macOS follows their documentation.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_LOADER_CACHE = Path("/etc/ld.so.cache")


def shared_library(stem: str) -> str:
    """Return the file name of a library on this system, without a version: `libx.so`, `x.dll`, `libx.dylib`."""
    match sys.platform:
        case "win32":
            return f"{stem}.dll"
        case "darwin":
            return f"lib{stem}.dylib"
        case _:
            return f"lib{stem}.so"


def find_library(name: str, directories: Iterable[Path] = ()) -> Path | None:
    """Find the file that loading `name` would open, in `directories` and then in the system's search path.

    None does not prove absence: a system without /etc/ld.so.cache (musl) searches in other ways. `try_load` proves it.
    """
    for directory in (*directories, *_search_path()):
        if (path := directory / name).is_file():
            return path
    return next((path for path in _cached(re.escape(name)) if path.is_file()), None)


def try_load(name: str) -> str:
    """Load a library, and return the error of the system; "" if it loads."""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return str(error).removesuffix(": No such file or directory")
    return ""


def find_other_versions(name: str, directories: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return other major versions of a library that are installed: of `libx.so.13`, `libx.so.12`."""
    stem, dot, _ = name.rpartition(".so.")
    if not dot:
        return ()
    pattern = re.escape(stem) + r"\.so\.\d+"
    found = {path.name for folder in (*directories, *_search_path()) for path in folder.glob(f"{stem}.so.*")}
    found |= {path.name for path in _cached(pattern)}
    return tuple(sorted(version for version in found - {name} if re.fullmatch(pattern, version)))


def read_needed_libraries(path: Path) -> tuple[str, ...]:
    """Read the DT_NEEDED entries of a 64-bit ELF library: the libraries that it links to; () for any other file."""
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
    """Yield the libraries in the loader's cache whose file name matches a pattern."""
    try:
        cache = _LOADER_CACHE.read_bytes()
    except OSError:
        return
    for match in re.finditer(rb"/[^\0]*/" + pattern.encode() + rb"(?=\0)", cache):
        yield Path(os.fsdecode(match[0]))
