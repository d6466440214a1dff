"""Which plugins are installed, and what does each offer?

Plugins are loaded one by one, each with a plugin manager of its own: in a shared one, a single implementation that
raises ends the collection for all. A plugin that is broken or disabled is a row with its reason, never a crash.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import pluggy
from pydantic import ConfigDict

from epkit import hookspecs
from epkit._system import fork
from epkit._system.streams import silence
from epkit.errors import PluginError, UnknownTarget, nearest
from epkit.provider import (
    Availability,
    Capability,
    Compiles,
    Concurrency,
    Options,
    Proof,
    Provider,
    Unusable,
    WarmupNeed,
)

GROUP = "epkit"
NAMED = "EPKIT_PLUGINS"
"""The environment variable that names modules to load as plugins though they are not installed."""

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
    """A provider that a plugin offers, or the reason why the plugin offers none."""

    name: str
    plugin: Plugin
    status: Literal["ready", "broken", "disabled"]
    provider: Provider | None = None
    reason: str = ""
    hint: str = ""


class Absent(Provider):
    """Stands for the provider of a plugin that is broken or disabled."""

    ort_name = ""

    class options(Options):  # noqa: N801 - it takes the place of the attribute of that name
        """What is written for an absent provider cannot be checked."""

        model_config = ConfigDict(extra="allow")

    def __init__(self, entry: Entry) -> None:
        self.name = entry.name  # type: ignore[misc]
        self._answer = Unusable(f"the plugin {entry.name!r} is {entry.status}: {entry.reason}", entry.hint)

    def probe(self) -> Availability:
        """Say why the plugin cannot be used."""
        return self._answer

    def check_device(self, device: int | str) -> str:  # noqa: ARG002
        """Accept anything; nothing can be checked."""
        return ""

    def to_ort_options(self, options: Options, device: int | str | None) -> dict[str, str]:  # noqa: ARG002
        """Send nothing; it will not be opened."""
        return {}


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything that was found, in the order in which names were given away."""

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
        """Return the row `name`, one that is ready before one that is not; raises UnknownTarget."""
        for entry in sorted(self.entries, key=lambda entry: entry.status != "ready"):
            if entry.name == name:
                return entry
        known = [entry.name for entry in self.entries]
        told = f"no provider is named {name!r}{self.shortfall()}"
        raise UnknownTarget(told, hint=nearest(name, known, what="installed"))

    def shortfall(self) -> str:
        """Say which plugins are broken, since what is missing may be theirs: "; the plugin 'acme' is broken: ..."."""
        broken = [entry for entry in self.entries if entry.status == "broken"]
        return "".join(f"; the plugin {entry.name!r} is broken: {entry.reason}" for entry in broken)


def discover(*, environ: Mapping[str, str] | None = None, strict: bool | None = None) -> Registry:
    """Load every plugin that is installed.

    `EPKIT_PLUGINS` names modules that are plugins too, though no distribution says so. `EPKIT_DISABLE_PLUGINS` names
    entry points, and such modules, to leave out. With `EPKIT_STRICT_PLUGINS=1` a broken plugin raises
    PluginError, for those who write one.
    """
    environ = os.environ if environ is None else environ
    strict = environ.get("EPKIT_STRICT_PLUGINS", "") not in ("", "0") if strict is None else strict
    disabled = {name.strip() for name in environ.get("EPKIT_DISABLE_PLUGINS", "").split(",")}
    entries: list[Entry] = []
    owners: dict[str, Plugin] = {}
    installed = _installed()
    # A module that is installed as a plugin too is loaded once, or its names would be taken by itself.
    named = [one for one in _named(environ.get(NAMED, "")) if one.value not in [other.value for other in installed]]
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
    """Import one plugin and ask it for its providers; raises whatever it raises, or PluginError.

    Two threads wait for each other: a plugin need not know that it may be asked twice at once.
    """
    with _lock:
        return _loaded(plugin)


def _loaded(plugin: Plugin) -> list[Provider]:
    entry_point = importlib.metadata.EntryPoint(plugin.name, plugin.value, GROUP)
    if not all(one.isidentifier() for one in re.split(r"[.:]", plugin.value.partition("[")[0].strip())):
        told = f"{plugin.value!r} is not the name of a module"
        raise PluginError(told, hint="write it as import does, and a comma between two: epkit_acme,epkit_other")
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    # What a plugin prints while it is imported must not end up in a document that somebody parses.
    with silence("stdout"):
        module = entry_point.load()
    manager.register(module, name=plugin.name)
    manager.check_pending()
    if not manager.hook.epkit_providers.get_hookimpls():
        raise PluginError(f"{plugin.value} implements no hook", hint="write @hookimpl def epkit_providers(): ...")
    providers: list[Provider] = []
    for answer in manager.hook.epkit_providers():
        if isinstance(answer, Provider | str) or not isinstance(answer, Iterable):
            told = f"its hook returned a {type(answer).__name__} where a list of providers belongs"
            raise PluginError(told, hint="return [Acme()] from epkit_providers")
        providers.extend(answer)
    return providers


def _installed() -> list[Plugin]:
    """Order the entry points so that a name goes to the bundled plugins first, then by distribution name."""
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
            raise PluginError(f"the plugin {plugin.name!r} ({plugin.value}) is broken: {_told(error)}") from error
        leave = f"take it out of {NAMED}" if plugin.distribution == NAMED else f"pip uninstall {plugin.distribution}"
        hint = getattr(error, "hint", "") or f"EPKIT_STRICT_PLUGINS=1 epkit providers, or {leave}"
        yield Entry(plugin.name, plugin, "broken", None, _told(error), hint)
        return
    if not providers:
        yield _broken(plugin, "its hook returned no provider", strict=strict)
    mine: set[str] = set()
    for provider in providers:
        fault = _fault(provider)
        if not fault and provider.name in mine:
            fault = f"it offers two providers named {provider.name!r}"
        elif not fault and provider.name in owners:
            owner = owners[provider.name]
            fault = f"the name {provider.name!r} is taken by the plugin {owner.name!r} of {owner.distribution}"
        if fault:
            yield _broken(plugin, fault, strict=strict)
        else:
            mine.add(provider.name)
            yield Entry(provider.name, plugin, "ready", provider)


def _broken(plugin: Plugin, fault: str, *, strict: bool) -> Entry:
    if strict:
        raise PluginError(f"the plugin {plugin.name!r} ({plugin.value}) is broken: {fault}")
    mend = (
        f"take {plugin.name} out of {NAMED}"
        if plugin.distribution == NAMED
        else f"pip install -U {plugin.distribution}"
    )
    return Entry(plugin.name, plugin, "broken", None, fault, f"{mend}, or tell its author")


def _fault(provider: object) -> str:
    """Say what keeps an object from being a provider; empty when nothing does."""
    try:
        return _contradiction(provider)
    except Exception as error:  # noqa: BLE001 - attributes of foreign objects may be code
        return f"looking at {type(provider).__name__} failed: {_told(error)}"


def _contradiction(provider: object) -> str:
    if isinstance(provider, type):
        return f"its hook returned the class {provider.__name__} where an object belongs; return {provider.__name__}()"
    if not isinstance(provider, Provider):
        return f"its hook returned a {type(provider).__name__}, which is not an epkit.provider.Provider"
    name, ort_name = getattr(provider, "name", None), getattr(provider, "ort_name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        return f"{type(provider).__name__}.name is {name!r}; it must be lower-case letters, digits and dashes"
    if not isinstance(ort_name, str) or not ort_name:
        return f"{type(provider).__name__}.ort_name is {ort_name!r}; it must be ONNX Runtime's name"
    if not (isinstance(provider.options, type) and issubclass(provider.options, Options)):
        return f"{type(provider).__name__}.options must be a subclass of epkit.provider.Options"
    required = [name for name, field in provider.options.model_fields.items() if field.is_required()]
    if required:
        return f"{provider.options.__name__}.{required[0]} has no default: what a user leaves out must be None"
    for attribute, holds, wanted in (
        ("rank", isinstance(provider.rank, int | float), "a number"),
        ("device_kinds", _texts(provider.device_kinds), "a tuple of texts"),
        ("environment", _texts(provider.environment), "a tuple of texts"),
        ("native_options", _texts(provider.native_options), "a tuple of texts"),
        ("writing_options", _texts(provider.writing_options), "a tuple of texts"),
        ("unsupported_types", _texts(provider.unsupported_types), "a tuple of texts"),
        ("narrowed_types", isinstance(provider.narrowed_types, Mapping), "a mapping from type to type"),
        ("compiles", provider.compiles in get_args(Compiles), f"one of {', '.join(get_args(Compiles))}"),
        ("capabilities", _claims(provider.capabilities), f"a frozenset of {', '.join(get_args(Capability))}"),
        ("warmup", isinstance(provider.warmup, WarmupNeed), "a WarmupNeed"),
        ("arena", provider.arena in ("cpu", "gpu", None), "'cpu', 'gpu' or None"),
        ("proof", provider.proof is None or isinstance(provider.proof, Proof), "a Proof, or None"),
        (
            "self_test_timeout_s",
            isinstance(provider.self_test_timeout_s, int | float) and provider.self_test_timeout_s > 0,
            "above 0",
        ),
        ("concurrency", provider.concurrency in get_args(Concurrency), f"one of {', '.join(get_args(Concurrency))}"),
    ):
        if not holds:
            return f"{type(provider).__name__}.{attribute} is {getattr(provider, attribute)!r}; it must be {wanted}"
    return ""


def _texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _claims(value: object) -> bool:
    return isinstance(value, frozenset) and value <= set(get_args(Capability))


def _told(error: BaseException) -> str:
    """Return the error in one line, with its class where the text alone says too little."""
    text = " ".join(str(getattr(error, "message", error)).split())
    return text if isinstance(error, PluginError | pluggy.PluginValidationError) else f"{type(error).__name__}: {text}"
