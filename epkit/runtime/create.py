"""Create sessions of ONNX Runtime with exactly the requested providers, and compile models.

Providers are added by the calls that raise (`add_provider`, `add_provider_for_devices`, `enable_fallback=0`), never
with `providers=[...]`, which falls back silently.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from epkit._system.text import describe_error
from epkit.errors import ConfigError
from epkit.provider import Device
from epkit.runtime.api import list_devices, load, prepare
from epkit.runtime.concurrency import PROCESS
from epkit.runtime.configured import CPU
from epkit.runtime.device_array import CPU_MEMORY
from epkit.runtime.plugin_calls import chosen_devices, concurrency_of, library_path

if TYPE_CHECKING:
    from epkit.runtime.configured import ConfiguredProvider

ENUMS = {
    "execution_mode": "ExecutionMode",
    "execution_order": "ExecutionOrder",
    "graph_optimization_level": "GraphOptimizationLevel",
}
"""The properties of SessionOptions that are enums, and the enums' names."""


class OpenFault(Exception):
    """Opening failed: adding `candidate` to the session options did, or (None) creating the session."""

    def __init__(self, cause: str, candidate: ConfiguredProvider | None = None, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.candidate = candidate
        self.hint = hint
        """What to do, if epkit or the plugin gave a hint with the error."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a session except its providers: properties of SessionOptions and config entries."""

    properties: Mapping[str, object]
    entries: Mapping[str, str]
    free_dimensions: Mapping[str, int] = field(default_factory=dict)
    free_dimensions_by_denotation: Mapping[str, int] = field(default_factory=dict)
    custom_ops: Sequence[str] = ()


def default_properties() -> dict[str, object]:
    """Return what ONNX Runtime sets by itself: each plain property of SessionOptions, enums by name."""
    options = load().SessionOptions()
    found = {name: getattr(options, name) for name in dir(options) if not name.startswith("_")}
    return {
        name: getattr(value, "name", value)
        for name, value in found.items()
        if not callable(value) or hasattr(value, "name")
    }


def create_session(
    model: str | bytes,
    candidates: Sequence[ConfiguredProvider],
    settings: Settings,
    sent: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Any:
    """Create an InferenceSession with exactly these providers, in order; the `open` of each wraps that of the next.

    `sent` maps provider names to the ONNX Runtime options that replace the candidate's own. `candidates` may
    end in the CPU; without it, ONNX Runtime appends the CPU unless an entry of the settings forbids it.

    Raises OpenFault, with the candidate if adding it failed.
    """
    runtime = load()
    options = _build_options(runtime, candidates, settings, sent)
    opened: Callable[[], Any] = partial(
        runtime.InferenceSession, _to_path_object(model), sess_options=options, enable_fallback=0
    )
    for candidate in reversed(candidates):
        opened = partial(_open_with, candidate, model, opened)
    exclusive = any(concurrency_of(candidate.provider) == "per-process" for candidate in candidates)
    try:
        # Such a provider crashes when a session is created while another runs.
        with PROCESS if exclusive else contextlib.nullcontext():
            return opened()
    except OpenFault:
        raise
    except Exception as error:
        raise OpenFault(describe_error(error)) from error


@dataclass(frozen=True, slots=True)
class _NotUtf8:
    """A path that is not UTF-8, which ONNX Runtime accepts only as bytes from a path object."""

    path: str

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def _to_path_object(model: str | bytes) -> object:
    return _NotUtf8(model) if isinstance(model, str) and not _is_utf8(model) else model


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _open_with(candidate: ConfiguredProvider, model: str | bytes, create: Callable[[], Any]) -> Any:
    """Create the session through `provider.open`; raises OpenFault with the candidate if that itself fails."""
    failed = False

    def create_once() -> Any:
        nonlocal failed
        failed = True
        session = create()
        failed = False
        return session

    try:
        session = candidate.provider.open(model, candidate.options, create_once)
    except Exception as error:
        if failed:
            raise
        raise OpenFault(describe_error(error), candidate) from error
    if session is None:
        message = f"{type(candidate.provider).__name__}.open returned None where a session belongs"
        raise OpenFault(message, candidate, "return what create() returns")
    return session


def compile_model(model: str | bytes, candidates: Sequence[ConfiguredProvider], settings: Settings, file: Path) -> None:
    """Compile a model with these providers to an EP-context model, its data next to it; raises OpenFault."""
    runtime = load()
    options = _build_options(runtime, candidates, settings, {})
    try:
        nothing = runtime.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED
        runtime.ModelCompiler(options, model, flags=nothing).compile_to_file(str(file))
    except Exception as error:
        raise OpenFault(describe_error(error)) from error


def get_compatibility(model: str | bytes, candidate: ConfiguredProvider) -> str:
    """Return the compatibility of an EP-context model, such as `EP_SUPPORTED_OPTIMAL`; empty if it is unknown.

    Only providers from a plugin library report it, and only through functions that ONNX Runtime's Python API keeps
    private.
    """
    runtime = load()
    private = runtime.capi._pybind_state
    suffix = "_bytes" if isinstance(model, bytes) else ""
    read = getattr(private, f"get_compatibility_info_from_model{suffix}", None)
    judge = getattr(private, "get_model_compatibility_for_ep_devices", None)
    if read is None or judge is None or candidate.provider.library is None:
        return ""
    try:
        prepare(candidate.provider)
        message = read(model, candidate.provider.ort_name)
        return str(judge(_choose_devices(runtime, candidate), message).name) if message else ""
    except Exception:  # noqa: BLE001 - opening the model reports the cause
        return ""


def get_assignments(session: Any) -> list[tuple[str, list[str]]]:
    """Return the subgraphs of ONNX Runtime's partitioning: each with its provider's ONNX Runtime name and operators."""
    return [
        (part.ep_name, [f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in part.get_nodes()])
        for part in session.get_provider_graph_assignment_info()
    ]


def list_cpu_inputs(session: Any) -> list[str]:
    """List the inputs that are read from CPU memory, whichever provider runs the model."""
    places = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
    return [declared.name for declared, memory in places if memory.name == CPU_MEMORY]


def _session_options(runtime: ModuleType, settings: Settings) -> Any:
    options = runtime.SessionOptions()
    for name, value in settings.properties.items():
        setattr(options, name, getattr(getattr(runtime, ENUMS[name]), str(value)) if name in ENUMS else value)
    for key, text in settings.entries.items():
        options.add_session_config_entry(key, text)
    for name, size in settings.free_dimensions.items():
        options.add_free_dimension_override_by_name(name, size)
    for name, size in settings.free_dimensions_by_denotation.items():
        options.add_free_dimension_override_by_denotation(name, size)
    for library in settings.custom_ops:
        try:
            options.register_custom_ops_library(library)
        except Exception as error:
            message = f"custom_ops_libraries names {library!r}, which cannot be loaded: {describe_error(error)}"
            raise ConfigError(message, hint="check the path, and what the library needs: ldd") from error
    return options


def _build_options(
    runtime: ModuleType,
    candidates: Sequence[ConfiguredProvider],
    settings: Settings,
    sent: Mapping[str, Mapping[str, str]],
) -> Any:
    """Return the SessionOptions with these providers; raises OpenFault with the one that cannot be added."""
    options = _session_options(runtime, settings)
    for candidate in candidates:
        if candidate.name == CPU:
            continue  # ONNX Runtime puts it last by itself, or where a provider added it already
        try:
            _add(runtime, options, candidate, dict(sent.get(candidate.name) or candidate.sent))
        except Exception as error:
            raise OpenFault(describe_error(error), candidate, getattr(error, "hint", "")) from error
    return options


def _add(runtime: ModuleType, options: Any, candidate: ConfiguredProvider, sent: Mapping[str, str]) -> None:
    provider = candidate.provider
    prepare(provider)
    provider.add(runtime, options, sent, [] if library_path(provider) is None else _choose_devices(runtime, candidate))


def _choose_devices(runtime: ModuleType, candidate: ConfiguredProvider) -> list[Any]:
    """Return ONNX Runtime's devices for a provider from a plugin library; LookupError when there is none."""
    provider = candidate.provider
    found = list_devices(provider)
    chosen = chosen_devices(provider, found, candidate.device)
    if not chosen:
        listed = ", ".join(sorted({device.kind for device in found})) or "none on this machine"
        raise LookupError(f"no device{_format_device(candidate.device)}: its library lists {listed}")
    every = runtime.get_ep_devices()
    return [every[device.index] for device in chosen]


def _format_device(device: Device | None) -> str:
    return "" if device is None else f" {device!r}"
