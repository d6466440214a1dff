"""What will ONNX Runtime be given, and who said so?

Every value of a session, with its origin: ONNX Runtime's default, epkit, the machine, the target, the environment, the
call. The session is built from this list, and `explain` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from epkit.config.file import Value, origin_of
from epkit.config.target import Target
from epkit.runtime.api import Settings
from epkit.runtime.configured import ConfiguredProvider, unset
from epkit.session.capture import capturing
from epkit.session.plan import Plan

RECORD = "session.record_ep_graph_assignment_info"
NO_CPU = "session.disable_cpu_ep_fallback"


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value, by the key under which a target would set it."""

    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Effective:
    """Everything that one session is given."""

    settings: Settings
    shown: tuple[Setting, ...]


def effective(
    plan: Plan,
    cores: tuple[int, str] | None,
    defaults: Mapping[str, object] | None = None,
    *,
    captures: bool = False,
) -> Effective:
    """Work out what a session of this plan is given, and show beside it the `defaults` that ONNX Runtime keeps.

    `cores` is the number of cores that this process may use and why, where that is fewer than the machine has: ONNX
    Runtime would start a thread for each core of the machine. Only there is a number set, since an explicit number
    drops ONNX Runtime's pinning of threads to cores. `captures` is whether the session captures graphs.
    """
    target = plan.target
    properties = target.session_options.properties()
    origins = {name: _origin(target, "session_options", name) for name in properties}
    if "log_severity_level" not in properties:
        properties["log_severity_level"] = 4
        origins["log_severity_level"] = "epkit: ONNX Runtime logs what it raises too, and warns about healthy models"
    if "intra_op_num_threads" not in properties and cores is not None:
        properties["intra_op_num_threads"], why = cores
        origins["intra_op_num_threads"] = f"machine: {why}"
    if captures:
        origins.setdefault("enable_mem_pattern", "epkit: a captured graph keeps its own buffers")
        properties.setdefault("enable_mem_pattern", False)
    entries = dict(target.session_options.entries())
    origins |= {key: _origin(target, "session_options", "config", key) for key in entries}
    entries[RECORD] = "1"
    origins[RECORD] = "epkit: the placement is read from it"
    if not target.cpu:
        entries[NO_CPU] = "1"
        origins[NO_CPU] = _origin(target, "cpu")
    written = target.session_options
    settings = Settings(
        properties=properties,
        entries=entries,
        free_dimensions=written.free_dimension_overrides,
        free_dimensions_by_denotation=written.free_dimension_overrides_by_denotation,
        custom_ops=written.custom_ops_libraries,
    )
    shown = [Setting(f"session_options.{name}", value, origins[name]) for name, value in properties.items()]
    shown += [Setting(f"session_options.config.{key}", value, origins[key]) for key, value in entries.items()]
    shown += [
        Setting(f"session_options.{name}", value, "ONNX Runtime's default")
        for name, value in (defaults or {}).items()
        if name not in properties
    ]
    for table, sizes in (
        ("free_dimension_overrides", settings.free_dimensions),
        ("free_dimension_overrides_by_denotation", settings.free_dimensions_by_denotation),
    ):
        shown += [
            Setting(f"session_options.{table}.{key}", size, _origin(target, "session_options", table, key))
            for key, size in sizes.items()
        ]
    shown += [
        Setting(
            "session_options.custom_ops_libraries", library, _origin(target, "session_options", "custom_ops_libraries")
        )
        for library in settings.custom_ops
    ]
    return Effective(settings, (*_of_target(target), *_of_providers(plan, captures), *shown))


def without_cpu_rule(settings: Settings) -> Settings:
    """Return the settings with nodes on the CPU allowed."""
    return replace(settings, entries={key: value for key, value in settings.entries.items() if key != NO_CPU})


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
        switch = candidate.provider.graph_option if captures and candidate is plan.chain[0] else None
        sent = capturing(candidate).sent if switch else candidate.sent
        for key, value in sent.items():
            origin = _origin(plan.target, "cuda_graph") if key == switch and plan.target.cuda_graph else ""
            origin = origin or _sent_origin(plan.target, candidate, path, key)
            shown.append(Setting(f"{candidate.name}.{key}", value, origin))
    return shown


def _sent_origin(target: Target, candidate: ConfiguredProvider, path: tuple[str, ...], key: str) -> str:
    if key == candidate.provider.device_option and candidate.device is not None:
        return _origin(target, "device")
    if key in candidate.options.extra:
        return _origin(target, *path, "extra", key)
    if key in candidate.options.written():
        return _origin(target, *path, key)
    missing = unset(candidate.provider, candidate.options, candidate.device)
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
