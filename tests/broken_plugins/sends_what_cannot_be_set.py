"""Breaks a promise: it always sends an option that it does not have, so nobody can set it otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from epkit.hookspecs import hookimpl
from epkit.provider import Device, Provider


class Broken(Provider):
    """Lets nobody choose."""

    name = "broken-sends-what-cannot-be-set"
    ort_name = "CPUExecutionProvider"

    def always_sent(self, device: Device | None) -> Mapping[str, str]:
        """Name an option that is none of its options."""
        return {"sticky": "0"}


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
