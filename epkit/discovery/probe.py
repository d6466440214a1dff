"""What can this machine do?

Each provider is proven in a child process, in parallel with the others, and the answer is remembered on disk under
everything that it depends on. `EPKIT_PROBE=quick` trusts the plugin's own cheap probe instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epkit import wheels
from epkit._system import files, trust
from epkit._system.folders import make_cache_folder
from epkit._system.process import Child
from epkit._version import __version__
from epkit.discovery.registry import Absent, Registry
from epkit.errors import ConfigError, RunError
from epkit.provider import Availability, Device, Provider, Unusable, Usable
from epkit.runtime import api, events
from epkit.runtime.configured import CPU
from epkit.runtime.plugin_calls import availability_of, hint_for

if TYPE_CHECKING:
    import filelock

REMEMBERED_SECONDS = 7 * 24 * 3600.0
TRANSIENT_SECONDS = 120.0
_KEPT = {"usable": (bool,), "transient": (bool,), "at": (float, int)}
_KEPT_USABLE = {"detail": (str,), "note": (str,)}
_KEPT_UNUSABLE = {"reason": (str,), "hint": (str,)}
_MISSING_LIBRARY = re.compile(r"([\w.+-]+\.(?:so|dll|dylib)[.\d]*: cannot open shared object file)")


@dataclass(frozen=True, slots=True)
class Answer:
    """An availability, and how it was come by."""

    availability: Availability
    seconds: float = 0.0
    proven: bool = False
    remembered: bool = False
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether this machine has the provider."""
        return isinstance(self.availability, Usable)

    def as_json(self) -> dict[str, object]:
        """Return what another process needs to plan the same."""
        match self.availability:
            case Usable(detail, note):
                return {"usable": True, "detail": detail, "provider_note": note, "note": self.note}
            case Unusable(reason, hint):
                return {"usable": False, "reason": reason, "hint": hint, "note": self.note}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Answer:
        """Put together what `as_json` returned."""
        usable = told["usable"]
        found = Usable(told["detail"], told["provider_note"]) if usable else Unusable(told["reason"], told["hint"])
        return cls(found, note=told["note"])

    def event(self, provider: str) -> events.Probed:
        """Return what observers are told."""
        match self.availability:
            case Usable(detail):
                reason, hint = detail, ""
            case Unusable(reason, hint):
                pass
        return events.Probed(provider, self.usable, reason, hint, self.seconds, self.remembered)


def ask(
    wanted: Sequence[tuple[Provider, Device | None]],
    registry: Registry,
    *,
    refresh: bool = False,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Answer]:
    """Ask for each provider whether this machine has it; the answers by the provider's name."""
    environ = os.environ if environ is None else environ
    mode = environ.get("EPKIT_PROBE", "prove")
    if mode not in ("prove", "quick"):
        raise ConfigError(f"EPKIT_PROBE is {mode!r}", hint="EPKIT_PROBE=prove or EPKIT_PROBE=quick")
    proofs = _Proofs()
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        ask_one = partial(_ask, registry=registry, refresh=refresh, quick=mode == "quick", proofs=proofs)
        asked = {provider.name: pool.submit(ask_one, provider, device) for provider, device in wanted}
        try:
            answers = {name: answer.result() for name, answer in asked.items()}
        except BaseException:
            proofs.give_up()  # interrupted: nobody waits for them any more
            raise
    for name, answer in answers.items():
        events.tell(answer.event(name))
    return answers


class _Proofs:
    """The children at work for one question."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.given_up = False

    def give_up(self) -> None:
        """End them; what they would have said is not known, so it is not remembered either."""
        self.given_up = True
        for child in self.children:
            child.kill()

    def add(self, child: Child) -> None:
        """Take in a child, which ends at once when nobody waits any more."""
        self.children.append(child)
        if self.given_up:
            child.kill()


def _ask(
    provider: Provider,
    device: Device | None,
    *,
    registry: Registry,
    refresh: bool,
    quick: bool,
    proofs: _Proofs,
) -> Answer:
    started = time.perf_counter()
    if isinstance(provider, Absent):
        return Answer(provider.probe())
    if not api.installed():
        return Answer(Unusable(api.MISSING, api.MISSING_HINT))
    # The CPU is in every build of ONNX Runtime, and every fallback ends there: there is nothing to prove.
    if provider.name == CPU or quick:
        return Answer(availability_of(provider), time.perf_counter() - started)
    with _memory(provider, device, registry, proofs) as memory:
        known = None if refresh else memory.read()
        if known is not None:
            return Answer(known, time.perf_counter() - started, proven=True, remembered=True, note=memory.note)
        availability = _proven(provider, device, registry, proofs)
        if not proofs.given_up:
            memory.write(availability)
        return Answer(availability, time.perf_counter() - started, proven=True, note=memory.note)


def _proven(provider: Provider, device: Device | None, registry: Registry, proofs: _Proofs) -> Availability:
    """Run the proof in a child process, and put what the child only logged into the reason."""
    plugin = registry.plugin(provider.name)
    assert plugin is not None
    request = {"plugin": plugin.name, "value": plugin.value, "provider": provider.name, "device": device}
    try:
        started = Child("epkit.discovery.probe_worker")
    except RunError as error:
        told = f"it cannot be proven: {error.message}"
        return Unusable(told, "EPKIT_PROBE=quick trusts its own probe", transient=True)
    with started as child:
        proofs.add(child)
        child.send(request | {"seconds": provider.self_test_timeout_s})
        reply = child.receive(provider.self_test_timeout_s)
        if reply is None:
            ending, said = child.describe_end(), child.last_line()
            limit = f" (limit: {provider.self_test_timeout_s:g} s)" if child.timed_out else ""
            reason = f"its proof {ending}{limit}" + (f": {said}" if said else "")
            return Unusable(reason, hint_for(provider, said) or "epkit providers --refresh", transient=True)
        log = child.read_log()
    if reply["usable"]:
        return Usable(str(reply["detail"]), str(reply["note"]))
    reason, hint, transient = str(reply["reason"]), str(reply["hint"] or ""), bool(reply["transient"])
    logged = _logged_cause(log)
    if logged and logged not in reason:
        reason, hint = f"{logged} ({reason})", hint or hint_for(provider, logged)
    # A library that is missing stays so until it is installed, which changes the fingerprint.
    return Unusable(reason, hint, transient and _MISSING_LIBRARY.search(reason) is None)


def _logged_cause(log: str) -> str:
    """Return the cause that ONNX Runtime wrote to its log and nowhere else; empty when there is none."""
    match = _MISSING_LIBRARY.search(log) or re.search(r"with error: (.+)", log)
    return match[1].strip() if match else ""


class _Memory:
    """One remembered answer on disk; without a path, nothing is remembered."""

    def __init__(self, path: Path | None, note: str = "", seconds: float = REMEMBERED_SECONDS) -> None:
        self.path = path
        self.seconds = seconds
        self.note = note

    def read(self) -> Availability | None:
        """Return the answer unless it is too old, or not readable."""
        if self.path is None:
            return None
        try:
            found = trust.read_json(self.path)
            kept = trust.check_fields(found, _KEPT)
            age = time.time() - kept["at"]
            if not 0 <= age < (TRANSIENT_SECONDS if kept["transient"] else self.seconds):
                return None
            if kept["usable"]:
                return Usable(**trust.check_fields(found, _KEPT_USABLE))
            return Unusable(**trust.check_fields(found, _KEPT_UNUSABLE), transient=kept["transient"])
        except (OSError, ValueError):
            return None

    def write(self, answer: Availability) -> None:
        """Keep the answer; no reader meets half of it."""
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
def _memory(provider: Provider, device: Device | None, registry: Registry, proofs: _Proofs) -> Iterator[_Memory]:
    """Give the remembered answer, locked, so that of N processes only one proves."""
    import filelock

    plugin = registry.plugin(provider.name)
    try:
        depends = [str(part) for part in provider.fingerprint()]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        yield _Memory(
            None, f"not remembered: the fingerprint of {provider.name} raised {type(error).__name__}: {error}"
        )
        return
    everything = [
        provider.name,
        str(plugin),
        repr(device),
        __version__,
        sys.prefix,
        sys.version,
        str(wheels.runtimes()),
        *_files(provider),
        *depends,
    ]
    key = hashlib.sha256("\0".join(everything).encode()).hexdigest()[:32]
    try:
        folder = make_cache_folder("probe")
        lock = filelock.FileLock(folder / f"{key}.lock")
        _acquire(lock, provider.self_test_timeout_s + 10, proofs)
    except (OSError, filelock.Timeout) as error:
        yield _Memory(None, f"not remembered: {error}")
        return
    try:
        # A plugin that does not say what its answer depends on is asked again soon.
        blind = type(provider).fingerprint is Provider.fingerprint
        yield _Memory(folder / f"{key}.json", seconds=TRANSIENT_SECONDS if blind else REMEMBERED_SECONDS)
    finally:
        lock.release()


def _files(provider: Provider) -> Iterator[str]:
    """Name the files of ONNX Runtime and of the plugin with their times: either may change under one version."""
    runtime = importlib.util.find_spec("onnxruntime")
    places = [
        runtime.origin if runtime else None,
        getattr(sys.modules.get(type(provider).__module__), "__file__", None),
    ]
    for place in filter(None, places):
        with contextlib.suppress(OSError):
            yield f"{place} {Path(place).stat().st_mtime_ns}"


def _acquire(lock: filelock.FileLock, seconds: float, proofs: _Proofs) -> None:
    """Wait for the lock in short turns, so that an interrupt need not wait for another process's proof."""
    import filelock

    ends = time.monotonic() + seconds
    while True:
        try:
            lock.acquire(timeout=0.2)
        except filelock.Timeout:
            if proofs.given_up or time.monotonic() > ends:
                raise
        else:
            return
