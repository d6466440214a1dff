"""Breaks a promise: where its card is missing, its probe raises instead of saying so."""

from __future__ import annotations

from pathlib import Path

from epkit.hookspecs import hookimpl
from epkit.provider import Availability, Provider, Usable


class Broken(Provider):
    """Raises in its probe."""

    name = "broken-probe-raises"
    ort_name = "CPUExecutionProvider"

    def probe(self) -> Availability:
        """Read the card's driver, as if every machine had it."""
        return Usable(Path("/sys/module/acme-that-is-not-there/version").read_text(encoding="utf-8"))


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
