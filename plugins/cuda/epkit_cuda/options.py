"""Which options does the CUDA provider take, and which of them contradict each other?

Names, types and enums are those of ONNX Runtime 1.31. It reads whole numbers as plain digits and refuses everything
else: `2GB` and `1e9` are errors here as there.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from epkit.provider import Options

Bytes = Annotated[int, Field(ge=1, le=2**64 - 1)]
Pointer = Annotated[int, Field(ge=1, le=2**64 - 1)]

# An option that does nothing without another one, which must then be true.
_NEEDS = {
    "tunable_op_tuning_enable": "tunable_op_enable",
    "tunable_op_max_tuning_duration_ms": "tunable_op_tuning_enable",
}
_CUDNN = ("cudnn_conv_algo_search", "cudnn_conv_use_max_workspace", "cudnn_conv1d_pad_to_nc1d", "fuse_conv_bias")
_SDPA_CUDNN = 8


class CudaOptions(Options):
    """Options of `cuda`; ONNX Runtime's default stands in brackets. The GPU is the target's `device`."""

    has_user_compute_stream: bool | None = None
    """Whether `user_compute_stream` holds a stream; ONNX Runtime concludes that itself (false)."""

    user_compute_stream: Pointer | None = None
    """The address of a caller's `cudaStream_t` to run on; not 0, which stands for none (none)."""

    gpu_mem_limit: Bytes | None = None
    """How many bytes ONNX Runtime's memory arena may take; cuDNN, the CUDA context and more come on top (no limit)."""

    arena_extend_strategy: Literal["kNextPowerOfTwo", "kSameAsRequested"] | None = None
    """How the arena grows: by powers of two, or by what was asked for (kNextPowerOfTwo)."""

    cudnn_conv_algo_search: Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] | None = None
    """How a convolution finds its algorithm for a new shape: by trying all, by guessing, not at all (EXHAUSTIVE)."""

    cudnn_conv_use_max_workspace: bool | None = None
    """Whether convolutions may take as much memory as they like; else 32 MB (true)."""

    cudnn_conv1d_pad_to_nc1d: bool | None = None
    """Whether one-dimensional convolutions are padded to [N, C, 1, D] instead of [N, C, D, 1] (false)."""

    do_copy_in_default_stream: bool | None = None
    """Whether copies run on the stream of the computation; turned off, they can race with it (true)."""

    gpu_external_alloc: Pointer | None = None
    """The address of a function that allocates device memory in place of the arena, PyTorch's for one (none)."""

    gpu_external_free: Pointer | None = None
    """The address of the function that frees what `gpu_external_alloc` gave (none)."""

    gpu_external_empty_cache: Pointer | None = None
    """The address of a function that returns the external allocator's unused memory (none)."""

    enable_cuda_graph: bool | None = None
    """Whether runs are replayed as a CUDA graph: fixed shapes, bound device buffers, one run at a time (false)."""

    tunable_op_enable: bool | None = None
    """Whether operators with several implementations take the one that tuning found (false)."""

    tunable_op_tuning_enable: bool | None = None
    """Whether such operators are tuned while running (false)."""

    tunable_op_max_tuning_duration_ms: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """The most milliseconds that tuning one operator may take; 0 is no bound (0)."""

    enable_skip_layer_norm_strict_mode: bool | None = None
    """Whether SkipLayerNormalization computes in float32; deprecated (false)."""

    prefer_nhwc: bool | None = None
    """Whether convolutions and pooling run in NHWC layout, with transposes where the graph needs them (false)."""

    use_ep_level_unified_stream: bool | None = None
    """Whether the whole session runs on one CUDA stream (false)."""

    use_tf32: bool | None = None
    """Whether float32 products use TF32 on Ampere and newer: faster, about three decimal digits (true)."""

    fuse_conv_bias: bool | None = None
    """Whether convolution and bias run as one kernel, which cuDNN compiles at first use (false)."""

    sdpa_kernel: Annotated[int, Field(ge=0, le=127)] | None = None
    """The attention kernels to choose from, as a sum: 1 flash, 2 memory-efficient, 4 TensorRT, 8 cuDNN, 16 math,
    32 TensorRT flash, 64 TensorRT cross; 0 leaves the choice to ONNX Runtime (0)."""

    enable_cudnn: bool | None = None
    """Whether cuDNN is used; without it convolutions and some others have no kernel (true)."""

    @model_validator(mode="before")
    @classmethod
    def _device_stands_elsewhere(cls, values: object) -> object:
        if isinstance(values, dict) and "device_id" in values:
            raise ValueError(f"device_id is not an option here: write `device = {values['device_id']}` on the target")
        return values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for option, needed in _NEEDS.items():
            if getattr(self, option) and not getattr(self, needed):
                raise ValueError(f"{option} has no effect without {needed} = true")
        if self.has_user_compute_stream and not self.user_compute_stream:
            raise ValueError("has_user_compute_stream = true needs user_compute_stream")
        if self.has_user_compute_stream is False and self.user_compute_stream:
            raise ValueError("user_compute_stream is used, whatever has_user_compute_stream = false says: drop one")
        if bool(self.gpu_external_alloc) != bool(self.gpu_external_free):
            raise ValueError("gpu_external_alloc and gpu_external_free come together")
        if self.gpu_external_empty_cache and not self.gpu_external_alloc:
            raise ValueError("gpu_external_empty_cache has no effect without gpu_external_alloc and gpu_external_free")
        if self.gpu_external_alloc and self.user_compute_stream:
            raise ValueError("user_compute_stream cannot be combined with gpu_external_alloc")
        if self.enable_cudnn is False:
            for option in _CUDNN:
                if getattr(self, option):
                    raise ValueError(f"{option} has no effect with enable_cudnn = false")
            if (self.sdpa_kernel or 0) & _SDPA_CUDNN:
                raise ValueError("sdpa_kernel asks for cuDNN (8), which enable_cudnn = false turns off")
        return self
