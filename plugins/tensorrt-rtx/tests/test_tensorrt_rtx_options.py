"""What do the options of tensorrt-rtx take, and what is sent of them?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from epkit_tensorrt_rtx import profiles, provider
from epkit_tensorrt_rtx.gpus import Gpu
from epkit_tensorrt_rtx.options import TensorRTRTXOptions
from epkit_tensorrt_rtx.provider import TensorRTRTX
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epkit import wheels
from epkit.discovery.listing import options

RTX = TensorRTRTX()
SHAPES = {"nv_profile_min_shapes": "x:1x3", "nv_profile_opt_shapes": "x:2x3", "nv_profile_max_shapes": "x:4x3"}
STREAM = {"has_user_compute_stream": True, "user_compute_stream": 4096}


def encoded(**written: object) -> dict[str, str]:
    return RTX.to_ort_options(TensorRTRTXOptions.model_validate(written), None)


@pytest.fixture(scope="module")
def header() -> str:
    library = wheels.library(provider._MODULE, "tensorrt_rtx_provider_options.h")
    if library is None or not library.is_file():
        pytest.skip("onnxruntime-ep-nv-tensorrt-rtx is not installed")
    return library.read_text(encoding="utf-8")


# What the library takes


def test_every_option_of_the_header_is_typed_and_no_other(header: str):
    (space,) = re.findall(r"namespace provider_option_names\s*\{(.*?)\}\s*// namespace", header, re.DOTALL)
    names = set(re.findall(r'constexpr const char\* k\w+ = "(\w+)";', space))
    # The library refuses it as an option of a session.
    names.remove("VkExternalComputeQueueDataParamsNV_data")
    assert names == set(TensorRTRTXOptions.model_fields) - {"extra"}


def test_the_architectures_are_those_of_the_header(header: str):
    (listed,) = re.findall(r"kTargetSMValues\[\] = \{(.*?)\}", header)
    names = re.findall(r'"(\w+)"', listed)
    (typed, _) = get_args(TensorRTRTXOptions.model_fields["nv_target_sm"].annotation)
    assert list(get_args(typed)) == names
    assert all(Gpu("", (int(name[2:-1]), int(name[-1]))).supported for name in names)


def test_every_option_has_a_sentence():
    for one in options(TensorRTRTXOptions):
        assert one.meaning.endswith("."), one.name


@pytest.mark.parametrize(
    "written",
    [
        {"nv_weight_streaming_budget": budget}
        for budget in ("0", "-1", "1", 0, -1, 2**33, "512M", "512k", "1.5G", "12.5%", "0%", "100%", "64B")
    ]
    + [
        SHAPES,
        {**SHAPES, "nv_multi_profile_enable": True},
        STREAM,
        {"user_aux_stream_array": 4096, "nv_length_aux_stream_array": 2},
        {"nv_op_types_to_exclude": "Conv,Relu"},
        {"nv_enable_profiling": True, "nv_profiling_output_file": "times.json"},
        {"nv_max_workspace_size": 2**40, "nv_max_shared_mem_size": 0},
        {"enable_cuda_graph": True, "nv_enable_profiling": False},
        {"nv_target_sm": "sm120"},
    ],
)
def test_what_the_library_takes_is_an_option(written: dict[str, object]):
    assert encoded(**written)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        # The library refuses these when a session opens.
        ({"nv_dump_subgraph": True}, "nv_dump_subgraph"),
        ({"device_id": 1}, "device = 1"),
        ({"VkExternalComputeQueueDataParamsNV_data": 4096}, "refuses it"),
        ({"nv_target_sm": "sm90"}, "sm89"),
        ({"nv_target_sm": ""}, "sm89"),
        ({"nv_max_workspace_size": -1}, "greater than or equal to 0"),
        ({"nv_max_workspace_size": "1G"}, "integer"),
        ({"nv_multi_rotary_cache_concat_offset": 2**31}, "less than"),
        ({"nv_weight_streaming_budget": -2}, "pattern"),
        ({"nv_weight_streaming_budget": "512KB"}, "pattern"),
        ({"nv_weight_streaming_budget": "101%"}, "pattern"),
        ({"nv_weight_streaming_budget": ""}, "pattern"),
        ({"nv_weight_streaming_budget": True}, "string"),
        # It takes these, and does something else.
        ({"nv_profile_min_shapes": "banana"}, "images:1x3x224x224"),
        ({"nv_profile_min_shapes": ""}, "images:1x3x224x224"),
        ({"nv_profile_min_shapes": "x:1x3"}, "nv_profile_opt_shapes and nv_profile_max_shapes"),
        ({**SHAPES, "nv_profile_min_shapes": "x:1x3;x:5x3"}, "x:1x3;x:5x3"),
        ({**SHAPES, "nv_profile_min_shapes": "x:1x3, z:5x3"}, " z:5x3"),
        ({**SHAPES, "nv_profile_max_shapes": "x:1x3"}, "min <= opt <= max"),
        ({**SHAPES, "nv_profile_max_shapes": "x:4"}, "min <= opt <= max"),
        ({**SHAPES, "nv_profile_max_shapes": "z:4x3"}, "as many shapes"),
        ({"nv_op_types_to_exclude": "Conv, Relu"}, "pattern"),
        ({"nv_length_aux_stream_array": -1, "user_aux_stream_array": 1}, "greater than or equal to 0"),
        ({"nv_length_aux_stream_array": True, "user_aux_stream_array": 1}, "must be a number"),
        ({"user_compute_stream": 4096}, "no effect without has_user_compute_stream"),
        ({"has_user_compute_stream": True}, "no effect without user_compute_stream"),
        ({"user_aux_stream_array": 4096}, "no effect without nv_length_aux_stream_array"),
        ({"nv_multi_profile_enable": True}, "no effect without nv_profile_min_shapes"),
        ({"nv_profiling_output_file": "times.json"}, "no effect without nv_enable_profiling"),
        ({"enable_cuda_graph": True, "nv_enable_profiling": True}, "leave one of them out"),
        ({"nv_runtime_cache_path": ""}, "at least 1 character"),
    ],
)
def test_what_the_library_refuses_or_misreads_is_an_error(written: dict[str, object], told: str):
    with pytest.raises(ValidationError) as caught:
        TensorRTRTXOptions.model_validate(written)
    assert told in str(caught.value)


# What is sent


def test_nothing_is_sent_when_nothing_is_set():
    assert encoded() == {}
    assert RTX.to_ort_options(TensorRTRTXOptions.model_validate({"enable_cuda_graph": None}), 1) == {}


def test_options_are_sent_as_the_library_reads_them():
    sent = encoded(
        **STREAM,
        nv_weight_streaming_budget=-1,
        nv_max_workspace_size=2**30,
        enable_cuda_graph=False,
        extra={"nv_x": "y"},
    )
    assert sent == {
        "has_user_compute_stream": "1",
        "user_compute_stream": "4096",
        "nv_weight_streaming_budget": "-1",
        "nv_max_workspace_size": "1073741824",
        "enable_cuda_graph": "0",
        "nv_x": "y",
    }


def test_what_a_cache_of_epkit_s_would_be_given_is_its_folder(tmp_path: Path):
    options = TensorRTRTXOptions.model_validate({"nv_runtime_cache_path": "mine"})
    assert RTX.to_ort_options(RTX.caching.with_dir(options, None, tmp_path), None) == {
        "nv_runtime_cache_path": str(tmp_path)
    }
    hidden = TensorRTRTXOptions.model_validate({"extra": {"nv_runtime_cache_path": "mine"}})
    assert RTX.to_ort_options(RTX.caching.with_dir(hidden, None, None), None) == {}
    # Its files are written when the session is closed, too late to be kept as one finished entry.
    assert "epkit compile --output" in RTX.caching.check(options)


# Profiles


@given(
    st.dictionaries(
        st.text("abcxyz_/.0", min_size=1), st.lists(st.integers(0, 4096), min_size=1, max_size=4), min_size=1
    )
)
def test_profiles_are_read_as_they_were_written(written: dict[str, list[int]]):
    text = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in written.items())
    assert profiles.parse(text) == {name: [tuple(shape)] for name, shape in written.items()}
    same = dict.fromkeys(SHAPES, text)
    assert encoded(**same) == same


@given(st.text("x:1,;- ", max_size=12))
def test_any_text_is_profiles_or_an_error(text: str):
    try:
        found = profiles.parse(text)
    except ValueError:
        return
    assert all(name and shapes and all(shapes) for name, shapes in found.items())


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"x": ("N", 3)}, ""),
        ({"x": (None, "C"), "fixed": (2, 2)}, ""),
        ({"x": None}, ""),
        ({"x": ("N", 3), "y": ("M",)}, ""),
        ({"z": ("N", 3)}, "the profiles name 'x', which is no input, and leave out the dynamic input 'z'"),
        ({"x": ("N", 4)}, "input 'x' is Nx4, its profile 1x3 is not"),
        ({"x": ("N", None, 3)}, "input 'x' is Nx?x3, its profile 1x3 is not"),
    ],
)
def test_profiles_are_compared_with_the_model(inputs: profiles.Inputs, told: str):
    assert RTX.check_inputs(TensorRTRTXOptions.model_validate(SHAPES), inputs) == told


def test_without_profiles_every_model_fits():
    assert RTX.check_inputs(TensorRTRTXOptions(), {"x": ("N",)}) == ""
