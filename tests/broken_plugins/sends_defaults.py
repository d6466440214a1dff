"""Breaks a promise: it sends an option that nobody has set, and ONNX Runtime's own default is gone."""

from __future__ import annotations

from epkit.hookspecs import hookimpl
from epkit.provider import Device, Options, Provider


class BrokenOptions(Options):
    """One option."""

    allow_spinning: bool | None = None
    """Whether threads wait for work by spinning (true)."""


class Broken(Provider):
    """Knows better than ONNX Runtime."""

    name = "broken-sends-defaults"
    ort_name = "CPUExecutionProvider"
    options = BrokenOptions

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Send a default beside what was set."""
        return {"allow_spinning": "0"} | super().to_ort_options(options, device)


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
