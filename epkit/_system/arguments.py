"""Check the kinds of arguments where they come in, so that a wrong one is an error that says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from numbers import Integral, Real

from epkit.errors import ConfigError


def kind_of(value: object) -> str:
    """Say what a value is, however large: "dict", "None"."""
    return "None" if value is None else type(value).__qualname__


def names(value: object, what: str, hint: str) -> tuple[str, ...]:
    """Return the names in a collection, or a name alone; raises ConfigError."""
    found = (value,) if isinstance(value, str) else items([*value] if isinstance(value, Mapping) else value, what, hint)
    for one in found:
        if not isinstance(one, str):
            raise ConfigError(f"{what} holds {kind_of(one)} where a name belongs", hint=hint)
    return tuple(str(one) for one in found)


def items(value: object, what: str, hint: str) -> tuple[object, ...]:
    """Return what a collection holds; raises ConfigError for anything else, texts and mappings among them."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return tuple(value)
    raise ConfigError(f"{what} is {kind_of(value)}", hint=hint)


def mapping(value: object, what: str, hint: str) -> Mapping[str, object]:
    """Return a mapping by names; None is an empty one. Raises ConfigError."""
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(one, str) for one in value):
        return value
    raise ConfigError(f"{what} is {kind_of(value)}", hint=hint)


def whole(value: object, what: str, hint: str, least: int = 1) -> int:
    """Return a whole number from `least` on; raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        shown = repr(value) if isinstance(value, int | float | str) else kind_of(value)
        raise ConfigError(f"{what} is {shown}, where whole numbers from {least} on are possible", hint=hint)
    return int(value)


def positive(value: object, what: str, hint: str) -> float:
    """Return a finite number above 0; raises ConfigError."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # an int may be larger than all floats
            if 0 < float(value) < math.inf:
                return float(value)
    shown = repr(value) if isinstance(value, int | float | str) else kind_of(value)
    raise ConfigError(f"{what} is {shown}, where numbers above 0 are possible", hint=hint)
