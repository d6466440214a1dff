from __future__ import annotations

from collections.abc import Iterator

import pytest
from epkit_tensorrt_rtx.provider import TensorRTRTX

from epkit.testing import ProviderConformance


@pytest.fixture(scope="module", autouse=True)
def _named() -> Iterator[None]:
    """Name the plugin: it is the one that is not installed for development."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPKIT_PLUGINS", "epkit_tensorrt_rtx")
        yield


@pytest.mark.gpu
class TestTensorRTRTX(ProviderConformance):
    provider = TensorRTRTX
    tolerances = {"float32": 1e-2}  # noqa: RUF012 - it may compute in TF32, and has no switch for it
