"""Define the hook that a plugin implements.

    from epkit.hookspecs import hookimpl

    @hookimpl
    def epkit_providers():
        return [Acme()]

and, in its pyproject.toml:

    [project.entry-points.epkit]
    acme = "epkit_acme"
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from epkit.provider import Provider

hookspec = pluggy.HookspecMarker("epkit")
hookimpl = pluggy.HookimplMarker("epkit")


@hookspec
def epkit_providers() -> Iterable[Provider]:  # type: ignore[empty-body]
    """Return the providers that this plugin offers."""
