"""What the cuda and tensorrt plugins find out about a machine; machines are made up, and the one at hand is asked."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from cuda_driver import CudaDriver
from elf import elf
from epkit_cuda.provider import Cuda
from epkit_tensorrt.provider import TensorRT

from epkit._system.text import describe_error
from epkit.discovery import nvidia
from epkit.provider import Provider, Unusable, Usable

PROVIDERS: tuple[Provider, ...] = (Cuda(), TensorRT())
NO_DRIVER = "libcuda.so.1: cannot open shared object file: No such file or directory"


def loading(driver: CudaDriver | None) -> Callable[[str], ctypes.CDLL]:
    def load(name: str) -> ctypes.CDLL:
        if driver is None:
            raise OSError(NO_DRIVER)
        return cast("ctypes.CDLL", driver)

    return load


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., nvidia.Installed]:
    """Install an ONNX Runtime whose provider libraries need what one says."""

    def _install(cuda: Sequence[str] | None = ("libc.so.6", "libcuda.so.1"), **others: Sequence[str]):
        folder = tmp_path / "onnxruntime" / "capi"
        folder.mkdir(parents=True, exist_ok=True)
        text = "package_name = 'onnxruntime-gpu'\n__version__ = '1.31.1'\ncuda_version = '13.0'\n"
        (folder / "build_and_package_info.py").write_text(text)
        for name, needed in ({"cuda": cuda} | others).items():
            if needed is not None:
                (folder / f"libonnxruntime_providers_{name}.so").write_bytes(elf([*needed]))
        return nvidia.read_runtime(tmp_path / "onnxruntime")

    return _install


def ask(runtime: nvidia.Installed | None, driver: CudaDriver | None, *providers: str) -> Usable | Unusable:
    return nvidia.probe(runtime, providers or ("cuda",), load=loading(driver))


def test_a_runtime_is_described_by_its_files(install):
    runtime = install()
    assert (runtime.package, runtime.version, runtime.cuda, runtime.cuda_major) == (
        "onnxruntime-gpu",
        "1.31.1",
        "13.0",
        13,
    )


def test_a_machine_with_everything_is_usable_and_says_what_it_has(install):
    assert ask(install(), CudaDriver(names=["NVIDIA H100 PCIe"])) == Usable("NVIDIA H100 PCIe, driver for CUDA 13.0")
    two = CudaDriver(version=13010, names=["NVIDIA L4", "NVIDIA L4", "NVIDIA T4"])
    assert ask(install(), two) == Usable("2 x NVIDIA L4, NVIDIA T4, driver for CUDA 13.1")


def test_no_onnx_runtime_is_a_reason():
    assert ask(None, None) == Unusable("ONNX Runtime is not installed", hint='pip install "epkit[gpu]"')


def test_a_build_without_the_provider_says_which_build_it_is(install):
    answer = ask(install(), CudaDriver(names=["GPU"]), "cuda", "tensorrt")
    assert isinstance(answer, Unusable)
    assert answer.reason == "this ONNX Runtime (onnxruntime-gpu 1.31.1) was built without TensorRT"


def test_missing_libraries_are_all_named_the_driver_last(install):
    runtime = install(("libepkit_a.so.13", "libc.so.6", "libcuda.so.1", "libepkit_b.so.10"))
    answer = ask(runtime, None)
    assert isinstance(answer, Unusable)
    assert answer.reason.startswith(
        "libepkit_a.so.13: cannot open shared object file "
        "(also missing: libepkit_b.so.10, and libcuda.so.1 of the NVIDIA driver)"
    )
    assert answer.hint == 'pip install "onnxruntime-gpu[cuda,cudnn]"  # and install the NVIDIA driver, 580 or newer'
    assert not answer.transient


def test_a_missing_driver_alone_is_told_as_such(install):
    answer = ask(install(), None)
    assert isinstance(answer, Unusable)
    assert answer.reason.startswith("libcuda.so.1: cannot open shared object file (it comes with the NVIDIA driver)")
    assert answer.hint.startswith("install the NVIDIA driver, 580 or newer")


def test_a_library_that_is_loaded_later_counts_too(install):
    answer = nvidia.probe(install(), ("cuda",), ["libepkit_lazy.so.9"], load=loading(CudaDriver(names=["GPU"])))
    assert isinstance(answer, Unusable)
    assert answer.reason == "libepkit_lazy.so.9: cannot open shared object file"


@pytest.mark.parametrize("folder", ["nvidia/cu13/lib", "nvidia/cudnn/lib", "tensorrt_libs"])
def test_a_library_in_a_wheel_of_nvidia_is_there(install, tmp_path: Path, folder: str):
    runtime = install(("libepkit_a.so.13",))
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "libepkit_a.so.13").touch()
    assert isinstance(ask(runtime, CudaDriver(names=["GPU"])), Usable)


def test_another_major_version_of_a_missing_library_is_told(install, tmp_path: Path):
    runtime = install(tensorrt=("libnvinfer.so.99",))
    (tmp_path / "tensorrt_libs").mkdir()
    (tmp_path / "tensorrt_libs" / "libnvinfer.so.98").touch()
    answer = ask(runtime, CudaDriver(names=["GPU"]), "tensorrt", "cuda")
    assert isinstance(answer, Unusable)
    assert answer.reason.startswith("libnvinfer.so.99: cannot open shared object file; found ")
    assert "libnvinfer.so.98" in answer.reason
    assert answer.hint == 'pip install "tensorrt-cu13>=99,<100"'


def test_a_driver_older_than_the_build_is_told_before_it_fails(install):
    answer = ask(install(), CudaDriver(version=12080, names=["GPU"]))
    assert answer == Unusable(
        "the NVIDIA driver supports CUDA 12.8, this ONNX Runtime was built for CUDA 13.0",
        hint="update the NVIDIA driver to 580 or newer",
    )


def test_a_driver_that_calls_itself_too_old_is_believed(install):
    answer = ask(install(), CudaDriver(version=0, code=35))
    assert isinstance(answer, Unusable)
    assert answer.reason == "the NVIDIA driver is too old (CUDA error 35)"


@pytest.mark.parametrize("driver", [CudaDriver(code=100), CudaDriver(names=[])])
def test_a_driver_without_a_device_is_told(install, monkeypatch, driver: CudaDriver):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer = ask(install(), driver)
    assert isinstance(answer, Unusable)
    assert (answer.reason, answer.transient) == ("no CUDA-capable device is detected (CUDA error 100)", False)


def test_hidden_devices_are_told_from_absent_ones(install, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    answer = ask(install(), CudaDriver(code=100))
    assert isinstance(answer, Unusable)
    assert answer.reason.endswith("; CUDA_VISIBLE_DEVICES is '-1'")
    assert answer.hint == "unset CUDA_VISIBLE_DEVICES"


def test_an_unknown_fault_of_the_driver_may_pass(install):
    answer = ask(install(), CudaDriver(code=802))
    assert isinstance(answer, Unusable)
    assert (answer.reason, answer.transient) == ("the NVIDIA driver does not start (CUDA error 802)", True)


@pytest.mark.parametrize(
    ("cause", "part"),
    [
        (
            "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open",
            "cudnn]",
        ),
        ("Failed to load library libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: ", '13>=10,<11"'),
        ("libcuda.so.1: cannot open shared object file", "install the NVIDIA driver"),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", "nvidia-smi -L"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "580 or newer"),
        ("CUDA failure 209: no kernel image is available for execution on the device", "--upgrade onnxruntime-gpu"),
        ("cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed", "[cuda,cudnn]"),
        ("CUDA failure 2: out of memory ; GPU=0", "gpu_mem_limit"),
        ("Load model from x.onnx failed: Protobuf parsing failed", ""),
        ("libmy_plugin.so: cannot open shared object file", ""),
    ],
)
def test_a_cause_leads_to_a_command(install, cause: str, part: str):
    command = nvidia.hint(cause, install())
    assert part in command
    assert bool(part) == bool(command)


@pytest.mark.parametrize(
    ("cards", "answer"),
    [
        ([("0x8086", "0x030000"), ("0x10de", "0x030200")], True),
        ([("0x8086", "0x030000"), ("0x10de", "0x020700")], False),
        ([], None),
    ],
)
def test_an_nvidia_gpu_is_told_from_other_cards(tmp_path: Path, cards, answer: bool | None):
    for number, (vendor, kind) in enumerate(cards):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
        (tmp_path / str(number) / "class").write_text(f"{kind}\n")
    assert nvidia.gpu_on_bus(tmp_path) is answer


def test_the_fingerprint_changes_with_what_the_answer_depends_on(install, tmp_path: Path, monkeypatch):
    runtime = install(("libepkit_a.so.13",))

    def now() -> list[str]:
        return nvidia.fingerprint(runtime, ("cuda",))

    first = now()
    assert now() == first
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    hidden = now()
    assert hidden != first
    (tmp_path / "nvidia" / "cu13" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "cu13" / "lib" / "libepkit_a.so.13").touch()
    assert now() != hidden


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda one: one.name)
def test_this_machine_gets_an_answer_with_a_reason(provider: Provider):
    match provider.probe():
        case Usable(detail):
            assert "driver for CUDA" in detail
        case Unusable(reason, hint):
            assert reason
            assert hint


def test_a_probe_prints_nothing_and_imports_neither_onnxruntime_nor_numpy():
    script = (
        "import sys, epkit_cuda, epkit_tensorrt\n"
        "for plugin in (epkit_cuda, epkit_tensorrt):\n"
        "    for one in plugin.epkit_providers(): one.probe(), one.fingerprint()\n"
        "sys.exit(bool({'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_needs_of_this_build_are_read_from_its_libraries():
    runtime = nvidia.find_runtime()
    assert runtime is not None
    needs = runtime.needs(("tensorrt", "cuda"))
    assert f"libcublas.so.{runtime.cuda_major}" in needs
    assert nvidia.DRIVER in needs
    assert any(name.startswith("libnvinfer.so.") for name in needs)
    assert len(needs) == len(set(needs))


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda one: one.name)
def test_preparing_twice_does_no_harm(provider: Provider, capsys: pytest.CaptureFixture[str]):
    import onnxruntime

    provider.prepare(onnxruntime)
    provider.prepare(onnxruntime)
    capsys.readouterr()


ELSEWHERE = """
import contextlib, io, sys
import onnxruntime
from epkit_cuda.provider import Cuda
with contextlib.redirect_stdout(io.StringIO()):
    Cuda().prepare(onnxruntime)
    Cuda().prepare(onnxruntime)
print([line.split()[-1] for line in open("/proc/self/maps") if "libcublasLt.so.13" in line][:1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is loaded")
def test_wheels_elsewhere_on_the_path_than_onnx_runtime_are_found_and_loaded(install, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere" / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    library = folder / "libcublasLt.so.13"
    shutil.copy(cast("str", importlib.util.find_spec("_ctypes").origin), library)  # any library that loads
    path = os.pathsep.join([*sys.path, str(tmp_path / "elsewhere")])
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.stdout.strip() == str([str(library)]), done.stderr
    runtime = install(("libcublasLt.so.13", "libcuda.so.1"))
    assert isinstance(ask(runtime, CudaDriver(names=["GPU"])), Unusable)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert ask(runtime, CudaDriver(names=["GPU"])) == Usable("GPU, driver for CUDA 13.0")


class Management:
    """What NVIDIA's management library answers."""

    def __init__(self, *, code: int = 0, used: int = 0) -> None:
        self.code, self.used = code, used

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the library's spelling
        return self.code

    def nvmlDeviceGetHandleByIndex_v2(self, ordinal: int, device: Any) -> int:  # noqa: N802
        return self.code

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:  # noqa: N802
        memory[0], memory[1], memory[2] = 80 * 2**30, 80 * 2**30 - self.used, self.used
        return self.code


def test_the_memory_that_is_taken_is_told_or_nothing_is():
    def load(library: Management) -> Callable[[str], ctypes.CDLL]:
        return lambda name: cast("ctypes.CDLL", library)

    assert nvidia.used_memory(load=loading(None)) is None
    assert nvidia.used_memory(load=load(Management(code=999))) is None
    assert nvidia.used_memory(load=load(Management(used=3 * 2**30))) == 3 * 2**30


def test_what_cuda_says_is_a_sentence_and_leads_to_a_command():
    # What ONNX Runtime 1.31.1 raises with CUDA's libraries and a driver that has nothing to offer.
    source = "/onnxruntime_src/onnxruntime/core/providers/cuda/"
    call = (
        "std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const "
        "char*, SUCCTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = "
        "cudaError; std::conditional_t<THRW, void, common::Status> = void] "
    )
    text = (
        f"{source}cuda_call.cc:154 {call}{source}cuda_call.cc:146 {call}CUDA failure 35: CUDA driver version is "
        f"insufficient for CUDA runtime version ; GPU=-1 ; hostname=vm ; file={source}cuda_execution_provider.cc ; "
        "line=355 ; expr=cudaSetDevice(info_.device_id); \n\n"
    )
    said = describe_error(RuntimeError(text))
    assert said == (
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version, in "
        "cudaSetDevice(info_.device_id)"
    )
    assert "driver" in nvidia.hint(said, None)
