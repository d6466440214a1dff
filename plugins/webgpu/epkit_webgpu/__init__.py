"""WebGPU as a plugin library of ONNX Runtime: GPUs of every vendor, through Vulkan, Direct3D 12 or Metal."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_webgpu.provider import WebGpu


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `webgpu`."""
    return [WebGpu()]
