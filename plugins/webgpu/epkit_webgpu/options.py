"""Which options does ONNX Runtime's WebGPU library take, and what would it silently ignore?

Names are the library's short ones, read from version 0.4 and tried there on a software adapter. It refuses a wrong
value, and ignores a wrong name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from epkit.provider import Options

PREFIX = "ep.webgpuexecutionprovider."
"""What ONNX Runtime puts before each name; written out by hand, the library would not see it."""

_SMALLEST_BINDING = 128 * 2**20


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {value!r}")
    return value


def _binding(value: int) -> int:
    if 0 < value < _SMALLEST_BINDING:
        raise ValueError(f"must be 0 or at least {_SMALLEST_BINDING}, not {value}")
    return value


def _short(name: str) -> str:
    return f"write {name.removeprefix(PREFIX)}, without the prefix"


def _line(name: str) -> str:
    if not name or name.splitlines() != [name]:
        raise ValueError(f"must be one line, not {name!r}")
    return name


Number = Annotated[int, BeforeValidator(_no_bool)]
Count = Annotated[Number, Field(ge=0, le=2**31 - 1)]
Pointer = Annotated[Number, Field(ge=1, le=2**64 - 1)]
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
    """Whether int64 arithmetic runs there too, on the lower 32 bits alone; else the next provider takes it (false)."""

    multiRotaryCacheConcatOffset: Count | None = None
    """Language models: the row at which the second of two joined rotary caches begins; 0 is one cache (0)."""

    kvCacheQuantizationBits: Annotated[Literal[0, 4, 8], BeforeValidator(_no_bool)] | None = None
    """Language models: the bits in which kept keys and values are stored; 0 leaves them as they are (0)."""

    forceCpuNodeNames: tuple[Annotated[str, AfterValidator(_line)], ...] | None = None
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

    maxStorageBufferBindingSize: Annotated[Number, Field(ge=0, le=2**64 - 1), AfterValidator(_binding)] | None = None
    """Shared: the most bytes of one tensor on the device, 0 or at least 128 MB; 0 is what the device has (0)."""

    maxNumPendingDispatches: Annotated[Number, Field(ge=1, le=4096)] | None = None
    """Shared: how many kernels are gathered before they are sent to the GPU (16)."""

    storageBufferCacheMode: Caching | None = None
    """Shared: how freed tensors are kept for reuse: not, until the run ends, by exact size, by size class (bucket)."""

    uniformBufferCacheMode: Caching | None = None
    """Shared: the same for the small parameters of kernels (simple)."""

    queryResolveBufferCacheMode: Caching | None = None
    """Shared: the same for the buffers of profiling (disabled)."""

    defaultBufferCacheMode: Caching | None = None
    """Shared: the same for all other buffers (disabled)."""

    enablePIXCapture: bool | None = None
    """Windows: whether PIX captures each run, in a library built for that; the wheel for Linux is not (false)."""

    deviceId: Count | None = None
    """Which device context; above 0 it is the caller's own and needs `webgpuInstance` and `webgpuDevice` (0)."""

    webgpuInstance: Pointer | None = None
    """The address of a caller's `WGPUInstance` (none)."""

    webgpuDevice: Pointer | None = None
    """The address of a caller's `WGPUDevice` to run on (none)."""

    dawnProcTable: Pointer | None = None
    """The address of the `DawnProcTable` that a caller's device belongs to (none)."""

    extra: dict[str, str] = Field(default_factory=dict)
    """Options newer than epkit, unchecked; a name that the library does not know is ignored."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_ignored(cls, written: object) -> object:
        faults = [
            InitErrorDetails(type="value_error", loc=(name,), input=value, ctx={"error": _short(name)})
            for name, value in (written.items() if isinstance(written, Mapping) else ())
            if str(name).startswith(PREFIX)
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return written

    @field_validator("extra")
    @classmethod
    def _refuse_what_is_ignored_there_too(cls, extra: dict[str, str]) -> dict[str, str]:
        for name in extra:
            if name.startswith(PREFIX):
                raise ValueError(f"{name} would be ignored: {_short(name)}")
        return extra

    @model_validator(mode="after")
    def _keep_a_caller_s_device_whole(self) -> Self:
        theirs = bool(self.webgpuInstance and self.webgpuDevice)
        if self.deviceId and not theirs:
            raise ValueError("deviceId above 0 needs webgpuInstance and webgpuDevice; it does not choose a GPU")
        if (self.webgpuInstance or self.webgpuDevice) and not (self.deviceId and theirs):
            raise ValueError("webgpuInstance and webgpuDevice come together, with a deviceId above 0")
        return self
