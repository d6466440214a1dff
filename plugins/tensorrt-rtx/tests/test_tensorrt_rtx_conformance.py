from __future__ import annotations

from collections.abc import Iterator

import pytest
from epkit_tensorrt_rtx.provider import TensorRTRTX

from epkit.discovery.registry import discover
from epkit.testing import ProviderConformance


@pytest.fixture(scope="module", autouse=True)
def _found() -> Iterator[None]:
    """Name the plugin where it is not installed: its wheel and its driver are rare."""
    with pytest.MonkeyPatch.context() as patch:
        if "tensorrt-rtx" not in discover().providers:
            patch.setenv("EPKIT_PLUGINS", "epkit_tensorrt_rtx")
        yield


@pytest.mark.gpu
class TestTensorRTRTX(ProviderConformance):
    provider = TensorRTRTX
    tolerances = {"float32": 1e-2}  # noqa: RUF012 - it may compute in TF32, and has no switch for it
