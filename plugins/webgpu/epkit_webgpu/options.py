"""Which options does ONNX Runtime's WebGPU library take, and what would it silently ignore?

Names are the library's short ones, read from version 0.4 and tried there on a software adapter. It refuses a wrong
value, and ignores a wrong name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from epkit.provider import Options

PREFIX = "ep.webgpuexecutionprovider."
"""What ONNX Runtime puts before each name; written out by hand, the library would not see it."""

SHARED = (
    "powerPreference",
    "dawnBackendType",
    "validationMode",
    "enableRobustness",
    "preserveDevice",
    "maxStorageBufferBindingSize",
    "maxNumPendingDispatches",
    "storageBufferCacheMode",
    "uniformBufferCacheMode",
    "queryResolveBufferCacheMode",
    "defaultBufferCacheMode",
)
"""Options of the device that all sessions of a process share: those of the first session hold."""

_SMALLEST_BINDING = 128 * 2**20


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {value!r}")
    return value


def _binding_size(value: int) -> int:
    if 0 < value < _SMALLEST_BINDING:
        raise ValueError(f"must be 0 or at least {_SMALLEST_BINDING}, not {value}")
    return value


Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=2**32 - 1)]
Pointer = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=2**64 - 1)]
Caching = Literal["disabled", "lazyRelease", "simple", "bucket"]


class WebGpuOptions(Options):
    """Options of `webgpu`; the library's default stands in brackets."""

    preferredLayout: Literal["NCHW", "NHWC"] | None = None
    """The layout of convolutions and pooling; NHWC adds transposes where the graph needs them (NHWC)."""

    enableGraphCapture: bool | None = None
    """Whether runs replay the commands of the first: fixed shapes, bound device buffers (false)."""

    sessionBufferPoolGenerations: Count | None = None
    """How many captured graphs' worth of buffers a session keeps for the next capture (1)."""

    enableInt64: bool | None = None
    """Whether operators on int64 run there too, with its upper 32 bits left out, instead of on the CPU (false)."""

    multiRotaryCacheConcatOffset: Count | None = None
    """Language models: where the second of two joined rotary caches begins; 0 is one cache (0)."""

    kvCacheQuantizationBits: Annotated[Literal[0, 4, 8], BeforeValidator(_no_bool)] | None = None
    """Language models: the bits in which kept keys and values are stored; 0 leaves them as they are (0)."""

    forceCpuNodeNames: list[Annotated[str, Field(min_length=1)]] | None = None
    """The names of nodes that are left to the next provider of the chain (none)."""

    powerPreference: Literal["high-performance", "low-power"] | None = None
    """Shared: which GPU to prefer where there are several (high-performance)."""

    dawnBackendType: Literal["D3D12", "Vulkan"] | None = None
    """Shared: the graphics interface to go through, where there is a choice: Windows (by platform)."""

    validationMode: Literal["disabled", "wgpuOnly", "basic", "full"] | None = None
    """Shared: how much is checked before the GPU sees it (basic)."""

    enableRobustness: bool | None = None
    """Shared: whether shaders check each index against its buffer; slower (false)."""

    preserveDevice: bool | None = None
    """Shared: whether the device, with its compiled shaders, outlives the last session (false)."""

    maxStorageBufferBindingSize: Annotated[Count, AfterBytes] | None = None
    """Shared: the most bytes of one tensor on the device, 0 or at least 128 MB; 0 is what the device has (0)."""

    maxNumPendingDispatches: Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=4096)] | None = None
    """Shared: how many kernels are gathered before they are sent to the GPU (16)."""

    storageBufferCacheMode: Caching | None = None
    """Shared: how freed tensors are kept for reuse: not, until the run ends, by exact size, by size class (bucket)."""

    uniformBufferCacheMode: Caching | None = None
    """Shared: the same for the small parameters of kernels (simple)."""

    queryResolveBufferCacheMode: Caching | None = None
    """Shared: the same for the buffers of profiling (disabled)."""

    defaultBufferCacheMode: Caching | None = None
    """Shared: the same for all other buffers (disabled)."""

    deviceId: Count | None = None
    """Which device context; above 0 it is the caller's own and needs `webgpuInstance` and `webgpuDevice` (0)."""

    webgpuInstance: Pointer | None = None
    """The address of a caller's `WGPUInstance` (none)."""

    webgpuDevice: Pointer | None = None
    """The address of a caller's `WGPUDevice` to run on (none)."""

    dawnProcTable: Pointer | None = None
    """The address of the `DawnProcTable` that a caller's device belongs to (none)."""

    extra: dict[str, str] = {}
    """Options newer than epkit, unchecked; a name that the library does not know is ignored."""
