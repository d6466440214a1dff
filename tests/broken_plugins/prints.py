"""Breaks a promise: importing it greets whoever lists what is installed."""

from __future__ import annotations

from epkit.hookspecs import hookimpl
from epkit.provider import Provider

print("Acme accelerator 1.0")  # noqa: T201 - what is wrong with it


class Broken(Provider):
    """Prints at import."""

    name = "broken-prints"
    ort_name = "CPUExecutionProvider"


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
