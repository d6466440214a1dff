"""Breaks a promise: the name that it goes by is another plugin's."""

from __future__ import annotations

from epkit.hookspecs import hookimpl
from epkit.provider import Provider


class Broken(Provider):
    """Would be `cpu`, but that is taken."""

    name = "cpu"
    ort_name = "CPUExecutionProvider"


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
