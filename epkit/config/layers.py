"""Merge the layers of a configuration (file, environment, call, extended targets), with the origin of every value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from epkit.errors import ConfigError, UnknownTarget, nearest


@dataclass(frozen=True, slots=True)
class Value:
    """One value, and the place where it was written."""

    value: object
    origin: str


Table: TypeAlias = "dict[str, Value | Table]"


def table_of(written: Mapping[str, object], origin: str) -> Table:
    """Return a nested mapping as a table: each value with its origin."""
    return {
        str(key): table_of(cast("Mapping[str, object]", value), f"{origin}.{key}")
        if isinstance(value, Mapping)
        else Value(os.fspath(value) if isinstance(value, os.PathLike) else value, f"{origin}.{key}")
        for key, value in written.items()
    }


def merge(below: Table, above: Table) -> Table:
    """Return `above` laid over `below`: tables are merged, other values replaced."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return result


def plain(table: Table) -> dict[str, object]:
    """Return the values without their origins."""
    return {key: plain(value) if isinstance(value, dict) else value.value for key, value in table.items()}


def origin_of(table: Table, path: Iterable[object]) -> str:
    """Return the origin of the value at `path`, or of the nearest value around or below it; "" if unknown."""
    at: Value | Table = table
    for key in path:
        if isinstance(at, Value) or str(key) not in at:
            break
        at = at[str(key)]
    return next((value.origin for _, value in walk(at)), "")


def walk(table: Value | Table, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Yield the path of every value, and the value, in the order of the file."""
    if isinstance(table, Value):
        yield path, table
        return
    for key, value in table.items():
        yield from walk(value, (*path, key))


def with_origin(table: Table, origin: str) -> Table:
    """Return the table with one origin for all its values."""
    return {
        key: with_origin(value, origin) if isinstance(value, dict) else Value(value.value, origin)
        for key, value in table.items()
    }


def resolve_extends(name: str, targets: Mapping[str, Table], seen: Sequence[str] = ()) -> Table:
    """Return a target merged over all that it extends; raises ConfigError for a circle, UnknownTarget.

    `seen` has the targets that led here.
    """
    table = targets[name]
    parent = table.get("extends")
    if parent is None:
        return table
    path = (*seen, name)
    if isinstance(parent, dict) or not isinstance(parent.value, str):
        raise ConfigError(f"target {name!r}: extends must be the name of a target")
    if parent.value in path:
        raise ConfigError(f"targets extend each other in a circle: {' -> '.join((*path, parent.value))}")
    if parent.value not in targets:
        hint = nearest(parent.value, targets, what="targets")
        raise UnknownTarget(f"target {name!r} extends {parent.value!r}, which does not exist", hint=hint)
    below = resolve_extends(parent.value, targets, path)
    own = {key: value for key, value in table.items() if key != "extends"}
    # Options belong to one provider; a target with another provider does not inherit them.
    if "provider" in own and _value(own["provider"]) != _value(below.get("provider")):
        below = {key: value for key, value in below.items() if key not in ("options", "device")}
    both = merge(below, own)
    # Inherited options of a provider that is not in the chain are dropped; the target's own are validated later.
    chain = {*_items(both.get("fallback")), "cpu"} - {_value(both.get("provider"))}
    kept = chain | set(keys_of(own.get("options_for")))
    inherited = both.get("options_for")
    if isinstance(inherited, dict):
        both["options_for"] = {key: value for key, value in inherited.items() if key in kept}
    return both


def keys_of(table: object) -> list[object]:
    """Return the keys of a mapping; none of anything else."""
    return list(table) if isinstance(table, Mapping) else []


def _items(value: Value | Table | None) -> list[object]:
    items = _value(value)
    return list(items) if isinstance(items, list | tuple) else []


def _value(value: Value | Table | None) -> object:
    return value.value if isinstance(value, Value) else None
