from __future__ import annotations

from capabilities import needs
from epkit_openvino.provider import OpenVino

from epkit.testing import ProviderConformance


@needs("plugin openvino")
class TestOpenVino(ProviderConformance):
    provider = OpenVino
