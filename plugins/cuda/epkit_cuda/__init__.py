"""NVIDIA GPUs through CUDA, which every `onnxruntime-gpu` has."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_cuda.provider import Cuda


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `cuda`."""
    return [Cuda()]
