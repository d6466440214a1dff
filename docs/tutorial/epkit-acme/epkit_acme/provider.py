"""What does this machine have for `acme`, and where is its plugin library?"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

from epkit import wheels
from epkit.errors import ProviderUnavailable
from epkit.provider import (
    Availability,
    Caching,
    Device,
    Devices,
    FoundDevice,
    Limits,
    Options,
    PluginLibrary,
    Provider,
    Unusable,
    Usable,
    WarmupNeed,
)

from epkit_acme.options import AcmeOptions

_WHEEL = "onnxruntime-ep-openvino"
_INSTALL = f"pip install {_WHEEL}"
_MODULE = "onnxruntime_ep_openvino"
_LIBRARY = wheels.shared_library("onnxruntime_providers_openvino_plugin")


class AcmeLibrary(PluginLibrary):
    """The plugin library in the wheel."""

    def path(self) -> Path:
        """Return the library, for ONNX Runtime to load; raises ProviderUnavailable without the wheel."""
        library = wheels.library(_MODULE, _LIBRARY)
        if library is None:
            raise ProviderUnavailable(f"{_WHEEL} is not installed", hint=_INSTALL)
        return library


class AcmeDevices(Devices):
    """Intel's CPUs, GPUs and NPUs, by kind."""

    def choose(self, found: Sequence[FoundDevice], device: Device | None) -> Sequence[FoundDevice]:
        """Choose the device that is asked for, else the CPU: a new driver must not move a running system to a GPU."""
        return super().choose(found, device or "CPU")


class AcmeCaching(Caching):
    """Compiled models, which the library itself keeps."""

    def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:
        """Keep compiled models in `folder`."""
        extra = {name: text for name, text in options.extra.items() if name != "CACHE_DIR"}
        return options.model_copy(update={"extra": extra | ({"CACHE_DIR": str(folder)} if folder else {})})

    def requested_dir(self, options: Options) -> str | None:
        """Return the folder that the user names for them, if any."""
        return options.extra.get("CACHE_DIR")

    def fingerprint(self, device: Device | None) -> Sequence[str]:
        """List what a compiled model is compiled for, beside what epkit knows: the version, and the processor."""
        return [f"{_WHEEL} {wheels.version(_WHEEL)}", platform.processor(), _flags()]


class Acme(Provider):
    """OpenVINOExecutionProvider, from the plugin library in onnxruntime-ep-openvino."""

    name = "acme"
    ort_name = "OpenVINOExecutionProvider"
    options = AcmeOptions
    capabilities = frozenset({"float32", "float16", "int8", "dynamic-shapes", "data-shapes"})
    warmup = WarmupNeed(runs=2, shapes="each", why="kernels for a new shape are compiled with its first run")
    library = AcmeLibrary()
    devices = AcmeDevices(kinds=("CPU", "GPU", "NPU"))
    caching = AcmeCaching(compiles="opening")
    # Found by trying: a model with text crashed the process, large int64 came back wrong, and threads were safe.
    limits = Limits(
        unsupported_types=("string",),
        narrowed_types={"int64": "int32", "uint64": "int32", "float64": "float32"},
        concurrency="free",
    )

    def probe(self) -> Availability:
        """Look for the library. Whether it computes is for epkit to prove, in a child process."""
        if platform.machine().lower() not in ("x86_64", "amd64"):
            return Unusable(f"{_WHEEL} has no wheels for {platform.machine()}", hint="take an x86-64 machine")
        library = wheels.library(_MODULE, _LIBRARY)
        if library is None:
            return Unusable(f"{_WHEEL} is not installed", hint=_INSTALL)
        if not library.is_file():
            return Unusable(f"{library} was not found", hint=f"{_INSTALL} --force-reinstall")
        return Usable(f"{_WHEEL} {wheels.version(_WHEEL)}")

    def fingerprint(self) -> Sequence[str]:
        """List what the answer of `probe` depends on; when it changes, epkit asks anew."""
        return [wheels.version(_WHEEL), wheels.state(wheels.library(_MODULE, _LIBRARY))]

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Put all properties into one JSON text under the device, as the library reads them."""
        properties = {name: _text(value) for name, value in options.written().items()} | options.extra
        return {"load_config": json.dumps({device or "CPU": properties})} if properties else {}

    def hint(self, cause: str) -> str:
        """Return what mends a failure, given ONNX Runtime's words."""
        if "Unsupported property" in cause:
            return "leave out the option that it names: this device does not know it"
        if "no device" in cause:
            return "install the driver of the GPU or NPU, or leave device out for the CPU"
        return ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "YES" if value else "NO"
    return str(value)


def _flags() -> str:
    """Return what the processor's kind and instructions are, as Linux tells it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")
