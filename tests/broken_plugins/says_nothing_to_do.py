"""Breaks a promise: its probe says that it cannot be used, and not what would change that."""

from __future__ import annotations

from epkit.hookspecs import hookimpl
from epkit.provider import Availability, Provider, Unusable


class Broken(Provider):
    """Leaves the user alone."""

    name = "broken-says-nothing-to-do"
    ort_name = "AcmeExecutionProvider"

    def probe(self) -> Availability:
        """Give a reason without a hint."""
        return Unusable("initialization failed")


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
