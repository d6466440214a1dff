"""What does tensorrt-rtx find out about a machine? Drivers are made up, and the machine at hand is asked."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from cuda_driver import CudaDriver
from epkit_tensorrt_rtx import epkit_providers, gpus, provider
from epkit_tensorrt_rtx.gpus import Driver, Gpu
from epkit_tensorrt_rtx.provider import TensorRTRTX, judged

from epkit import wheels
from epkit.discovery import probe
from epkit.discovery.registry import discover
from epkit.errors import ProviderUnavailable
from epkit.provider import FoundDevice, Unusable, Usable
from epkit.runtime import api
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.plugin_calls import chosen_devices
from epkit.session import explain

RTX = TensorRTRTX()
ADA = Gpu("NVIDIA GeForce RTX 4090", (8, 9))
HOPPER = Gpu("NVIDIA H100", (9, 0))
CU13 = {"onnxruntime-ep-nv-tensorrt-rtx-cu13": "0.5.0"}
NO_DRIVER = "libcuda.so.1: cannot open shared object file: No such file or directory"
NO_MANAGEMENT = "libnvidia-ml.so.1: cannot open shared object file: No such file or directory"


class MadeUp(CudaDriver):
    """A driver that knows its GPUs' compute capabilities too."""

    def __init__(self, *devices: Gpu, version: int = 13040, code: int = 0) -> None:
        super().__init__([device.name for device in devices], version=version, code=code)
        self.devices = devices

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = self.devices[device.value].capability[attribute - 75]
        return 0


def loading(driver: MadeUp) -> Callable[[str], ctypes.CDLL]:
    return lambda _: cast("ctypes.CDLL", driver)


def told(driver: Driver, installed: dict[str, str] = CU13) -> tuple[str, str]:
    answer = judged(driver, installed)
    assert isinstance(answer, Unusable)
    return answer.reason, answer.hint


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a wheel: an empty library, and a version."""
    folder = tmp_path / "made_up_rtx"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / provider._LIBRARY).touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(provider, "_MODULE", folder.name)
    monkeypatch.setattr(wheels, "version", lambda name: CU13.get(name, ""))
    monkeypatch.setattr(wheels, "runtimes", lambda: {"onnxruntime": "1.31.1"})
    return folder / provider._LIBRARY


def answer(monkeypatch: pytest.MonkeyPatch, driver: Driver | OSError) -> Usable | Unusable:
    def ask() -> Driver:
        if isinstance(driver, OSError):
            raise driver
        return driver

    monkeypatch.setattr(gpus, "ask", ask)
    return RTX.probe()


# What the machine has


def test_a_machine_with_everything_is_usable_and_says_what_it_has(library: Path, monkeypatch: pytest.MonkeyPatch):
    assert answer(monkeypatch, Driver((13, 4), (HOPPER, ADA))) == Usable(
        "onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0, "
        "NVIDIA H100 (9.0), NVIDIA GeForce RTX 4090 (8.9), driver for CUDA 13.4"
    )


def test_a_missing_wheel_is_a_reason_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider, "_MODULE", "onnxruntime_ep_that_is_not_there")
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        monkeypatch.setattr(sys, "platform", "linux")
        assert RTX.probe() == Unusable(
            "onnxruntime-ep-nv-tensorrt-rtx is not installed", hint="pip install onnxruntime-ep-nv-tensorrt-rtx"
        )
    monkeypatch.setattr(sys, "platform", "darwin")
    found = RTX.probe()
    assert isinstance(found, Unusable)
    assert "no wheel" in found.reason
    assert RTX.fingerprint()
    with pytest.raises(ProviderUnavailable, match="not installed"):
        RTX.library.path()


def test_what_an_uninstalled_wheel_leaves_behind_is_no_wheel(library: Path, monkeypatch: pytest.MonkeyPatch):
    library.unlink()
    found = answer(monkeypatch, Driver((13, 4), (ADA,)))
    assert isinstance(found, Unusable)
    assert found.reason == f"{library} was not found"
    assert found.hint == "pip install --force-reinstall onnxruntime-ep-nv-tensorrt-rtx-cu13"
    # The import had put links beside the library, which pip does not know of.
    monkeypatch.setattr(wheels, "version", lambda _: "")
    assert RTX.probe() == Unusable(
        "onnxruntime-ep-nv-tensorrt-rtx is not installed", hint="pip install onnxruntime-ep-nv-tensorrt-rtx"
    )


@pytest.mark.parametrize(("version", "old"), [("1.23.2", True), ("1.9.0", True), ("1.24.0", False), ("2.0", False)])
def test_an_old_onnx_runtime_is_a_reason(version: str, old: bool, library: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wheels, "runtimes", lambda: {"onnxruntime-gpu": version})
    found = answer(monkeypatch, Driver((13, 4), (ADA,)))
    assert isinstance(found, Unusable if old else Usable)
    if isinstance(found, Unusable):
        assert found.hint == "pip install 'onnxruntime-gpu>=1.24'"


@pytest.mark.parametrize(
    ("error", "hint"), [(NO_DRIVER, "install the NVIDIA driver"), (NO_MANAGEMENT, "a container needs NVIDIA_DRIVER")]
)
def test_a_missing_library_of_the_driver_is_a_reason_with_what_to_do(
    error: str, hint: str, library: Path, monkeypatch: pytest.MonkeyPatch
):
    found = answer(monkeypatch, OSError(error))
    assert isinstance(found, Unusable)
    assert found.reason == f"{error.partition(': No')[0]} (it comes with the NVIDIA driver)"
    assert found.hint.startswith(hint)


def test_a_gpu_that_the_library_declines_is_named():
    # In an old driver too: no other wheel would help this GPU.
    assert told(Driver((12, 4), (HOPPER, Gpu("NVIDIA A100", (8, 0))))) == (
        "TensorRT-RTX runs on compute capability 8.6, 8.9, and 12.0 or newer; "
        "this machine has NVIDIA H100 (9.0), NVIDIA A100 (8.0)",
        "epkit providers cuda",
    )


@pytest.mark.parametrize("capability", [(8, 6), (8, 9), (12, 0), (12, 1), (13, 0)])
def test_a_gpu_that_the_library_takes_is_usable(capability: tuple[int, int]):
    assert isinstance(judged(Driver((13, 0), (Gpu("RTX", capability),)), CU13), Usable)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 7), (9, 0), (10, 0), (11, 0)])
def test_no_other_gpu_is(capability: tuple[int, int]):
    assert isinstance(judged(Driver((13, 0), (Gpu("GPU", capability),)), CU13), Unusable)


def test_a_driver_that_is_too_old_for_the_wheel_names_the_wheel_for_it():
    assert told(Driver((12, 8), (ADA,))) == (
        "the NVIDIA driver supports CUDA 12.8, onnxruntime-ep-nv-tensorrt-rtx-cu13 needs 13",
        "pip uninstall -y onnxruntime-ep-nv-tensorrt-rtx-cu13 && pip install onnxruntime-ep-nv-tensorrt-rtx-cu12",
    )
    assert told(Driver((11, 8), (ADA,)))[1] == "update the NVIDIA driver"
    assert isinstance(judged(Driver((12, 8), (ADA,)), {"onnxruntime-ep-nv-tensorrt-rtx-cu12": "0.5.0"}), Usable)


def test_a_driver_without_gpus_is_a_reason_that_names_what_hides_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert told(Driver((13, 4), error=100)) == ("the NVIDIA driver shows no GPU (CUDA error 100)", "nvidia-smi")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert told(Driver((13, 4), error=100))[1] == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(("code", "transient"), [(35, False), (100, False), (803, False), (999, True), (2, True)])
def test_an_error_of_the_driver_passes_or_lasts(code: int, transient: bool):
    found = judged(Driver((13, 4), error=code), CU13)
    assert isinstance(found, Unusable)
    assert found.transient == transient
    assert f"CUDA error {code}" in found.reason


@pytest.mark.parametrize("devices", [(ADA,), (HOPPER, ADA)])
def test_a_driver_is_asked_for_its_gpus(devices: Sequence[Gpu]):
    assert gpus.ask(loading(MadeUp(*devices))) == Driver((13, 4), tuple(devices))
    assert gpus.ask(loading(MadeUp(version=12080))) == Driver((12, 8), error=100)
    assert gpus.ask(loading(MadeUp(*devices, code=999))) == Driver((13, 4), error=999)


def test_without_the_driver_asking_says_which_library_is_missing():
    names: list[str] = []

    def load(name: str) -> ctypes.CDLL:
        names.append(name)
        if name == gpus.MANAGEMENT:
            raise OSError(NO_MANAGEMENT)
        return cast("ctypes.CDLL", MadeUp())

    with pytest.raises(OSError, match="libnvidia-ml"):
        gpus.ask(load)
    assert names == [gpus.DRIVER, gpus.MANAGEMENT]


def test_the_fingerprint_changes_with_the_library_and_what_hides_gpus(library: Path, monkeypatch: pytest.MonkeyPatch):
    before = [*RTX.fingerprint()]
    library.write_bytes(b"newer")
    after = [*RTX.fingerprint()]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert len({tuple(one) for one in (before, after, RTX.fingerprint())}) == 3


def test_probing_imports_neither_onnx_runtime_nor_numpy():
    code = (
        "import sys\n"
        f"sys.path.append({str(Path(provider.__file__).parents[1])!r})\n"
        "from epkit_tensorrt_rtx.provider import TensorRTRTX\n"
        "TensorRTRTX().probe(), TensorRTRTX().fingerprint()\n"
        "print([name for name in sys.modules if name.startswith(('onnxruntime', 'numpy'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Devices


def device(name: str, index: int) -> FoundDevice:
    return FoundDevice(index, name, "GPU", "NVIDIA", {"target_architecture": "sm89"})


def test_a_gpu_is_chosen_by_its_ordinal_among_those_that_the_library_takes():
    found = [device("CPUExecutionProvider", 0), device(RTX.ort_name, 1), device("Other", 2), device(RTX.ort_name, 3)]
    assert [[one.index for one in chosen_devices(RTX, found, asked)] for asked in (None, 0, 1, 2)] == [
        [1],
        [1],
        [3],
        [],
    ]
    assert chosen_devices(RTX, [], None) == []


def test_the_plain_script_names_the_same_gpu(library: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "prepare", lambda _: None)
    monkeypatch.setattr(api, "list_devices", lambda _: [device(RTX.ort_name, at) for at in range(3)])
    script = "\n".join(explain._added(ConfiguredProvider(RTX, device=1)))
    assert "options.add_provider_for_devices(devices[1:2], {})" in script
    assert f"register_execution_provider_library('{RTX.ort_name}', '{library}')" in script


def test_only_ordinals_make_sense():
    assert RTX.devices.check(1) == ""
    assert all("0 or above" in RTX.devices.check(one) for one in (-1, True, "GPU"))


# Loading it


PREPARE = """
import os, sys
sys.path.append(sys.argv[1])
from epkit_tensorrt_rtx.provider import TensorRTRTX
before = dict(os.environ)
import onnxruntime
TensorRTRTX().prepare(onnxruntime)
TensorRTRTX().prepare(onnxruntime)
print([name for name, value in os.environ.items() if before.get(name) != value])
with open("/proc/self/maps") as maps:
    loaded = maps.read()
print([name for name in ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so", "libcudart.so") if name not in loaded])
onnxruntime.register_execution_provider_library(TensorRTRTX.ort_name, str(TensorRTRTX.library.path()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_preparing_loads_what_the_library_needs_and_leaves_the_environment_alone():
    library = wheels.library(provider._MODULE, provider._LIBRARY)
    if library is None or not library.is_file():
        pytest.skip("onnxruntime-ep-nv-tensorrt-rtx is not installed")
    command = [sys.executable, "-c", PREPARE, str(Path(provider.__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"], done.stderr
    if done.returncode:  # without a driver
        assert RTX.hint(done.stderr).startswith(("install the NVIDIA driver", "a container needs"))


# What ONNX Runtime, the library and the engine said, with libraries of a driver that were made up


@pytest.mark.parametrize(
    ("cause", "command"),
    [
        (f"Failed to load library /x.so with error: {NO_DRIVER}", "install the NVIDIA driver"),
        (f"Failed to load library /x.so with error: {NO_MANAGEMENT}", "a container needs NVIDIA_DRIVER_CAPABILITIES"),
        ("with error: libcudart.so.13: cannot open shared object file", "pip install --force-reinstall"),
        ("with error: libtensorrt_rtx.so.1: cannot open shared object file", "pip install --force-reinstall"),
        ("no device in its library; it offers: none", "it runs on compute capability 8.6"),
        ('FAIL : Unknown provider option: "nv_new".', "leave nv_new out"),
        ('FAIL : Failed to parse provider option "nv_new": Failed to parse value: "0"', "leave nv_new out"),
        (
            "[NvTensorRTRTX EP] The runtime cache directory could not be created at: /proc/nope",
            "choose another nv_runtime_cache_path",
        ),
        (
            "[NvTensorRTRTX EP] NvTensorRTRTX EP failed to deserialize engine for fused node: NvTensorRTRTX_0_0",
            "leave nv_target_sm out",
        ),
        (
            "[NvTensorRTRTX EP] Failed to create serialized engine for fused node: NvTensorRTRTX_0_0",
            "set nv_detailed_build_log",
        ),
        ("something else", ""),
    ],
)
def test_a_known_cause_has_a_command(cause: str, command: str):
    assert RTX.hint(cause).startswith(command)
    assert bool(RTX.hint(cause)) == bool(command)


# Through epkit


def test_the_hook_offers_it():
    (offered,) = epkit_providers()
    assert isinstance(offered, TensorRTRTX)


def test_the_proof_gives_its_reason_or_runs(monkeypatch: pytest.MonkeyPatch):
    found = probe.ask([(RTX, None)], discover(environ={"EPKIT_PLUGINS": "epkit_tensorrt_rtx"}))["tensorrt-rtx"]
    match found.availability:
        case Usable():
            assert found.proven
        case Unusable(reason, hint):
            assert reason
            assert hint
