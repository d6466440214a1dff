"""What does this machine have for TensorRT-RTX, and how does NVIDIA's plugin library want it?"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from epkit import wheels
from epkit.errors import ProviderUnavailable
from epkit.provider import (
    Availability,
    Caching,
    Device,
    Devices,
    FoundDevice,
    Options,
    PluginLibrary,
    Provider,
    SelfTest,
    Unusable,
    Usable,
    WarmupNeed,
)
from epkit_tensorrt_rtx import gpus, profiles
from epkit_tensorrt_rtx.gpus import Driver
from epkit_tensorrt_rtx.options import TensorRTRTXOptions

_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
_WHEEL = "onnxruntime-ep-nv-tensorrt-rtx"
_INSTALL = f"pip install {_WHEEL}"
_LIBRARY = wheels.shared_library("onnxruntime_providers_nv_tensorrt_rtx")
_VARIANTS = {13: f"{_WHEEL}-cu13", 12: f"{_WHEEL}-cu12"}
"""The wheels that bring the library, by the CUDA that they were built for; the first comes with `_WHEEL`."""
_OLDEST_RUNTIME = (1, 24)
_SEARCHED = "LD_LIBRARY_PATH"
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "PATH" if sys.platform == "win32" else _SEARCHED)

_DRIVER = "install the NVIDIA driver; a container needs `docker run --gpus all`"
_MANAGEMENT = "a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
_LASTING = {
    34: f"{gpus.DRIVER} is the CUDA toolkit's stub, not a driver",
    35: "the NVIDIA driver is too old",
    100: "the NVIDIA driver shows no GPU",
    803: "the NVIDIA driver's library and kernel module differ in version",
}


class RTXLibrary(PluginLibrary):
    """NVIDIA's plugin library."""

    def path(self) -> Path:
        """Return the plugin library inside the wheel; raises ProviderUnavailable when the wheel is not installed."""
        library = wheels.library(_MODULE, _LIBRARY)
        if library is None:
            raise ProviderUnavailable(f"{_WHEEL} is not installed", hint=_INSTALL)
        return library


class RTXDevices(Devices):
    """GPUs, by their ordinals."""

    def check(self, device: Device) -> str:
        """Want an ordinal."""
        return "" if isinstance(device, int) and not isinstance(device, bool) and device >= 0 else "must be 0 or above"

    def choose(self, found: Sequence[FoundDevice], device: Device | None) -> Sequence[FoundDevice]:
        """Choose by ordinal among the GPUs that the library takes, in ONNX Runtime's order; the first unless asked."""
        ordinal = device if isinstance(device, int) else 0
        return found[ordinal : ordinal + 1]


class RTXCaching(Caching):
    """Compiled kernels, which the library itself keeps."""

    def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:  # noqa: ARG002
        """Keep kernels in `folder`, or nowhere."""
        extra = {name: text for name, text in options.extra.items() if name != "nv_runtime_cache_path"}
        return options.model_copy(update={"nv_runtime_cache_path": folder and str(folder), "extra": extra})

    def check(self, options: Options) -> str:  # noqa: ARG002
        """Refuse: what a session compiles is written only when it is closed, and changes with what it ran."""
        return "it keeps nothing that is finished while the session is open: use `epkit compile --output FILE`"


class TensorRTRTX(Provider):
    """NVIDIA's RTX GPUs by engines that TensorRT for RTX compiles in seconds."""

    name = "tensorrt-rtx"
    ort_name = "NvTensorRTRTXExecutionProvider"
    rank = 15
    options = TensorRTRTXOptions
    environment = ("NVIDIA_TF32_OVERRIDE",)
    devices = RTXDevices()
    library = RTXLibrary()
    caching = RTXCaching(compiles="opening")
    warmup = WarmupNeed(
        runs=2,
        shapes="each",
        why="the library compiles kernels for its GPU when a model is opened, and may compile more for a new shape",
    )
    self_test = SelfTest(timeout_s=120.0)  # three hundred megabytes of libraries, from a disk that may be cold

    def probe(self) -> Availability:
        """Look for the wheel, its library, an ONNX Runtime that can load it, the driver, and a GPU that it takes."""
        library, installed = wheels.library(_MODULE, _LIBRARY), _installed()
        # What is left of the package when it was uninstalled: links that its import had made.
        if library is None or not (installed or library.is_file()):
            if _has_wheels():
                return Unusable(f"{_WHEEL} is not installed", hint=_INSTALL)
            return Unusable(f"{_WHEEL} has no wheel for {platform.platform()}")
        if not library.is_file():
            return Unusable(f"{library} was not found", hint=_reinstall(installed))
        versions = wheels.runtimes()
        if versions and all(wheels.numbers(version) < _OLDEST_RUNTIME for version in versions.values()):
            wheel, version = next(iter(versions.items()))
            return Unusable(f"{wheel} {version} is too old for {_WHEEL}", hint=f"pip install '{wheel}>=1.24'")
        try:
            driver = gpus.ask()
        except OSError as error:
            told = str(error).removesuffix(": No such file or directory")
            return Unusable(f"{told} (it comes with the NVIDIA driver)", hint=self.hint(told))
        return judged(driver, installed)

    def fingerprint(self) -> Sequence[str]:
        """List the library, the versions, the variables that choose GPUs and libraries, the driver and its devices."""
        library = wheels.library(_MODULE, _LIBRARY)
        found = [f"{wheel} {version}" for wheel, version in {**wheels.runtimes(), **_installed()}.items()]
        places = [*([library] if library else []), Path("/proc/driver/nvidia/version"), Path("/etc/ld.so.cache")]
        found += [wheels.state(path) for path in places if path.is_file()]
        found += [f"{name}={os.environ.get(name)!r}" for name in _VARIABLES]
        return found + sorted(node.name for one in ("nvidia[0-9]*", "dxg") for node in Path("/dev").glob(one))

    def prepare(self, runtime: ModuleType) -> None:  # noqa: ARG002
        """Import the wheel's package, which loads TensorRT-RTX, and load CUDA's runtime, which it leaves out.

        Beside the files that came with it, the import puts links without which the library finds nothing.
        """
        library = self.library.path()
        before = os.environ.get(_SEARCHED)
        try:
            importlib.import_module(_MODULE)
        finally:
            # The import lengthens it, for processes that are started from this one: they are none of its business.
            if before is None:
                os.environ.pop(_SEARCHED, None)
            else:
                os.environ[_SEARCHED] = before
        for name in library.parent.glob("libcudart.so.*"):
            _load_unless_there(name)

    def check_inputs(self, options: Options, inputs: profiles.Inputs) -> str:
        """Say why the profiles do not fit the model's inputs; empty when they do or there are none."""
        if not isinstance(options, TensorRTRTXOptions) or not options.nv_profile_min_shapes:
            return ""
        chosen = (options.nv_profile_min_shapes, options.nv_profile_opt_shapes, options.nv_profile_max_shapes)
        return next((said for one in chosen if one and (said := profiles.misfit(profiles.parse(one), inputs))), "")

    def hint(self, cause: str) -> str:
        """Return what mends a failure to load or register the library, or to open a session."""
        if match := re.search(r'(Unknown|Failed to parse) provider option:? "(\w+)"', cause):
            return f"leave {match[2]} out: this version of the library does not take it so"
        advice = {
            re.escape(gpus.DRIVER): _DRIVER,
            re.escape(gpus.MANAGEMENT): _MANAGEMENT,
            r"cannot open shared object file|libcudart|libtensorrt": _reinstall(_installed()),
            "no device": f"it runs on {gpus.RUNS_ON}; nvidia-smi --query-gpu=name,compute_cap --format=csv",
            "runtime cache directory could not be created": "choose another nv_runtime_cache_path",
            "failed to deserialize engine": "leave nv_target_sm out: a model for another GPU can only be compiled",
            "Failed to create serialized engine": "set nv_detailed_build_log, and log_severity_level = 0 to see why",
        }
        return next((command for pattern, command in advice.items() if re.search(pattern, cause)), "")


def judged(driver: Driver, installed: dict[str, str]) -> Availability:
    """Say whether the library that is installed, under these wheels, runs with this driver and on one of its GPUs."""
    if driver.error:
        reason = f"{_LASTING.get(driver.error, 'the NVIDIA driver does not start')} (CUDA error {driver.error})"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if driver.error == 100 and visible is not None:
            return Unusable(f"{reason}; CUDA_VISIBLE_DEVICES is {visible!r}", hint="unset CUDA_VISIBLE_DEVICES")
        return Unusable(reason, hint="nvidia-smi", transient=driver.error not in _LASTING)
    shown = ", ".join(map(str, driver.gpus))
    if not any(gpu.supported for gpu in driver.gpus):
        return Unusable(f"TensorRT-RTX runs on {gpus.RUNS_ON}; this machine has {shown}", hint="epkit providers cuda")
    for cuda, wheel in _VARIANTS.items():
        if wheel in installed and driver.cuda < (cuda, 0):
            told = f"the NVIDIA driver supports CUDA {driver.cuda[0]}.{driver.cuda[1]}, {wheel} needs {cuda}"
            swap = f"pip uninstall -y {wheel} && pip install {_VARIANTS[12]}" if driver.cuda >= (12, 0) else ""
            return Unusable(told, hint=swap or "update the NVIDIA driver")
    wheel = " ".join(next(iter(installed.items()), (_WHEEL,)))
    return Usable(f"{wheel}, {shown}, driver for CUDA {driver.cuda[0]}.{driver.cuda[1]}")


def _installed() -> dict[str, str]:
    return {wheel: version for wheel in _VARIANTS.values() if (version := wheels.version(wheel))}


def _reinstall(installed: dict[str, str]) -> str:
    return f"pip install --force-reinstall {next(iter(installed), _WHEEL)}"


def _has_wheels() -> bool:
    machines = {"linux": ("x86_64", "aarch64"), "win32": ("amd64", "arm64")}
    return platform.machine().lower() in machines.get(sys.platform, ())


def _load_unless_there(library: Path) -> None:
    """Load a library by its path, unless the loader has it or finds it by itself: libcudart.so.13.4.36 as ….so.13."""
    try:
        ctypes.CDLL(".".join(library.name.split(".")[:3]))
    except OSError:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
