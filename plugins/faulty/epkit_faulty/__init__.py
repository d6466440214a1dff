"""Providers that fail on purpose, over ONNX Runtime's CPU: to rehearse what a program does when an accelerator fails.

No entry point leads here: `EPKIT_PLUGINS=epkit_faulty` does.
"""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_faulty.over import over_cpu


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `faulty-creation-fails` and the others, one for each fault, and for each limit that accelerators have."""
    return over_cpu()
