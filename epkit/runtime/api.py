"""Load ONNX Runtime, prepare providers for it, and list its devices.

The only module that imports `onnxruntime`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from types import ModuleType

from epkit._system import fork, telemetry
from epkit._system.streams import silence
from epkit.errors import RuntimeMissing
from epkit.provider import FoundDevice, Provider
from epkit.runtime.plugin_calls import call_plugin, library_path, preload_paths

MISSING = "ONNX Runtime is not installed"
MISSING_HINT = 'pip install "epkit[gpu]", or pip install onnxruntime'
CPU_ORT_NAME = "CPUExecutionProvider"

_lock = fork.make_lock()
_prepared: set[str] = set()
_registered: set[Path] = set()
_silence = True


def is_installed() -> bool:
    """Whether ONNX Runtime is installed; does not import it."""
    try:
        return importlib.util.find_spec("onnxruntime") is not None
    except (ModuleNotFoundError, ValueError):
        return False


def enable_log() -> None:
    """Leave ONNX Runtime's process-wide logger on in this process, which must be epkit's own."""
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
        message = MISSING if not is_installed() else f"ONNX Runtime cannot be imported: {error}"
        raise RuntimeMissing(message, hint=MISSING_HINT if not is_installed() else "epkit doctor") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeMissing(f"the onnxruntime found at {list(onnxruntime.__path__)} is damaged", hint="epkit doctor")
    telemetry.disable_after_import(onnxruntime)
    if _silence:
        onnxruntime.set_default_logger_severity(4)
        _silence = False
    module: ModuleType = onnxruntime
    return module


def prepare(provider: Provider) -> None:
    """Do what must happen before `provider` can be added: its own preparation, and its library registered, once.

    A library is never unregistered: ONNX Runtime crashes when a session still uses it.
    """
    runtime = load()
    with _lock:
        if provider.name in _prepared:
            return
        # Some preparations print, as `preload_dlls` does.
        with silence("stdout", "stderr"):
            call_plugin(provider.prepare, runtime)
            for needed in preload_paths(provider):
                ctypes.CDLL(str(needed))
        library = library_path(provider)
        if library is not None and library not in _registered:
            # This program may have registered it itself; a second time under one name, some crash the process.
            if not list_devices(provider):
                try:
                    # Under this very name: some libraries call their provider by the name that they are registered by.
                    runtime.register_execution_provider_library(provider.ort_name, str(library))
                except Exception as error:
                    if "already registered" not in str(error):
                        raise
            _registered.add(library)
        _prepared.add(provider.name)


def list_devices(provider: Provider) -> list[FoundDevice]:
    """List the devices that ONNX Runtime knows for a provider from a plugin library."""
    return [
        FoundDevice(index, device.ep_name, device.device.type.name, device.ep_vendor, dict(device.ep_metadata))
        for index, device in enumerate(load().get_ep_devices())
        if device.ep_name.split(".")[0] == provider.ort_name
    ]
