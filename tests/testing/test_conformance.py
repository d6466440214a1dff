"""Do the providers that come with epkit keep every provider's promises?"""

from __future__ import annotations

import pytest
from epkit_cpu.provider import Cpu
from epkit_cuda.provider import Cuda
from epkit_tensorrt.provider import TensorRT

from epkit.testing import ProviderConformance


class TestCpu(ProviderConformance):
    provider = Cpu


@pytest.mark.gpu
class TestCuda(ProviderConformance):
    provider = Cuda
    target = {"options": {"use_tf32": False}}  # noqa: RUF012 - a class is configured here


@pytest.mark.gpu
class TestTensorRT(ProviderConformance):
    provider = TensorRT
    tolerances = {"float32": 1e-2}  # noqa: RUF012 - it computes in TF32, and has no switch for it
