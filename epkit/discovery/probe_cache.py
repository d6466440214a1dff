"""Cache the result of a probe on disk, under everything that it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from epkit import wheels
from epkit._system import files, trust
from epkit._system.folders import make_cache_folder
from epkit._version import __version__
from epkit.discovery.registry import Registry
from epkit.provider import Availability, Device, Provider, Unusable, Usable

if TYPE_CHECKING:
    import filelock

CACHED_SECONDS = 7 * 24 * 3600.0
TRANSIENT_SECONDS = 120.0
_FIELDS = {"usable": (bool,), "transient": (bool,), "at": (float, int)}
_FIELDS_USABLE = {"detail": (str,), "note": (str,)}
_FIELDS_UNUSABLE = {"reason": (str,), "hint": (str,)}


class CachedProbe:
    """One cached result; without a path, nothing is cached."""

    def __init__(self, path: Path | None, note: str = "", seconds: float = CACHED_SECONDS) -> None:
        self.path = path
        self.seconds = seconds
        self.note = note

    def read(self) -> Availability | None:
        """Return the result, or None if it is too old or not readable."""
        if self.path is None:
            return None
        try:
            found = trust.read_json(self.path)
            kept = trust.check_fields(found, _FIELDS)
            age = time.time() - kept["at"]
            if not 0 <= age < (TRANSIENT_SECONDS if kept["transient"] else self.seconds):
                return None
            if kept["usable"]:
                return Usable(**trust.check_fields(found, _FIELDS_USABLE))
            return Unusable(**trust.check_fields(found, _FIELDS_UNUSABLE), transient=kept["transient"])
        except (OSError, ValueError):
            return None

    def write(self, answer: Availability) -> None:
        """Write the result atomically."""
        if self.path is None:
            return
        match answer:
            case Usable(detail, note):
                kept: dict[str, object] = {"usable": True, "detail": detail, "note": note, "transient": False}
            case Unusable(reason, hint, transient):
                kept = {"usable": False, "reason": reason, "hint": hint, "transient": transient}
        try:
            files.write_atomic(self.path, json.dumps(kept | {"at": time.time()}), mode=files.PRIVATE_MODE)
        except OSError as error:
            self.note = f"the answer could not be remembered: {error}"


@contextlib.contextmanager
def open_cached(
    provider: Provider, device: Device | None, registry: Registry, cancelled: Callable[[], bool]
) -> Iterator[CachedProbe]:
    """Open the cached result of a provider under a lock, so that of N processes only one runs the self-test."""
    import filelock

    plugin = registry.plugin(provider.name)
    try:
        dependencies = [str(part) for part in provider.fingerprint()]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        yield CachedProbe(
            None, f"not remembered: the fingerprint of {provider.name} raised {type(error).__name__}: {error}"
        )
        return
    parts = [
        provider.name,
        str(plugin),
        repr(device),
        __version__,
        sys.prefix,
        sys.version,
        str(wheels.runtimes()),
        *_file_times(provider),
        *dependencies,
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    try:
        folder = make_cache_folder("probe")
        lock = filelock.FileLock(folder / f"{key}.lock")
        _acquire(lock, provider.self_test.timeout_s + 10, cancelled)
    except (OSError, filelock.Timeout) as error:
        yield CachedProbe(None, f"not remembered: {error}")
        return
    try:
        # Without a fingerprint of its own, a provider is probed again soon.
        unspecific = type(provider).fingerprint is Provider.fingerprint
        yield CachedProbe(folder / f"{key}.json", seconds=TRANSIENT_SECONDS if unspecific else CACHED_SECONDS)
    finally:
        lock.release()


def _file_times(provider: Provider) -> Iterator[str]:
    """Yield the files of ONNX Runtime and of the plugin with their times: either may change without a new version."""
    runtime = importlib.util.find_spec("onnxruntime")
    places = [
        runtime.origin if runtime else None,
        getattr(sys.modules.get(type(provider).__module__), "__file__", None),
    ]
    for place in filter(None, places):
        with contextlib.suppress(OSError):
            yield f"{place} {Path(place).stat().st_mtime_ns}"


def _acquire(lock: filelock.FileLock, seconds: float, cancelled: Callable[[], bool]) -> None:
    """Wait for the lock in short steps, so that an interrupt need not wait for another process."""
    import filelock

    deadline = time.monotonic() + seconds
    while True:
        try:
            lock.acquire(timeout=0.2)
        except filelock.Timeout:
            if cancelled() or time.monotonic() > deadline:
                raise
        else:
            return
