"""List what ONNX Runtime is given for a session, and where each value comes from.

A value has an origin: ONNX Runtime's default, epkit, the machine, the target, the environment, or the call. Sessions
are created with `build_settings`; `explain` prints `list_settings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from epkit.config.layers import Value, origin_of
from epkit.config.target import Target
from epkit.runtime.configured import ConfiguredProvider, find_missing_options
from epkit.runtime.create import Settings
from epkit.session.capture import capturing
from epkit.session.plan import Plan

RECORD = "session.record_ep_graph_assignment_info"
NO_CPU = "session.disable_cpu_ep_fallback"

Cores: TypeAlias = tuple[int, str] | None
"""How many cores this process may use, and why; None for all that the machine has.

ONNX Runtime would start a thread for each core of the machine. Only where there are fewer is a number set, since an
explicit number disables ONNX Runtime's pinning of threads to cores.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value, by the key under which a target would set it."""

    key: str
    value: object
    origin: str


def build_settings(target: Target, cores: Cores) -> Settings:
    """Return what a session of this target is given, if it captures no graphs."""
    written = target.session_options
    properties = written.properties()
    for name, value, _ in _defaults(cores):
        properties.setdefault(name, value)
    entries = {**written.entries(), RECORD: "1"}
    if not target.cpu:
        entries[NO_CPU] = "1"
    return Settings(
        properties=properties,
        entries=entries,
        free_dimensions=written.free_dimension_overrides,
        free_dimensions_by_denotation=written.free_dimension_overrides_by_denotation,
        custom_ops=written.custom_ops_libraries,
    )


def _defaults(cores: Cores, *, captures: bool = False) -> Iterator[tuple[str, object, str]]:
    """Yield the properties that epkit sets where the target does not: name, value and origin."""
    why = "epkit: ONNX Runtime logs what it raises too, and warns about healthy models"
    yield "log_severity_level", 4, why
    if cores is not None:
        yield "intra_op_num_threads", cores[0], f"machine: {cores[1]}"
    if captures:
        yield "enable_mem_pattern", False, "epkit: a captured graph keeps its own buffers"


def with_capture(settings: Settings) -> Settings:
    """Return the settings of the same session if it captures graphs."""
    properties = dict(settings.properties)
    for name, value, _ in _defaults(None, captures=True):
        properties.setdefault(name, value)
    return replace(settings, properties=properties)


def without_cpu_rule(settings: Settings) -> Settings:
    """Return the settings with nodes on the CPU allowed."""
    return replace(settings, entries={key: value for key, value in settings.entries.items() if key != NO_CPU})


def list_settings(
    plan: Plan, cores: Cores, defaults: Mapping[str, object] | None = None, *, captures: bool = False
) -> tuple[Setting, ...]:
    """List what a session of this plan is given, and beside it the `defaults` that ONNX Runtime keeps."""
    target = plan.target
    settings = build_settings(target, cores)
    settings = with_capture(settings) if captures else settings
    return (
        *_of_target(target),
        *_of_providers(plan, captures),
        *_of_properties(target, settings, {name: origin for name, _, origin in _defaults(cores, captures=captures)}),
        *_of_entries(target, settings),
        *(
            Setting(f"session_options.{name}", value, "ONNX Runtime's default")
            for name, value in (defaults or {}).items()
            if name not in settings.properties
        ),
        *_of_dimensions(target, settings),
    )


def _of_properties(target: Target, settings: Settings, added: Mapping[str, str]) -> Iterator[Setting]:
    written = target.session_options.properties()
    for name, value in settings.properties.items():
        origin = _origin(target, "session_options", name) if name in written else added[name]
        yield Setting(f"session_options.{name}", value, origin)


def _of_entries(target: Target, settings: Settings) -> Iterator[Setting]:
    added = {RECORD: "epkit: the placement is read from it"}
    if not target.cpu:
        added[NO_CPU] = _origin(target, "cpu")
    for key, value in settings.entries.items():
        origin = added[key] if key in added else _origin(target, "session_options", "config", key)
        yield Setting(f"session_options.config.{key}", value, origin)


def _of_dimensions(target: Target, settings: Settings) -> Iterator[Setting]:
    """List the sizes of dimensions, and the libraries of operators."""
    for table, sizes in (
        ("free_dimension_overrides", settings.free_dimensions),
        ("free_dimension_overrides_by_denotation", settings.free_dimensions_by_denotation),
    ):
        for key, size in sizes.items():
            yield Setting(f"session_options.{table}.{key}", size, _origin(target, "session_options", table, key))
    for library in settings.custom_ops:
        key = "custom_ops_libraries"
        yield Setting(f"session_options.{key}", library, _origin(target, "session_options", key))


def _of_target(target: Target) -> list[Setting]:
    plain: Mapping[str, object] = {
        "strict": target.strict,
        "min_placement": target.min_placement,
        "cpu": target.cpu,
        "cuda_graph": target.cuda_graph,
        "shrink_above": target.shrink_above,
        "cache": target.cache,
        "cast": target.cast,
        "isolate_open": target.isolate_open,
    }
    return [
        Setting(key, value, _origin(target, key) if key in target.written else "epkit") for key, value in plain.items()
    ]


def _of_providers(plan: Plan, captures: bool) -> list[Setting]:
    shown = []
    for position, candidate in enumerate(plan.target.chain):
        path = ("options",) if position == 0 else ("options_for", candidate.name)
        capture = candidate.provider.capture if captures and candidate is plan.chain[0] else None
        switch = None if capture is None else capture.option
        sent = capturing(candidate).sent if switch else candidate.sent
        for key, value in sent.items():
            origin = _origin(plan.target, "cuda_graph") if key == switch and plan.target.cuda_graph else ""
            origin = origin or _sent_origin(plan.target, candidate, path, key)
            shown.append(Setting(f"{candidate.name}.{key}", value, origin))
    return shown


def _sent_origin(target: Target, candidate: ConfiguredProvider, path: tuple[str, ...], key: str) -> str:
    if key == candidate.provider.devices.option and candidate.device is not None:
        return _origin(target, "device")
    if key in candidate.options.extra:
        return _origin(target, *path, "extra", key)
    if key in candidate.options.written():
        return _origin(target, *path, key)
    missing = find_missing_options(candidate.provider, candidate.options, candidate.device)
    if key in missing:
        return "the plugin: right results need it"
    if missing and not candidate.options.written():
        return f"the plugin: right results need {', '.join(missing)}"
    return f"the plugin, from {_origin(target, *path)}"


def _origin(target: Target, *path: str) -> str:
    at: object = target.written
    for key in path:
        at = at.get(key) if isinstance(at, dict) else at
    return at.origin if isinstance(at, Value) else (origin_of(target.written, path) or "epkit")
