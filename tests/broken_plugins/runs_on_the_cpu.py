"""Breaks a promise: where ONNX Runtime does not have the provider, it goes on, and the CPU does all the work."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from epkit.hookspecs import hookimpl
from epkit.provider import Provider


class Broken(Provider):
    """Falls back and says nothing."""

    name = "broken-runs-on-the-cpu"
    ort_name = "AcmeExecutionProvider"

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:
        """Add the provider if it can be added."""
        with contextlib.suppress(Exception):
            super().add(runtime, session_options, sent, devices)


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
