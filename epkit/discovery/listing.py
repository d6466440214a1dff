"""What is installed, and what of it can this machine use?"""

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
class Row:
    """One provider, or one plugin that offers none because it is broken or disabled."""

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
    """A provider that a machine with nothing but `cpu` could have: what it needs, and what to type."""

    provider: str
    needs: str
    hint: str


@dataclass(frozen=True, slots=True)
class Way:
    """A provider that brings a second engine: what installs it, and for which machines, by system, it has wheels."""

    provider: str
    needs: str
    hint: str
    machines: Mapping[str, tuple[str, ...]]

    def runs_on(self, system: str, machine: str) -> bool:
        """Whether its library has a wheel for a machine, each as Python calls it."""
        return machine in self.machines.get(system, ())


WAYS = (
    Way(
        "openvino",
        "on every x86-64 CPU",
        'pip install "epkit[openvino]"',
        {"linux": ("x86_64",), "win32": ("AMD64",)},
    ),
    Way(
        "webgpu",
        "with a GPU",
        'pip install "epkit[webgpu]"',
        {"linux": ("x86_64", "aarch64"), "win32": ("AMD64", "ARM64"), "darwin": ("arm64",)},
    ),
    Way(
        "cuda",
        "with an NVIDIA GPU",
        'pip install "onnxruntime-gpu[cuda,cudnn]"',
        {"linux": ("x86_64",), "win32": ("AMD64",)},
    ),
)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every plugin and provider; never fails because of one of them."""

    rows: tuple[Row, ...]

    @property
    def only_cpu(self) -> bool:
        """Whether `cpu` is the only usable provider."""
        return [row.name for row in self.rows if row.status == "usable"] == [CPU]

    @property
    def second_engine(self) -> tuple[SecondEngine, ...]:
        """What would bring a second engine to this machine, where it has none."""
        return second_engine(self.rows, sys.platform, platform.machine())

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit providers --json`."""
        return {
            "schema": SCHEMA,
            "providers": [asdict(row) for row in self.rows],
            "second_engine": [asdict(one) for one in self.second_engine],
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
    answers = probe.ask([(one, None) for one in registry.providers.values()], registry, refresh=refresh)
    return Catalogue(tuple(_row(entry, answers) for entry in registry.entries))


def second_engine(rows: Sequence[Row], system: str, machine: str) -> tuple[SecondEngine, ...]:
    """List what would bring a second engine to a machine: nothing where it has one, or none has a wheel for it."""
    if not Catalogue(tuple(rows)).only_cpu:
        return ()
    hints = {row.name: row.hint for row in rows}
    ways = [way for way in WAYS if way.runs_on(system, machine)]
    found = [SecondEngine(way.provider, way.needs, hints.get(way.provider, way.hint)) for way in ways]
    return tuple(one for one in found if one.hint)


def find(name: str) -> tuple[Entry, Registry]:
    """Return the entry `name`; raises UnknownTarget with the nearest spelling."""
    registry = discover()
    return registry.entry(name), registry


def row(entry: Entry, registry: Registry, *, refresh: bool = False) -> Row:
    """Return the row of one entry."""
    wanted = [(entry.provider, None)] if entry.provider is not None else []
    return _row(entry, probe.ask(wanted, registry, refresh=refresh))


def options(model: type[BaseModel]) -> Sequence[Option]:
    """List the options of a provider, or the keys of another model, in its order; what is unchecked comes last."""
    fields, told = sorted(model.model_fields.items(), key=lambda item: item[0] == "extra"), sentences(model)
    return [Option(field.alias or name, spelt(field.annotation), told[name]) for name, field in fields]


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
    return " | ".join(dict.fromkeys(spelt(one) for one in inside if one is not type(None)))


def _row(entry: Entry, answers: dict[str, probe.Answer]) -> Row:
    plugin = entry.plugin
    distribution = f"{plugin.distribution} {plugin.version}".strip()
    if entry.provider is None:
        status: Literal["broken", "disabled"] = "disabled" if entry.status == "disabled" else "broken"
        return Row(entry.name, None, plugin.name, distribution, status, entry.reason, entry.hint)
    ort_name = entry.provider.ort_name
    match answers[entry.name].availability:
        case Usable(detail):
            return Row(entry.name, ort_name, plugin.name, distribution, "usable", "", "", detail)
        case Unusable(reason, hint):
            return Row(entry.name, ort_name, plugin.name, distribution, "unusable", reason, hint)
