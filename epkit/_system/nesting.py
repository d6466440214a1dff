"""Look through nested data from outside, as deep as it goes, for what later steps cannot bear."""

from __future__ import annotations

import math
from collections.abc import Mapping

DEEPEST = 64
"""How deep what people and programs write may be nested: several times as deep as anything of epkit's."""
_LARGEST = 2**64


def unfit(value: object, deepest: int = DEEPEST) -> str:
    """Return what is wrong with data of a document, in words; empty when it can be worked with."""
    if is_deeper(value, deepest):
        return f"it is nested deeper than {deepest}"
    left = [value]
    while left:
        match left.pop():
            case dict() as table:
                left += table.keys()
                left += table.values()
            case list() as row:
                left += row
            case float() as number if not math.isfinite(number):
                return f"it holds {number}, which is no number in JSON"
            case int() as number if abs(number) > _LARGEST:
                return "it holds a number beyond 64 bits"
            case str() as text if not _is_unicode(text):
                return "it holds a text that is not Unicode"
    return ""


def is_deeper(value: object, deepest: int = DEEPEST) -> bool:
    """Whether tables and lists are nested deeper than that. It does not recurse itself."""
    level = [value]
    for _ in range(deepest):
        level = [part for one in level for part in _parts(one)]
        if not level:
            return False
    return True


def _parts(value: object) -> list[object]:
    # Numbers and texts are most of a document, and have no parts.
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [one for one in parts if isinstance(one, Mapping | list | tuple)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
