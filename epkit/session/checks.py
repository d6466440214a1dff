"""Check what a target says of inputs and dimensions against the inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epkit.config.target import Target
from epkit.errors import ConfigError, nearest
from epkit.model.file import TensorInfo
from epkit.runtime.plugin_calls import call_plugin
from epkit.session.session import read_inputs
from epkit.session.warmup import check_warmup


def check_inputs(inputs: Sequence[TensorInfo], target: Target) -> None:
    """Check what a target says of inputs and dimensions; raises ConfigError."""
    dynamic = {size for tensor in inputs for size in tensor.shape or () if isinstance(size, str)}
    for name in target.session_options.free_dimension_overrides:
        if name not in dynamic:
            message = f"free_dimension_overrides names {name!r}, which is not a dimension of the model"
            raise ConfigError(f"target {target.name!r}: {message}", hint=nearest(name, dynamic, "dynamic dimensions"))
    check_warmup(inputs, target.warmup, target.session_options.free_dimension_overrides)
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    for candidate in target.chain:
        fault = call_plugin(candidate.provider.check_inputs, candidate.options, shapes)
        if fault:
            raise ConfigError(f"target {target.name!r}, options of {candidate.name}: {fault}")


def check_opened(session: Any, target: Target) -> list[str]:
    """Check a target against the inputs of a session, where the model does not declare them; return notes.

    Raises ConfigError. ONNX Runtime fixes no dimension of a model in ORT format: its graph was made with what it has.
    """
    check_inputs(read_inputs(session), target)
    overrides = target.session_options.free_dimension_overrides
    fixed = ", ".join(f"{name} = {size}" for name, size in overrides.items())
    return [f"free_dimension_overrides ({fixed}) does nothing to a model in ORT format"] if overrides else []
