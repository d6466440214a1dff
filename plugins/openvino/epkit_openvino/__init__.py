"""OpenVINO as a plugin library of ONNX Runtime: Intel CPUs, GPUs and NPUs."""

from __future__ import annotations

from collections.abc import Iterable

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit_openvino.provider import OpenVino


@hookimpl
def epkit_providers() -> Iterable[Provider]:
    """Offer `openvino`."""
    return [OpenVino()]
