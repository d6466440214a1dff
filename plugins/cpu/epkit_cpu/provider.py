"""ONNX Runtime's own kernels, on any processor."""

from __future__ import annotations

from epkit.provider import Availability, Provider, Usable, WarmupNeed


class Cpu(Provider):
    """ONNX Runtime's own kernels; always there, and last in every chain."""

    name = "cpu"
    ort_name = "CPUExecutionProvider"
    rank = 100
    automatic = True
    warmup = WarmupNeed(runs=1, why="the first run allocates the arena and starts the threads")

    def probe(self) -> Availability:
        """Every build of ONNX Runtime has it."""
        return Usable()
