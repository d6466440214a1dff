from __future__ import annotations

from epkit_openvino.provider import OpenVino

from epkit.testing import ProviderConformance


class TestOpenVino(ProviderConformance):
    provider = OpenVino
