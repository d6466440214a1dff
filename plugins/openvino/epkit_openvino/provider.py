"""What does this machine have for OpenVINO, and how does ONNX Runtime's plugin library want it?"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Mapping, Sequence
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
    SelfTest,
    Unusable,
    Usable,
    WarmupNeed,
)
from epkit_openvino import adapter, processor
from epkit_openvino.options import OpenVinoOptions, shapes

_MODULE = "onnxruntime_ep_openvino"
_WHEEL = "onnxruntime-ep-openvino"
_INSTALL = f"pip install {_WHEEL}"
_LIBRARY = wheels.shared_library("onnxruntime_providers_openvino_plugin")
_OLDEST_RUNTIME = (1, 23)

_DEFAULT_DEVICE = "CPU"
_NO_CPU = (
    f"unset {adapter.VARIABLE}: without epkit's adapter, OpenVINO's library lists Intel's CPUs only"
    if adapter.supported()
    else "use an Intel CPU: OpenVINO's library lists no other, and epkit's adapter for that is made for Linux on x86-64"
)
_NOT_ON_CPU = ("ACTIVATIONS_SCALE_FACTOR", "COMPILATION_NUM_THREADS", "MODEL_PRIORITY", "WORKLOAD_TYPE")


class OpenVinoLibrary(PluginLibrary):
    """OpenVINO's plugin library, through epkit's adapter where it would list no device."""

    def path(self) -> Path:
        """Return the library inside the wheel, or the adapter that stands before it.

        Raises ProviderUnavailable when the wheel is not installed.
        """
        library = _library()
        return adapter.LIBRARY if adapter.used() else library

    def preload(self) -> Sequence[Path]:
        """Return OpenVINO's library where the adapter is registered in its place, which looks for it in the process."""
        return [_library()] if adapter.used() else []


class OpenVinoDevices(Devices):
    """Intel's CPUs, GPUs and NPUs, by kind."""

    def choose(self, found: Sequence[FoundDevice], device: Device | None) -> Sequence[FoundDevice]:
        """Choose the first device of the kind that is asked for, else the CPU.

        The CPU, since every machine with OpenVINO has it: installing a driver must not move a target to a GPU, which
        computes in float16.
        """
        wanted = _DEFAULT_DEVICE if device is None else device
        return [one for one in found if one.kind == wanted][:1]


class OpenVinoCaching(Caching):
    """Compiled models, which OpenVINO itself keeps as blobs."""

    def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:  # noqa: ARG002
        """Keep blobs in `folder`: OpenVINO names them by model, weights and version, and loads what it knows."""
        extra = {name: text for name, text in options.extra.items() if name != "CACHE_DIR"}
        return options.model_copy(update={"CACHE_DIR": folder and str(folder), "extra": extra})

    def requested_dir(self, options: Options) -> str | None:
        """Return CACHE_DIR."""
        asked = (options.written() | options.extra).get("CACHE_DIR")
        return None if asked is None else str(asked)

    def fingerprint(self, device: Device | None) -> Sequence[str]:
        """List the version of the wheel, and what it compiles for: the CPU's instruction set, or the device nodes."""
        library = wheels.library(_MODULE, _LIBRARY)
        size = library.stat().st_size if library is not None and library.is_file() else 0
        hardware = processor.instructions() if device in (None, "CPU") else ", ".join(_device_nodes())
        return [f"{_WHEEL} {wheels.version(_WHEEL)}, {size} bytes", hardware]


class OpenVino(Provider):
    """Intel's compiler for whole models, on its CPUs, GPUs and NPUs; it fuses what it takes into few nodes."""

    name = "openvino"
    ort_name = "OpenVINOExecutionProvider"
    rank = 40
    options = OpenVinoOptions
    devices = OpenVinoDevices(kinds=("CPU", "GPU", "NPU"))
    library = OpenVinoLibrary()
    environment = ("ORT_OPENVINO_*", "OV_*")
    # Found by running it: a model with text crashes the process, and wide numbers are computed in 32 bits unsaid.
    # Any number of runs at once: each takes an inference request of its own.
    limits = Limits(
        unsupported_types=("string",),
        narrowed_types={"int64": "int32", "uint64": "int32", "float64": "float32"},
        concurrency="free",
    )
    self_test = SelfTest(networks=("convolutions", "mlp", "attention"))
    capabilities = frozenset({"float32", "float16", "int8", "dynamic-shapes", "data-shapes"})
    warmup = WarmupNeed(
        runs=2,
        shapes="each",
        why="the model is compiled when it is opened, the kernels for a new input shape with its first run",
    )
    caching = OpenVinoCaching(compiles="opening")

    def probe(self) -> Availability:
        """Look for the wheel, its library, and an ONNX Runtime that can load plugin libraries."""
        library = wheels.library(_MODULE, _LIBRARY)
        if library is None:
            if sys.platform in ("linux", "win32") and platform.machine().lower() in ("x86_64", "amd64"):
                return Unusable(f"{_WHEEL} is not installed", hint=_INSTALL)
            return Unusable(f"{_WHEEL} has wheels for Linux and Windows on x86-64, not for {platform.platform()}")
        if not library.is_file():
            return Unusable(f"{library} was not found", hint=f"{_INSTALL} --force-reinstall")
        versions = wheels.runtimes()
        if versions and all(wheels.numbers(version) < _OLDEST_RUNTIME for version in versions.values()):
            wheel, version = next(iter(versions.items()))
            return Unusable(f"{wheel} {version} loads no plugin libraries", hint=f"pip install '{wheel}>=1.23'")
        if adapter.mode() not in adapter.MODES:
            told = f"{adapter.VARIABLE} is {adapter.mode()!r}, which is none of {', '.join(adapter.MODES)}"
            return Unusable(told, hint=f"unset {adapter.VARIABLE}")
        found = Usable(", ".join([f"{_WHEEL} {wheels.version(_WHEEL)}", *_device_nodes()]))
        return self._adapted(found, versions) if adapter.used() else found

    def _adapted(self, found: Usable, runtimes: Mapping[str, str]) -> Availability:
        """Say that the library is registered through the adapter, which needs a newer ONNX Runtime than the library."""
        if runtimes and all(wheels.numbers(version) < adapter.OLDEST_RUNTIME for version in runtimes.values()):
            wheel, version = next(iter(runtimes.items()))
            told = f"{wheel} {version} cannot show OpenVINO's library a CPU of {processor.maker_name()}"
            return Unusable(told, hint=f"pip install '{wheel}>=1.24'")
        detail = f"{found.detail}, through epkit's adapter on a CPU of {processor.maker_name()}"
        note = f"{self.name} is registered through epkit's adapter: its library lists Intel's CPUs only"
        return Usable(detail, note=f"{note}; {adapter.VARIABLE}=off turns the adapter off")

    def fingerprint(self) -> Sequence[str]:
        """List the library with its time and size, ONNX Runtime's versions, the processor, the device nodes.

        The processor, since Intel's and others may share a home, and an answer is remembered for a week.
        """
        library = wheels.library(_MODULE, _LIBRARY)
        found = [f"{wheel} {version}" for wheel, version in wheels.runtimes().items()] + _device_nodes()
        found += [processor.maker(), processor.model(), adapter.mode(), wheels.state(adapter.LIBRARY)]
        if library is not None and library.is_file():
            state = library.stat()
            found += [str(library), str(state.st_mtime_ns), str(state.st_size), wheels.version(_WHEEL)]
        return found

    def check_options(self, options: Options, device: Device | None) -> str:
        """Look for properties of other devices, which OpenVINO would refuse when a session is opened."""
        kind = _DEFAULT_DEVICE if device is None else str(device)
        for name in options.written() | options.extra:
            owner = name.partition("_")[0]
            strange = owner in self.devices.kinds and owner != kind
            if strange or (kind == "CPU" and name in _NOT_ON_CPU):
                others = owner if strange else "GPU or NPU"
                return f"{name} is no property of the {kind}: leave it out, or set device to {others}"
        return ""

    def check_inputs(self, options: Options, inputs: Mapping[str, Sequence[int | str | None] | None]) -> str:
        """Compare `reshape_input` with the model's inputs."""
        written = options.reshape_input if isinstance(options, OpenVinoOptions) else None
        for name, dimensions in shapes(written or "").items():
            if name not in inputs:
                return f"reshape_input names {name!r}, but the model's inputs are {', '.join(inputs)}"
            shape = inputs[name]
            if shape is not None and len(dimensions) != len(shape):
                return f"reshape_input gives {name!r} {len(dimensions)} dimensions, but it has {len(shape)}"
        return ""

    def always_sent(self, device: Device | None) -> Mapping[str, str]:
        """Ask for float32 on the CPU.

        OpenVINO would compute in bfloat16 where a processor does so fast, and give other numbers there than on the next
        machine: outputs 0.7 % off with AVX512_BF16.
        """
        return {"INFERENCE_PRECISION_HINT": "f32"} if device in (None, _DEFAULT_DEVICE) else {}

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Put the properties into `load_config`, under the device, and the library's own options beside it."""
        kind = _DEFAULT_DEVICE if device is None else str(device)
        given = options.written() | options.extra
        properties = {name: _text(value, "YES", "NO") for name, value in given.items() if name.isupper()}
        sent = {name: _text(value, "true", "false") for name, value in given.items() if not name.isupper()}
        return sent | ({"load_config": json.dumps({kind: properties})} if properties else {})

    def hint(self, cause: str) -> str:
        """Return what mends a failure to register the library or to open a session."""
        if match := re.search(r"Unsupported property (\w+) by (\w+) plugin", cause):
            return f"leave {match[1]} out of the options: OpenVINO does not know it on the {match[2]}"
        if "No CPU resources available" in cause:
            return "drop ENABLE_CPU_RESERVATION: another session of this process keeps all cores"
        if "lists none" in cause and not adapter.used() and processor.maker() != processor.INTEL:
            return _NO_CPU
        if "no device" in cause:
            return "install Intel's driver for the GPU or NPU, or leave device out for the CPU"
        if "cannot open shared object file" in cause:
            return f"{_INSTALL} --force-reinstall"
        return ""


def _library() -> Path:
    library = wheels.library(_MODULE, _LIBRARY)
    if library is None:
        raise ProviderUnavailable(f"{_WHEEL} is not installed", hint=_INSTALL)
    return library


def _device_nodes() -> list[str]:
    """List the nodes of GPUs and NPUs; only Linux has any."""
    return sorted(str(node) for node in (*Path("/dev/dri").glob("renderD*"), *Path("/dev/accel").glob("accel*")))


def _text(value: object, yes: str, no: str) -> str:
    if isinstance(value, bool):
        return yes if value else no
    return str(value)
