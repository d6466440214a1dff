"""Describe the provider under test, and what is known about it on this machine.

Everything that its own code or its libraries could crash is asked in a child process, once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from epkit._system.process import Child
from epkit.discovery import probe
from epkit.discovery.registry import Entry, Registry, discover
from epkit.provider import Provider, Unusable
from epkit.runtime.plugin_calls import concurrency_of
from epkit.session.fallback import CPU_FORBIDDEN
from epkit.testing.promise import Broken, Claim, NotClaimed, NotProven

IMPORT_SECONDS = 60.0
PROOFS = 10.0
"""A promise may take the time of so many proofs before it counts as hanging."""


@dataclass(frozen=True)
class Examined:
    """What importing the plugin did, and what its probe said; empty where the child died before."""

    imported: Mapping[str, Any]
    asked: Mapping[str, Any]
    printed: str
    ending: str = ""


class Subject:
    """One provider, with the keys of the target that it is tried with."""

    def __init__(
        self,
        provider: Provider | type[Provider],
        target: Mapping[str, object] | None = None,
        tolerances: Mapping[str, float] | None = None,
    ) -> None:
        self.provider = provider() if isinstance(provider, type) else provider
        self.target = dict(target or {})
        self.tolerances = dict(tolerances or {})
        self._worker: Child | None = None
        self._fresh = True
        """Whether the worker has kept no promise yet."""

    @property
    def name(self) -> str:
        """What users write."""
        try:
            return str(getattr(self.provider, "name", type(self.provider).__name__))
        except Exception:  # noqa: BLE001 - an attribute may be code, and discovery says what is wrong with it
            return type(self.provider).__name__

    @property
    def device(self) -> Any:
        """The device that the target names."""
        return self.target.get("device")

    @cached_property
    def registry(self) -> Registry:
        """Everything that is installed here."""
        return discover()

    @cached_property
    def found(self) -> Entry:
        """The row of the provider among all that is installed; raises Broken where there is none."""
        mine, module = type(self.provider), type(self.provider).__module__
        for entry in self.registry.entries:
            kind = type(entry.provider)
            if entry.name == self.name and (kind.__module__, kind.__qualname__) == (module, mine.__qualname__):
                return entry
        rows = [one for one in self.registry.entries if one.status != "ready" and _brings(one, module, self.name)]
        if rows:
            raise Broken(f"its plugin is {rows[0].status}: {rows[0].reason}", _mend(rows[0]))
        message = f"no plugin that is installed offers {mine.__qualname__} under the name {self.name!r}"
        raise Broken(message, f"pip install -e . (or EPKIT_PLUGINS={module}), and look: epkit providers")

    @cached_property
    def examined(self) -> Examined:
        """What a fresh interpreter went through with the plugin; raises NotProven where it is not found."""
        plugin = self._entry().plugin
        request = {"plugin": plugin.name, "value": plugin.value, "provider": self.name, "device": self.device}
        seconds = max(IMPORT_SECONDS, self.provider.self_test.timeout_s)
        with Child("epkit.testing.import_worker") as child:
            child.send(request | {"seconds": IMPORT_SECONDS + seconds})
            imported = child.receive(IMPORT_SECONDS)
            if imported is None:
                return Examined({}, {}, child.read_log(), child.describe_end())
            printed = child.read_log()
            child.send({})
            asked = child.receive(seconds)
            return Examined(imported, asked or {}, printed, "" if asked else child.describe_end())

    @cached_property
    def answer(self) -> probe.Answer:
        """What epkit's proof says; raises NotProven where the probe gave no answer to prove."""
        entry = self._entry()
        asked = self.examined.asked
        if not asked or asked["raised"] or asked["answer"]:
            raise NotProven("its probe gave no answer")
        assert entry.provider is not None
        environ = {**os.environ, "EPKIT_PROBE": "prove"}
        return probe.ask([(entry.provider, self.device)], self.registry, refresh=True, environ=environ)[self.name]

    @property
    def misplaced(self) -> str:
        """Why the proof failed, where ONNX Runtime opened it and gave its nodes to another provider; else empty."""
        availability = self.answer.availability
        if not isinstance(availability, Unusable) or not self.examined.asked["usable"]:
            return ""
        elsewhere = (CPU_FORBIDDEN, "it took no node of a tiny model")
        return availability.reason if any(message in availability.reason for message in elsewhere) else ""

    def claims(self, claim: Claim) -> None:
        """Raise NotClaimed unless the provider claims it."""
        provider = self.provider
        # One that refuses without any option given compiles to files that are asked for, and keeps nothing by itself.
        keeps = provider.caching.compiles != "never" and not provider.caching.check(provider.options())
        claims = {"compiling": keeps, "graph capture": provider.capture is not None}
        if not claims.get(claim, claim in provider.capabilities):
            raise NotClaimed(claim)

    def usable(self) -> None:
        """Raise NotProven unless the provider has been proven on this machine."""
        match self.answer.availability:
            case Unusable(reason, hint):
                message = "its proof failed: " if self.examined.asked["usable"] else ""
                raise NotProven(f"{message}{reason}" + (f" ({hint})" if hint else ""))

    def keep_apart(self, promise: str, *, anew: bool = False) -> None:
        """Keep one promise in the child process, with `anew` in a fresh one; raises Broken and NotProven."""
        self.usable()
        if anew and not self._fresh:
            self.close()
        worker = self._worker = self._worker or Child("epkit.testing.worker")
        self._fresh = False
        seconds = PROOFS * self.provider.self_test.timeout_s
        worker.send(
            {"promise": promise, "provider": self.name, "target": self.target, "tolerances": self.tolerances}
            | {"seconds": seconds}
        )
        reply = worker.receive(seconds)
        if reply is None:
            ending, log = worker.describe_end(), worker.read_log()
            self.close()
            message = f"the process in which it was tried {ending}"
            declared = concurrency_of(self.provider)
            raise Broken(
                message, f"if several threads do that, declare another concurrency than {declared!r}", log[-2000:]
            )
        match reply["outcome"]:
            case "broken":
                raise Broken(str(reply["found"]), str(reply["mend"]), str(reply["details"]))
            case "not proven":
                raise NotProven(str(reply["found"]))

    def close(self) -> None:
        """End the child process."""
        if self._worker is not None:
            self._worker.end()
            self._worker, self._fresh = None, True

    def _entry(self) -> Entry:
        try:
            return self.found
        except Broken as broken:
            raise NotProven(f"it is not found: {broken.found}") from None


def subject(provider: object, target: object, tolerances: object) -> Subject:
    """Return what is held to promises; raises Broken for a test class that names no provider, or not as it should."""
    if isinstance(provider, type) and issubclass(provider, Provider):
        kind = provider
        try:
            provider = kind()
        except (Exception, SystemExit) as error:
            message = f"{kind.__name__}() raised {type(error).__name__}: {error}"
            raise Broken(message, "write it so that its class needs nothing, or name the object") from error
    if not isinstance(provider, Provider):
        message = f"`provider` is {provider!r}" if provider is not None else "the class of the test has no `provider`"
        raise Broken(f"{message}, where a class of epkit.provider.Provider belongs", "provider = Acme")
    for name, given in (("target", target), ("tolerances", tolerances)):
        if not isinstance(given, Mapping):
            example = '{"device": 0}' if name == "target" else '{"float32": 1e-3}'
            raise Broken(f"`{name}` is {given!r}, where a mapping belongs", f"{name} = {example}")
    return Subject(provider, cast("Mapping[str, object]", target), cast("Mapping[str, float]", tolerances))


def _brings(entry: Entry, module: str, name: str) -> bool:
    plugin = entry.plugin.value.partition(":")[0]
    return module == plugin or module.startswith(f"{plugin}.") or entry.name == name


def _mend(entry: Entry) -> str:
    if entry.status == "disabled":
        return entry.hint
    taken = "is taken by" in entry.reason
    return "choose another name for it" if taken else "mend that, and see where: EPKIT_STRICT_PLUGINS=1 epkit providers"
