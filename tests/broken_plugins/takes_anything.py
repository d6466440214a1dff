"""Breaks a promise: its options take any name, so that a misspelt one does nothing and nobody hears of it."""

from __future__ import annotations

from pydantic import ConfigDict

from epkit.hookspecs import hookimpl
from epkit.provider import Options, Provider


class BrokenOptions(Options):
    """Whatever is written."""

    model_config = ConfigDict(extra="allow")


class Broken(Provider):
    """Accepts options that it does not know."""

    name = "broken-takes-anything"
    ort_name = "CPUExecutionProvider"
    options = BrokenOptions


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
