"""Discover the installed plugins, and load the providers of each.

Each plugin has a plugin manager of its own: in a shared one, one hook that raises ends the collection for all. A broken
or disabled plugin is an entry with its reason, never a crash.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import pluggy
from pydantic import ConfigDict

from epkit import hookspecs
from epkit._system import fork
from epkit._system.streams import silence
from epkit.discovery import contract_checks
from epkit.errors import PluginError, UnknownTarget, nearest
from epkit.provider import Availability, Devices, Options, Provider, Unusable

GROUP = "epkit"
NAMED = "EPKIT_PLUGINS"
"""The environment variable with modules to load as plugins without an installation."""

_lock = fork.make_lock()


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point of the group `epkit`, and the distribution it comes from."""

    name: str
    value: str
    distribution: str
    version: str

    @property
    def bundled(self) -> bool:
        """Whether it comes with epkit itself."""
        return self.distribution == "epkit"


@dataclass(frozen=True, slots=True)
class Entry:
    """A provider of a plugin, or the reason why the plugin has none."""

    name: str
    plugin: Plugin
    status: Literal["ready", "broken", "disabled"]
    provider: Provider | None = None
    reason: str = ""
    hint: str = ""


class _AnyDevice(Devices):
    """Accepts any device: nothing can be checked."""

    def check(self, device: int | str) -> str:  # noqa: ARG002
        """Accept it."""
        return ""


class Absent(Provider):
    """The placeholder for the provider of a broken or disabled plugin."""

    ort_name = ""
    devices = _AnyDevice()

    class options(Options):  # noqa: N801 - it takes the place of the attribute of that name
        """Options of an absent provider, unchecked."""

        model_config = ConfigDict(extra="allow")

    def __init__(self, entry: Entry) -> None:
        self.name = entry.name  # type: ignore[misc]
        self._answer = Unusable(f"the plugin {entry.name!r} is {entry.status}: {entry.reason}", entry.hint)

    def probe(self) -> Availability:
        """Return why the plugin cannot be used."""
        return self._answer

    def to_ort_options(self, options: Options, device: int | str | None) -> dict[str, str]:  # noqa: ARG002
        """Return no options; the provider is never opened."""
        return {}


@dataclass(frozen=True, slots=True)
class Registry:
    """The entries of all plugins, in order of precedence."""

    entries: tuple[Entry, ...]

    @property
    def providers(self) -> dict[str, Provider]:
        """The providers by name."""
        return {entry.name: entry.provider for entry in self.entries if entry.provider is not None}

    def plugin(self, name: str) -> Plugin | None:
        """Return the plugin that brought the provider `name`."""
        return next((entry.plugin for entry in self.entries if entry.provider and entry.name == name), None)

    def get(self, name: str) -> Provider:
        """Return the provider `name`; raises UnknownTarget when no plugin has that name."""
        entry = self.entry(name)
        return entry.provider or Absent(entry)

    def entry(self, name: str) -> Entry:
        """Return the entry `name`, a ready one first; raises UnknownTarget."""
        for entry in sorted(self.entries, key=lambda entry: entry.status != "ready"):
            if entry.name == name:
                return entry
        known = [entry.name for entry in self.entries]
        message = f"no provider is named {name!r}{self.shortfall()}"
        raise UnknownTarget(message, hint=nearest(name, known, what="installed"))

    def shortfall(self) -> str:
        """List the broken plugins, which may have the missing name: "; the plugin 'acme' is broken: ..."."""
        broken = [entry for entry in self.entries if entry.status == "broken"]
        return "".join(f"; the plugin {entry.name!r} is broken: {entry.reason}" for entry in broken)


def discover(*, environ: Mapping[str, str] | None = None, strict: bool | None = None) -> Registry:
    """Load every installed plugin.

    `EPKIT_PLUGINS` names further modules to load as plugins. `EPKIT_DISABLE_PLUGINS` names entry points, or such
    modules, to leave out. With `EPKIT_STRICT_PLUGINS=1` a broken plugin raises PluginError.
    """
    environ = os.environ if environ is None else environ
    strict = environ.get("EPKIT_STRICT_PLUGINS", "") not in ("", "0") if strict is None else strict
    disabled = {name.strip() for name in environ.get("EPKIT_DISABLE_PLUGINS", "").split(",")}
    entries: list[Entry] = []
    owners: dict[str, Plugin] = {}
    installed = _installed()
    # A module that is also an installed plugin is loaded once: its names would clash with its own.
    named = [
        plugin for plugin in _named(environ.get(NAMED, "")) if plugin.value not in {other.value for other in installed}
    ]
    for plugin in [*installed, *named]:
        if plugin.name in disabled:
            hint = f"take {plugin.name!r} out of EPKIT_DISABLE_PLUGINS"
            entries.append(Entry(plugin.name, plugin, "disabled", None, "EPKIT_DISABLE_PLUGINS names it", hint))
            continue
        for entry in _offered(plugin, owners, strict=strict):
            if entry.provider is not None:
                owners[entry.name] = plugin
            entries.append(entry)
    return Registry(tuple(entries))


def load(plugin: Plugin) -> list[Provider]:
    """Import one plugin and return its providers; raises what the plugin raises, or PluginError.

    Under a lock: a plugin need not be thread-safe.
    """
    with _lock:
        return _loaded(plugin)


def _loaded(plugin: Plugin) -> list[Provider]:
    entry_point = importlib.metadata.EntryPoint(plugin.name, plugin.value, GROUP)
    if not all(part.isidentifier() for part in re.split(r"[.:]", plugin.value.partition("[")[0].strip())):
        message = f"{plugin.value!r} is not the name of a module"
        raise PluginError(message, hint="write it as import does, and a comma between two: epkit_acme,epkit_other")
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    # Output of the import must not mix with a JSON document on stdout.
    with silence("stdout"):
        module = entry_point.load()
    manager.register(module, name=plugin.name)
    manager.check_pending()
    if not manager.hook.epkit_providers.get_hookimpls():
        raise PluginError(f"{plugin.value} implements no hook", hint="write @hookimpl def epkit_providers(): ...")
    providers: list[Provider] = []
    for answer in manager.hook.epkit_providers():
        if isinstance(answer, Provider | str) or not isinstance(answer, Iterable):
            message = f"its hook returned a {type(answer).__name__} where a list of providers belongs"
            raise PluginError(message, hint="return [Acme()] from epkit_providers")
        providers.extend(answer)
    return providers


def _installed() -> list[Plugin]:
    """List the entry points in order of precedence: bundled plugins, then by the name of the distribution."""
    found = {
        # A distribution whose metadata is damaged has no name.
        Plugin(point.name, point.value, _text(point.dist, "name") or "unknown", _text(point.dist, "version"))
        for point in importlib.metadata.entry_points(group=GROUP)
    }
    return sorted(found, key=lambda plugin: (not plugin.bundled, plugin.distribution, plugin.name, plugin.value))


def _named(modules: str) -> list[Plugin]:
    """Return the plugins of a comma-separated list of modules; the module's name is the plugin's."""
    names = dict.fromkeys(name.strip() for name in modules.split(","))
    return [Plugin(name, name, NAMED, "") for name in names if name]


def _text(distribution: importlib.metadata.Distribution | None, key: str) -> str:
    try:
        return str(getattr(distribution, key, None) or "")
    except Exception:  # noqa: BLE001 - what damaged metadata raises differs from one Python to the next
        return ""


def _offered(plugin: Plugin, owners: Mapping[str, Plugin], *, strict: bool) -> Iterator[Entry]:
    try:
        providers = load(plugin)
    except (Exception, SystemExit) as error:
        if strict:
            raise PluginError(
                f"the plugin {plugin.name!r} ({plugin.value}) is broken: {contract_checks.describe(error)}"
            ) from error
        leave = f"take it out of {NAMED}" if plugin.distribution == NAMED else f"pip uninstall {plugin.distribution}"
        hint = getattr(error, "hint", "") or f"EPKIT_STRICT_PLUGINS=1 epkit providers, or {leave}"
        yield Entry(plugin.name, plugin, "broken", None, contract_checks.describe(error), hint)
        return
    if not providers:
        yield _broken(plugin, "its hook returned no provider", strict=strict)
    own_names: set[str] = set()
    for provider in providers:
        fault = contract_checks.violation(provider)
        if not fault and provider.name in own_names:
            fault = f"it offers two providers named {provider.name!r}"
        elif not fault and provider.name in owners:
            owner = owners[provider.name]
            fault = f"the name {provider.name!r} is taken by the plugin {owner.name!r} of {owner.distribution}"
        if fault:
            yield _broken(plugin, fault, strict=strict)
        else:
            own_names.add(provider.name)
            yield Entry(provider.name, plugin, "ready", provider)


def _broken(plugin: Plugin, fault: str, *, strict: bool) -> Entry:
    if strict:
        raise PluginError(f"the plugin {plugin.name!r} ({plugin.value}) is broken: {fault}")
    fix = (
        f"take {plugin.name} out of {NAMED}"
        if plugin.distribution == NAMED
        else f"pip install -U {plugin.distribution}"
    )
    return Entry(plugin.name, plugin, "broken", None, fault, f"{fix}, or tell its author")
