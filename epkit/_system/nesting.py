"""Check a parsed document for data that later steps cannot handle: too deep, not finite, or not Unicode."""

from __future__ import annotations

import math
from collections.abc import Mapping

MAX_DEPTH = 64
"""The deepest nesting allowed: several times as deep as the deepest document of epkit."""
_LARGEST = 2**64


def find_problem(value: object, limit: int = MAX_DEPTH) -> str:
    """Return what is wrong with the data of a document; "" if nothing is."""
    if is_deeper(value, limit):
        return f"it is nested deeper than {limit}"
    pending = [value]
    while pending:
        match pending.pop():
            case dict() as table:
                pending += table.keys()
                pending += table.values()
            case list() as row:
                pending += row
            case float() as number if not math.isfinite(number):
                return f"it holds {number}, which is not a number in JSON"
            case int() as number if abs(number) > _LARGEST:
                return "it holds a number beyond 64 bits"
            case str() as text if not _is_unicode(text):
                return "it holds a text that is not Unicode"
    return ""


def is_deeper(value: object, limit: int = MAX_DEPTH) -> bool:
    """Whether mappings and lists are nested deeper than `limit`. Without recursion, which has a limit itself."""
    level = [value]
    for _ in range(limit):
        level = [part for parent in level for part in _containers(parent)]
        if not level:
            return False
    return True


def _containers(value: object) -> list[object]:
    """Return the mappings and lists in a value; numbers and strings have none."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [part for part in parts if isinstance(part, Mapping | list | tuple)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
