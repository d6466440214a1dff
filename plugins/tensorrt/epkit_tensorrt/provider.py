"""TensorRT engines on NVIDIA GPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from epkit import wheels
from epkit.discovery import nvidia
from epkit.provider import Availability, Caching, Device, Devices, GraphCapture, Options, Provider, SelfTest, WarmupNeed
from epkit_tensorrt import profiles
from epkit_tensorrt.options import TensorRTOptions

# The TensorRT provider takes its memory from the CUDA provider, so it needs what that needs.
_PROVIDERS = ("tensorrt", "cuda")
_LAZY = (nvidia.CUDNN,)


class TensorRTCaching(Caching):
    """Engines and their profiles, and which kernels were the fastest."""

    def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:  # noqa: ARG002
        """Keep engines and their profiles in `folder`; kernel times stay where they would have been, for all models."""
        given = options.written() | options.extra
        update: dict[str, object] = {
            "trt_engine_cache_enable": folder is not None,
            "trt_engine_cache_path": folder and str(folder),
        }
        if _on(given.get("trt_timing_cache_enable")) and not given.get("trt_timing_cache_path"):
            update["trt_timing_cache_path"] = str(given.get("trt_engine_cache_path") or ".")
        extra = {name: text for name, text in options.extra.items() if name not in update}
        return options.model_copy(update=update | {"extra": extra})

    def check(self, options: Options) -> str:
        """Name the options that look for other files where the engines are."""
        given = options.written() | options.extra
        for option in ("trt_int8_calibration_table_name", "trt_dump_ep_context_model"):
            if given.get(option) and (option.endswith("name") or _on(given[option])):
                told = f"{option} ties the engines to trt_engine_cache_path"
                return f"{told}, where their names ignore the weights: give each version of a model a path of its own"
        return ""

    def requested_dir(self, options: Options) -> str | None:
        """Return trt_engine_cache_path where trt_engine_cache_enable is on."""
        given = options.written() | options.extra
        return str(given.get("trt_engine_cache_path", "")) if _on(given.get("trt_engine_cache_enable")) else None

    def fingerprint(self, device: Device | None) -> Sequence[str]:
        """List ONNX Runtime's CUDA, TensorRT's libraries by their sizes, and the GPU with its driver."""
        installed = nvidia.find_runtime()
        if installed is None:
            return ()
        names = [name for name in installed.needs(("tensorrt",)) if "nvinfer" in name or "nvonnxparser" in name]
        found = [path.resolve() for name in names if (path := wheels.find_library(name, installed.wheel_directories))]
        libraries = [f"{path.name} {path.stat().st_size} bytes" for path in found]
        return [f"CUDA {installed.cuda}", ", ".join(libraries), nvidia.gpu(device if isinstance(device, int) else 0)]


class TensorRT(Provider):
    """NVIDIA GPUs by engines that TensorRT compiles for this GPU, which takes seconds to minutes."""

    name = "tensorrt"
    ort_name = "TensorrtExecutionProvider"
    rank = 10
    automatic = False  # compiling for minutes is nothing to do unasked
    options = TensorRTOptions
    devices = Devices(option="device_id", memory="cuda", arena="gpu")
    capture = GraphCapture("trt_cuda_graph_enable")
    caching = TensorRTCaching(compiles="shapes")
    environment = ("ORT_TENSORRT_*", "ORT_DUMP_EP_CONTEXT_MODEL", "ORT_EP_CONTEXT_*", "NVIDIA_TF32_OVERRIDE")
    # What ONNX Runtime documents; quantized models need an option, and outputs by data are left to CUDA.
    capabilities = frozenset({"float32", "float16", "int64", "dynamic-shapes"})
    warmup = WarmupNeed(
        runs=2,
        shapes="each",
        why="an engine is built for the shapes it has seen or was told of, and anew for one outside them",
    )
    self_test = SelfTest(timeout_s=180.0)

    def probe(self) -> Availability:
        """Look for the libraries of TensorRT, CUDA and cuDNN, and ask the driver for its version and its GPUs."""
        return nvidia.probe(nvidia.find_runtime(), _PROVIDERS, _LAZY)

    def fingerprint(self) -> Sequence[str]:
        """List the libraries, the driver, the device nodes and the variables that choose among them."""
        return nvidia.fingerprint(nvidia.find_runtime(), _PROVIDERS, _LAZY)

    def prepare(self, runtime: ModuleType) -> None:
        """Load CUDA, cuDNN and TensorRT from NVIDIA's wheels, where no loader looks; OSError if TensorRT cannot."""
        installed = nvidia.find_runtime()
        nvidia.preload(runtime, installed)
        for library in _in_wheels(installed) if installed else ():
            ctypes.CDLL(str(library))

    def check_inputs(self, options: Options, inputs: profiles.Inputs) -> str:
        """Say why the profiles do not fit the model's inputs; empty when they do or there are none."""
        if not isinstance(options, TensorRTOptions) or not options.trt_profile_min_shapes:
            return ""
        chosen = (options.trt_profile_min_shapes, options.trt_profile_opt_shapes, options.trt_profile_max_shapes)
        return next((said for one in chosen if one and (said := profiles.misfit(profiles.parse(one), inputs))), "")

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Turn options into text; this provider alone refuses `1` and `0` for `True` and `False`."""
        switches = {name: str(value) for name, value in options.written().items() if isinstance(value, bool)}
        return super().to_ort_options(options, device) | switches | options.extra

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:
        """Register TensorRT's plugins as operators too, which ONNX Runtime does by itself only for `providers=`."""
        super().add(runtime, session_options, sent, devices)
        runtime.capi._pybind_state.register_tensorrt_plugins_as_custom_ops(session_options, dict(sent))

    def hint(self, cause: str) -> str:
        """Return the command that brings a missing library, or mends what the driver said."""
        return nvidia.hint(cause, nvidia.find_runtime())


def _on(value: object) -> bool:
    return value is True or str(value).lower() in ("1", "true")


def _in_wheels(installed: nvidia.Installed) -> list[Path]:
    """List TensorRT's libraries among NVIDIA's wheels, in the order in which they load."""
    names = [name for name in installed.needs(("tensorrt",)) if "nvinfer" in name or "nvonnxparser" in name]
    names += [name.replace("nvinfer", "nvinfer_plugin") for name in names if "nvinfer" in name]  # it is loaded later
    places = [directory / name for name in names for directory in installed.wheel_directories]
    return [path for path in places if path.is_file()]
