"""Which options does NVIDIA's TensorRT-RTX library take, and which of them contradict each other?

Names and meanings are those of `tensorrt_rtx_provider_options.h` in the wheel of version 0.5; what the library accepts
was tried there, on a device that was made up. It refuses an unknown name and most wrong values when a session opens,
but says nothing of profiles that it cannot use.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from epkit.provider import Options
from epkit_tensorrt_rtx import profiles

# An option that does nothing without the other.
_NEEDS = {
    "has_user_compute_stream": "user_compute_stream",
    "user_compute_stream": "has_user_compute_stream",
    "user_aux_stream_array": "nv_length_aux_stream_array",
    "nv_length_aux_stream_array": "user_aux_stream_array",
    "nv_multi_profile_enable": "nv_profile_min_shapes",
    "nv_profiling_output_file": "nv_enable_profiling",
}
_PROFILES = ("nv_profile_min_shapes", "nv_profile_opt_shapes", "nv_profile_max_shapes")
# It stands in the header, but the library refuses it as an option of a session.
_REFUSED = "VkExternalComputeQueueDataParamsNV_data"


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {value!r}")
    return value


def _written(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Number = Annotated[int, BeforeValidator(_no_bool)]
Bytes = Annotated[Number, Field(ge=0, le=2**64 - 1)]
Count = Annotated[Number, Field(ge=0, le=2**31 - 1)]
Pointer = Annotated[Number, Field(ge=1, le=2**64 - 1)]
_AMOUNT = r"-1|\d+|\d+(\.\d+)?[BKMGbkmg]|(100(\.0+)?|\d{1,2}(\.\d+)?)%"
Budget = Annotated[str, BeforeValidator(_written), StringConstraints(pattern=rf"^({_AMOUNT})$")]


class TensorRTRTXOptions(Options):
    """Options of `tensorrt-rtx`; the library's default stands in brackets. The GPU is the target's `device`."""

    writing_options = ("nv_profiling_output_file",)

    enable_cuda_graph: bool | None = None
    """Whether the library captures an engine's kernels as a CUDA graph and replays it; fixed shapes (false)."""

    nv_runtime_cache_path: Annotated[str, Field(min_length=1)] | None = None
    """The directory in which a session keeps its GPU kernels for the next one, written when it is closed (none)."""

    nv_profile_min_shapes: str | None = None
    """The smallest shapes that an engine must take, `images:1x3x224x224,mask:1x16` (0 for each dynamic dimension)."""

    nv_profile_opt_shapes: str | None = None
    """The shapes that an engine is tuned for, spelt alike (1)."""

    nv_profile_max_shapes: str | None = None
    """The largest shapes that an engine must take, spelt alike (32767)."""

    nv_multi_profile_enable: bool | None = None
    """Whether several profiles are used, where a name comes more than once in them (false)."""

    nv_op_types_to_exclude: Annotated[str, StringConstraints(pattern=r"^\w+(,\w+)*$")] | None = None
    """Operators that are left to the next provider of the chain, separated by commas alone: `Conv,Relu` (none)."""

    nv_weight_streaming_budget: Budget | None = None
    """Weights in GPU memory: bytes, `512M`, `50%`, -1 by itself, 1 as little as can be; 0 is all (0)."""

    nv_use_external_data_initializer: bool | None = None
    """Whether weights are handed to the engine's builder as external data instead of in the model (false)."""

    nv_weight_stripped_engine_enable_experimental: bool | None = None
    """Experimental: whether compiled models are written without weights, which the model fills in again (false)."""

    nv_target_sm: Literal["sm86", "sm89", "sm120", "sm121"] | None = None
    """For `epkit compile --output`: another GPU to compile for, by its architecture (this machine's GPU)."""

    nv_max_workspace_size: Bytes | None = None
    """How many bytes of scratch memory building an engine may take; 0 is the library's choice (0)."""

    nv_max_shared_mem_size: Bytes | None = None
    """How many bytes of a GPU's shared memory a kernel may take; 0 is what the device has (0)."""

    nv_persistent_context_memory: bool | None = None
    """Whether an engine's scratch memory is kept between runs; else it is allocated for each (false)."""

    nv_use_sync_gpu_allocator: bool | None = None
    """Whether memory is allocated by `cudaMalloc`, where `cudaMallocAsync` is unreliable (false)."""

    nv_multi_rotary_cache_concat_offset: Count | None = None
    """Language models: the token from which on the long rotary cache is used; 0 is never (0)."""

    has_user_compute_stream: bool | None = None
    """Whether to run on a caller's stream, `user_compute_stream` (false)."""

    user_compute_stream: Pointer | None = None
    """The address of a caller's `cudaStream_t` to run on (none)."""

    user_aux_stream_array: Pointer | None = None
    """The address of a caller's array of `cudaStream_t` for side work (none)."""

    nv_length_aux_stream_array: Count | None = None
    """How many streams that array holds (0)."""

    nv_enable_profiling: bool | None = None
    """Whether each layer is timed; not together with `enable_cuda_graph` (false)."""

    nv_profiling_output_file: Annotated[str, Field(min_length=1)] | None = None
    """The file for those times, in the format of Chrome's trace viewer (a name with the time in it)."""

    nv_dump_subgraphs: bool | None = None
    """Whether the parts that the library takes are written into the working directory, for debugging (false)."""

    nv_detailed_build_log: bool | None = None
    """Whether every step of building an engine is logged (false)."""

    extra: dict[str, str] = Field(default_factory=dict)
    """Options newer than epkit, passed on unchecked; the library refuses a name that it does not know."""

    @model_validator(mode="before")
    @classmethod
    def _stand_elsewhere(cls, values: object) -> object:
        if isinstance(values, dict) and "device_id" in values:
            raise ValueError(f"device_id is not an option here: write `device = {values['device_id']}` on the target")
        if isinstance(values, dict) and _REFUSED in values:
            raise ValueError(f"{_REFUSED} cannot be set: the library refuses it for a session")
        return values

    @field_validator(*_PROFILES)
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            profiles.parse(text)
        return text

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for option, needed in _NEEDS.items():
            if getattr(self, option) and not getattr(self, needed):
                raise ValueError(f"{option} has no effect without {needed}")
        if self.enable_cuda_graph and self.nv_enable_profiling:
            raise ValueError("nv_enable_profiling would switch enable_cuda_graph off: leave one of them out")
        texts = {name: getattr(self, name) for name in _PROFILES}
        missing = [name for name, text in texts.items() if not text]
        if 0 < len(missing) < len(texts):
            raise ValueError(f"{' and '.join(missing)} must be given too: a profile has all three or none")
        if not missing:
            profiles.check_order(*map(profiles.parse, texts.values()))
        return self
