"""Which options does `acme` take?"""

from __future__ import annotations

from typing import Annotated, Literal

from epkit.provider import Options
from pydantic import Field


class AcmeOptions(Options):
    """Options of `acme`, spelt as ONNX Runtime spells them. What a user leaves out is not sent."""

    PERFORMANCE_HINT: Literal["LATENCY", "THROUGHPUT"] | None = None
    """What to be fast at: one run after the other, or many at once (LATENCY)."""

    NUM_STREAMS: Annotated[int, Field(ge=1)] | None = None
    """How many runs to carry out side by side (1)."""

    ENABLE_CPU_PINNING: bool | None = None
    """Whether to keep each thread on its core (false)."""
