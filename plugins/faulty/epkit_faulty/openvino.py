"""The same faults over OpenVINO: `EPKIT_PLUGINS=epkit_faulty.openvino`."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_faulty.over import over_installed


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `faulty-openvino-creation-fails` and the others, one for each fault."""
    return over_installed("openvino")
