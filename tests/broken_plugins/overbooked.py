"""Breaks a promise: it claims that any number of runs may go on at once, and has room for four."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from epkit.hookspecs import hookimpl
from epkit.provider import Options, Provider
from epkit.runtime.session_wrapper import Result, SessionWrapper

TAKEN: list[None] = []
"""The places that are taken, by runs of any session."""


class FourPlaces(SessionWrapper):
    """A session that fails where four other runs are under way in the process."""

    def around(self, run: Callable[[], Result]) -> Result:
        """Take a place for a run."""
        TAKEN.append(None)
        try:
            time.sleep(0.002)
            if len(TAKEN) > 4:
                raise RuntimeError("the card has four places, and all are taken")
            return run()
        finally:
            TAKEN.pop()


class Broken(Provider):
    """Is not as free as it says."""

    name = "broken-overbooked"
    ort_name = "CPUExecutionProvider"

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:
        """Open a session that bears four runs at once."""
        return FourPlaces(create())


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
