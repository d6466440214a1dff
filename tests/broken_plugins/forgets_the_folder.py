"""Breaks a promise: it compiles, and does not care in which folder epkit wants to have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from epkit import wheels
from epkit.hookspecs import hookimpl
from epkit.provider import Caching, Device, Options, Provider


class Forgetful(Caching):
    """Keeps what is compiled wherever it likes."""

    def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:
        """Forget the folder."""
        return options

    def fingerprint(self, device: Device | None) -> Sequence[str]:
        """List the version of what would compile."""
        return [f"numpy {wheels.version('numpy')}"]


class Broken(Provider):
    """Keeps what it compiles wherever it likes."""

    name = "broken-forgets-the-folder"
    ort_name = "CPUExecutionProvider"
    caching = Forgetful(compiles="opening")


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
