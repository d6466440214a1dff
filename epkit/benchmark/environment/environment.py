"""Describe the machine of a benchmark, and what is installed."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from epkit import wheels
from epkit._system import platform as _platform
from epkit._system.process import run_program
from epkit._version import __version__
from epkit.benchmark.environment import cpu_load, nvidia_smi
from epkit.benchmark.environment.cpu_load import Clock
from epkit.discovery.registry import Registry

GIT_LIMIT_S = 2.0
VARIABLES = (
    *("EPKIT_CACHE_DIR", "EPKIT_CACHE_LIMIT", "EPKIT_CONFIG", "EPKIT_DEFAULT", "EPKIT_DISABLE_PLUGINS"),
    *("EPKIT_EVENTS", "EPKIT_PROBE", "EPKIT_STRICT_PLUGINS"),
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "KMP_AFFINITY", "KMP_BLOCKTIME"),
    *("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TBB_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING"),
    *("CUDA_CACHE_DISABLE", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE"),
    *("LD_PRELOAD", "MALLOC_ARENA_MAX", "MALLOC_CONF"),
)
"""The variables that are recorded, in addition to those that the plugins name; none that could hold a secret."""

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine, its state, and what is installed: what a second benchmark must have in common with this one."""

    at: str
    """When it began, UTC."""
    versions: Mapping[str, str]
    """Of epkit, Python, NumPy, ONNX Runtime and the plugins."""
    system: str
    """The operating system."""
    cpu: str
    """The name of the processor."""
    cores: int
    """Physical cores that this process may use."""
    logical_cpus: int
    """How many the machine has, two for each core where threads share it."""
    limit: str
    """Why these are fewer than the machine has; empty when they are not."""
    memory_limit_bytes: int | None
    """What the cgroup allows, where that is less than the machine has."""
    governor: str
    """The frequency governor of the first CPU; empty where it is not known."""
    load_before: tuple[float, ...]
    """The load average over 1, 5 and 15 minutes."""
    allowed_cpus: str = ""
    """The logical CPUs that this process may use: `0-3,8`; empty where it is not known."""
    turbo: str = ""
    """Whether the clock of the CPU may rise above its base: `on`, `off`; empty where it is not known."""
    memory_bytes: int | None = None
    """The memory of the machine."""
    others_cores: float | None = None
    """How many cores all other processes kept busy meanwhile, on average; None where it is not known."""
    stolen_cores: float | None = None
    """How many cores' worth of time the host of a virtual machine gave to others meanwhile."""
    gpus_before: tuple[Mapping[str, str], ...] = ()
    """What nvidia-smi reports of each GPU: driver, clocks, power, temperature, and what slows it down."""
    gpus_after: tuple[Mapping[str, str], ...] = ()
    """The same after the benchmark, when its processes have ended, so that a GPU may be idle again."""
    git_commit: str = ""
    """The commit of the working directory's repository; empty where there is none."""
    git_changed: bool | None = None
    """Whether files of that commit were changed since; None where that is not known."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment variables that are set, of those known to change how sessions open or run."""


@dataclass(frozen=True, slots=True)
class Before:
    """What is read before anything runs."""

    at: float
    load: tuple[float, ...]
    clock: Clock | None = None
    gpus: tuple[Mapping[str, str], ...] = ()


def look() -> Before:
    """Read the clocks, the load and the GPUs."""
    return Before(time.time(), load(), cpu_load.clock(), nvidia_smi.gpus())


def environment(before: Before, registry: Registry) -> Environment:
    """Describe the machine, after everything ran."""
    limit = _platform.core_limit()
    others = cpu_load.between(before.clock, cpu_load.clock())
    commit, changed = _git_state()
    return Environment(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before.at)),
        versions=_versions(registry),
        system=platform.platform(),
        cpu=_cpu(),
        cores=_platform.usable_cores(),
        logical_cpus=os.cpu_count() or 1,
        limit=limit[1] if limit else "",
        memory_limit_bytes=_platform.memory_limit(),
        governor=_text(_CPUS / "cpu0/cpufreq/scaling_governor").strip(),
        load_before=before.load,
        allowed_cpus=_platform.format_cpus(os.sched_getaffinity(0)) if sys.platform == "linux" else "",
        turbo=turbo(_text(_CPUS / "intel_pstate/no_turbo"), _text(_CPUS / "cpufreq/boost")),
        memory_bytes=_memory(),
        others_cores=others.others if others else None,
        stolen_cores=others.stolen if others else None,
        gpus_before=before.gpus,
        gpus_after=nvidia_smi.gpus(),
        git_commit=commit,
        git_changed=changed,
        variables=variables(os.environ, registry),
    )


def load() -> tuple[float, ...]:
    """Return the load average over 1, 5 and 15 minutes; empty where the system has none."""
    return tuple(os.getloadavg()) if hasattr(os, "getloadavg") else ()


def turbo(no_turbo: str, boost: str) -> str:
    """Parse Intel's switch, which is 1 for off, or else that of other processors, which is 1 for on."""
    off, on = no_turbo.strip(), boost.strip()
    return {"0": "on", "1": "off"}.get(off) or {"0": "off", "1": "on"}.get(on, "")


def variables(given: Mapping[str, str], registry: Registry) -> dict[str, str]:
    """Return the variables that are known to matter, without those whose name suggests a secret."""
    patterns = [*VARIABLES, *(name for provider in registry.providers.values() for name in provider.environment)]
    return {
        name: value
        for name, value in sorted(given.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and not _SECRET.search(name)
    }


def _git_state() -> tuple[str, bool | None]:
    """Return the commit of the working directory's repository, and whether its files were changed since."""
    commit = _git_output("rev-parse", "--verify", "HEAD")
    if not commit:
        return "", None
    changed = _git_output("status", "--porcelain", "--untracked-files=no")
    return commit.strip(), None if changed is None else bool(changed)


def _git_output(*command: str) -> str | None:
    # Neither a lock, nor a program that the repository names.
    return run_program(["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *command], GIT_LIMIT_S)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


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
