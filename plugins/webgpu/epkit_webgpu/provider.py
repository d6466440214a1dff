"""What does this machine have for WebGPU, and how does ONNX Runtime's plugin library want it?"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from epkit import wheels
from epkit.errors import ProviderUnavailable
from epkit.provider import (
    Availability,
    Device,
    Devices,
    GraphCapture,
    Limits,
    Options,
    PluginLibrary,
    Provider,
    Unusable,
    Usable,
    WarmupNeed,
)
from epkit_webgpu import vulkan
from epkit_webgpu.options import WebGpuOptions

_MODULE = "onnxruntime_ep_webgpu"
_WHEEL = "onnxruntime-ep-webgpu"
_INSTALL = f"pip install {_WHEEL}"
_LIBRARY = wheels.shared_library("onnxruntime_providers_webgpu")
_OLDEST_RUNTIME = (1, 24, 4)

_ALLOW_SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
_ALLOW = f"export {_ALLOW_SOFTWARE}=1"
_LOADER = "apt-get install libvulkan1"
_DRIVER = "apt-get install mesa-vulkan-drivers  # for AMD and Intel; NVIDIA's driver brings its own"


class WebGpuLibrary(PluginLibrary):
    """The plugin library of ONNX Runtime's own project."""

    def path(self) -> Path:
        """Return the plugin library inside the wheel; raises ProviderUnavailable when the wheel is not installed."""
        library = wheels.library(_MODULE, _LIBRARY)
        if library is None:
            raise ProviderUnavailable(f"{_WHEEL} is not installed", hint=_INSTALL)
        return library


class WebGpuDevices(Devices):
    """One GPU, which the library chooses."""

    def check(self, device: Device) -> str:  # noqa: ARG002
        """Refuse any: the library takes the GPU that its environment prefers, whichever device it is handed."""
        return "must be left out: the library chooses the GPU by itself, by powerPreference and the environment"


class WebGpu(Provider):
    """GPUs of every vendor, through Vulkan, Direct3D 12 or Metal, operator by operator."""

    name = "webgpu"
    ort_name = "WebGpuExecutionProvider"
    rank = 60
    options = WebGpuOptions
    # The memory is on the GPU, behind handles that no other library can use.
    devices = WebGpuDevices(memory="webgpu")
    library = WebGpuLibrary()
    capture = GraphCapture("enableGraphCapture")
    limits = Limits(validates_output_shape=True)
    environment = ("ORT_WEBGPU_EP_*", "VK_*", "MESA_VK_*", "DAWN_*")
    capabilities = frozenset({"float32", "dynamic-shapes", "data-shapes"})
    warmup = WarmupNeed(
        shapes="each",
        why="the first run compiles a shader for each operator, and a new input shape can need other ones",
    )

    def probe(self) -> Availability:
        """Look for the wheel, its library, an ONNX Runtime that can load it, and on Linux Vulkan's devices."""
        library = wheels.library(_MODULE, _LIBRARY)
        if library is None:
            if _has_wheels():
                return Unusable(f"{_WHEEL} is not installed", hint=_INSTALL)
            return Unusable(f"{_WHEEL} has no wheel for {platform.platform()}")
        if not library.is_file():
            return Unusable(f"{library} was not found", hint=f"{_INSTALL} --force-reinstall")
        versions = wheels.runtimes()
        if versions and all(wheels.numbers(version) < _OLDEST_RUNTIME for version in versions.values()):
            wheel, version = next(iter(versions.items()))
            return Unusable(f"{wheel} {version} is too old for {_WHEEL}", hint=f"pip install '{wheel}>=1.24.4'")
        found = f"{_WHEEL} {wheels.version(_WHEEL)}"
        return _with_vulkan(found) if sys.platform == "linux" else Usable(found)

    def fingerprint(self) -> Sequence[str]:
        """List the library, the versions of ONNX Runtime, Vulkan's loader and drivers, device nodes and variables."""
        library = wheels.library(_MODULE, _LIBRARY)
        found = [f"{wheel} {version}" for wheel, version in wheels.runtimes().items()]
        found += [_state(path) for path in ([library] if library else []) if path.is_file()]
        found += [f"{name}={os.environ.get(name)}" for name in (_ALLOW_SOFTWARE, *vulkan.CHOICE)]
        if sys.platform == "linux":
            found += [vulkan.missing(), *map(_state, vulkan.manifests()), *_device_nodes()]
        return found

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Write the names of nodes one to a line, as the library reads them."""
        sent = super().to_ort_options(options, device)
        if isinstance(options, WebGpuOptions) and options.forceCpuNodeNames:
            sent["forceCpuNodeNames"] = "\n".join(options.forceCpuNodeNames)
        return sent

    def hint(self, cause: str) -> str:
        """Return what mends a failure to register the library, to open a session or to run it."""
        if match := re.search(r"Required limit \(\d+\) is greater than the supported limit \((\d+)\)", cause):
            return f"write maxStorageBufferBindingSize = {match[1]} or less: the GPU has no more"
        if "No supported adapters" in cause:
            return _DRIVER
        if "no device" in cause:
            return f"{_ALLOW}  # ONNX Runtime sees no GPU in /sys/class/drm; with this the library looks for itself"
        if "graph capture requires" in cause:
            return "leave enableGraphCapture out: captured runs need buffers bound on the device"
        if "below the minimum required version" in cause:
            return "pip install --upgrade 'onnxruntime>=1.24.4'"
        if "cannot open shared object file" in cause:
            return f"{_INSTALL} --force-reinstall"
        return ""


def _with_vulkan(found: str) -> Availability:
    try:
        devices = vulkan.devices()
    except OSError:
        return Unusable(f"{vulkan.missing()}{_no_gpu()}", hint=_LOADER)
    if not devices:
        for name in vulkan.CHOICE:
            if os.environ.get(name):
                return Unusable(f"Vulkan finds no device with {name}={os.environ[name]}", hint=f"unset {name}")
        return Unusable(f"Vulkan has no driver{_no_gpu()}", hint=_DRIVER)
    names = ", ".join(map(str, devices))
    if all(device.software for device in devices) and os.environ.get(_ALLOW_SOFTWARE) != "1":
        return Unusable(f"Vulkan offers no GPU, only {names}", hint=f"{_ALLOW}  # to test with: it is slow")
    return Usable(f"{found}, {names}")


def _no_gpu() -> str:
    return "" if _device_nodes() else "; this machine shows no GPU"


def _has_wheels() -> bool:
    machines = {"linux": ("x86_64", "aarch64"), "win32": ("amd64", "arm64"), "darwin": ("arm64",)}
    return platform.machine().lower() in machines.get(sys.platform, ())


def _state(path: Path) -> str:
    state = path.stat()
    return f"{path} {state.st_mtime_ns} {state.st_size}"


def _device_nodes() -> list[str]:
    """List the nodes through which Vulkan drivers reach their GPUs."""
    return sorted(str(node) for node in (*Path("/dev/dri").glob("renderD*"), *Path("/dev").glob("nvidia[0-9]*")))
