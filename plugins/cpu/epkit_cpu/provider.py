"""ONNX Runtime's own kernels, on any processor."""

from __future__ import annotations

from pydantic import model_validator

from epkit.provider import Availability, Devices, Options, Provider, SelfTest, Usable, WarmupNeed


class CpuOptions(Options):
    """The CPU has no options: ONNX Runtime ignores all that it is given. Its settings are those of the session."""

    @model_validator(mode="after")
    def _refuse_what_is_ignored(self) -> CpuOptions:
        if self.extra:
            raise ValueError("cpu has no options: write session_options, such as intra_op_num_threads")
        return self


class Cpu(Provider):
    """ONNX Runtime's own kernels; always there, and last in every chain."""

    name = "cpu"
    ort_name = "CPUExecutionProvider"
    rank = 100
    automatic = True
    options = CpuOptions
    capabilities = frozenset(
        {"float32", "float16", "float64", "int64", "int8", "strings", "dynamic-shapes", "data-shapes"}
    )
    warmup = WarmupNeed(runs=1, why="the first run allocates the arena and starts the threads")
    devices = Devices(arena="cpu")
    self_test = SelfTest(networks=("convolutions", "mlp", "attention"))

    def probe(self) -> Availability:
        """Every build of ONNX Runtime has it."""
        return Usable("every build of ONNX Runtime has it")
