"""Check that what a plugin's hook returned is a provider, and find members that are misspelt or outdated."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import get_args

import pluggy

from epkit.errors import PluginError
from epkit.provider import (
    Caching,
    Capability,
    Compiles,
    Concurrency,
    Devices,
    GraphCapture,
    Limits,
    Network,
    Options,
    PluginLibrary,
    Proof,
    Provider,
    SelfTest,
    WarmupNeed,
)

_ALIKE = 0.8
"""How alike two names are before one counts as the other misspelt: `fingerprints` is 0.96 `fingerprint`."""
FORMER = {
    "device_option": "devices = Devices(option=...)",
    "device_kinds": "devices = Devices(kinds=...)",
    "arena": "devices = Devices(arena=...)",
    "memory_device": "devices = Devices(memory=...)",
    "check_device": "Devices.check",
    "preload": "PluginLibrary.preload",
    "graph_option": "capture = GraphCapture(...)",
    "native_options": "native_options of its Options",
    "writing_options": "writing_options of its Options",
    "unsupported_types": "limits = Limits(unsupported_types=...)",
    "narrowed_types": "limits = Limits(narrowed_types=...)",
    "concurrency": "limits = Limits(concurrency=...)",
    "validates_output_shape": "limits = Limits(validates_output_shape=...)",
    "compiles": "caching = Caching(compiles=...)",
    "with_cache_dir": "Caching.with_dir",
    "check_cache": "Caching.check",
    "requested_cache_dir": "Caching.requested_dir",
    "cache_fingerprint": "Caching.fingerprint",
    "networks": "self_test = SelfTest(networks=...)",
    "proof": "self_test = SelfTest(proof=...)",
    "self_test_timeout_s": "self_test = SelfTest(timeout_s=...)",
}
"""Members that a provider once had, and what to write instead."""


def violation(provider: object) -> str:
    """Return what keeps an object from being a provider, or ""."""
    try:
        return _find_violation(provider)
    except Exception as error:  # noqa: BLE001 - attributes of foreign objects may be code
        return f"looking at {type(provider).__name__} failed: {describe(error)}"


def describe(error: BaseException) -> str:
    """Return an error in one line, with its class unless it is of a plugin's contract."""
    text = " ".join(str(getattr(error, "message", error)).split())
    return text if isinstance(error, PluginError | pluggy.PluginValidationError) else f"{type(error).__name__}: {text}"


def _find_violation(provider: object) -> str:
    if isinstance(provider, type):
        return f"its hook returned the class {provider.__name__} where an object belongs; return {provider.__name__}()"
    if not isinstance(provider, Provider):
        return f"its hook returned a {type(provider).__name__}, which is not an epkit.provider.Provider"
    checks = (_wrong_name, _wrong_options, _unknown_member, _wrong_value, _wrong_part)
    return next((fault for check in checks if (fault := check(provider))), "")


def _wrong_name(provider: Provider) -> str:
    name, ort_name = getattr(provider, "name", None), getattr(provider, "ort_name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        return f"{type(provider).__name__}.name is {name!r}; it must be lower-case letters, digits and dashes"
    if not isinstance(ort_name, str) or not ort_name:
        return f"{type(provider).__name__}.ort_name is {ort_name!r}; it must be ONNX Runtime's name"
    return ""


def _wrong_options(provider: Provider) -> str:
    options = provider.options
    if not (isinstance(options, type) and issubclass(options, Options)):
        return f"{type(provider).__name__}.options must be a subclass of epkit.provider.Options"
    required = [name for name, field in options.model_fields.items() if field.is_required()]
    if required:
        return f"{options.__name__}.{required[0]} has no default: what a user leaves out must be None"
    for name in ("native_options", "writing_options"):
        if not _texts(getattr(options, name)):
            return f"{options.__name__}.{name} is {getattr(options, name)!r}; it must be a tuple of texts"
    return ""


def _unknown_member(provider: Provider) -> str:
    """Find a member that the contract does not know and that looks like one of its own."""
    known = _members(Provider)
    for owner, name in _own_members(provider, Provider):
        if name in FORMER:
            return f"{owner}.{name} is no member of the contract any more; write {FORMER[name]}"
        if name not in known and (meant := difflib.get_close_matches(name, known, 1, _ALIKE)):
            return _misspelt(owner, name, meant[0])
    for part, base in _parts(provider):
        given = {field.name for field in fields(base)}
        for owner, name in _own_members(part, base):
            if name in given:
                return f"{owner}.{name} has no effect there; write {type(part).__name__}({name}=...)"
            if name not in _members(base) and (meant := difflib.get_close_matches(name, _members(base), 1, _ALIKE)):
                return _misspelt(owner, name, meant[0])
    return ""


def _misspelt(owner: str, name: str, meant: str) -> str:
    return f"{owner}.{name} is no member of the contract; write {meant}, or _{name} for a member of your own"


def _parts(provider: Provider) -> Iterator[tuple[object, type[Devices | PluginLibrary | Caching]]]:
    """Go through the groups of a provider that it may have subclassed."""
    for part, base in ((provider.devices, Devices), (provider.library, PluginLibrary), (provider.caching, Caching)):
        if isinstance(part, base):
            yield part, base


def _own_members(held: object, base: type) -> Iterator[tuple[str, str]]:
    """Go through the public members that the classes below `base` declare, each with the name of its class."""
    for kind in type(held).__mro__:
        if kind is not object and kind not in base.__mro__ and "__dataclass_fields__" not in vars(kind):
            members = [name for name, value in vars(kind).items() if not isinstance(value, type)]
            yield from ((kind.__name__, name) for name in members if not name.startswith("_"))


def _members(kind: type) -> list[str]:
    return [name for name in {**kind.__annotations__, **vars(kind)} if not name.startswith("_")]


def _wrong_value(provider: Provider) -> str:
    for name, holds, wanted in (
        ("rank", isinstance(provider.rank, int | float), "a number"),
        ("environment", _texts(provider.environment), "a tuple of texts"),
        ("capabilities", _claims(provider.capabilities), f"a frozenset of {', '.join(get_args(Capability))}"),
        ("devices", isinstance(provider.devices, Devices), "a Devices object"),
        ("library", isinstance(provider.library, PluginLibrary | None), "a PluginLibrary object, or None"),
        ("warmup", isinstance(provider.warmup, WarmupNeed), "a WarmupNeed"),
        ("caching", isinstance(provider.caching, Caching), "a Caching object"),
        ("capture", isinstance(provider.capture, GraphCapture | None), "a GraphCapture, or None"),
        ("limits", isinstance(provider.limits, Limits), "a Limits object"),
        ("self_test", isinstance(provider.self_test, SelfTest), "a SelfTest object"),
    ):
        if not holds:
            return f"{type(provider).__name__}.{name} is {getattr(provider, name)!r}; it must be {wanted}"
    return ""


def _wrong_part(provider: Provider) -> str:
    devices, limits, test = provider.devices, provider.limits, provider.self_test
    compiles, timeout_s = provider.caching.compiles, test.timeout_s
    networks = isinstance(test.networks, tuple) and test.networks and set(test.networks) <= set(get_args(Network))
    for path, value, holds, wanted in (
        ("devices.kinds", devices.kinds, _texts(devices.kinds), "a tuple of texts"),
        ("devices.arena", devices.arena, devices.arena in ("cpu", "gpu", None), "'cpu', 'gpu' or None"),
        ("limits.unsupported_types", limits.unsupported_types, _texts(limits.unsupported_types), "a tuple of texts"),
        (
            "limits.narrowed_types",
            limits.narrowed_types,
            isinstance(limits.narrowed_types, Mapping),
            "a mapping from type to type",
        ),
        (
            "limits.concurrency",
            limits.concurrency,
            limits.concurrency in (None, *get_args(Concurrency)),
            f"one of {', '.join(get_args(Concurrency))}",
        ),
        ("caching.compiles", compiles, compiles in get_args(Compiles), f"one of {', '.join(get_args(Compiles))}"),
        ("self_test.networks", test.networks, networks, f"a tuple of {', '.join(get_args(Network))}"),
        ("self_test.proof", test.proof, isinstance(test.proof, Proof | None), "a Proof, or None"),
        ("self_test.timeout_s", timeout_s, isinstance(timeout_s, int | float) and timeout_s > 0, "above 0"),
    ):
        if not holds:
            return f"{type(provider).__name__}.{path} is {value!r}; it must be {wanted}"
    return ""


def _texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


def _claims(value: object) -> bool:
    return isinstance(value, frozenset) and value <= set(get_args(Capability))
