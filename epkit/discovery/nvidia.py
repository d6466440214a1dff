"""Find the NVIDIA libraries, driver and devices of this machine, and what ONNX Runtime needs of them.

Nothing here imports ONNX Runtime. The needs of its provider libraries are read from the libraries themselves, so the
major versions are those of the installed build.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from epkit._system import libraries
from epkit.provider import Availability, Unusable, Usable

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
CUDNN = "cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9"

_NAMES = {"cuda": "CUDA", "tensorrt": "TensorRT"}
# What the provider libraries of Windows import; there the tables of the files are not read.
_WINDOWS = {
    "cuda": ("cublasLt64_{cuda}.dll", "cublas64_{cuda}.dll", "cudart64_{cuda}.dll", DRIVER),
    "tensorrt": ("cublas64_{cuda}.dll", "cudart64_{cuda}.dll", CUDNN, "nvinfer_10.dll", "nvonnxparser_10.dll"),
}
_FIRST_DRIVER = {12: "525", 13: "580"}
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "PATH" if sys.platform == "win32" else "LD_LIBRARY_PATH")
_LASTING = {
    34: f"{DRIVER} is the CUDA toolkit's stub, not a driver",
    35: "the NVIDIA driver is too old",
    100: "no CUDA-capable device is detected",
    803: "the NVIDIA driver's library and kernel module differ in version",
    804: "the CUDA compatibility package does not support this GPU",
}
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_TURING = "a GPU older than Turing needs a build for CUDA 12, the newest GPUs need the newest onnxruntime-gpu"


@dataclass(frozen=True, slots=True)
class Installed:
    """The ONNX Runtime that is installed, as its files describe it."""

    root: Path
    package: str = "onnxruntime"
    version: str = ""
    cuda: str = ""
    """The CUDA version of the build, `13.0`; empty for a build without CUDA."""

    @property
    def cuda_major(self) -> int:
        """The major of that version; 0 for none."""
        major = self.cuda.partition(".")[0]
        return int(major) if major.isdigit() else 0

    @property
    def wheel_directories(self) -> list[Path]:
        """The folders of NVIDIA's wheels; no loader searches them, but `prepare` loads from them by path.

        They may be in another folder of Python's path than ONNX Runtime.
        """
        patterns = ("nvidia/*/bin", "nvidia/*/bin/x86_64") if sys.platform == "win32" else ("nvidia/*/lib",)
        roots = dict.fromkeys([self.root.parent, *(Path(entry) for entry in sys.path if entry)])
        found = (path for root in roots for one in (*patterns, "tensorrt*_libs") for path in sorted(root.glob(one)))
        return list(dict.fromkeys(found))

    def library(self, provider: str) -> Path:
        """Return the path of the library of a provider (`cuda`), in builds that have it."""
        return self.root / "capi" / libraries.shared_library(f"onnxruntime_providers_{provider}")

    def needs(self, providers: Iterable[str]) -> list[str]:
        """List the libraries that the providers need to be loaded."""
        if sys.platform == "win32":
            names = [name.format(cuda=self.cuda_major) for one in providers for name in _WINDOWS[one]]
        else:
            names = [name for one in providers for name in libraries.read_needed_libraries(self.library(one))]
        return list(dict.fromkeys(names))


def find_runtime() -> Installed | None:
    """Find the ONNX Runtime that `import onnxruntime` would load, without loading it."""
    try:
        spec = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return read_runtime(Path(next(iter(spec.submodule_search_locations))))


def read_runtime(root: Path) -> Installed:
    """Describe the ONNX Runtime in the package directory `root`."""
    try:
        text = (root / "capi" / "build_and_package_info.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    facts = dict(re.findall(r"^(\w+) *= *['\"](.*)['\"]", text, re.MULTILINE))
    package = facts.get("package_name", "onnxruntime")
    return Installed(root, package, facts.get("__version__", ""), facts.get("cuda_version", ""))


def probe(
    runtime: Installed | None,
    providers: Sequence[str],
    lazy: Iterable[str] = (),
    *,
    load: Callable[[str], ctypes.CDLL] = ctypes.CDLL,
) -> Availability:
    """Check for the libraries of `providers`, those that they load later (`lazy`), a driver and a GPU.

    Libraries are found, not loaded: they have hundreds of megabytes. Only the driver is loaded (by `load`).
    """
    if runtime is None:
        return Unusable("ONNX Runtime is not installed", hint='pip install "epkit[gpu]"')
    for provider in providers:
        if not runtime.library(provider).is_file():
            return _without(runtime, provider)
    missing = missing_libraries([*runtime.needs(providers), *lazy], runtime.wheel_directories)
    try:
        driver = load(DRIVER)
    except OSError as error:
        missing[DRIVER] = str(error).removesuffix(": No such file or directory")
    if missing:
        reason = absence(missing, runtime.wheel_directories, gpu_on_bus())
        return Unusable(reason, hint=remedy(missing, runtime))
    return ask_driver(driver, runtime)


def preload(runtime: ModuleType, installed: Installed | None) -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels; `preload_dlls` by itself looks only beside ONNX Runtime.

    It prints what it cannot load.
    """
    if not hasattr(runtime, "preload_dlls"):
        return
    runtime.preload_dlls()
    for directory in installed.wheel_directories if installed else ():
        if installed is not None and not directory.is_relative_to(installed.root.parent):
            runtime.preload_dlls(directory=str(directory))


def missing_libraries(names: Iterable[str], directories: Sequence[Path]) -> dict[str, str]:
    """Return the missing libraries, without the driver's, each with the error of the loader."""
    absent = [name for name in dict.fromkeys(names) if name != DRIVER and not libraries.find_library(name, directories)]
    return {name: error for name in absent if (error := libraries.try_load(name))}


def absence(missing: Mapping[str, str], directories: Sequence[Path], gpu: bool | None) -> str:
    """Describe what is missing (name to the loader's error), and other versions that were found."""
    (_, sentence), *others = missing.items()
    named = [f"and {name} of the NVIDIA driver" if name == DRIVER else name for name, _ in others]
    if named:
        sentence += f" (also missing: {', '.join(named)})"
    elif DRIVER in missing:
        sentence += " (it comes with the NVIDIA driver)"
    instead = [other for name in missing for other in libraries.find_other_versions(name, directories)]
    if instead:
        sentence += f"; found {', '.join(instead)} instead"
    if DRIVER in missing and gpu is False:
        sentence += "; this machine shows no NVIDIA GPU"
    return sentence


def remedy(names: Collection[str], runtime: Installed | None) -> str:
    """Return the command that installs the missing libraries `names`."""
    major = runtime.cuda_major if runtime else 0
    packages = []
    for name in names:
        if tensorrt := re.match(r"(?:lib)?nv(?:infer|onnxparser)\w*?[._](?:so\.)?(\d+)", name):
            version = int(tensorrt[1])
            packages.append(f'"tensorrt-cu{major or 13}>={version},<{version + 1}"')
        elif name != DRIVER:
            # Not [cuda] alone: cuBLAS comes only as a dependency of cuDNN.
            packages.append('"onnxruntime-gpu[cuda,cudnn]"')
    driver = "install the NVIDIA driver" + (f", {_FIRST_DRIVER[major]} or newer" if major in _FIRST_DRIVER else "")
    command = f"pip install {' '.join(dict.fromkeys(packages))}" if packages else ""
    if DRIVER not in names:
        return command
    return f"{command}  # and {driver}" if command else f"{driver}; a container needs `docker run --gpus all`"


def ask_driver(driver: ctypes.CDLL, runtime: Installed) -> Availability:
    """Query the loaded driver for its version and its devices."""
    version, count, device = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    if 0 < version.value // 1000 < runtime.cuda_major:
        reason = f"the NVIDIA driver supports CUDA {cuda}, this ONNX Runtime was built for CUDA {runtime.cuda}"
        return Unusable(reason, hint=hint("CUDA failure 35", runtime))
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or (0 if count.value else 100)
    if code:
        reason = f"{_LASTING.get(code, 'the NVIDIA driver does not start')} (CUDA error {code})"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if code == 100 and visible is not None:
            return Unusable(f"{reason}; CUDA_VISIBLE_DEVICES is {visible!r}", hint="unset CUDA_VISIBLE_DEVICES")
        return Unusable(reason, hint=hint(f"CUDA failure {code}", runtime), transient=code not in _LASTING)
    found: Counter[str] = Counter()
    for ordinal in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDeviceGetName(name, len(name), device)
        found[name.value.decode(errors="replace")] += 1
    devices = ", ".join(f"{times} x {one}" if times > 1 else one for one, times in found.items())
    return Usable(f"{devices}, driver for CUDA {cuda}")


def gpu(ordinal: int, *, load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> str:
    """Describe a GPU, its compute capability and its driver, without CUDA; unknown parts are left out."""
    facts = [_read(Path("/proc/driver/nvidia/version")).partition("\n")[0]]
    device, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    with suppress(OSError):
        driver = load(DRIVER)
        if not (driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), ordinal)):
            driver.cuDeviceGetName(name, len(name), device)
            driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
            driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
            facts = [f"{name.value.decode(errors='replace')}, compute capability {major.value}.{minor.value}", *facts]
    return ", ".join(filter(None, facts))


def used_memory(ordinal: int = 0, *, load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> int | None:
    """Return the used bytes of a GPU's memory, of all processes; None if NVIDIA's library does not report them."""
    try:
        library = load("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None
    device, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
    code = library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(ordinal, ctypes.byref(device))
    code = code or library.nvmlDeviceGetMemoryInfo(device, memory)
    return None if code else int(memory[2])


def hint(cause: str, runtime: Installed | None) -> str:
    """Return the command that fixes the failure `cause` of ONNX Runtime or the driver, or "" if unknown."""
    if libraries := re.findall(r"\blib(?:cu|nv)\w+\.so(?:\.\d+)?\b|\b(?:cu|nv)\w+\.dll\b", cause):
        return remedy(libraries, runtime)
    newer = _FIRST_DRIVER.get(runtime.cuda_major if runtime else 0)
    advice = {
        r"cuDNN is (unavailable|not available)|cu(DNN|FFT) library was not found": remedy([CUDNN], runtime),
        r"failure 35\b|driver version is insufficient": "update the NVIDIA driver"
        + (f" to {newer} or newer" if newer else ""),
        r"failure 100\b|no CUDA-capable device": "nvidia-smi -L  # lists the GPUs that are there",
        r"failure 101\b|[Ii]nvalid device": "nvidia-smi -L  # lists the GPUs that are there",
        r"failure (803|999)\b": "sudo reboot  # the driver was updated, or lost its device",
        r"failure 2\b|out of memory": "nvidia-smi  # shows who holds the GPU's memory; gpu_mem_limit caps this session",
        r"no kernel image": f"pip install --upgrade onnxruntime-gpu  # {_TURING}",
    }
    return next((command for pattern, command in advice.items() if re.search(pattern, cause)), "")


def fingerprint(runtime: Installed | None, providers: Sequence[str], lazy: Iterable[str] = ()) -> list[str]:
    """List what the result of `probe` depends on."""
    facts = [f"{name}={os.environ.get(name)!r}" for name in _VARIABLES]
    facts += sorted(path.name for one in ("nvidia[0-9]*", "dxg") for path in Path("/dev").glob(one))
    facts.append(_read(Path("/proc/driver/nvidia/version")))
    facts.append(_stamp(Path("/etc/ld.so.cache")))
    if runtime is not None:
        directories = runtime.wheel_directories
        found = [libraries.find_library(name, directories) for name in (*runtime.needs(providers), *lazy)]
        facts.append(f"{runtime.package} {runtime.version} {runtime.cuda}")
        facts += [_stamp(path) for path in (*map(runtime.library, providers), *directories, *found) if path]
    return facts


def gpu_on_bus(devices: Path = Path("/sys/bus/pci/devices")) -> bool | None:
    """Return whether the PCI bus has an NVIDIA GPU; None if unknown (WSL, Tegra, no such directory)."""
    cards = [*devices.glob("*/vendor")]
    if not cards or Path("/dev/dxg").exists() or Path("/dev/nvmap").exists():
        return None
    # The class 0x03.... is a display controller; NVIDIA makes network cards too.
    return any(_read(card) == "0x10de" and _read(card.with_name("class")).startswith("0x03") for card in cards)


def _without(runtime: Installed, provider: str) -> Unusable:
    build = f"{runtime.package} {runtime.version}".strip()
    wheels = sys.platform in ("linux", "win32") and platform.machine() in ("x86_64", "AMD64")
    return Unusable(
        f"this ONNX Runtime ({build}) was built without {_NAMES[provider]}",
        hint="pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" if wheels else "",
    )


def _stamp(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return f"{path} absent"
    return f"{path} {facts.st_mtime_ns} {facts.st_size}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
