"""Probe which providers this machine can run.

Each provider runs a self-test in a child process, in parallel with the others, and the result is cached on disk.
`EPKIT_PROBE=quick` calls only the plugin's own probe.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from epkit._system.process import Child
from epkit.discovery import probe_cache
from epkit.discovery.registry import Absent, Registry
from epkit.errors import ConfigError, RunError
from epkit.provider import Availability, Device, Provider, Unusable, Usable
from epkit.runtime import api, events
from epkit.runtime.configured import CPU
from epkit.runtime.plugin_calls import hint_for, probe_availability

_MISSING_LIBRARY = re.compile(r"([\w.+-]+\.(?:so|dll|dylib)[.\d]*: cannot open shared object file)")


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a provider is usable, and how that was found out."""

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
        """Return the result for another process."""
        match self.availability:
            case Usable(detail, note):
                return {"usable": True, "detail": detail, "provider_note": note, "note": self.note}
            case Unusable(reason, hint):
                return {"usable": False, "reason": reason, "hint": hint, "note": self.note}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Answer:
        """Restore what `as_json` returned."""
        usable = document["usable"]
        found = (
            Usable(document["detail"], document["provider_note"])
            if usable
            else Unusable(document["reason"], document["hint"])
        )
        return cls(found, note=document["note"])

    def event(self, provider: str) -> events.Probed:
        """Return the event for observers."""
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
    """Probe each provider; return the results by its name."""
    environ = os.environ if environ is None else environ
    mode = environ.get("EPKIT_PROBE", "prove")
    if mode not in ("prove", "quick"):
        raise ConfigError(f"EPKIT_PROBE is {mode!r}", hint="EPKIT_PROBE=prove or EPKIT_PROBE=quick")
    tests = _SelfTests()
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        probe_one = partial(_probe, registry=registry, refresh=refresh, quick=mode == "quick", tests=tests)
        futures = {provider.name: pool.submit(probe_one, provider, device) for provider, device in wanted}
        try:
            results = {name: future.result() for name, future in futures.items()}
        except BaseException:
            tests.cancel()
            raise
    for name, result in results.items():
        events.notify(result.event(name))
    return results


class _SelfTests:
    """The child processes of one call of `ask`."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.cancelled = False

    def cancel(self) -> None:
        """Kill them; their results are not cached."""
        self.cancelled = True
        for child in self.children:
            child.kill()

    def add(self, child: Child) -> None:
        """Add a child process; kill it if the call was cancelled."""
        self.children.append(child)
        if self.cancelled:
            child.kill()


def _probe(
    provider: Provider,
    device: Device | None,
    *,
    registry: Registry,
    refresh: bool,
    quick: bool,
    tests: _SelfTests,
) -> Answer:
    started = time.perf_counter()
    if isinstance(provider, Absent):
        return Answer(provider.probe())
    if not api.is_installed():
        return Answer(Unusable(api.MISSING, api.MISSING_HINT))
    # The CPU provider is in every build of ONNX Runtime: no self-test is needed.
    if provider.name == CPU or quick:
        return Answer(probe_availability(provider), time.perf_counter() - started)
    with probe_cache.open_cached(provider, device, registry, lambda: tests.cancelled) as cached:
        known = None if refresh else cached.read()
        if known is not None:
            return Answer(known, time.perf_counter() - started, proven=True, remembered=True, note=cached.note)
        availability = _self_test(provider, device, registry, tests)
        if not tests.cancelled:
            cached.write(availability)
        return Answer(availability, time.perf_counter() - started, proven=True, note=cached.note)


def _self_test(provider: Provider, device: Device | None, registry: Registry, tests: _SelfTests) -> Availability:
    """Run the self-test in a child process, and add to the reason what ONNX Runtime only logged."""
    plugin = registry.plugin(provider.name)
    assert plugin is not None
    request = {"plugin": plugin.name, "value": plugin.value, "provider": provider.name, "device": device}
    try:
        started = Child("epkit.discovery.probe_worker")
    except RunError as error:
        reason = f"its self-test could not start: {error.message}"
        return Unusable(reason, "EPKIT_PROBE=quick skips the self-test", transient=True)
    with started as child:
        tests.add(child)
        child.send(request | {"seconds": provider.self_test.timeout_s})
        reply = child.receive(provider.self_test.timeout_s)
        if reply is None:
            ending, output = child.describe_end(), child.last_line()
            limit = f" (limit: {provider.self_test.timeout_s:g} s)" if child.timed_out else ""
            reason = f"its proof {ending}{limit}" + (f": {output}" if output else "")
            return Unusable(reason, hint_for(provider, output) or "epkit providers --refresh", transient=True)
        log = child.read_log()
    if reply["usable"]:
        return Usable(str(reply["detail"]), str(reply["note"]))
    reason, hint, transient = str(reply["reason"]), str(reply["hint"] or ""), bool(reply["transient"])
    logged = _logged_cause(log)
    if logged and logged not in reason:
        reason, hint = f"{logged} ({reason})", hint or hint_for(provider, logged)
    # A missing library is no transient error: installing it changes the fingerprint.
    return Unusable(reason, hint, transient and _MISSING_LIBRARY.search(reason) is None)


def _logged_cause(log: str) -> str:
    """Return the cause that ONNX Runtime wrote only to its log, or ""."""
    match = _MISSING_LIBRARY.search(log) or re.search(r"with error: (.+)", log)
    return match[1].strip() if match else ""
