"""Check a plugin: the conformance kit, its pytest plugin, and the backend suite of the onnx package.

pytest is imported only where it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epkit.testing.conformance import ProviderConformance

__all__ = ["ProviderConformance"]


def __getattr__(name: str) -> type[ProviderConformance]:
    if name == "ProviderConformance":
        from epkit.testing.conformance import ProviderConformance

        return ProviderConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
