"""Check that what a plugin offers keeps the contract of `Provider`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

import pluggy

from epkit.errors import PluginError
from epkit.provider import Capability, Compiles, Concurrency, Options, Proof, Provider, WarmupNeed


def violation(provider: object) -> str:
    """Return what keeps an object from being a provider, or ""."""
    try:
        return _contradiction(provider)
    except Exception as error:  # noqa: BLE001 - attributes of foreign objects may be code
        return f"looking at {type(provider).__name__} failed: {describe(error)}"


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
        ("device_kinds", _is_tuple_of_texts(provider.device_kinds), "a tuple of texts"),
        ("environment", _is_tuple_of_texts(provider.environment), "a tuple of texts"),
        ("native_options", _is_tuple_of_texts(provider.native_options), "a tuple of texts"),
        ("writing_options", _is_tuple_of_texts(provider.writing_options), "a tuple of texts"),
        ("unsupported_types", _is_tuple_of_texts(provider.unsupported_types), "a tuple of texts"),
        ("narrowed_types", isinstance(provider.narrowed_types, Mapping), "a mapping from type to type"),
        ("compiles", provider.compiles in get_args(Compiles), f"one of {', '.join(get_args(Compiles))}"),
        ("capabilities", _is_capabilities(provider.capabilities), f"a frozenset of {', '.join(get_args(Capability))}"),
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


def _is_tuple_of_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


def _is_capabilities(value: object) -> bool:
    return isinstance(value, frozenset) and value <= set(get_args(Capability))


def describe(error: BaseException) -> str:
    """Return an error in one line, with its class unless it is of a plugin's contract."""
    text = " ".join(str(getattr(error, "message", error)).split())
    return text if isinstance(error, PluginError | pluggy.PluginValidationError) else f"{type(error).__name__}: {text}"
