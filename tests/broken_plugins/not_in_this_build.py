"""Breaks a promise: its probe calls it usable, and no ONNX Runtime has the provider."""

from __future__ import annotations

from epkit.hookspecs import hookimpl
from epkit.provider import Availability, Provider, Usable


class Broken(Provider):
    """Says usable without a look."""

    name = "broken-not-in-this-build"
    ort_name = "AcmeExecutionProvider"

    def probe(self) -> Availability:
        """Hope for the best."""
        return Usable()


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
