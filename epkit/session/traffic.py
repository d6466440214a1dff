"""List what is copied in each run, before there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from epkit.model.file import BITS, Model, TensorInfo
from epkit.runtime.bound_inputs import SMALL
from epkit.runtime.device_array import CPU, supports_dlpack
from epkit.runtime.fast_path import MOST_BYTES


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one way of running copies in each run: of the inputs, and of the outputs."""

    call: str
    inputs: str
    outputs: str


def traffic(model: Model, place: str, *, plain: bool) -> tuple[Traffic, ...]:
    """Say for `run` and for bindings what is copied, where the provider's buffers are at `place`.

    `plain` says that the provider is ONNX Runtime's own CPU, which reads what it is given where it is.
    """
    run, bind, bind_cpu = "session.run(inputs)", "session.bind(inputs)", 'session.bind(inputs, device="cpu")'
    if place == CPU and not plain:
        theirs = "by ONNX Runtime, where the provider has memory of its own"
        return (Traffic(run, theirs, "none"), Traffic(bind, f"{theirs}: when they are bound", "none"))
    if place == CPU:
        lent = f"copied into lent buffers up to {MOST_BYTES // 1024} KiB in all, else read where they are"
        own = f"copied up to {SMALL // 1024} KiB each, else read where they are"
        return (
            Traffic(run, lent, "copied out of lent buffers, else none"),
            Traffic(bind, own, "none: results view the buffers"),
        )
    into, out = (_sum(model.inputs), _sum(model.outputs)) if model.is_parsed else ("all inputs", "all outputs")
    to, back = f"{into} copied to {place}", f"{out} copied back"
    there = f"; none where they are on {place}" if supports_dlpack(place) else ""
    return (
        Traffic(run, to, back),
        Traffic(bind, to + there, f"none: results stay on {place}"),
        Traffic(bind_cpu, to, back),
    )


def _sum(tensors: Sequence[TensorInfo]) -> str:
    """Add up bytes, a dynamic dimension counting as 1."""
    sizes = [
        math.prod(size if isinstance(size, int) else 1 for size in tensor.shape) * BITS[tensor.dtype] // 8
        for tensor in tensors
        if tensor.shape is not None and BITS.get(tensor.dtype)
    ]
    # No shape is any shape, and a text has no size that follows from its type; a scalar has a shape of no dimensions.
    more = len(sizes) < len(tensors) or any(
        not isinstance(size, int) for tensor in tensors for size in tensor.shape or ()
    )
    return f"{sum(sizes)} B{' or more' if more else ''}"
