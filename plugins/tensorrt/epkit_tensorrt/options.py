"""Which options does the TensorRT provider take, and which of them contradict each other?

Names and types are those of the Python API of ONNX Runtime 1.31, which reads whole numbers as plain digits.
"""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from epkit.provider import Options
from epkit_tensorrt import profiles

Bytes = Annotated[int, Field(ge=0, le=2**64 - 1)]
Pointer = Annotated[int, Field(ge=1, le=2**64 - 1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_TACTIC = r"[+-](CUBLAS|CUBLAS_LT|CUDNN|EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS)"

# An option that does nothing unless one of the others is on.
_NEEDS = {
    "trt_int8_calibration_table_name": ("trt_int8_enable",),
    "trt_int8_use_native_calibration_table": ("trt_int8_enable",),
    "trt_dla_enable": ("trt_fp16_enable", "trt_int8_enable"),
    "trt_dla_core": ("trt_dla_enable",),
    "trt_layer_norm_fp32_fallback": ("trt_fp16_enable",),
    "trt_engine_cache_path": (
        "trt_engine_cache_enable",
        "trt_timing_cache_enable",
        "trt_int8_enable",
        "trt_dump_ep_context_model",
    ),
    "trt_engine_cache_prefix": ("trt_engine_cache_enable", "trt_dump_ep_context_model"),
    "trt_engine_decryption_lib_path": ("trt_engine_decryption_enable",),
    "trt_timing_cache_path": ("trt_timing_cache_enable",),
    "trt_force_timing_cache": ("trt_timing_cache_enable",),
    "trt_ep_context_file_path": ("trt_dump_ep_context_model",),
    "trt_ep_context_embed_mode": ("trt_dump_ep_context_model",),
}
# The provider has these too, but ONNX Runtime's Python API refuses them: "Invalid TensorRT EP option".
_NOT_IN_PYTHON = (
    "has_user_compute_stream",
    "trt_onnx_bytestream",
    "trt_onnx_bytestream_size",
    "trt_external_data_bytestream",
    "trt_external_data_bytestream_size",
    "trt_load_user_initializer",
)
_PROFILES = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")


class TensorRTOptions(Options):
    """Options of `tensorrt`; ONNX Runtime's default stands in brackets. The GPU is the target's `device`."""

    native_options = ("trt_extra_plugin_lib_paths", "trt_engine_decryption_lib_path")
    writing_options = ("trt_ep_context_file_path",)

    user_compute_stream: Pointer | None = None
    """The address of a caller's `cudaStream_t` to run on; not 0, which stands for none (none)."""

    trt_max_partition_iterations: Count | None = None
    """How often the model is split anew until TensorRT accepts all parts it was given; then it takes none (1000)."""

    trt_min_subgraph_size: Count | None = None
    """How many nodes a part of the model must have to be given to TensorRT (1)."""

    trt_max_workspace_size: Bytes | None = None
    """How many bytes of scratch memory an engine may take; 0 is all of the device's (0)."""

    trt_fp16_enable: bool | None = None
    """Whether TensorRT may compute in float16 (false)."""

    trt_bf16_enable: bool | None = None
    """Whether TensorRT may compute in bfloat16 (false)."""

    trt_int8_enable: bool | None = None
    """Whether TensorRT may compute in int8, by a calibration table or the model's own Q/DQ nodes (false)."""

    trt_int8_calibration_table_name: str | None = None
    """The file name of the int8 calibration table, in `trt_engine_cache_path` (none)."""

    trt_int8_use_native_calibration_table: bool | None = None
    """Whether that table was written by TensorRT; else by ONNX Runtime's quantization tools (false)."""

    trt_dla_enable: bool | None = None
    """Whether layers run on a Deep Learning Accelerator, which Jetson and DRIVE boards have (false)."""

    trt_dla_core: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Which of those accelerators (0)."""

    trt_dump_subgraphs: bool | None = None
    """Whether the parts that TensorRT takes are written as ONNX files, for debugging (false)."""

    trt_engine_cache_enable: bool | None = None
    """Whether engines are kept on disk. Their name hashes the model's file name, not its weights (false)."""

    trt_engine_cache_path: str | None = None
    """The directory of engines, profiles and the calibration table (the working directory)."""

    trt_engine_cache_prefix: str | None = None
    """What the names of the engine files begin with (TensorrtExecutionProvider)."""

    trt_engine_decryption_enable: bool | None = None
    """Whether kept engines are encrypted and decrypted by a library of yours (false)."""

    trt_engine_decryption_lib_path: str | None = None
    """The library that does so, with the functions `encrypt` and `decrypt`; it is native code (none)."""

    trt_force_sequential_engine_build: bool | None = None
    """Whether engines are built one after the other where sessions on several GPUs build at once (false)."""

    trt_context_memory_sharing_enable: bool | None = None
    """Whether the engines of a session share their scratch memory (false)."""

    trt_layer_norm_fp32_fallback: bool | None = None
    """Whether Pow and ReduceMean of a layer normalisation stay in float32 in a float16 engine (false)."""

    trt_timing_cache_enable: bool | None = None
    """Whether measured kernel times are kept on disk, which makes later builds faster, of other models too (false)."""

    trt_timing_cache_path: str | None = None
    """The directory of that timing cache (`trt_engine_cache_path`)."""

    trt_force_timing_cache: bool | None = None
    """Whether a timing cache of a GPU with the same compute capability but another name is taken (false)."""

    trt_detailed_build_log: bool | None = None
    """Whether every step of a build is logged, with its time (false)."""

    trt_build_heuristics_enable: bool | None = None
    """Whether a build guesses instead of measuring; deprecated for `trt_builder_optimization_level` 2 (false)."""

    trt_sparsity_enable: bool | None = None
    """Whether weights with two zeros in every four may use sparse kernels (false)."""

    trt_builder_optimization_level: Annotated[int, Field(ge=0, le=5)] | None = None
    """How long a build searches, from 0 to 5; below 3 the engine is likely slower (3)."""

    trt_auxiliary_streams: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    """How many streams an engine may use beside its main one: -1 lets TensorRT choose, 0 saves memory (-1)."""

    trt_tactic_sources: Annotated[str, StringConstraints(pattern=rf"^{_TACTIC}(,{_TACTIC})*$")] | None = None
    """The libraries whose kernels an engine may use, added by + and removed by -: `-CUDNN,+CUBLAS` (TensorRT's)."""

    trt_extra_plugin_lib_paths: str | None = None
    """Libraries of TensorRT plugins to load, separated by `;`; they are native code (none)."""

    trt_profile_min_shapes: str | None = None
    """The smallest shapes that an engine must take, `images:1x3x224x224,mask:1x16`, for every dynamic input (none)."""

    trt_profile_opt_shapes: str | None = None
    """The shapes that an engine is tuned for, spelt alike (none)."""

    trt_profile_max_shapes: str | None = None
    """The largest shapes that an engine must take, spelt alike (none)."""

    trt_cuda_graph_enable: bool | None = None
    """Whether runs are captured and replayed as a CUDA graph: one engine, fixed shapes, bound buffers (false)."""

    trt_preview_features: str | None = None
    """Names of TensorRT's preview features to turn on, separated by commas (none)."""

    trt_dump_ep_context_model: bool | None = None
    """Whether the compiled model is written as an ONNX file that opens without compiling, on the same GPU (false)."""

    trt_ep_context_file_path: str | None = None
    """The file or directory of that compiled model (beside the model)."""

    trt_ep_context_embed_mode: Annotated[int, Field(ge=0, le=1)] | None = None
    """Whether it names its engine's file (0) or holds the engine itself (1), which loads more slowly (0)."""

    trt_weight_stripped_engine_enable: bool | None = None
    """Whether engines are built and kept without weights, which are filled in from the model when it opens (false)."""

    trt_onnx_model_folder_path: str | None = None
    """The directory of the ONNX model with the weights of a weight-stripped engine (that of the model)."""

    trt_engine_hw_compatible: bool | None = None
    """Whether an engine runs on all GPUs from Ampere on, more slowly, and not only on the one that built it (false)."""

    trt_op_types_to_exclude: str | None = None
    """Operators that TensorRT does not get, separated by commas: `NonMaxSuppression,NonZero,RoiAlign` (none)."""

    @model_validator(mode="before")
    @classmethod
    def _stand_elsewhere(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        if "device_id" in values:
            raise ValueError(f"device_id is not an option here: write `device = {values['device_id']}` on the target")
        for option in _NOT_IN_PYTHON:
            if option in values:
                raise ValueError(f"{option} cannot be set: ONNX Runtime's Python API refuses it")
        return values

    @field_validator(*_PROFILES)
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text:
            profiles.parse(text)
        return text

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for option, needed in _NEEDS.items():
            if getattr(self, option) and not any(getattr(self, one) for one in needed):
                raise ValueError(f"{option} has no effect without {' or '.join(needed)}")
        if self.trt_engine_decryption_enable and not self.trt_engine_decryption_lib_path:
            raise ValueError("trt_engine_decryption_enable needs trt_engine_decryption_lib_path")
        if self.trt_dump_ep_context_model and not _below(self.trt_engine_cache_path or ""):
            raise ValueError(
                "trt_engine_cache_path must be relative and without '..' with trt_dump_ep_context_model: "
                "the engine has to lie below the compiled model"
            )
        self._check_profiles()
        return self

    def _check_profiles(self) -> None:
        texts = {name: getattr(self, name) for name in _PROFILES}
        given = [name for name, text in texts.items() if text]
        if given and len(given) < len(texts):
            missing = [name for name in texts if name not in given]
            raise ValueError(f"{' and '.join(given)} without {' and '.join(missing)}: a profile has all three or none")
        if given:
            profiles.check_order(*(profiles.parse(text) for text in texts.values()))


def _below(path: str) -> bool:
    kinds = (PurePosixPath(path), PureWindowsPath(path))
    return not any(kind.is_absolute() or ".." in kind.parts for kind in kinds)
