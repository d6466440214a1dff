"""Breaks a promise: importing it imports NumPy, for one number that only a run needs."""

from __future__ import annotations

import numpy as np

from epkit.hookspecs import hookimpl
from epkit.provider import Provider

LARGEST = float(np.finfo(np.float32).max)


class Broken(Provider):
    """Imports too much."""

    name = "broken-imports-numpy"
    ort_name = "CPUExecutionProvider"


@hookimpl
def epkit_providers() -> list[Provider]:
    """Offer it."""
    return [Broken()]
