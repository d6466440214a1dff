"""Breaks a promise: it always sends an option that it does not have, so nobody can set it otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from epkit.hookspecs import hookimpl
from epkit.provider import Provider


class Broken(Provider):
    """Lets nobody choose."""

    name = "broken-sends-what-cannot-be-set"
    ort_name = "CPUExecutionProvider"
    always_sent: ClassVar[Mapping[str, str]] = {"sticky": "0"}


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
