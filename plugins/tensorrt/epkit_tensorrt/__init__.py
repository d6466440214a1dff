"""NVIDIA GPUs through TensorRT, which compiles a model before it runs it."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_tensorrt.provider import TensorRT


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `tensorrt`."""
    return [TensorRT()]
