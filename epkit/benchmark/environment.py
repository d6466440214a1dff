"""On which machine, and with what installed, was it measured?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from epkit import _platform, wheels
from epkit._version import __version__
from epkit.registry import Registry


@dataclass(frozen=True, slots=True)
class Environment:
    """What a second measurement has to have in common with this one."""

    at: str
    """When it began, UTC."""
    versions: Mapping[str, str]
    system: str
    cpu: str
    cores: int
    """Physical cores that this process may use."""
    logical_cpus: int
    limit: str
    """Why these are fewer than the machine has; empty when they are not."""
    memory_limit_bytes: int | None
    governor: str
    """How Linux sets the clock of the first CPU; empty where it does not tell."""
    load_before: tuple[float, ...]
    """The load average over 1, 5 and 15 minutes."""
    load_after: tuple[float, ...]
    page_cache: str = "the model's files were read just before; libraries were as the system had them"

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {**asdict(self), "load_before": list(self.load_before), "load_after": list(self.load_after)}


@dataclass(frozen=True, slots=True)
class Before:
    """What has to be looked at before anything runs."""

    at: float
    load: tuple[float, ...]


def look() -> Before:
    """Look at the clock and the load."""
    return Before(time.time(), load())


def environment(before: Before, registry: Registry) -> Environment:
    """Describe the machine, after everything ran."""
    limit = _platform.core_limit()
    return Environment(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before.at)),
        versions=_versions(registry),
        system=platform.platform(),
        cpu=_cpu(),
        cores=_platform.usable_cores(),
        logical_cpus=os.cpu_count() or 1,
        limit=limit[1] if limit else "",
        memory_limit_bytes=_platform.memory_limit(),
        governor=_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip(),
        load_before=before.load,
        load_after=load(),
    )


def load() -> tuple[float, ...]:
    """Return the load average over 1, 5 and 15 minutes; empty where the system has none."""
    return tuple(os.getloadavg()) if hasattr(os, "getloadavg") else ()


def _versions(registry: Registry) -> dict[str, str]:
    plugins = sorted({entry.plugin.distribution for entry in registry.entries} - {"epkit"})
    found = {"epkit": __version__, "python": platform.python_version(), **wheels.runtimes()}
    for name in ("numpy", *plugins):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _cpu() -> str:
    if sys.platform == "linux":
        for line in _text(Path("/proc/cpuinfo")).splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
