"""Build a target from the configuration.

Turns what was written into a `Target`: an ordered chain of providers with every option of every one of them validated,
before anything is probed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from epkit.config.built_in import BUILT_IN
from epkit.config.file import Config
from epkit.config.layers import Table, Value, merge, origin_of, table_of
from epkit.config.schema import TargetTable, Warmup
from epkit.config.session_options import WRITING_ENTRIES, SessionOptions
from epkit.config.validation import validated
from epkit.discovery.registry import Registry
from epkit.errors import ConfigError, UnknownTarget, nearest
from epkit.provider import Options, Provider
from epkit.runtime.configured import CPU, ConfiguredProvider
from epkit.runtime.plugin_calls import call_plugin

_LOADS, _WRITES = "loads native code", "names a file to write"


@dataclass(frozen=True, slots=True)
class Target:
    """A named way to run a model, validated."""

    name: str
    why: str
    chain: tuple[ConfiguredProvider, ...]
    strict: bool = False
    min_placement: float | None = None
    cpu: bool = True
    session_options: SessionOptions = field(default_factory=SessionOptions)
    warmup: Warmup = field(default_factory=Warmup)
    cuda_graph: bool = False
    shrink_above: int | None = None
    cache: bool | None = None
    cast: bool = False
    isolate_open: bool | float = False
    telemetry: str = ""
    """Where the config asks for ONNX Runtime's telemetry; empty where it does not."""
    written: Table = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> ConfiguredProvider:
        """The provider that the target is about."""
        return self.chain[0]

    @property
    def required(self) -> bool:
        """Whether it is the first provider or an error. `min_placement` promises nodes on it, so it implies that."""
        return self.strict or self.min_placement is not None


def read(
    name: str | None,
    config: Config,
    registry: Registry,
    *,
    options: Mapping[str, object] | None = None,
    session_options: Mapping[str, object] | None = None,
) -> Target:
    """Return the target `name`: one of the config's, a bare provider, a built-in one, or without a name the default.

    `options` (of the first provider) and `session_options` are laid over what the target says. Raises ConfigError.
    """
    for what, given, kind in (
        ("target", name, str),
        ("options", options, Mapping),
        ("session_options", session_options, Mapping),
    ):
        if given is not None and not isinstance(given, kind):
            wanted = "a name" if kind is str else "a mapping"
            raise ConfigError(f"{what} must be {wanted}, not {given!r}", hint=_rewritten(given, registry))
    _check_names(config, registry)
    name, why = (name, "asked for by name") if name is not None else _default(config)
    call: Table = {}
    if options:
        call["options"] = table_of(options, "call: options")
    if session_options:
        call["session_options"] = table_of(session_options, "call: session_options")
    if name is None:
        return _automatic(config, registry, call)
    if name in config.targets:
        return _from_table(name, f"{why}: {config.place}", merge(config.target(name), call), registry, config)
    if name not in {entry.name for entry in registry.entries}:
        if name in BUILT_IN:
            return _from_table(name, f"{why}: a built-in target", merge(config.target(name), call), registry, config)
        # Who asks for something else need not read of them.
        built_in = BUILT_IN if name.startswith(CPU) else ()
        known = {*registry.providers, *config.targets, *built_in}
        message = f"no target or provider is named {name!r}{registry.shortfall()}"
        own = _own_name(name, registry) or nearest(name, known, what="known here")
        raise UnknownTarget(message, hint="; ".join((own, *config.ignored)))
    bare: Table = {"provider": Value(name, "call"), "strict": Value(True, "epkit: a bare provider name is strict")}
    return _from_table(name, f"{why}: the provider itself, strictly", merge(bare, call), registry, config)


def _own_name(name: str, registry: Registry) -> str:
    """Return a hint for ONNX Runtime's name of a provider."""
    named = [provider.name for provider in registry.providers.values() if provider.ort_name == name]
    return f"ONNX Runtime's {name} is called {' or '.join(map(repr, named))} here" if named else ""


def _rewritten(given: object, registry: Registry) -> str:
    """Return how to write what was given as ONNX Runtime wants it: a list of providers, a SessionOptions."""
    if isinstance(given, list | tuple) and given and all(isinstance(name, str) for name in given):
        own = {provider.ort_name: provider.name for provider in registry.providers.values()}
        names = [own.get(name, name) for name in given if own.get(name, name) != CPU]
        if len(names) < 2:
            return f'epkit.open(model, "{next(iter(names), CPU)}")'
        return f"put them into a target of epkit.toml: provider = {names[0]!r}, fallback = {names[1:]!r}"
    if type(given).__name__ == "SessionOptions":
        usual = type(given)()
        changed = {name: value for name, value in _plain(given).items() if _plain(usual).get(name) != value}
        return f"epkit.open(model, session_options={changed or {'intra_op_num_threads': 4}})"
    return 'epkit.open(model, "cpu", options={...})'


def _plain(options: object) -> dict[str, object]:
    """Return the properties of ONNX Runtime's SessionOptions, enums by name."""
    known = {name: getattr(options, name) for name in SessionOptions.model_fields if hasattr(options, name)}
    return {name: getattr(value, "name", value) for name, value in known.items()}


def _default(config: Config) -> tuple[str | None, str]:
    if config.default is None:
        return None, ""
    return str(config.default.value), f"the default ({config.default.origin})"


def _check_names(config: Config, registry: Registry) -> None:
    """Check what can be checked of every target in the file, used or not: names and keys."""
    keys = set(TargetTable.model_fields)
    for name, table in config.targets.items():
        if name in registry.providers:
            raise ConfigError(
                f"{config.place}: targets.{name} takes the name of a provider", hint="choose another name"
            )
        for key in table:
            if key not in keys:
                message = f"{config.place}: targets.{name} has an unknown key {key!r}"
                raise ConfigError(message, hint=_place_of(key) or nearest(key, keys))
    for name in config.automatic.value if isinstance(config.automatic.value, tuple) else ():
        registry.get(name)


def _place_of(key: str) -> str:
    """Return where a key of ONNX Runtime belongs that stands in a target by itself."""
    if key in SessionOptions.model_fields:
        return f"write it under session_options: session_options = {{ {key} = ... }}"
    if "." in key:
        return f'write it under session_options: session_options = {{ config = {{ "{key}" = "..." }} }}'
    return ""


def _automatic(config: Config, registry: Registry, call: Table) -> Target:
    """Build the chain for a call that names no target."""
    listed = config.automatic.value if isinstance(config.automatic.value, tuple) else ()
    chosen = []
    for name, provider in registry.providers.items():
        plugin = registry.plugin(name)
        # Installing something must not change a running system: an outside plugin waits until a config lists it.
        if name in listed or (provider.automatic and plugin is not None and plugin.bundled):
            chosen.append(provider)
    chosen += [registry.get(name) for name in listed if name not in registry.providers]
    chosen.sort(key=lambda provider: (provider.name == CPU, provider.rank, provider.name))
    names = [provider.name for provider in chosen if provider.name != CPU] or [CPU]
    left = sorted(set(registry.providers) - {provider.name for provider in chosen})
    why = f"no target was named; the automatic chain is {', '.join([*names, CPU][: len(names) + (names != [CPU])])}"
    if left:
        why += f" ({', '.join(left)}: only when named, or listed under `automatic` in a config)"
    table: Table = {
        "provider": Value(names[0], "epkit: automatic chain"),
        "fallback": Value(names[1:], "epkit: automatic chain"),
    }
    return _from_table("automatic", why, merge(table, call), registry, config)


def _from_table(name: str, why: str, table: Table, registry: Registry, config: Config) -> Target:
    where = f"target {name!r}"
    written = validated(TargetTable, table, where)
    names = _chain(where, written)
    chain = tuple(_candidate(where, registry.get(name), names, written, table) for name in names)
    session_options = validated(
        SessionOptions, _at(table, ("session_options",)), where, ("session_options",), subject="session option"
    )
    if not config.named:
        _check_found(chain, table, config)
    return Target(
        name=name,
        why=why,
        chain=chain,
        strict=written.strict,
        min_placement=written.min_placement,
        cpu=written.cpu,
        session_options=session_options,
        warmup=written.warmup,
        cuda_graph=written.cuda_graph,
        shrink_above=written.shrink_above,
        cache=written.cache,
        cast=written.cast,
        isolate_open=written.isolate_open,
        telemetry=config.telemetry.origin if config.telemetry.value else "",
        written=table,
        notes=(*config.ignored, *session_options.notes()),
    )


def _candidate(
    where: str, provider: Provider, names: Sequence[str], written: TargetTable, table: Table
) -> ConfiguredProvider:
    """Validate what was written for one provider of the chain; only the first one's device has to make sense to it."""
    first = provider.name == names[0]
    path = ("options",) if first else ("options_for", provider.name)
    own = _at(table, path)
    options = validated(provider.options, own, where, path, subject=f"option of {provider.name}")
    fault = call_plugin(provider.devices.check, written.device) if written.device is not None else ""
    if fault and first:
        origin = origin_of(table, ("device",))
        raise ConfigError(f"{origin or where}: device = {written.device!r} for {provider.name} {fault}")
    candidate = ConfiguredProvider(provider, options, None if fault else written.device)
    misfit = call_plugin(provider.check_options, options, candidate.device)
    if misfit:
        raise ConfigError(f"{origin_of(own, ()) or where}: {misfit}")
    if written.cache is False and call_plugin(provider.caching.requested_dir, options) is not None:
        message = f"{where} says cache = false, and the options of {provider.name} ask for a cache"
        raise ConfigError(message, hint="drop one of the two")
    switch = provider.capture.option if provider.capture is not None else None
    if switch is not None and options.written().get(switch):
        return replace(candidate, options=options.model_copy(update={switch: None}), captures=True)
    return candidate


def _check_found(chain: Sequence[ConfiguredProvider], table: Table, config: Config) -> None:
    """Refuse the keys that load native code or name files to be written, where a file says them that nobody named.

    Such a file may have come with a model that was downloaded, and must not run code or overwrite files unasked.
    """
    risky: list[tuple[tuple[str, ...], str]] = []
    risky += [(("session_options", key), what) for key, what in _risks(SessionOptions)]
    risky += [
        (("session_options", entries, key), _WRITES) for key in WRITING_ENTRIES for entries in ("config", "extra")
    ]
    for at, candidate in enumerate(chain):
        own: tuple[str, ...] = ("options_for", candidate.name) if at else ("options",)
        for key, what in _risks(candidate.provider.options):
            risky += [((*own, key), what), ((*own, "extra", key), what)]
    for path, what in risky:
        value = _at(table, path[:-1]).get(path[-1])
        if isinstance(value, Value) and value.value and value.origin.startswith(f"{config.place}: "):
            message = f"{value.origin} {what}, and nobody named that file: it may have come with a download"
            raise ConfigError(message, hint=f"--config {config.place}, or: export EPKIT_CONFIG={config.place}")


def _risks(holder: type[SessionOptions | Options]) -> list[tuple[str, str]]:
    return [(key, _LOADS) for key in holder.native_options] + [(key, _WRITES) for key in holder.writing_options]


def _chain(where: str, written: TargetTable) -> list[str]:
    """Order the names: provider, fallback, then cpu unless it is forbidden; raises ConfigError on contradictions."""
    if written.provider == CPU and not written.cpu:
        raise ConfigError(f"{where} runs on the cpu and says cpu = false", hint="drop one of the two")
    names = [written.provider, *written.fallback]
    doubles = [name for index, name in enumerate(names) if name in names[:index]]
    if doubles:
        raise ConfigError(f"{where} names {doubles[0]} twice in its chain", hint="name each provider once")
    if CPU in names[:-1]:
        after = names[names.index(CPU) + 1]
        raise ConfigError(
            f"{where} puts {after} after cpu, where it would never get a node", hint=f"put {after} before cpu"
        )
    if CPU in names and not written.cpu:
        raise ConfigError(f"{where} falls back to cpu and says cpu = false", hint="drop one of the two")
    names = names if CPU in names or not written.cpu else [*names, CPU]
    for key in written.options_for:
        if key == names[0]:
            hint = f"write them under options, which are {key}'s"
            raise ConfigError(f"{where}: options_for.{key} is for its first provider", hint=hint)
        if key not in names:
            hint = nearest(key, names, what="in its chain")
            raise ConfigError(f"{where}: options_for.{key} is for a provider that is not in its chain", hint=hint)
    return names


def arenas(chain: Sequence[ConfiguredProvider], session_options: SessionOptions) -> tuple[str, ...]:
    """Name the memory arenas of a session of these providers, as ONNX Runtime does: `cpu:0`, `gpu:1`."""
    # The CPU's is there whatever runs beside it. It comes first: ONNX Runtime 1.31 fails a run only where the first
    # that it is told of does not exist.
    cpu = ("cpu:0",) if session_options.enable_cpu_mem_arena is not False else ()
    others = [
        f"{candidate.provider.devices.arena}:{candidate.sent.get(candidate.provider.devices.option or '', '0')}"
        for candidate in chain
        if candidate.provider.devices.arena not in (None, "cpu")
    ]
    return tuple(dict.fromkeys((*cpu, *others)))


def _at(table: Table, path: Sequence[str]) -> Table:
    for key in path:
        inner = table.get(key, {})
        table = inner if isinstance(inner, dict) else {}
    return table
