"""Breaks a promise: no sentence stands under its option."""

from __future__ import annotations

from epkit.hookspecs import hookimpl
from epkit.provider import Options, Provider


class BrokenOptions(Options):
    """One option, of which nobody knows what it does."""

    allow_spinning: bool | None = None


class Broken(Provider):
    """Does not explain its option."""

    name = "broken-undocumented"
    ort_name = "CPUExecutionProvider"
    options = BrokenOptions


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
