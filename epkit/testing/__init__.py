"""What an author needs to prove a plugin. Imports pytest only when it is asked for what needs it."""

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
