"""The provider `acme` for epkit."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider

from epkit_acme.provider import Acme

__all__ = ["Acme"]


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `acme`."""
    return [Acme()]
