"""The two tiers of the tests: what runs each time, and what is slow. Of many cases of a promise some are quick."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return these values as parameters, all but `quick` in the second tier; a tuple is one of several arguments."""
    return [value if value in quick else pytest.param(*_parts(value), marks=pytest.mark.slow) for value in values]


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
