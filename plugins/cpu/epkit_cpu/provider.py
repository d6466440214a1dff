"""ONNX Runtime's own kernels, on any processor."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails

from epkit.provider import Availability, Options, Provider, Usable, WarmupNeed


class CpuOptions(Options):
    """The CPU has no options: ONNX Runtime ignores all that it is given. Its settings are those of the session."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_ignored(cls, written: object) -> object:
        faults = [
            InitErrorDetails(
                type="value_error",
                loc=(str(name),),
                input=value,
                ctx={"error": "cpu has no options: write session_options, such as intra_op_num_threads"},
            )
            for name, value in (written.items() if isinstance(written, Mapping) else ())
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return written


class Cpu(Provider):
    """ONNX Runtime's own kernels; always there, and last in every chain."""

    name = "cpu"
    ort_name = "CPUExecutionProvider"
    rank = 100
    automatic = True
    options = CpuOptions
    warmup = WarmupNeed(runs=1, why="the first run allocates the arena and starts the threads")

    def probe(self) -> Availability:
        """Every build of ONNX Runtime has it."""
        return Usable()
