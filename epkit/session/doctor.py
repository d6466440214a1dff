"""Check the installation for what keeps models from running well, and give the command that fixes it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from epkit import wheels
from epkit._system import folders, telemetry
from epkit._system import platform as _platform
from epkit.config import file
from epkit.discovery import listing
from epkit.errors import ConfigError
from epkit.runtime import api

SCHEMA = "epkit.doctor/1"

State: TypeAlias = Literal["fine", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `hint` is the command that mends a problem."""

    topic: str
    state: State
    found: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that was looked at."""

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that need mending."""
        return tuple(finding for finding in self.findings if finding.state == "problem")

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit doctor --json`."""
        return {"schema": SCHEMA, "findings": [asdict(finding) for finding in self.findings]}


def doctor(*, refresh: bool = False) -> Checkup:
    """Look at the wheels, libraries, plugins and folders that epkit and ONNX Runtime depend on."""
    parts: Sequence[Callable[[], Iterator[Finding]]] = (
        *(_machine, _runtimes, _telemetry, _threads),
        *(_config, _cache, _environment),
    )
    found = [finding for part in parts for finding in part()]
    for row in listing.providers(refresh=refresh).rows:
        state: State = "fine" if row.status == "usable" else "problem" if row.status == "broken" else "note"
        text = row.detail or row.reason
        found.append(Finding(f"provider {row.name}", state, f"{row.status}{f': {text}' if text else ''}", row.hint))
    return Checkup(tuple(found))


def clash(installed: dict[str, str]) -> Finding:
    """Judge the ONNX Runtime distributions: they share one folder, so only one may be installed."""
    listed = ", ".join(f"{name} {version}" for name, version in sorted(installed.items()))
    if not installed:
        return Finding("ONNX Runtime", "note", "a build of its own, not installed as a distribution")
    if len(installed) == 1:
        return Finding("ONNX Runtime", "fine", listed)
    keep = next((name for name in sorted(installed) if name != "onnxruntime"), "onnxruntime")
    mend = f"pip uninstall -y {' '.join(sorted(installed))} && pip install {keep}"
    return Finding("ONNX Runtime", "problem", f"{listed} overwrite each other's files", mend)


def _machine() -> Iterator[Finding]:
    yield Finding("Python", "fine", f"{platform.python_version()} at {sys.executable}")
    yield Finding("system", "fine", f"{platform.system()} {platform.release()} on {platform.machine()}")


def _runtimes() -> Iterator[Finding]:
    installed = wheels.runtimes()
    if not api.is_installed():
        yield Finding("ONNX Runtime", "problem", api.MISSING, api.MISSING_HINT)
        return
    yield clash(installed)
    try:
        runtime = api.load()
    except Exception as error:  # noqa: BLE001 - a damaged installation may fail in any way; that is the finding
        yield Finding("ONNX Runtime", "problem", f"cannot be imported: {error}", _reinstall(installed))
        return
    if installed and runtime.__version__ not in installed.values():
        found = f"the files are of version {runtime.__version__}, the distribution says {', '.join(installed.values())}"
        yield Finding("ONNX Runtime", "problem", found, _reinstall(installed))
    yield Finding("compiled in", "fine", ", ".join(runtime.get_available_providers()))


def _reinstall(installed: dict[str, str]) -> str:
    return f"pip install --force-reinstall {' '.join(sorted(installed)) or 'onnxruntime'}"


def _telemetry() -> Iterator[Finding]:
    """Say whether ONNX Runtime tells others what it sees, and what it has kept for that."""
    wanted, origin = telemetry.decide(_asked())
    own = "off in epkit's own processes"
    if telemetry.state() == "late":
        yield Finding("telemetry", "note", f"{own}; {telemetry.describe_late()}", f"export {telemetry.VARIABLE}=1")
    elif wanted == "on":
        yield Finding("telemetry", "note", f"{own}; on in programs that open models with epkit: {origin}")
    else:
        yield Finding("telemetry", "fine", f"{own}, and in programs that open models with epkit ({origin})")
    if telemetry.VARIABLE in os.environ and telemetry.read_variable() is None:
        found = f"{telemetry.VARIABLE}={os.environ[telemetry.VARIABLE]} means nothing to ONNX Runtime"
        yield Finding("telemetry", "note", found, f"export {telemetry.VARIABLE}=1")
    kept = telemetry.folder()
    if kept.exists():
        found = f"{kept} holds an id of this device, and what other programs have not sent yet ({telemetry.PAGE})"
        yield Finding("telemetry", "note", found, telemetry.removal_command())


def _asked() -> str:
    """Return where the config that is found here asks for telemetry; empty where none does."""
    try:
        found = file.load().telemetry
    except ConfigError:
        return ""
    return found.origin if found.value else ""


def _threads() -> Iterator[Finding]:
    limit = _platform.core_limit()
    if limit is None:
        yield Finding("cores", "fine", f"{_platform.usable_cores()} usable, which is all of them")
    else:
        yield Finding("cores", "note", f"{limit[0]} usable ({limit[1]}); sessions get that many threads")


def _config() -> Iterator[Finding]:
    try:
        found = file.load()
    except ConfigError as error:
        yield Finding("config", "problem", error.message, error.hint)
        return
    yield Finding("config", "fine", found.place)
    for message in found.ignored:
        yield Finding("config", "note", message)


def _cache() -> Iterator[Finding]:
    try:
        yield Finding("cache", "fine", str(folders.make_cache_folder("probe").parent))
    except OSError as error:
        hint = "EPKIT_CACHE_DIR=/a/folder/that/can/be/written"
        yield Finding("cache", "problem", f"nothing can be remembered: {error}", hint)


def _environment() -> Iterator[Finding]:
    for name in sorted(os.environ):
        if name.startswith(("EPKIT_", "ORT_")):
            yield Finding("environment", "note", f"{name}={os.environ[name]}")
