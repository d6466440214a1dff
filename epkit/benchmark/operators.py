"""What does each operator of a model take, by provider?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operators:
    """What ONNX Runtime's profiler saw."""

    runs: int
