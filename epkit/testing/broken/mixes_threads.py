"""Breaks a promise: it claims that any number of runs may go on at once, and keeps one buffer for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epkit.hookspecs import hookimpl
from epkit.provider import Options, Provider
from epkit.wrapped import Wrapped


class OneBuffer(Wrapped):
    """A session that leaves what it is given in one place, and looks there again after a while."""

    given: Any = None

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], options: object | None = None) -> Any:
        """Run whatever was given last."""
        self.given = feed
        time.sleep(0.001)
        return super().run(names, self.given if isinstance(self.given, Mapping) else feed, options)

    def run_with_iobinding(self, binding: Any, options: object | None = None) -> None:
        """Run whatever was bound last."""
        self.given = binding
        time.sleep(0.001)
        super().run_with_iobinding(binding if isinstance(self.given, Mapping) else self.given, options)


class Broken(Provider):
    """Is not as free as it says."""

    name = "broken-mixes-threads"
    ort_name = "CPUExecutionProvider"

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:  # noqa: ARG002
        """Open a session that mixes up the runs of several threads."""
        return OneBuffer(create())


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
