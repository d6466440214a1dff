"""How is ONNX Runtime asked, strictly?

The only module that imports `onnxruntime`. Sessions are opened with the calls that raise (`add_provider`,
`add_provider_for_devices`, `enable_fallback=0`), never with `providers=[...]`, which falls back silently.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from epkit._system import fork, telemetry
from epkit._system.streams import silence
from epkit._system.text import describe_error
from epkit.errors import ConfigError, RuntimeMissing
from epkit.provider import Device, FoundDevice, Provider
from epkit.runtime.concurrency import PROCESS
from epkit.runtime.configured import CPU
from epkit.runtime.device_array import CPU_MEMORY
from epkit.runtime.plugin_calls import asked

if TYPE_CHECKING:
    from epkit.runtime.configured import Candidate

MISSING = "ONNX Runtime is not installed"
MISSING_HINT = 'pip install "epkit[gpu]", or pip install onnxruntime'
CPU_ORT_NAME = "CPUExecutionProvider"
ENUMS = {
    "execution_mode": "ExecutionMode",
    "execution_order": "ExecutionOrder",
    "graph_optimization_level": "GraphOptimizationLevel",
}
"""The properties of SessionOptions that are enums, and the enums' names."""

_lock = fork.make_lock()
_prepared: set[str] = set()
_registered: set[Path] = set()
_silence = True


class OpenFault(Exception):
    """Opening failed: adding `candidate` to the session options did, or (None) creating the session."""

    def __init__(self, cause: str, candidate: Candidate | None = None, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.candidate = candidate
        self.hint = hint
        """What mends it, where epkit or the plugin said so with the error."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session is given beside its providers: properties of SessionOptions, and config entries."""

    properties: Mapping[str, object]
    entries: Mapping[str, str]
    free_dimensions: Mapping[str, int] = field(default_factory=dict)
    free_dimensions_by_denotation: Mapping[str, int] = field(default_factory=dict)
    custom_ops: Sequence[str] = ()


def installed() -> bool:
    """Whether there is an ONNX Runtime to import; does not import it."""
    try:
        return importlib.util.find_spec("onnxruntime") is not None
    except (ModuleNotFoundError, ValueError):
        return False


def keep_log() -> None:
    """Let ONNX Runtime's process-wide logger speak in this process, which must be epkit's own."""
    global _silence
    _silence = False


def load() -> ModuleType:
    """Import ONNX Runtime; raises RuntimeMissing.

    Its process-wide logger is silenced, once: provider libraries that fail to load print through it, past every setting
    of a session. epkit finds the cause in a child process, and reports it.
    """
    global _silence
    try:
        with telemetry.guard_import():
            import onnxruntime
    except ImportError as error:
        told = MISSING if not installed() else f"ONNX Runtime cannot be imported: {error}"
        raise RuntimeMissing(told, hint=MISSING_HINT if not installed() else "epkit doctor") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeMissing(f"the onnxruntime found at {list(onnxruntime.__path__)} is damaged", hint="epkit doctor")
    telemetry.disable_after_import(onnxruntime)
    if _silence:
        onnxruntime.set_default_logger_severity(4)
        _silence = False
    module: ModuleType = onnxruntime
    return module


def default_properties() -> dict[str, object]:
    """Return what ONNX Runtime sets by itself: each plain property of SessionOptions, enums by name."""
    options = load().SessionOptions()
    found = {name: getattr(options, name) for name in dir(options) if not name.startswith("_")}
    return {
        name: getattr(value, "name", value)
        for name, value in found.items()
        if not callable(value) or hasattr(value, "name")
    }


def prepare(provider: Provider) -> None:
    """Do what must happen before `provider` can be added: its own preparation, and its library registered, once.

    A library is never unregistered: ONNX Runtime crashes when a session still uses it.
    """
    runtime = load()
    with _lock:
        if provider.name in _prepared:
            return
        # Some preparations print (`preload_dlls` does); nobody asked for that.
        with silence("stdout", "stderr"):
            asked(provider.prepare, runtime)
            for needed in asked(provider.preload):
                ctypes.CDLL(str(needed))
        library = asked(provider.library)
        if library is not None and library not in _registered:
            # This program may have registered it itself; a second time under one name, some crash the process.
            if not found_devices(provider):
                try:
                    # Under this very name: some libraries call their provider by the name that they are registered by.
                    runtime.register_execution_provider_library(provider.ort_name, str(library))
                except Exception as error:
                    if "already registered" not in str(error):
                        raise
            _registered.add(library)
        _prepared.add(provider.name)


def found_devices(provider: Provider) -> list[FoundDevice]:
    """List the devices that ONNX Runtime knows for a provider from a plugin library."""
    return [
        FoundDevice(index, one.ep_name, one.device.type.name, one.ep_vendor, dict(one.ep_metadata))
        for index, one in enumerate(load().get_ep_devices())
        if one.ep_name.split(".")[0] == provider.ort_name
    ]


def create(
    model: str | bytes,
    candidates: Sequence[Candidate],
    settings: Settings,
    sent: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Any:
    """Open one InferenceSession with exactly these providers, in order, the first around the others' opening.

    `sent` holds, by provider, what is sent instead of the candidate's own options. Raises OpenFault, with the candidate
    when adding it failed. `candidates` may end in the CPU; without it, ONNX Runtime appends the CPU unless an entry of
    the settings forbids it.
    """
    runtime = load()
    options = _given(runtime, candidates, settings, sent)
    opened: Callable[[], Any] = partial(
        runtime.InferenceSession, _findable(model), sess_options=options, enable_fallback=0
    )
    for candidate in reversed(candidates):
        opened = partial(_opened_by, candidate, model, opened)
    one_at_a_time = any(candidate.provider.concurrency == "per-process" for candidate in candidates)
    try:
        # Opening beside a run of another session crashes such a provider as surely as running does.
        with PROCESS if one_at_a_time else contextlib.nullcontext():
            return opened()
    except OpenFault:
        raise
    except Exception as error:
        raise OpenFault(describe_error(error)) from error


@dataclass(frozen=True, slots=True)
class _NotUtf8:
    """A path that is not UTF-8, which ONNX Runtime takes from an object that gives it as bytes, and not as text."""

    path: str

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def _findable(model: str | bytes) -> object:
    return _NotUtf8(model) if isinstance(model, str) and not _is_utf8(model) else model


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _opened_by(candidate: Candidate, model: str | bytes, create: Callable[[], Any]) -> Any:
    """Open the session with a provider around it; what the provider itself raises is an OpenFault of its own."""
    failed = False

    def watched() -> Any:
        nonlocal failed
        failed = True
        session = create()
        failed = False
        return session

    try:
        session = candidate.provider.open(model, candidate.options, watched)
    except Exception as error:
        if failed:
            raise
        raise OpenFault(describe_error(error), candidate) from error
    if session is None:
        told = f"{type(candidate.provider).__name__}.open returned None where a session belongs"
        raise OpenFault(told, candidate, "return what create() returns")
    return session


def compile_to(model: str | bytes, candidates: Sequence[Candidate], settings: Settings, file: Path) -> None:
    """Write what these providers compile of a model as an EP-context model, its data beside it; raises OpenFault."""
    runtime = load()
    options = _given(runtime, candidates, settings, {})
    try:
        nothing = runtime.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED
        runtime.ModelCompiler(options, model, flags=nothing).compile_to_file(str(file))
    except Exception as error:
        raise OpenFault(describe_error(error)) from error


def compatibility(model: str | bytes, candidate: Candidate) -> str:
    """Return what a provider says of an EP-context model: `EP_SUPPORTED_OPTIMAL`, `EP_UNSUPPORTED`; empty if nothing.

    Only providers from a plugin library can say it, and only through functions that ONNX Runtime's Python API keeps
    private.
    """
    runtime = load()
    private = runtime.capi._pybind_state
    suffix = "_bytes" if isinstance(model, bytes) else ""
    read = getattr(private, f"get_compatibility_info_from_model{suffix}", None)
    judge = getattr(private, "get_model_compatibility_for_ep_devices", None)
    if read is None or judge is None or candidate.provider.library() is None:
        return ""
    try:
        prepare(candidate.provider)
        told = read(model, candidate.provider.ort_name)
        return str(judge(_chosen(runtime, candidate), told).name) if told else ""
    except Exception:  # noqa: BLE001 - opening the model says what is wrong
        return ""


def assigned(session: Any) -> list[tuple[str, list[str]]]:
    """Return what ONNX Runtime recorded at partitioning: a provider's ONNX Runtime name and its operators, repeated."""
    return [
        (part.ep_name, [f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in part.get_nodes()])
        for part in session.get_provider_graph_assignment_info()
    ]


def read_on_cpu(session: Any) -> list[str]:
    """Name the inputs that are read from the CPU's own memory, whichever provider runs the model."""
    places = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
    return [one.name for one, memory in places if memory.name == CPU_MEMORY]


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
            told = f"custom_ops_libraries names {library!r}, which cannot be loaded: {describe_error(error)}"
            raise ConfigError(told, hint="check the path, and what the library needs: ldd") from error
    return options


def _given(
    runtime: ModuleType,
    candidates: Sequence[Candidate],
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


def _add(runtime: ModuleType, options: Any, candidate: Candidate, sent: Mapping[str, str]) -> None:
    provider = candidate.provider
    prepare(provider)
    provider.add(runtime, options, sent, [] if asked(provider.library) is None else _chosen(runtime, candidate))


def _chosen(runtime: ModuleType, candidate: Candidate) -> list[Any]:
    """Return ONNX Runtime's devices for a provider from a plugin library; LookupError when there is none."""
    provider = candidate.provider
    found = found_devices(provider)
    chosen = asked(provider.devices, found, candidate.device)
    if not chosen:
        listed = ", ".join(sorted({one.kind for one in found})) or "none on this machine"
        raise LookupError(f"no device{_named(candidate.device)}: its library lists {listed}")
    every = runtime.get_ep_devices()
    return [every[one.index] for one in chosen]


def _named(device: Device | None) -> str:
    return "" if device is None else f" {device!r}"
