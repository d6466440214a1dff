from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import models
import numpy as np
import onnxruntime
import pytest
from epkit_webgpu import provider, vulkan
from epkit_webgpu.options import PREFIX, WebGpuOptions
from epkit_webgpu.provider import WebGpu
from epkit_webgpu.vulkan import VulkanDevice
from models import model, value
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

import epkit
from epkit import wheels
from epkit.discovery import probe
from epkit.discovery.registry import discover
from epkit.errors import ProviderUnavailable
from epkit.provider import Unusable, Usable
from epkit.runtime import api
from epkit.runtime.plugin_calls import concurrency_of

WEBGPU = WebGpu()
ALLOW = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
NUMBERS: dict[str, tuple[object, ...]] = {
    "maxStorageBufferBindingSize": (0, 134217728),
    "maxNumPendingDispatches": (1, 4096),
    "deviceId": (0,),
    "forceCpuNodeNames": (["first", "second"],),
}
# Only a caller with a Dawn device of its own can use these; PIX is not in the wheel.
NOT_TRIED = ("webgpuInstance", "webgpuDevice", "dawnProcTable", "enablePIXCapture")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPKIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("EPKIT_PROBE", raising=False)
        yield


@pytest.fixture(scope="module")
def usable() -> None:
    """Skip where the machine has no WebGPU, with the reason that epkit gives."""
    answer = probe.ask([(WEBGPU, None)], discover())["webgpu"].availability
    if isinstance(answer, Unusable):
        pytest.skip(f"{answer.reason}: {answer.hint}")


def opened(contents: bytes, **options: object) -> epkit.Session:
    return epkit.open(contents, "webgpu", options=options, session_options={"intra_op_num_threads": 1})


def plain(contents: bytes, sent: dict[str, str]) -> onnxruntime.InferenceSession:
    """Open a session with options that epkit did not check."""
    api.prepare(WEBGPU)  # which registers the library once: a second attempt breaks the process
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == WEBGPU.ort_name]
    options.add_provider_for_devices(devices[:1], sent)
    return onnxruntime.InferenceSession(contents, options, enable_fallback=0)


def child(code: str) -> str:
    """Run code in a process of its own and return what it printed."""
    tests = str(Path(models.__file__).parent)
    environment = os.environ | {"PYTHONPATH": tests}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


def encoded(**written: object) -> dict[str, str]:
    return WEBGPU.to_ort_options(WebGpuOptions.model_validate(written), None)


def convolutions() -> bytes:
    random = np.random.default_rng(2)
    weights = [
        numpy_helper.from_array(random.standard_normal((8, 8, 3, 3), dtype=np.float32) / 9, name) for name in "ab"
    ]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["d"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
    ]
    return model(nodes, [value("x", ["N", 8, 8, 8])], [value("y", ["N", 8])], weights)


def there_and_back(dtype: int) -> bytes:
    nodes = [helper.make_node("Add", ["x", "x"], ["h"], "first"), helper.make_node("Sub", ["h", "x"], ["y"], "second")]
    return model(nodes, [value("x", ["N"], dtype)], [value("y", ["N"], dtype)])


# What runs there


@pytest.mark.skipif(os.environ.get(ALLOW) != "1", reason=f"{ALLOW} is not set")
def test_where_the_software_adapter_is_allowed_the_proof_succeeds():
    answer = probe.ask([(WEBGPU, None)], discover())["webgpu"]
    assert isinstance(answer.availability, Usable)
    assert "onnxruntime-ep-webgpu" in answer.availability.detail
    assert answer.proven


def test_what_it_cannot_take_goes_to_the_cpu_and_is_told(usable: None):
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Sum", ["h", "x"], ["y"])]
    with opened(model(nodes, [value("x", ["N"])], [value("y", ["N"])])) as session:
        assert session.report.provider == "webgpu"
        assert session.report.placement["cpu"].operators == {"Sum": 1}
        assert session.run(np.array([1, -1], dtype=np.float32))["y"].tolist() == [2, -1]


def test_it_is_run_once_at_a_time_in_the_whole_process():
    assert concurrency_of(WEBGPU) == "per-process"


# Options


def values_of(name: str) -> tuple[object, ...]:
    """Every choice of an option, both of a switch, some of a number."""
    kinds = [WebGpuOptions.model_fields[name].annotation]
    while kinds:
        kind = kinds.pop()
        if get_origin(kind) is Literal:
            return get_args(kind)
        kinds += get_args(kind)
        if kind is bool:
            return (False, True)
    return NUMBERS.get(name, (0, 1, 64))


OPTIONS = [name for name in WebGpuOptions.model_fields if name != "extra"]


def test_every_option_is_one_that_the_library_reads():
    library = WEBGPU.library.path()
    assert library is not None
    text = library.read_bytes()
    assert [name for name in OPTIONS if f"{PREFIX}{name}\0".encode() not in text] == []


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in NOT_TRIED])
def test_every_value_of_an_option_is_accepted_by_the_library(usable: None, name: str):
    for given in values_of(name):
        if (name, given) == ("dawnBackendType", "D3D12"):
            continue  # there is none on Linux
        plain(there_and_back(TensorProto.FLOAT), encoded(**{name: given}))


@pytest.mark.parametrize(
    "written",
    [
        {"preferredLayout": "nchw"},
        {"enableGraphCapture": "perhaps"},
        {"sessionBufferPoolGenerations": -1},
        {"sessionBufferPoolGenerations": True},
        {"kvCacheQuantizationBits": 2},
        {"kvCacheQuantizationBits": False},
        {"forceCpuNodeNames": "first"},
        {"forceCpuNodeNames": [""]},
        {"forceCpuNodeNames": ["first\nsecond"]},
        {"powerPreference": "fast"},
        {"dawnBackendType": "Metal"},
        {"validationMode": "none"},
        {"maxStorageBufferBindingSize": 1024},
        {"maxNumPendingDispatches": 0},
        {"maxNumPendingDispatches": 4097},
        {"storageBufferCacheMode": "lazy"},
        {"deviceId": 1},
        {"deviceId": -1},
        {"deviceId": 1, "webgpuDevice": 8},
        {"webgpuInstance": 8, "webgpuDevice": 8},
        {"webgpuDevice": 0},
        {"preferedLayout": "NCHW"},
    ],
)
def test_what_makes_no_sense_is_an_error(written: dict[str, object]):
    with pytest.raises(ValidationError):
        WebGpuOptions.model_validate(written)


@pytest.mark.parametrize("sent", [{"preferedLayout": "NCHW"}, {f"{PREFIX}preferredLayout": "sideways"}])
def test_names_that_the_library_ignores_are_errors(usable: None, sent: dict[str, str]):
    plain(there_and_back(TensorProto.FLOAT), sent)  # accepted, and without any effect
    with pytest.raises(ValidationError):
        WebGpuOptions.model_validate(sent)


def test_a_prefixed_name_is_told_its_short_one_in_extra_too():
    with pytest.raises(ValidationError, match="write preferredLayout, without the prefix"):
        WebGpuOptions.model_validate({f"{PREFIX}preferredLayout": "NCHW"})
    with pytest.raises(ValidationError, match="write adapterIndex, without the prefix"):
        WebGpuOptions.model_validate({"extra": {f"{PREFIX}adapterIndex": "1"}})


@pytest.mark.parametrize("sent", [{"deviceId": "1"}, {"webgpuInstance": "8", "webgpuDevice": "8"}])
def test_what_epkit_refuses_of_a_caller_s_device_is_refused_by_the_library_too(usable: None, sent: dict[str, str]):
    with pytest.raises(RuntimeError, match=r"must (not )?have custom WebGPU instance"):
        plain(there_and_back(TensorProto.FLOAT), sent)


def test_switches_are_digits_and_names_are_lines():
    assert encoded(enableInt64=True, preserveDevice=False, kvCacheQuantizationBits=8, extra={"newer": "x"}) == {
        "enableInt64": "1",
        "preserveDevice": "0",
        "kvCacheQuantizationBits": "8",
        "newer": "x",
    }
    assert encoded(forceCpuNodeNames=["a", "b, c"]) == {"forceCpuNodeNames": "a\nb, c"}


def operators(session: epkit.Session) -> set[str]:
    return set(session.report.placement["webgpu"].operators)


def test_the_layout_decides_whether_there_are_transposes(usable: None):
    with opened(convolutions()) as session:
        assert {"Transpose", "com.ms.internal.nhwc.Conv"} <= operators(session)
    with opened(convolutions(), preferredLayout="NCHW") as session:
        assert operators(session) == {"Conv", "Relu", "GlobalAveragePool", "Flatten", "Softmax"}


def test_a_node_that_is_named_stays_on_the_cpu(usable: None):
    with opened(there_and_back(TensorProto.FLOAT), forceCpuNodeNames=["first"]) as session:
        assert session.report.placement["cpu"].operators == {"Add": 1}
        assert session.report.placement["webgpu"].operators == {"Sub": 1}


def test_int64_there_is_the_lower_32_bits_alone(usable: None):
    with opened(there_and_back(TensorProto.INT64), enableInt64=True) as session:
        assert set(session.report.placement) == {"webgpu"}
        assert session.run(np.array([3, -7, 2**31 + 5, 2**40]))["y"].tolist() == [3, -7, 5 - 2**31, 0]


LIMITS = """
import epkit
from epkit.errors import ProviderDropped
from models import mlp

def tell(what):
    try:
        epkit.open(mlp(), "webgpu", options={"maxStorageBufferBindingSize": 2**50}).close()
        print(what, "opened")
    except ProviderDropped as error:
        print(what, "refused:", error.hint)

tell("first")
with epkit.open(mlp(), "webgpu"):
    tell("second")
tell("later")
"""


def test_options_of_the_shared_device_are_those_of_the_first_session(usable: None):
    first, second, later = child(LIMITS).splitlines()
    assert first.startswith("first refused: write maxStorageBufferBindingSize = ")
    assert second == "second opened"  # and ignored
    assert later == first.replace("first", "later")


def test_a_device_cannot_be_chosen():
    for device in (0, "GPU", "CPU"):
        assert "powerPreference" in WEBGPU.devices.check(device)


# What the machine has


def test_a_missing_wheel_is_a_reason_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider, "_MODULE", "onnxruntime_ep_that_is_not_there")
    assert WEBGPU.probe() == Unusable(
        "onnxruntime-ep-webgpu is not installed", hint="pip install onnxruntime-ep-webgpu"
    )
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    answer = WEBGPU.probe()
    assert isinstance(answer, Unusable)
    assert "no wheel" in answer.reason
    assert WEBGPU.fingerprint()
    with pytest.raises(ProviderUnavailable, match="not installed"):
        WEBGPU.library.path()


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider, "_LIBRARY", "gone.so")
    answer = WEBGPU.probe()
    assert isinstance(answer, Unusable)
    assert "gone.so was not found" in answer.reason


@pytest.mark.parametrize(("version", "old"), [("1.24.3", True), ("1.9.0", True), ("1.24.4", False), ("2.0", False)])
def test_an_old_onnx_runtime_is_a_reason(version: str, old: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wheels, "runtimes", lambda: {"onnxruntime": version})
    monkeypatch.setattr(vulkan, "devices", lambda: (VulkanDevice("Acme 1", software=False),))
    answer = WEBGPU.probe()
    assert isinstance(answer, Unusable if old else Usable)
    if isinstance(answer, Unusable):
        assert answer.hint == "pip install 'onnxruntime>=1.24.4'"


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux does it go through Vulkan")
class TestVulkan:
    def test_without_its_loader_the_reason_names_it_and_the_command(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(vulkan, "LOADER", "libvulkan-that-is-not-there.so.1")
        answer = WEBGPU.probe()
        assert isinstance(answer, Unusable)
        assert answer.reason.startswith("libvulkan-that-is-not-there.so.1: cannot open shared object file")
        assert answer.hint == "apt-get install libvulkan1"
        assert "libvulkan-that-is-not-there.so.1" in " ".join(WEBGPU.fingerprint())

    def test_without_a_driver_the_reason_names_the_variable_that_hides_it(self, monkeypatch: pytest.MonkeyPatch):
        for name in vulkan.CHOICE:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(vulkan, "devices", tuple)
        answer = WEBGPU.probe()
        assert isinstance(answer, Unusable)
        assert answer.hint.startswith("apt-get install mesa-vulkan-drivers")
        monkeypatch.setenv("VK_ICD_FILENAMES", "/gone.json")
        answer = WEBGPU.probe()
        assert isinstance(answer, Unusable)
        assert answer.reason == "Vulkan finds no device with VK_ICD_FILENAMES=/gone.json"
        assert answer.hint == "unset VK_ICD_FILENAMES"

    def test_a_software_adapter_counts_only_where_it_is_allowed(self, monkeypatch: pytest.MonkeyPatch):
        found = [VulkanDevice("llvmpipe", software=True)]
        monkeypatch.setattr(vulkan, "devices", lambda: tuple(found))
        monkeypatch.delenv(ALLOW, raising=False)
        answer = WEBGPU.probe()
        assert isinstance(answer, Unusable)
        assert answer.reason == "Vulkan offers no GPU, only llvmpipe (software)"
        assert answer.hint.startswith(f"export {ALLOW}=1")
        monkeypatch.setenv(ALLOW, "1")
        assert isinstance(WEBGPU.probe(), Usable)
        monkeypatch.delenv(ALLOW)
        found.append(VulkanDevice("Acme 1", software=False))
        answer = WEBGPU.probe()
        assert isinstance(answer, Usable)
        assert answer.detail.endswith(", llvmpipe (software), Acme 1")

    def test_a_driver_that_is_installed_later_changes_the_fingerprint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(vulkan, "FOLDERS", (tmp_path,))
        before = [*WEBGPU.fingerprint()]
        (tmp_path / "acme_icd.json").write_text("{}")
        after = [*WEBGPU.fingerprint()]
        assert before != after
        (tmp_path / "acme_icd.json").write_text("{ }")
        assert [*WEBGPU.fingerprint()] not in (before, after)

    def test_its_devices_have_names(self, usable: None):
        assert all(device.name.isprintable() and device.name for device in vulkan.devices())


@pytest.mark.parametrize(
    ("cause", "command"),
    [
        ("Failed to get a WebGPU adapter: No supported adapters", "apt-get install mesa-vulkan-drivers"),
        ("no device in its library; it offers: none", f"export {ALLOW}=1"),
        ('ORT runtime version "1.23.0" is below the minimum required version "1.24.4"', "pip install --upgrade"),
        ("libonnxruntime_providers_webgpu.so: cannot open shared object file", "pip install onnxruntime-ep-webgpu"),
        ("something else", ""),
    ],
)
def test_a_known_cause_has_a_command(cause: str, command: str):
    assert WEBGPU.hint(cause).startswith(command)
    assert bool(WEBGPU.hint(cause)) == bool(command)
