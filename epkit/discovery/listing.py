"""List the installed providers, and which of them this machine can use."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel, ByteSize

from epkit.discovery import probe
from epkit.discovery.docstrings import sentences
from epkit.discovery.registry import Entry, Registry, discover
from epkit.provider import Unusable, Usable
from epkit.runtime.configured import CPU

SCHEMA = "epkit.providers/1"


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A provider, or a broken or disabled plugin."""

    name: str
    ort_name: str | None
    plugin: str
    distribution: str
    status: Literal["usable", "unusable", "broken", "disabled"]
    reason: str
    hint: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SecondEngine:
    """A provider that a machine with only `cpu` could have: what it needs, and what to type."""

    provider: str
    needs: str
    hint: str


@dataclass(frozen=True, slots=True)
class EngineWheel:
    """A provider that brings a second engine: how to install it, and the machines with wheels, by system."""

    provider: str
    needs: str
    hint: str
    machines: Mapping[str, tuple[str, ...]]

    def runs_on(self, system: str, machine: str) -> bool:
        """Whether there is a wheel for `sys.platform` and `platform.machine()`."""
        return machine in self.machines.get(system, ())


ENGINE_WHEELS = (
    EngineWheel(
        "openvino",
        "on every x86-64 CPU",
        'pip install "epkit[openvino]"',
        {"linux": ("x86_64",), "win32": ("AMD64",)},
    ),
    EngineWheel(
        "webgpu",
        "with a GPU",
        'pip install "epkit[webgpu]"',
        {"linux": ("x86_64", "aarch64"), "win32": ("AMD64", "ARM64"), "darwin": ("arm64",)},
    ),
    EngineWheel(
        "cuda",
        "with an NVIDIA GPU",
        'pip install "onnxruntime-gpu[cuda,cudnn]"',
        {"linux": ("x86_64",), "win32": ("AMD64",)},
    ),
)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every plugin and provider, also the broken ones."""

    rows: tuple[ProviderRow, ...]

    @property
    def only_cpu(self) -> bool:
        """Whether `cpu` is the only usable provider."""
        return [row.name for row in self.rows if row.status == "usable"] == [CPU]

    @property
    def second_engine(self) -> tuple[SecondEngine, ...]:
        """The providers that would add a second engine to this machine, if it has none."""
        return second_engine(self.rows, sys.platform, platform.machine())

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit providers --json`."""
        return {
            "schema": SCHEMA,
            "providers": [asdict(row) for row in self.rows],
            "second_engine": [asdict(engine) for engine in self.second_engine],
        }


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a provider, as its reference lists it."""

    name: str
    type: str
    meaning: str


def providers(*, refresh: bool = False) -> Catalogue:
    """List every plugin and provider: usable or not, why, and what to do."""
    registry = discover()
    answers = probe.ask([(provider, None) for provider in registry.providers.values()], registry, refresh=refresh)
    return Catalogue(tuple(_row(entry, answers) for entry in registry.entries))


def second_engine(rows: Sequence[ProviderRow], system: str, machine: str) -> tuple[SecondEngine, ...]:
    """List the providers that would add a second engine to a machine; none if it has one, or there is no wheel."""
    if not Catalogue(tuple(rows)).only_cpu:
        return ()
    hints = {row.name: row.hint for row in rows}
    wheels = [wheel for wheel in ENGINE_WHEELS if wheel.runs_on(system, machine)]
    found = [SecondEngine(wheel.provider, wheel.needs, hints.get(wheel.provider, wheel.hint)) for wheel in wheels]
    return tuple(engine for engine in found if engine.hint)


def find(name: str) -> tuple[Entry, Registry]:
    """Return the entry `name`; raises UnknownTarget with the nearest spelling."""
    registry = discover()
    return registry.entry(name), registry


def row(entry: Entry, registry: Registry, *, refresh: bool = False) -> ProviderRow:
    """Return the row of one entry."""
    wanted = [(entry.provider, None)] if entry.provider is not None else []
    return _row(entry, probe.ask(wanted, registry, refresh=refresh))


def options(model: type[BaseModel]) -> Sequence[Option]:
    """List the options of a provider, or the keys of another model, in its order; unchecked ones come last."""
    fields, meanings = sorted(model.model_fields.items(), key=lambda item: item[0] == "extra"), sentences(model)
    return [Option(field.alias or name, spelt(field.annotation), meanings[name]) for name, field in fields]


def spelt(annotation: object) -> str:
    """Write a type as the reference does: `true | false`, `"A" | "B"`, `integer`, `list`, `table`."""
    names = {bool: "true | false", int: "integer", float: "number", str: "text", tuple: "list", dict: "table"}
    kind, inside = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return spelt(inside[0])
    if kind is ByteSize:
        return "integer | text"
    if kind is Literal:
        return " | ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in inside)
    if isinstance(kind, type) and issubclass(kind, (*names, BaseModel)):
        return names.get(kind, "table")
    return " | ".join(dict.fromkeys(spelt(argument) for argument in inside if argument is not type(None)))


def _row(entry: Entry, answers: dict[str, probe.Answer]) -> ProviderRow:
    plugin = entry.plugin
    distribution = f"{plugin.distribution} {plugin.version}".strip()
    if entry.provider is None:
        status: Literal["broken", "disabled"] = "disabled" if entry.status == "disabled" else "broken"
        return ProviderRow(entry.name, None, plugin.name, distribution, status, entry.reason, entry.hint)
    ort_name = entry.provider.ort_name
    match answers[entry.name].availability:
        case Usable(detail):
            return ProviderRow(entry.name, ort_name, plugin.name, distribution, "usable", "", "", detail)
        case Unusable(reason, hint):
            return ProviderRow(entry.name, ort_name, plugin.name, distribution, "unusable", reason, hint)
