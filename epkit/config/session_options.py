"""Define what can be set on a session, and check that ONNX Runtime accepts it.

What ONNX Runtime would refuse is an error here, with the key in it; what it would silently ignore is one of `notes()`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from epkit.config.ort_config_keys import WRITE_INSTEAD, ConfigEntries
from epkit.config.ort_config_values import LARGEST_INT32, LONGEST_KEY, LONGEST_VALUE

MOST_PER_CORE, LEAST_REFUSED = 16, 128
"""More threads than so many for each core are refused, where they are more than a few."""

_NO_PROPERTIES = (
    "config",
    "free_dimension_overrides",
    "free_dimension_overrides_by_denotation",
    "custom_ops_libraries",
    "extra",
)

_ANY = object()

_WANTS: dict[str, tuple[str, object]] = {
    "inter_op_num_threads": ("execution_mode", "ORT_PARALLEL"),
    "session.inter_op.allow_spinning": ("execution_mode", "ORT_PARALLEL"),
    "session.inter_op.spin_duration_us": ("execution_mode", "ORT_PARALLEL"),
    "session.inter_op.spin_backoff_max": ("execution_mode", "ORT_PARALLEL"),
    "session.intra_op.spin_duration_us": ("session.intra_op.allow_spinning", "1"),
    "session.intra_op.spin_backoff_max": ("session.intra_op.allow_spinning", "1"),
    "profile_file_prefix": ("enable_profiling", True),
    "log_verbosity_level": ("log_severity_level", 0),
    "session.save_model_format": ("optimized_model_filepath", _ANY),
    "session.optimized_model_external_initializers_file_name": ("optimized_model_filepath", _ANY),
    "session.optimized_model_external_initializers_min_size_in_bytes": ("optimized_model_filepath", _ANY),
    "session.save_external_prepacked_constant_initializers": ("optimized_model_filepath", _ANY),
    "ep.context_file_path": ("ep.context_enable", "1"),
    "ep.context_embed_mode": ("ep.context_enable", "1"),
    "ep.context_node_name_prefix": ("ep.context_enable", "1"),
    "ep.context_model_external_initializers_file_name": ("ep.context_enable", "1"),
}
"""What has no effect without another setting, and that setting's value."""

WRITING_ENTRIES = (
    "ep.context_file_path",
    "ep.context_model_external_initializers_file_name",
    "session.collect_node_memory_stats_to_file",
    "session.optimized_model_external_initializers_file_name",
)
"""Config entries that name files to be written."""

_DEFAULTS: dict[str, object] = {"session.intra_op.allow_spinning": "1"}


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {value!r}")
    return value


def _threads(value: int) -> int:
    """Refuse so many that they would only keep each other from work: ONNX Runtime's wait for work without sleeping."""
    cores = os.cpu_count() or 1
    if value > max(LEAST_REFUSED, MOST_PER_CORE * cores):
        raise ValueError(f"{value} threads would stall this machine, which has {cores} cores: give 0 for one on each")
    return value


Number: TypeAlias = Annotated[int, BeforeValidator(_number), Field(ge=0, le=LARGEST_INT32)]
Threads: TypeAlias = Annotated[Number, AfterValidator(_threads)]
Severity: TypeAlias = Annotated[int, BeforeValidator(_number), Field(ge=0, le=4)]
Size: TypeAlias = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Text: TypeAlias = Annotated[str, Field(min_length=1)]


class SessionOptions(BaseModel):
    """Everything that ONNX Runtime lets one set on a session, by its own names; None leaves its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    native_options: ClassVar[tuple[str, ...]] = ("custom_ops_libraries",)
    """Options that load native code; a config file that was found, not named, may not hold them."""
    writing_options: ClassVar[tuple[str, ...]] = ("optimized_model_filepath", "profile_file_prefix")
    """Options that name files to be written; a config file that was found, not named, may not hold them."""

    intra_op_num_threads: Threads | None = None
    """Threads inside one operator; default 0, the physical cores, each thread pinned; a number drops the pinning."""
    inter_op_num_threads: Threads | None = None
    """Threads that run operators side by side, with ORT_PARALLEL only; default 0, the physical cores."""
    execution_mode: Literal["ORT_SEQUENTIAL", "ORT_PARALLEL"] | None = None
    """Run operators one after another or side by side; default ORT_SEQUENTIAL."""
    execution_order: Literal["DEFAULT", "PRIORITY_BASED", "MEMORY_EFFICIENT"] | None = None
    """In which order operators run; MEMORY_EFFICIENT only in builds for training; default DEFAULT."""
    use_per_session_threads: bool | None = None
    """Give the session its own threads; false wants `onnxruntime.set_global_thread_pool_sizes` first; default true."""
    graph_optimization_level: (
        Literal["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_LAYOUT", "ORT_ENABLE_ALL"]
        | None
    ) = None
    """How far ONNX Runtime rewrites the model; default ORT_ENABLE_ALL."""
    optimized_model_filepath: Text | None = None
    """File to write the rewritten model to; its folder must exist; default: none."""
    enable_cpu_mem_arena: bool | None = None
    """Keep memory on the CPU between runs: faster, and the largest run's memory stays taken; default true."""
    enable_mem_pattern: bool | None = None
    """Plan memory once for inputs of one shape and take it in one piece; default true."""
    enable_mem_reuse: bool | None = None
    """Let results share memory when they are not needed at the same time; default true."""
    use_deterministic_compute: bool | None = None
    """Use only kernels that give the same result in every run, where there are such; default false."""
    enable_profiling: bool | None = None
    """Write a JSON profile of every run; default false."""
    profile_file_prefix: Text | None = None
    """Beginning of the profile's file name, date and time follow; default onnxruntime_profile_."""
    log_severity_level: Severity | None = None
    """The least severe messages to log: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal; epkit's default is 4."""
    log_verbosity_level: Number | None = None
    """How much to log at severity 0; default 0."""
    logid: str | None = None
    """Name of the session in log messages; default empty."""

    config: ConfigEntries = ConfigEntries()
    """Config entries, by key (`"session.intra_op.allow_spinning" = "0"`)."""
    free_dimension_overrides: dict[Text, Size] = {}
    """Sizes of dynamic dimensions, by the dimension's name; a name that the model lacks is an error."""
    free_dimension_overrides_by_denotation: dict[Text, Size] = {}
    """Sizes of dynamic dimensions, by denotation (`DATA_BATCH`)."""
    custom_ops_libraries: tuple[Text, ...] = ()
    """Libraries of custom operators to load: native code."""
    extra: dict[str, str] = {}
    """Config entries newer than epkit, passed on unchecked; a wrong value can end the process."""

    @field_validator("optimized_model_filepath")
    @classmethod
    def _go_where_a_file_can_be(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"the folder of {path!r} does not exist")
        return path

    @field_validator("extra")
    @classmethod
    def _leave_alone_what_epkit_owns(cls, extra: dict[str, str]) -> dict[str, str]:
        for key, value in extra.items():
            if key in WRITE_INSTEAD:
                raise ValueError(f"{key} may not be set: {WRITE_INSTEAD[key]}")
            if not 1 <= len(key.encode()) <= LONGEST_KEY or len(value.encode()) > LONGEST_VALUE:
                raise ValueError(f"keys have 1 to {LONGEST_KEY} bytes, values at most {LONGEST_VALUE}")
        return extra

    @model_validator(mode="after")
    def _refuse_what_onnx_runtime_refuses(self) -> SessionOptions:
        affinities = self.config.session__intra_op_thread_affinities
        threads = self.intra_op_num_threads or 0
        if affinities and threads > 1 and (pinned := affinities.count(";") + 1) != threads - 1:
            raise ValueError(
                f"session.intra_op_thread_affinities pins {pinned}, but intra_op_num_threads = {threads} wants "
                f"{threads - 1}: every thread but the calling one"
            )
        file, kind = self.optimized_model_filepath, self.config.session__save_model_format
        if self.config.optimization__minimal_build_optimizations == "save" and not (
            file and (kind == "ORT" or (kind is None and file.endswith(".ort")))
        ):
            raise ValueError(
                'optimization.minimal_build_optimizations = "save" wants an optimized_model_filepath that ends in .ort'
            )
        return self

    def properties(self) -> dict[str, object]:
        """Return the properties of onnxruntime.SessionOptions that were set; enums by the names of their members."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in _NO_PROPERTIES}
        return {name: value for name, value in values.items() if value is not None}

    def entries(self) -> dict[str, str]:
        """Return the config entries that were set, as ONNX Runtime wants them."""
        return self.config.entries() | self.extra

    def notes(self) -> tuple[str, ...]:
        """Say, in a sentence each, what was set and will be ignored, or wants something from outside."""
        given = self.properties() | self.entries()
        notes = []
        for name in given:
            wanted, value = _WANTS.get(name, ("", None))
            there = given.get(wanted, _DEFAULTS.get(wanted))
            if wanted and (there is None if value is _ANY else there != value):
                notes.append(f"{name} has no effect without {wanted}" + ("" if value is _ANY else f" = {value}"))
        if self.use_per_session_threads is False:
            notes.append("use_per_session_threads = False fails unless the process has a global thread pool")
        if self.execution_mode == "ORT_PARALLEL":
            notes.append(
                "execution_mode = ORT_PARALLEL: a session that was opened before a fork cannot run in the child"
            )
        if self.entries().get("session.set_denormal_as_zero") == "1":
            notes.append("session.set_denormal_as_zero counts only in the process's first session, and for NumPy too")
        if self.execution_order == "MEMORY_EFFICIENT":
            notes.append("execution_order = MEMORY_EFFICIENT fails unless ONNX Runtime was built for training")
        return tuple(notes)
