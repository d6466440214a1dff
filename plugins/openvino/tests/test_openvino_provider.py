from __future__ import annotations

import contextlib
import ctypes
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import onnxruntime
import pytest
from epkit_openvino import provider
from epkit_openvino.options import WRITE_INSTEAD, OpenVinoOptions, shapes
from epkit_openvino.provider import OpenVino
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from pydantic import ValidationError
from texts import says

from epkit import wheels
from epkit.errors import ProviderUnavailable
from epkit.provider import FoundDevice, Unusable, Usable
from epkit.runtime import configured
from epkit.runtime.plugin_calls import chosen_devices

OPENVINO = OpenVino()
PROPERTIES = [name for name in OpenVinoOptions.model_fields if name.isupper()]
NUMBERS: dict[str, tuple[object, ...]] = {
    "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": (0, 0.5, 1),
    "ACTIVATIONS_SCALE_FACTOR": (8.0,),
    "NUM_STREAMS": ("AUTO", "NUMA", 1, "2"),
    "CACHE_DIR": ("cache", "cäche"),
    "NPU_COMPILATION_MODE_PARAMS": ("optimization-level=2",),
    "NPU_TILES": (2,),
    "COMPILATION_NUM_THREADS": (2,),
}


def values_of(name: str) -> tuple[object, ...]:
    """Every choice of a property, both of a switch, some of a number."""
    kinds = get_args(OpenVinoOptions.model_fields[name].annotation)
    for kind in kinds:
        if get_origin(kind) is Literal:
            return get_args(kind)
    return (True, False) if bool in kinds else NUMBERS.get(name, (0, 1, 32))


def model() -> bytes:
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], weights.ravel().tolist())],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


MODEL = model()
INPUT = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def found() -> list[FoundDevice]:
    for needed in OPENVINO.library.preload():
        ctypes.CDLL(str(needed))
    with contextlib.suppress(Fail):  # epkit may have registered it in this process already
        onnxruntime.register_execution_provider_library(OPENVINO.ort_name, str(OPENVINO.library.path()))
    return [
        FoundDevice(index, one.ep_name, one.device.type.name, one.ep_vendor, dict(one.ep_metadata))
        for index, one in enumerate(onnxruntime.get_ep_devices())
    ]


def session(found: list[FoundDevice], sent: dict[str, str]) -> onnxruntime.InferenceSession:
    (device,) = chosen_devices(OPENVINO, found, None)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([onnxruntime.get_ep_devices()[device.index]], sent)
    return onnxruntime.InferenceSession(MODEL, options, enable_fallback=0)


def result(of: onnxruntime.InferenceSession) -> np.ndarray[Any, Any]:
    return np.asarray(of.run(None, {"x": INPUT})[0])


def encoded(device: str | None = None, **written: object) -> dict[str, str]:
    return configured.encode_options(OPENVINO, OpenVinoOptions.model_validate(written), device)


def properties(sent: dict[str, str]) -> dict[str, Any]:
    return dict(json.loads(sent["load_config"]))


def refused_on_the_cpu() -> Iterator[str]:
    for name in PROPERTIES:
        with contextlib.suppress(ValidationError):
            options = OpenVinoOptions.model_validate({name: values_of(name)[0]})
            if OPENVINO.check_options(options, None):
                yield name


NOT_ON_CPU = list(refused_on_the_cpu())


# What OpenVINO accepts


@pytest.mark.parametrize("name", [n for n in PROPERTIES if n not in {*NOT_ON_CPU, "ENABLE_CPU_RESERVATION"}])
def test_every_property_of_the_cpu_is_accepted_by_openvino(
    name: str, found: list[FoundDevice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    beside: dict[str, object] = {"CACHE_DIR": "cache"} if name == "CACHE_MODE" else {}
    plain = result(session(found, {}))
    for value in values_of(name):
        np.testing.assert_allclose(result(session(found, encoded(**{name: value}, **beside))), plain, atol=0.1)


@pytest.mark.parametrize("name", NOT_ON_CPU)
def test_a_property_that_epkit_refuses_on_the_cpu_is_refused_by_openvino_too(name: str, found: list[FoundDevice]):
    for device in ("GPU", "NPU"):
        if not name.startswith(("GPU_", "NPU_")) or name.startswith(device):
            sent = properties(encoded(device, **{name: values_of(name)[0]}))
            with pytest.raises(Exception, match=f"Unsupported property {name} by CPU plugin") as caught:
                session(found, {"load_config": json.dumps({"CPU": sent[device]})})
            assert name in OPENVINO.hint(str(caught.value))


def test_the_properties_of_the_gpu_and_the_npu_stand_in_the_libraries_that_read_them():
    library = wheels.library(provider._MODULE, provider._LIBRARY)
    assert library is not None
    texts = [path.read_bytes() for path in library.parent.glob("*plugin*") if "_cpu_" not in path.name]
    assert [name for name in NOT_ON_CPU if not any(name.encode() in text for text in texts)] == []


def test_cores_that_one_session_keeps_are_missed_by_the_next():
    code = (
        "import ctypes, sys, onnxruntime\n"
        "for needed in sys.argv[3:]: ctypes.CDLL(needed)\n"
        "onnxruntime.register_execution_provider_library('o', sys.argv[1])\n"
        "device = [one for one in onnxruntime.get_ep_devices() if one.ep_name == 'OpenVINOExecutionProvider'][:1]\n"
        "model, kept = sys.stdin.buffer.read(), []\n"
        "for _ in range(2):\n"
        "    options = onnxruntime.SessionOptions()\n"
        "    options.log_severity_level = 4\n"
        "    options.add_provider_for_devices(device, {'load_config': sys.argv[2]})\n"
        "    kept.append(onnxruntime.InferenceSession(model, options, enable_fallback=0))\n"
        "    print('opened', flush=True)\n"
    )
    sent = encoded(ENABLE_CPU_RESERVATION=True)["load_config"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(OPENVINO.library.path()), sent, *map(str, OPENVINO.library.preload())],
        input=MODEL,
        capture_output=True,
        check=False,
    )
    assert done.stdout.split() == [b"opened"]
    assert "ENABLE_CPU_RESERVATION" in OPENVINO.hint(done.stderr.decode())


def test_an_unknown_property_is_refused_by_openvino_so_extra_cannot_hide_a_misspelling(found: list[FoundDevice]):
    with pytest.raises(Exception, match="Unsupported property NUM_STREAM by CPU"):
        session(found, encoded(extra={"NUM_STREAM": "1"}))
    assert properties(encoded(extra={"PERF_COUNT": "NO"}, NUM_STREAMS=1)) == {
        "CPU": {"PERF_COUNT": "NO", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    }
    session(found, encoded(extra={"PERF_COUNT": "NO"}, NUM_STREAMS=1))


def test_a_cache_directory_is_filled_and_used(found: list[FoundDevice], tmp_path: Path):
    sent = encoded(CACHE_DIR=str(tmp_path))
    first = result(session(found, sent))
    (blob,) = tmp_path.glob("*.blob")
    written = blob.stat().st_mtime_ns
    np.testing.assert_array_equal(result(session(found, sent)), first)
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*.blob")] == [written]


def test_reshaped_inputs_take_that_shape_only(found: list[FoundDevice]):
    opened = session(found, encoded(reshape_input="x[2,3,8,8]"))
    with pytest.raises(Exception, match="incompatible"):
        result(opened)
    assert opened.run(None, {"x": np.repeat(INPUT, 2, axis=0)})[0].shape == (2, 4, 6, 6)


def test_a_language_model_s_option_reaches_openvino(found: list[FoundDevice]):
    with pytest.raises(Exception, match="key_value_input_names"):
        session(found, encoded(enable_causallm=True))
    session(found, encoded(enable_causallm=False))


# What the plugin library ignores


@pytest.mark.parametrize("name", [name for name in WRITE_INSTEAD if name != "load_config"])
def test_an_option_that_the_library_ignores_is_an_error_that_names_its_successor(name: str, found: list[FoundDevice]):
    session(found, {name: "NPU"})  # accepted, and without any effect
    with pytest.raises(ValidationError) as caught:
        OpenVinoOptions.model_validate({name: "NPU"})
    (fault,) = caught.value.errors()
    assert (fault["loc"], fault["msg"]) == ((name,), f"Value error, {WRITE_INSTEAD[name]}")
    with pytest.raises(ValidationError, match=name):
        OpenVinoOptions.model_validate({"extra": {name: "NPU"}})


def test_every_successor_is_an_option():
    for sentence in WRITE_INSTEAD.values():
        for word in sentence.replace("=", " ").split():
            if word.isupper() and "_" in word:
                assert word in OpenVinoOptions.model_fields


@pytest.mark.parametrize(
    "written",
    [
        {"load_config": '{"CPU": {}}'},
        {"NUM_STREAM": 1},
        {"performance_hint": "LATENCY"},
        {"PERFORMANCE_HINT": "latency"},
        {"NUM_STREAMS": 0},
        {"NUM_STREAMS": "auto"},
        {"NUM_STREAMS": True},
        {"INFERENCE_NUM_THREADS": -1},
        {"INFERENCE_NUM_THREADS": True},
        {"INFERENCE_PRECISION_HINT": "f64"},
        {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 1.1},
        {"ENABLE_CPU_PINNING": "perhaps"},
        {"CACHE_DIR": ""},
        {"CACHE_MODE": "OPTIMIZE_SIZE"},
        {"reshape_input": ""},
        {"reshape_input": "banana"},
        {"reshape_input": "x[]"},
        {"reshape_input": "x[-1]"},
        {"reshape_input": "x[1..]"},
        {"reshape_input": "x[1],x[2]"},
        {"reshape_input": "x[1],"},
        {"reshape_input": "x[1]y[2]"},
    ],
)
def test_what_makes_no_sense_is_an_error(written: dict[str, object]):
    with pytest.raises(ValidationError):
        OpenVinoOptions.model_validate(written)


# What is sent


def test_properties_become_one_json_text_under_the_device():
    sent = encoded(
        ENABLE_MMAP=False, INFERENCE_NUM_THREADS=2, INFERENCE_PRECISION_HINT="bf16", reshape_input="x[1,3,8,8]"
    )
    assert properties(sent) == {
        "CPU": {"ENABLE_MMAP": "NO", "INFERENCE_NUM_THREADS": "2", "INFERENCE_PRECISION_HINT": "bf16"}
    }
    assert {name: text for name, text in sent.items() if name != "load_config"} == {"reshape_input": "x[1,3,8,8]"}
    assert properties(encoded("GPU", GPU_QUEUE_THROTTLE="LOW")) == {"GPU": {"GPU_QUEUE_THROTTLE": "LOW"}}
    assert properties(encoded("NPU", NPU_TURBO=True)) == {"NPU": {"NPU_TURBO": "YES"}}
    sent = encoded("GPU", enable_causallm=True, extra={"newer": "x"})
    assert sent == {"enable_causallm": "true", "newer": "x"}


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ({}, {"INFERENCE_PRECISION_HINT": "f32"}),
        ({"INFERENCE_PRECISION_HINT": "bf16"}, {"INFERENCE_PRECISION_HINT": "bf16"}),
        ({"extra": {"INFERENCE_PRECISION_HINT": "f16"}}, {"INFERENCE_PRECISION_HINT": "f16"}),
    ],
)
def test_the_cpu_computes_in_float32_unless_the_options_name_another_precision(
    written: dict[str, object], sent: dict[str, str]
):
    assert properties(encoded(**written)) == {"CPU": sent}
    assert encoded("GPU") == {}


def test_float32_is_float32_on_processors_that_compute_bfloat16_fast(found: list[FoundDevice]):
    expected = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"]).run(None, {"x": INPUT})[0]
    np.testing.assert_allclose(result(session(found, encoded())), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "written"),
    [
        (None, {"NPU_TURBO": True}),
        ("CPU", {"GPU_QUEUE_THROTTLE": "LOW"}),
        ("GPU", {"NPU_TURBO": True}),
        ("NPU", {"CPU_DENORMALS_OPTIMIZATION": True}),
        ("CPU", {"MODEL_PRIORITY": "HIGH"}),
    ],
)
def test_a_property_of_another_device_is_a_configuration_error(device: str | None, written: dict[str, object]):
    told = OPENVINO.check_options(OpenVinoOptions.model_validate(written), device)
    assert told.startswith(f"{next(iter(written))} is no property of the {device or 'CPU'}")


@given(
    st.dictionaries(
        st.text("abcxyz_/.:0", min_size=1), st.lists(st.sampled_from(["1", "224", "1..8"]), min_size=1), min_size=1
    )
)
def test_shapes_are_read_as_they_were_written(written: dict[str, list[str]]):
    text = ",".join(f"{name}[{','.join(dimensions)}]" for name, dimensions in written.items())
    assert shapes(text) == {name: tuple(dimensions) for name, dimensions in written.items()}
    assert OpenVinoOptions.model_validate({"reshape_input": text}).reshape_input == text


@given(st.text("x[]1,. ", max_size=12))
def test_any_text_is_shapes_or_no_shapes(text: str):
    assert all(name and dimensions for name, dimensions in shapes(text).items())


def test_reshaped_inputs_are_compared_with_the_model():
    options = OpenVinoOptions.model_validate({"reshape_input": "x[1,3],z[1]"})
    assert "'z'" in OPENVINO.check_inputs(options, {"x": ("N", 3), "y": (1,)})
    assert "2 dimensions" in OPENVINO.check_inputs(options, {"x": (1,), "z": (1,)})
    assert OPENVINO.check_inputs(options, {"x": None, "z": (None,)}) == ""
    assert OPENVINO.check_inputs(OpenVinoOptions(), {"x": (1,)}) == ""


# Which device


def device(kind: str, name: str = "OpenVINOExecutionProvider", index: int = 0) -> FoundDevice:
    return FoundDevice(index, name, kind, "Intel")


MACHINE = [
    device("CPU", "CPUExecutionProvider", 0),
    device("GPU", "OpenVINOExecutionProvider.AUTO", 1),
    device("CPU", "OpenVINOExecutionProvider.AUTO", 2),
    device("NPU", index=3),
    device("GPU", index=4),
    device("GPU", index=5),
    device("CPU", index=6),
]


@pytest.mark.parametrize(("asked", "index"), [(None, 6), ("CPU", 6), ("GPU", 4), ("NPU", 3)])
def test_the_first_device_of_the_kind_is_chosen_and_the_cpu_unless_asked(asked: str | None, index: int):
    assert [one.index for one in chosen_devices(OPENVINO, MACHINE, asked)] == [index]


def test_a_device_that_is_not_there_is_not_replaced():
    assert chosen_devices(OPENVINO, [one for one in MACHINE if one.kind == "CPU"], "GPU") == []
    assert chosen_devices(OPENVINO, [one for one in MACHINE if one.kind != "CPU"], None) == []
    assert chosen_devices(OPENVINO, [], None) == []


def test_only_kinds_of_devices_make_sense():
    assert OPENVINO.devices.check("NPU") == ""
    assert "CPU, GPU, NPU" in OPENVINO.devices.check(0)
    assert "CPU, GPU, NPU" in OPENVINO.devices.check("AUTO")


# What the machine has


def test_the_probe_finds_what_is_installed():
    answer = OPENVINO.probe()
    assert isinstance(answer, Usable)
    assert "onnxruntime-ep-openvino 1." in answer.detail
    assert str(wheels.library(provider._MODULE, provider._LIBRARY)) in OPENVINO.fingerprint()


def test_a_missing_wheel_is_a_reason_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider, "_MODULE", "onnxruntime_ep_that_is_not_there")
    assert OPENVINO.probe() == Unusable(
        "onnxruntime-ep-openvino is not installed", hint="pip install onnxruntime-ep-openvino"
    )
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    answer = OPENVINO.probe()
    assert isinstance(answer, Unusable)
    assert "x86-64" in answer.reason
    assert OPENVINO.fingerprint()
    with says(ProviderUnavailable):
        OPENVINO.library.path()


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider, "_LIBRARY", "gone.so")
    answer = OPENVINO.probe()
    assert isinstance(answer, Unusable)
    assert "gone.so was not found" in answer.reason


def test_an_old_onnx_runtime_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wheels, "runtimes", lambda: {"onnxruntime": "1.22.3"})
    answer = OPENVINO.probe()
    assert isinstance(answer, Unusable)
    assert answer.hint == "pip install 'onnxruntime>=1.23'"
    monkeypatch.setattr(wheels, "runtimes", dict)
    assert isinstance(OPENVINO.probe(), Usable)


REGISTERED = """
import ctypes
import sys
import onnxruntime
from epkit.runtime import api as _runtime
from epkit_openvino.provider import OpenVino

provider = OpenVino()
first, second = sys.argv[1:]

def mine():
    for needed in provider.library.preload():
        ctypes.CDLL(str(needed))
    try:
        onnxruntime.register_execution_provider_library(provider.ort_name, str(provider.library.path()))
    except Exception as error:
        print(error)

for name in (first, second):
    mine() if name == "program" else _runtime.prepare(provider)
print([one.ep_name for one in onnxruntime.get_ep_devices()].count(provider.ort_name))
"""


def registered(*by: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", REGISTERED, *by], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_library_is_registered_under_the_provider_s_own_name():
    # Some libraries call their provider by the name that they are registered under: TensorRT-RTX does.
    refused, count = registered("epkit", "program")
    assert refused.endswith("already registered under OpenVINOExecutionProvider")
    assert count == "1"


def test_a_library_that_the_program_registered_is_not_registered_again():
    assert registered("program", "epkit") == ["1"]
