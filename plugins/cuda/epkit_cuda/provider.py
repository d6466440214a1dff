"""ONNX Runtime's CUDA kernels and cuDNN, on NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from epkit.discovery import nvidia
from epkit.provider import Availability, Devices, GraphCapture, Provider, SelfTest, WarmupNeed
from epkit_cuda.options import CudaOptions

# ONNX Runtime loads cuDNN at the first convolution: without it a session opens, and then its runs fail. So a machine
# that lacks it does not have this provider, even though `enable_cudnn = false` would run models without convolutions.
_LAZY = (nvidia.CUDNN,)


class Cuda(Provider):
    """NVIDIA GPUs, operator by operator; it opens at once and takes nearly every operator."""

    name = "cuda"
    ort_name = "CUDAExecutionProvider"
    rank = 20
    automatic = True
    options = CudaOptions
    devices = Devices(option="device_id", memory="cuda", arena="gpu")
    capture = GraphCapture("enable_cuda_graph")
    environment = ("ORT_CUDA_*", "ORT_DISABLE_*", "ORT_ENABLE_*", "NVIDIA_TF32_OVERRIDE")
    # By ONNX Runtime's list of CUDA kernels; none of it has been run on a GPU yet.
    capabilities = frozenset({"float32", "float16", "float64", "int64", "int8", "dynamic-shapes", "data-shapes"})
    warmup = WarmupNeed(
        runs=2,
        shapes="each",
        why="cuDNN chooses its algorithms anew for each input shape, and the second run allocates by the first's plan",
        steady=True,
    )
    self_test = SelfTest(timeout_s=120.0)  # two gigabytes of libraries, from a disk that may be cold

    def probe(self) -> Availability:
        """Look for CUDA's libraries and cuDNN, and ask the driver for its version and its GPUs."""
        return nvidia.probe(nvidia.find_runtime(), ("cuda",), _LAZY)

    def fingerprint(self) -> Sequence[str]:
        """List the libraries, the driver, the device nodes and the variables that choose among them."""
        return nvidia.fingerprint(nvidia.find_runtime(), ("cuda",), _LAZY)

    def prepare(self, runtime: ModuleType) -> None:
        """Load CUDA and cuDNN from NVIDIA's wheels, where no loader looks. It prints what it cannot load."""
        nvidia.preload(runtime, nvidia.find_runtime())

    def hint(self, cause: str) -> str:
        """Return the command that brings a missing library, or mends what the driver said."""
        return nvidia.hint(cause, nvidia.find_runtime())
