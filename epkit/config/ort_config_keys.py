"""List the config entries that an ONNX Runtime session knows, and the values that each may hold.

ONNX Runtime ignores a key that it does not know and most values that make no sense, and a few such values end the
process (`mlas.kleidiai.conv_igemm_max_work = "x"`). So each key of ONNX Runtime 1.31 stands here with its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from epkit.config.ort_config_values import (
    Affinities,
    BlockSize,
    Count,
    Flag,
    Fraction,
    Layers,
    Level2,
    Level4,
    MemoryLimit,
    ModelFormat,
    Positive,
    Rows,
    Shapes,
    SmallCount,
    SmallPositive,
    Text,
)

_PROPERTIES = """
    enable_cpu_mem_arena enable_mem_pattern enable_mem_reuse enable_profiling execution_mode execution_order
    graph_optimization_level inter_op_num_threads intra_op_num_threads log_severity_level log_verbosity_level
    optimized_model_filepath profile_file_prefix use_deterministic_compute use_per_session_threads
"""

WRITE_INSTEAD: dict[str, str] = {
    "session.record_ep_graph_assignment_info": "epkit always turns it on: leave it out",
    "session.disable_cpu_ep_fallback": "write cpu = false on the target",
    "session.compile_only": "ONNX Runtime sets it while it compiles a model: leave it out",
    "memory.enable_memory_arena_shrinkage": "it belongs to a run, not to a session: leave it out",
    "session.log_id": "it does nothing as a config entry: write logid beside config",
} | {
    f"session.{name}": f"it does nothing as a config entry: write {name} beside config" for name in _PROPERTIES.split()
}
"""Keys that ONNX Runtime knows and a config may not hold, and what to do instead."""


class ConfigEntries(BaseModel):
    """The config entries of a session, by ONNX Runtime's own keys; in a field's name, two underscores are a dot.

    Values are kept as the text that ONNX Runtime wants; true and false may be written for "1" and "0".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=lambda name: name.replace("__", "."))

    # Threads
    session__intra_op__allow_spinning: Flag = None
    """Let idle threads of one operator spin before they sleep; "0" saves processor time on a shared host; default 1."""
    session__intra_op__spin_duration_us: SmallCount = None
    """How many microseconds such a thread spins, about; default: a number of turns, not a time."""
    session__intra_op__spin_backoff_max: SmallPositive = None
    """How far the pauses between two looks grow while spinning, at most 64; default 1, no growth."""
    session__inter_op__allow_spinning: Flag = None
    """Let idle threads between operators spin before they sleep; only with ORT_PARALLEL; default 1."""
    session__inter_op__spin_duration_us: SmallCount = None
    """How many microseconds such a thread spins, about; default: a number of turns, not a time."""
    session__inter_op__spin_backoff_max: SmallPositive = None
    """How far the pauses between two looks grow while spinning, at most 64; default 1, no growth."""
    session__force_spinning_stop: Flag = None
    """Stop all spinning as soon as the last run returns; default 0."""
    session__intra_op_thread_affinities: Affinities = None
    """The processors of each thread but the calling one ("1,2;3-4"), counted from 1; default: physical cores."""
    session__dynamic_block_base: SmallCount = None
    """Hand work to threads in shrinking blocks, from 1/(threads x this) on ("4"); steadier times; default 0, off."""
    session__set_denormal_as_zero: Flag = None
    """Treat denormal numbers as zero: faster where they are many, slightly less exact; default 0."""
    session__node_partition_config_file: Text = None
    """File that assigns nodes to logic streams; default: none."""

    # Memory and weights
    session__use_env_allocators: Flag = None
    """Use the allocators registered with the process, so that sessions share an arena; default 0."""
    session__use_device_allocator_for_initializers: Flag = None
    """Allocate weights outside the arena; default 0."""
    session__disable_prepacking: Flag = None
    """Leave weights in their own layout: less memory, slower matrix products; default 0."""
    session__prepack__enable_parallel: Flag = None
    """Rearrange weights on several threads while loading; default 0."""
    session__save_external_prepacked_constant_initializers: Flag = None
    """Write rearranged weights into the external data of the optimized model; default 0."""
    session__use_external_initializer_file_buffers_directly: Flag = None
    """Use external weights given as buffers without a copy; default 0."""
    session__model_external_initializers_file_folder_path: Text = None
    """Folder of the model's external data; default: the model's own folder."""
    session__collect_node_memory_stats_to_file: Text = None
    """CSV file, relative to the model's folder, for each node's memory; turn enable_mem_pattern off; default: none."""
    session__resource_cuda_partitioning_settings: MemoryLimit = None
    """Memory limit of CUDA in KB and a file of node statistics, either may be empty; default: no limit."""
    session__max_shape_override: Shapes = None
    """The largest shapes of dynamic inputs, for estimates of memory only; default: none."""
    session__strict_workspace_verification: Flag = None
    """Fail when a node declares more workspace than was reserved for it; default 0, a warning."""

    # Where nodes run
    session__layer_assignment_settings: Layers = None
    """Devices by the nodes' "layer_ann" annotations, by prefix or (with =) exactly; default: none."""
    session__name_based_layer_assignment: Layers = None
    """Devices by parts of the nodes' names; not together with layer_assignment_settings; default: none."""

    # Graph optimization
    optimization__disable_specified_optimizers: Text = None
    """Optimizers to leave out, by name, separated by commas; an unknown name is ignored; default: none."""
    optimization__enable_gelu_approximation: Flag = None
    """Replace Gelu by a faster, less exact form; default 0."""
    optimization__enable_cast_chain_elimination: Flag = None
    """Drop intermediate casts, which may change results; default 0."""
    optimization__constant_folding_max_output_size_in_bytes: Count = None
    """The largest constant that folding may make of one node, in bytes; 0 is no limit; default 1073741824."""
    optimization__minimal_build_optimizations: Literal["save", "apply"] | None = None
    """Save optimizations for, or apply only those of, a minimal build; default: those of a full build."""
    session__graph_optimizations_loop_level: Level2 = None
    """Repeat the optimizations: "0" never, "1" after layout changes, "2" after any change; default 1."""
    session__disable_aot_function_inlining: Flag = None
    """Do not inline the model's functions before it is split among providers; default 0."""
    session__function_expansion_node_limit: Positive = None
    """The most nodes that expanding the model's functions may create; default: ONNX Runtime's limit."""
    session__function_expansion_byte_limit: Positive = None
    """The most bytes that expanding the model's functions may take; default: ONNX Runtime's limit."""
    session__debug_layout_transformation: Flag = None
    """Write the model to the working directory after each step of a layout change; default 0."""

    # Quantization
    session__disable_quant_qdq: Flag = None
    """Do not fuse QuantizeLinear and DequantizeLinear with the nodes between them; default 0."""
    session__disable_qdq_constant_folding: Flag = None
    """Keep DequantizeLinear nodes whose inputs are constant; default 0."""
    session__disable_double_qdq_remover: Flag = None
    """Keep pairs of quantization nodes that undo each other; default 0."""
    session__enable_quant_qdq_cleanup: Flag = None
    """Remove quantization pairs that are left at the end: faster, may cost accuracy; default 0."""
    session__qdqisint8allowed: Flag = None
    """Allow signed 8-bit weights, when saving an ORT model for Arm; default: by platform."""
    session__x64quantprecision: Flag = None
    """Avoid overflow of 8-bit products on AVX2 and AVX512 without VNNI, at lower speed; default 0."""
    session__enable_dq_matmulnbits_fusion: Flag = None
    """Turn DequantizeLinear and MatMul into MatMulNBits; default 0."""
    session__qdq_matmulnbits_accuracy_level: Level4 = None
    """Accuracy level of those MatMulNBits: 0 unset, 1 float32, 2 float16, 3 bfloat16, 4 int8; default 4."""
    session__qdq_matmulnbits_block_size: BlockSize = None
    """Their block size: a power of two from 16 on, 0 for 32, -1 to choose by padding; default 0."""
    mlas__qnbit__force_fp32: Flag = None
    """Compute n-bit products in float32; default 0."""
    mlas__use_lut_gemm: Flag = None
    """Use look-up tables for quantized products where there are any; default 0."""

    # Processor kernels
    mlas__nchwc_depthwise_sliding: Flag = None
    """Use the sliding kernel for depthwise convolutions in blocked layout; default: ONNX Runtime's choice."""
    mlas__nchwc_pointwise_conv_max_input_channel_batch: Count = None
    """How many input channels a 1x1 convolution in blocked layout takes at once; default 0, ONNX Runtime's choice."""
    mlas__disable_kleidiai: Flag = None
    """Arm only: do not use KleidiAI kernels; default 0."""
    mlas__kleidiai__conv_igemm_max_work: Count = None
    """Arm only: the largest convolution that KleidiAI's direct route takes; 0 is its own choice; default 0."""
    mlas__enable_gemm_fastmath_arm64_bfloat16: Flag = None
    """Arm only: compute float32 products in bfloat16; default 0."""

    # Checks of the model
    session__strict_shape_type_inference: Flag = None
    """Fail on any contradiction in shapes or types, which is otherwise a warning; default 0."""
    session__allow_released_opsets_only: Flag = None
    """Refuse models of an unreleased opset; 1.31 looks only at ALLOW_RELEASED_ONNX_OPSET_ONLY in the environment."""

    # Reading and writing models
    session__load_model_format: ModelFormat = None
    """Format of the model; default: by file name or content."""
    session__save_model_format: ModelFormat = None
    """Format of optimized_model_filepath; default: ORT when it ends in .ort, else ONNX."""
    session__optimized_model_external_initializers_file_name: Text = None
    """External data file for the weights of the optimized model; default: none, they stay in the model."""
    session__optimized_model_external_initializers_min_size_in_bytes: Count = None
    """The smallest weight that goes to that file, in bytes; default: ONNX Runtime's."""
    session__use_ort_model_bytes_directly: Flag = None
    """Use the bytes of an ORT model without copying them; default 0."""
    session__use_ort_model_bytes_for_initializers: Flag = None
    """Let weights point into those bytes; default 0. Both are refused for a model given as bytes, not by its path."""
    session__use_memory_mapped_ort_model: Flag = None
    """Map an ORT model file instead of reading it; default 0."""
    session__enable_saved_runtime_optimizations: Flag = None
    """Apply the optimizations saved in an ORT model; default 0."""

    # Compiled models
    ep__context_enable: Flag = None
    """Write a model that holds what the providers compiled; fails when the file exists; default 0."""
    ep__context_file_path: Text = None
    """File of that model; default: the model's name with _ctx."""
    ep__context_embed_mode: Flag = None
    """Put what was compiled into that model, not into a file beside it; default 0."""
    ep__context_node_name_prefix: Text = None
    """Prefix of its nodes' names, to join several such models; default: none."""
    ep__context_model_external_initializers_file_name: Text = None
    """File for its weights; default: none, they stay in the model."""
    ep__context_source_model_path: Text = None
    """The original model, from which one without weights reads them; default: the path stored in it."""
    ep__enable_weightless: Flag = None
    """Ask the providers not to copy weights into what they compile; default 0."""
    ep__share_ep_contexts: Flag = None
    """Share what was compiled among sessions; default 0."""
    ep__stop_share_ep_contexts: Flag = None
    """Stop sharing from this session on; default 0."""
    session__disable_model_compile: Flag = None
    """Fail when a provider would have to compile the model; default 0."""
    session__fail_on_suboptimal_compiled_model: Flag = None
    """Fail when a compiled model would run faster if compiled anew; default 0."""

    # Mixture of experts and attention
    session__enable_moe_expert_counting: Flag = None
    """Count how often each expert is used; default 0."""
    session__enable_moe_expert_statistics: Flag = None
    """Count, and log the counters after each such node; default 0."""
    session__moe_expert_counter_alpha: Fraction = None
    """How much of an expert's counter stays after a run; with beta at most 1; default 0.9."""
    session__moe_expert_counter_beta: Fraction = None
    """What a use adds to an expert's counter; default 0.1."""
    session__moe_expert_counter_state_file: Text = None
    """File with the counters to begin with; default: all zero."""
    session__gqa_value_layout: Literal["BNSH", "BNHS"] | None = None
    """Layout of the value cache bound to GroupQueryAttention; default BNSH."""

    # CUDA kernels
    ep__cuda__enable_gemm_auto_tune: Flag = None
    """Measure which kernel is fastest for small float16 and bfloat16 products; default 0, cuBLAS."""
    ep__cuda__fpa_intb_gemm: Flag = None
    """Use the kernels for float activations with integer weights in MatMulNBits; default 0."""
    ep__cuda__fpa_intb_gemv_paired_k: Text = None
    """Variant of those kernels for few rows; default: ONNX Runtime's choice."""
    ep__cuda__fpa_intb_gemv_wave_aware: Flag = None
    """Fit those kernels to the size of the GPU; default: ONNX Runtime's choice."""
    ep__cuda__fpa_intb_profile_m: Rows = None
    """The numbers of rows for which those kernels are measured at first; default: ONNX Runtime's list."""
    ep__cuda__gqa_workspace_max_total_sequence_length: Count = None
    """The longest sequence for which GroupQueryAttention's workspace is estimated; default 0, unknown."""
    ep__cuda__matmul_nbits_m_chunk_size: Count = None
    """Compute large MatMulNBits in chunks of this many rows, to save memory; default 0, whole."""
    ep__cuda__qmoe_int_dequant_max_scratch_bytes: Positive = None
    """The most bytes that QMoE may use to expand integer weights; default 1073741824."""
    ep__cuda__qmoe_row_tile_size: Count = None
    """How many rows QMoE handles at once; default 0, all."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_belongs_elsewhere(cls, written: object) -> object:
        faults = [
            InitErrorDetails(type="value_error", loc=(key,), input=value, ctx={"error": WRITE_INSTEAD[key]})
            for key, value in (written.items() if isinstance(written, Mapping) else ())
            if key in WRITE_INSTEAD
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return written

    @model_validator(mode="after")
    def _refuse_what_onnx_runtime_refuses(self) -> ConfigEntries:
        if self.session__layer_assignment_settings and self.session__name_based_layer_assignment:
            raise ValueError(
                "session.layer_assignment_settings and session.name_based_layer_assignment exclude each other"
            )
        counting = "1" in (self.session__enable_moe_expert_counting, self.session__enable_moe_expert_statistics)
        alpha, beta = self.session__moe_expert_counter_alpha, self.session__moe_expert_counter_beta
        if (alpha or beta or self.session__moe_expert_counter_state_file) and not counting:
            raise ValueError("session.moe_expert_counter_* wants session.enable_moe_expert_counting = true")
        if float(alpha or 0.9) + float(beta or 0.1) > 1:
            raise ValueError("session.moe_expert_counter_alpha and _beta may not be more than 1 together")
        return self

    def entries(self) -> dict[str, str]:
        """Return the entries that were set, by key."""
        values = {str(field.alias): getattr(self, name) for name, field in type(self).model_fields.items()}
        return {key: value for key, value in values.items() if value is not None}
