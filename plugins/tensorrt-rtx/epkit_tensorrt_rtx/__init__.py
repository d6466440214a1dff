"""TensorRT-RTX as a plugin library of ONNX Runtime: NVIDIA's RTX GPUs, compiled for in seconds."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_tensorrt_rtx.provider import TensorRTRTX


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `tensorrt-rtx`."""
    return [TensorRTRTX()]
