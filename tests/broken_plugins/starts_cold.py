"""Breaks a promise: it declares no warm-up, and the first request waits for what could have been done before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from epkit.hookspecs import hookimpl
from epkit.provider import Options, Provider, WarmupNeed
from epkit.runtime.session_wrapper import Result, SessionWrapper


class LoadsLate(SessionWrapper):
    """A session whose first run takes long."""

    warm = False

    def around(self, run: Callable[[], Result]) -> Result:
        """Load what the first run needs."""
        if not self.warm:
            time.sleep(0.3)
            self.warm = True
        return run()


class Broken(Provider):
    """Lets the first request pay."""

    name = "broken-starts-cold"
    ort_name = "CPUExecutionProvider"
    warmup = WarmupNeed(runs=0, why="nothing is left to be done")

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:
        """Open a session that loads late."""
        return LoadsLate(create())


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
