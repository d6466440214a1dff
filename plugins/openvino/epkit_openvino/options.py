"""Which options does OpenVINO take, and which of them does its plugin library silently ignore?

Names in capitals are OpenVINO's properties, which travel as one JSON text (`load_config`); the others are options of
the plugin library itself, which ignores those that it does not know. Checked against OpenVINO 2026.4 on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from epkit.provider import Options

_DEVICE = "write device on the target: CPU, GPU or NPU"
_NOTHING = "OpenVINO's plugin library knows it no longer: leave it out"

WRITE_INSTEAD = {
    "load_config": "write the properties themselves beside it, like NUM_STREAMS = 2",
    "device_type": _DEVICE,
    "device_id": _DEVICE,
    "device_luid": _DEVICE,
    "precision": 'write INFERENCE_PRECISION_HINT = "f32", "f16" or "bf16"',
    "num_of_threads": "write INFERENCE_NUM_THREADS",
    "num_streams": "write NUM_STREAMS",
    "cache_dir": "write CACHE_DIR",
    "model_priority": "write MODEL_PRIORITY",
    "enable_opencl_throttling": 'write GPU_QUEUE_THROTTLE = "LOW"',
    "enable_qdq_optimizer": "write NPU_QDQ_OPTIMIZATION = true",
    "disable_dynamic_shapes": "write the shapes into reshape_input",
    "layout": _NOTHING,
    "context": _NOTHING,
}
"""Options of the OpenVINO provider that older ONNX Runtimes had built in, and what to write today."""

_INPUT = re.compile(r"\s*([^\s\[\],]+)\s*\[([^\[\]]*)\]\s*")
_DIMENSION = re.compile(r"\s*[0-9]+(\.\.[0-9]+)?\s*")


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {value!r}")
    return value


def _streams(value: object) -> str:
    text = str(value)
    if text in ("AUTO", "NUMA") or (not isinstance(value, bool) and re.fullmatch("[1-9][0-9]{0,8}", text)):
        return text
    raise ValueError(f"must be AUTO, NUMA or a whole number from 1, not {value!r}")


Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=2**31 - 1)]
Positive = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=2**31 - 1)]
Share = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1)]
Streams = Annotated[str, BeforeValidator(_streams)]
Text = Annotated[str, Field(min_length=1)]
Priority = Literal["LOW", "MEDIUM", "HIGH"]
CachePrecision = Literal["u3", "u4", "u8", "f16", "bf16", "f32"]


class OpenVinoOptions(Options):
    """Options of `openvino`; OpenVINO's default stands in brackets. Which device it is, is the target's `device`."""

    PERFORMANCE_HINT: Literal["LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT"] | None = None
    """What to be fast at: one request, or many side by side; it decides streams and threads (LATENCY)."""

    PERFORMANCE_HINT_NUM_REQUESTS: Count | None = None
    """How many requests will run side by side, to help THROUGHPUT decide; 0 is unknown (0)."""

    EXECUTION_MODE_HINT: Literal["PERFORMANCE", "ACCURACY"] | None = None
    """Whether OpenVINO may lower the precision for speed, or may not (PERFORMANCE)."""

    INFERENCE_PRECISION_HINT: Literal["f32", "f16", "bf16"] | None = None
    """The precision to compute in (f16 on GPU and NPU; on the CPU the lowest that it computes fast)."""

    NUM_STREAMS: Streams | None = None
    """How many requests run side by side: AUTO, NUMA (one a NUMA node) or a number (PERFORMANCE_HINT decides)."""

    CACHE_DIR: Text | None = None
    """The folder for compiled models, which later sessions load instead of compiling (none)."""

    CACHE_MODE: Literal["OPTIMIZE_SPEED", "OPTIMIZE_SIZE"] | None = None
    """Whether what is cached loads fast or is small, without weights (OPTIMIZE_SPEED)."""

    ENABLE_MMAP: bool | None = None
    """Whether weights are mapped from their file rather than read (true)."""

    ENABLE_CPU_PINNING: bool | None = None
    """Whether threads stay on their cores (by platform)."""

    ENABLE_CPU_RESERVATION: bool | None = None
    """Whether a session keeps its cores from later ones of the process, which fail when none is left (false)."""

    LOG_LEVEL: Literal["LOG_NONE", "LOG_ERROR", "LOG_WARNING", "LOG_INFO", "LOG_DEBUG", "LOG_TRACE"] | None = None
    """What OpenVINO logs (LOG_NONE)."""

    INFERENCE_NUM_THREADS: Count | None = None
    """CPU: how many threads to compute with; 0 is OpenVINO's choice (0)."""

    ENABLE_HYPER_THREADING: bool | None = None
    """CPU: whether to use both threads of a core (PERFORMANCE_HINT decides)."""

    SCHEDULING_CORE_TYPE: Literal["ANY_CORE", "PCORE_ONLY", "ECORE_ONLY"] | None = None
    """CPU: whether to use performance cores, efficiency cores or both (ANY_CORE)."""

    MODEL_DISTRIBUTION_POLICY: Literal["TENSOR_PARALLEL"] | None = None
    """CPU: split each operator over the sockets (not split)."""

    CPU_DENORMALS_OPTIMIZATION: bool | None = None
    """CPU: whether denormal numbers are treated as zero, faster and slightly less exact (false)."""

    CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE: Share | None = None
    """CPU: the share of zeros, 0 to 1, from which on int8 weights are stored compressed (1)."""

    TBB_PARTITIONER: Literal["STATIC", "AUTO"] | None = None
    """CPU: how work is split among threads: once, or as they become free (OpenVINO's choice)."""

    DYNAMIC_QUANTIZATION_GROUP_SIZE: Count | None = None
    """How many activations share a scale when they are quantized for compressed weights; 0 is off (by device)."""

    KV_CACHE_PRECISION: CachePrecision | None = None
    """The precision of keys and values that are kept between runs (u8 on the CPU)."""

    KEY_CACHE_PRECISION: Literal["u3", "u4", "u8", "i8", "f16", "bf16", "f32"] | None = None
    """CPU: the precision of the keys alone (KV_CACHE_PRECISION)."""

    VALUE_CACHE_PRECISION: CachePrecision | None = None
    """CPU: the precision of the values alone (KV_CACHE_PRECISION)."""

    KEY_CACHE_GROUP_SIZE: Count | None = None
    """CPU: how many numbers of a key share a scale (OpenVINO's choice)."""

    VALUE_CACHE_GROUP_SIZE: Count | None = None
    """CPU: how many numbers of a value share a scale (OpenVINO's choice)."""

    MODEL_PRIORITY: Priority | None = None
    """GPU, NPU: which model goes first when several want the device (MEDIUM)."""

    COMPILATION_NUM_THREADS: Positive | None = None
    """GPU, NPU: how many threads compile the model (as many as the host has)."""

    WORKLOAD_TYPE: Literal["DEFAULT", "EFFICIENT"] | None = None
    """NPU: whether to save power at the cost of speed (DEFAULT)."""

    ACTIVATIONS_SCALE_FACTOR: Annotated[float, BeforeValidator(_no_bool), Field(gt=0)] | None = None
    """GPU: what activations are divided by where float16 would overflow (off)."""

    GPU_QUEUE_PRIORITY: Priority | None = None
    """GPU: the priority of its command queue (MEDIUM)."""

    GPU_QUEUE_THROTTLE: Priority | None = None
    """GPU: how hard its command queue is driven; LOW saves power (MEDIUM)."""

    GPU_HOST_TASK_PRIORITY: Priority | None = None
    """GPU: HIGH compiles on performance cores, LOW on efficiency cores (MEDIUM)."""

    GPU_ENABLE_LOOP_UNROLLING: bool | None = None
    """GPU: whether loops of fixed length are unrolled: faster runs, slower compiling (true)."""

    GPU_DISABLE_WINOGRAD_CONVOLUTION: bool | None = None
    """GPU: whether to leave out Winograd convolutions, which are less exact (false)."""

    GPU_ENABLE_SDPA_OPTIMIZATION: bool | None = None
    """GPU: whether attention is kept as one operator (true)."""

    GPU_ENABLE_KERNELS_REUSE: bool | None = None
    """GPU: whether operators share kernels: less memory, slower where the host is the limit (false)."""

    GPU_ENABLE_LARGE_ALLOCATIONS: bool | None = None
    """GPU: whether one buffer may have more than 4 GB, at the cost of speed (false)."""

    NPU_TURBO: bool | None = None
    """NPU: whether it stays at its highest frequency (false)."""

    NPU_TILES: Positive | None = None
    """NPU: how many tiles to compile for (all)."""

    NPU_COMPILER_TYPE: Literal["DRIVER", "PLUGIN", "PREFER_PLUGIN"] | None = None
    """NPU: whose compiler to use (by device)."""

    NPU_COMPILATION_MODE_PARAMS: Text | None = None
    """NPU: settings of its compiler, like "optimization-level=2" (none)."""

    NPU_COMPILER_DYNAMIC_QUANTIZATION: bool | None = None
    """NPU: whether the compiler quantizes activations for compressed weights (false)."""

    NPU_QDQ_OPTIMIZATION: bool | None = None
    """NPU: whether to optimize models that ONNX Runtime quantized, balancing speed and accuracy (false)."""

    NPU_QDQ_OPTIMIZATION_AGGRESSIVE: bool | None = None
    """NPU: whether to optimize such models for speed alone (false)."""

    NPU_BYPASS_UMD_CACHING: bool | None = None
    """NPU: whether to pass by the driver's own cache of compiled models (false)."""

    NPU_DEFER_WEIGHTS_LOAD: bool | None = None
    """NPU: whether weights are loaded with the first run (false)."""

    NPU_RUN_INFERENCES_SEQUENTIALLY: bool | None = None
    """NPU: whether runs go in the order in which they were started (false)."""

    NPU_DISABLE_IDLE_MEMORY_PRUNING: bool | None = None
    """NPU: whether memory is kept while idle (false)."""

    reshape_input: str | None = None
    """The shapes of inputs to compile for, fixed or as ranges: "image[1..8,3,224,224],mask[1,16]" (dynamic)."""

    enable_causallm: bool | None = None
    """Whether the model is a language model that keeps its keys and values between runs (false)."""

    extra: dict[str, str] = Field(default_factory=dict)
    """Options newer than epkit, unchecked: in capitals OpenVINO's properties, else options of its plugin library."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_ignored(cls, written: object) -> object:
        faults = [
            InitErrorDetails(type="value_error", loc=(name,), input=value, ctx={"error": WRITE_INSTEAD[name]})
            for name, value in (written.items() if isinstance(written, Mapping) else ())
            if name in WRITE_INSTEAD
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return written

    @field_validator("extra")
    @classmethod
    def _refuse_what_is_ignored_there_too(cls, extra: dict[str, str]) -> dict[str, str]:
        for name in extra:
            if name in WRITE_INSTEAD:
                raise ValueError(f"{name} would be ignored: {WRITE_INSTEAD[name]}")
        return extra

    @field_validator("reshape_input")
    @classmethod
    def _parse_reshape(cls, written: str | None) -> str | None:
        if written is not None and not shapes(written):
            raise ValueError(f"must look like 'image[1..8,3,224,224],mask[1,16]', not {written!r}")
        return written

    @model_validator(mode="after")
    def _refuse_what_has_no_effect(self) -> Self:
        if self.CACHE_MODE is not None and self.CACHE_DIR is None:
            raise ValueError("CACHE_MODE has no effect without CACHE_DIR")
        return self


def shapes(reshape_input: str) -> dict[str, tuple[str, ...]]:
    """Read `reshape_input`: each input's dimensions, as text; empty when the text is not of that form."""
    found: dict[str, tuple[str, ...]] = {}
    rest = reshape_input
    while match := _INPUT.match(rest):
        dimensions = match[2].split(",")
        rest = rest[match.end() :]
        if match[1] in found or not all(_DIMENSION.fullmatch(one) for one in dimensions):
            return {}
        found[match[1]] = tuple(one.strip() for one in dimensions)
        if not rest:
            return found
        if not rest.startswith(","):
            return {}
        rest = rest[1:]
    return {}
