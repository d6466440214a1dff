"""Check the types of arguments of public functions; a wrong one is a ConfigError that names it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from numbers import Integral, Real

from epkit.errors import ConfigError


def type_name(value: object) -> str:
    """Return the name of a value's type, for an error: "dict", "None"."""
    return "None" if value is None else type(value).__qualname__


def check_names(value: object, what: str, hint: str) -> tuple[str, ...]:
    """Return the names in a collection, or a single name as a tuple; raises ConfigError."""
    found = (
        (value,)
        if isinstance(value, str)
        else check_items([*value] if isinstance(value, Mapping) else value, what, hint)
    )
    for name in found:
        if not isinstance(name, str):
            raise ConfigError(f"{what} holds {type_name(name)} where a name belongs", hint=hint)
    return tuple(str(name) for name in found)


def check_items(value: object, what: str, hint: str) -> tuple[object, ...]:
    """Return the items of a collection; raises ConfigError for anything else, including strings and mappings."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return tuple(value)
    raise ConfigError(f"{what} is {type_name(value)}", hint=hint)


def check_mapping(value: object, what: str, hint: str) -> Mapping[str, object]:
    """Return a mapping with strings as keys; None is an empty one. Raises ConfigError."""
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return value
    raise ConfigError(f"{what} is {type_name(value)}", hint=hint)


def check_integer(value: object, what: str, hint: str, least: int = 1) -> int:
    """Return an integer that is at least `least`; raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        shown = repr(value) if isinstance(value, int | float | str) else type_name(value)
        raise ConfigError(f"{what} is {shown}, where an integer of at least {least} is needed", hint=hint)
    return int(value)


def check_positive(value: object, what: str, hint: str) -> float:
    """Return a finite number above 0; raises ConfigError."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # an int may be larger than every float
            if 0 < float(value) < math.inf:
                return float(value)
    shown = repr(value) if isinstance(value, int | float | str) else type_name(value)
    raise ConfigError(f"{what} is {shown}, where a number above 0 is needed", hint=hint)
