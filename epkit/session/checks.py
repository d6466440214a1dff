"""Check what a target says of inputs and dimensions against the inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence

from epkit.config.target import Target
from epkit.errors import ConfigError, nearest
from epkit.model.file import TensorInfo
from epkit.runtime.plugin_calls import asked
from epkit.session.warmup import check_warmup


def check_inputs(inputs: Sequence[TensorInfo], target: Target) -> None:
    """Check what a target says of inputs and dimensions; raises ConfigError."""
    dynamic = {size for one in inputs for size in one.shape or () if isinstance(size, str)}
    for name in target.session_options.free_dimension_overrides:
        if name not in dynamic:
            told = f"free_dimension_overrides names {name!r}, which is not a dimension of the model"
            raise ConfigError(f"target {target.name!r}: {told}", hint=nearest(name, dynamic, "dynamic dimensions"))
    check_warmup(inputs, target.warmup, target.session_options.free_dimension_overrides)
    shapes = {one.name: one.shape for one in inputs}
    for candidate in target.chain:
        fault = asked(candidate.provider.check_inputs, candidate.options, shapes)
        if fault:
            raise ConfigError(f"target {target.name!r}, options of {candidate.name}: {fault}")
