"""The CPU provider, which every build of ONNX Runtime has."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_cpu.provider import Cpu


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `cpu`."""
    return [Cpu()]
