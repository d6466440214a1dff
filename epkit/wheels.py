"""Find the installed wheels, and the library of each, without importing them.

Probes use it, and other code that must not load ONNX Runtime.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from epkit._system.libraries import find_library as find_library
from epkit._system.libraries import shared_library as shared_library

RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-silicon",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""The distributions with the package `onnxruntime`, which overwrite each other's files."""


_PLUGINS_FROM = {"onnxruntime-qnn": (2,)}
"""The first version of a distribution that has a plugin library, and no ONNX Runtime."""


def runtimes() -> dict[str, str]:
    """Return the installed distributions of ONNX Runtime and their versions."""
    installed = {name: found for name in RUNTIMES if (found := version(name))}
    return {
        name: found
        for name, found in installed.items()
        if name not in _PLUGINS_FROM or numbers(found) < _PLUGINS_FROM[name]
    }


def version(distribution: str) -> str:
    """Return the version of a distribution, or "" if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version, to compare it: (1, 31, 1)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def library(module: str, file: str) -> Path | None:
    """Return the path of a file in the package `module`; None if there is no such package."""
    spec = importlib.util.find_spec(module)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) / file if places else None


def state(file: Path | None) -> str:
    """Return a text that changes with the file (path, time, size), for a fingerprint."""
    try:
        return f"{file} {found.st_mtime_ns} {found.st_size}" if file and (found := file.stat()) else ""
    except OSError:
        return str(file)


def origin(module: str) -> str:
    """Return the file that `import module` would load, or "", without loading it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    return (spec.origin or "") if spec is not None else ""
