from __future__ import annotations

from epkit_webgpu.provider import WebGpu

from epkit.testing import ProviderConformance


class TestWebGpu(ProviderConformance):
    provider = WebGpu
