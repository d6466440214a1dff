"""The options of `tensorrt`: those that ONNX Runtime's Python API takes, and profiles that fit the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from epkit_tensorrt import profiles
from epkit_tensorrt.options import TensorRTOptions
from epkit_tensorrt.provider import TensorRT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epkit.discovery.listing import options

OPTIONS = [name for name in TensorRTOptions.model_fields if name != "extra"]
SWITCHES = [name for name in OPTIONS if "bool" in str(TensorRTOptions.model_fields[name].annotation)]

SIZES = st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))  # smallest, and how much opt and max add
SHAPES = st.lists(SIZES, min_size=1, max_size=4)
INPUTS = st.dictionaries(st.from_regex(r"\A[a-z/_.]{1,8}\Z"), st.lists(SHAPES, min_size=1, max_size=2), min_size=1)


def sent(**options: Any) -> dict[str, str]:
    return TensorRT().to_ort_options(TensorRTOptions(**options), None)


def profiled(smallest: str, best: str, largest: str) -> TensorRTOptions:
    return TensorRTOptions(trt_profile_min_shapes=smallest, trt_profile_opt_shapes=best, trt_profile_max_shapes=largest)


def test_every_option_is_one_that_the_python_api_knows():
    (module,) = Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*")
    content = module.read_bytes()
    assert [name for name in OPTIONS if name.encode() + b"\0" not in content] == []


def test_every_option_says_in_a_sentence_what_it_is_and_its_default():
    for one in options(TensorRTOptions):
        assert one.name == "extra" or re.fullmatch(r"[A-Z].{15,}\([^()]+\)\.", one.meaning, re.DOTALL), one.name


def test_options_are_sent_as_onnx_runtime_reads_them():
    # Unlike every other provider, this one refuses 1 and 0 for true and false.
    assert sent(trt_fp16_enable=True, trt_int8_enable=False, trt_auxiliary_streams=-1, trt_ep_context_embed_mode=0) == {
        "trt_fp16_enable": "True",
        "trt_int8_enable": "False",
        "trt_auxiliary_streams": "-1",
        "trt_ep_context_embed_mode": "0",
    }
    assert sent(trt_fp16_enable=True, extra={"trt_fp16_enable": "False"}) == {"trt_fp16_enable": "False"}
    assert TensorRT().to_ort_options(TensorRTOptions(), 1) == {"device_id": "1"}


@given(st.dictionaries(st.sampled_from(SWITCHES), st.booleans()))
def test_switches_are_sent_as_words_or_refused(options: dict[str, bool]):
    try:
        text = sent(**options)
    except ValidationError:
        return
    assert text == {name: str(value) for name, value in options.items()}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"device_id": 1}, "write `device = 1` on the target"),
        ({"trt_load_user_initializer": True}, "Python API refuses it"),
        ({"has_user_compute_stream": True}, "Python API refuses it"),
        ({"trt_fp16": True}, "Extra inputs are not permitted"),
        ({"trt_builder_optimization_level": 6}, "trt_builder_optimization_level"),
        ({"trt_auxiliary_streams": -2}, "trt_auxiliary_streams"),
        ({"trt_max_workspace_size": "2GB"}, "trt_max_workspace_size"),
        ({"trt_min_subgraph_size": 0}, "trt_min_subgraph_size"),
        ({"trt_tactic_sources": "CUBLAS"}, "trt_tactic_sources"),
        ({"trt_tactic_sources": "-CUDNN,+CUBLASS"}, "trt_tactic_sources"),
        ({"trt_engine_cache_path": "x"}, "no effect without trt_engine_cache_enable or"),
        ({"trt_engine_cache_prefix": "x"}, "no effect without trt_engine_cache_enable or"),
        ({"trt_timing_cache_path": "x"}, "no effect without trt_timing_cache_enable"),
        ({"trt_force_timing_cache": True}, "no effect without trt_timing_cache_enable"),
        ({"trt_int8_calibration_table_name": "x"}, "no effect without trt_int8_enable"),
        ({"trt_dla_core": 1, "trt_fp16_enable": True}, "no effect without trt_dla_enable"),
        ({"trt_dla_enable": True, "trt_bf16_enable": True}, "without trt_fp16_enable or trt_int8_enable"),
        ({"trt_layer_norm_fp32_fallback": True}, "no effect without trt_fp16_enable"),
        ({"trt_engine_decryption_enable": True}, "needs trt_engine_decryption_lib_path"),
        ({"trt_engine_decryption_lib_path": "x.so"}, "no effect without trt_engine_decryption_enable"),
        ({"trt_ep_context_file_path": "x.onnx"}, "no effect without trt_dump_ep_context_model"),
        ({"trt_ep_context_embed_mode": 1}, "no effect without trt_dump_ep_context_model"),
        ({"trt_ep_context_embed_mode": 2, "trt_dump_ep_context_model": True}, "trt_ep_context_embed_mode"),
        ({"trt_dump_ep_context_model": True, "trt_engine_cache_path": "/tmp/x"}, "must be relative"),
        ({"trt_dump_ep_context_model": True, "trt_engine_cache_path": "a/../../x"}, "must be relative"),
        ({"trt_profile_min_shapes": "a:1"}, "a profile has all three or none"),
        ({"trt_profile_min_shapes": "a:1", "trt_profile_opt_shapes": "a:1"}, "without trt_profile_max_shapes"),
        ({"trt_profile_min_shapes": "a"}, "'a' is not a name without a colon, then a shape"),
        ({"trt_profile_max_shapes": "a:0:1x3"}, "'a:0:1x3' is not"),
        ({"trt_profile_opt_shapes": "a:1x3,"}, "'' is not"),
        ({"trt_profile_opt_shapes": "a:1x-1"}, "'a:1x-1' is not"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], part: str):
    with pytest.raises(ValidationError) as caught:
        TensorRTOptions(**options)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        (("a:1", "b:1", "a:1"), "'a' needs as many shapes in min, opt and max (min 1, opt 0, max 1)"),
        (("a:1,a:2", "a:1,a:2", "a:1"), "(min 2, opt 2, max 1)"),
        (("a:1", "a:1x3", "a:1"), "shapes of different rank: 1, 1x3, 1"),
        (("a:1x4", "a:2x3", "a:4x4"), "'a' needs min <= opt <= max: 1x4, 2x3, 4x4"),
        (("a:1,b:2", "a:1,b:2", "a:1,b:1"), "'b' needs min <= opt <= max: 2, 2, 1"),
    ],
)
def test_profiles_that_contradict_each_other_are_refused(shapes: tuple[str, str, str], part: str):
    with pytest.raises(ValidationError) as caught:
        profiled(*shapes)
    assert part in str(caught.value)


def test_paths_that_another_switch_uses_are_accepted():
    TensorRTOptions(trt_int8_enable=True, trt_engine_cache_path="/tables", trt_int8_calibration_table_name="t")
    TensorRTOptions(trt_timing_cache_enable=True, trt_engine_cache_path="/caches")
    TensorRTOptions(trt_dump_ep_context_model=True, trt_engine_cache_path="engines", trt_ep_context_embed_mode=1)


@given(INPUTS)
def test_growing_profiles_are_accepted_and_read_back(inputs: dict[str, list[list[tuple[int, int, int]]]]):
    def text(pick: Any) -> str:
        parts = [
            f"{name}:{'x'.join(str(pick(*one)) for one in shape)}" for name, all_ in inputs.items() for shape in all_
        ]
        return ",".join(parts)

    options = profiled(text(lambda a, b, c: a), text(lambda a, b, c: a + b), text(lambda a, b, c: a + b + c))
    expected = {name: [tuple(one[0] for one in shape) for shape in shapes] for name, shapes in inputs.items()}
    assert options.trt_profile_min_shapes is not None
    assert profiles.parse(options.trt_profile_min_shapes) == expected


IMAGES: Mapping[str, Sequence[int | str | None]] = {"images": ["N", 3, 224, 224], "scale": [1]}


@pytest.mark.parametrize(
    ("shapes", "inputs", "part"),
    [
        ("images:1x3x224x224", IMAGES, ""),
        ("images:1x3x224x224,cut/in_the_middle:1x9", IMAGES, ""),
        ("image:1x3x224x224", IMAGES, "leave out the dynamic input 'images'"),
        ("image:1x3x224x224", IMAGES, "'image' is no input"),
        (
            "images:1x3x224x224",
            {**IMAGES, "mask": ["N", None]},
            "'mask': TensorRT wants all of ['images', 'mask'] or none",
        ),
        ("images:3x224x224", IMAGES, "input 'images' has 4 dimensions, its profile 3x224x224 has 3"),
        ("images:1x4x224x224", IMAGES, "input 'images' is Nx3x224x224, its profile 1x4x224x224 is not"),
        ("images:1x3x224x224,images:1x3x224x9", IMAGES, "its profile 1x3x224x9 is not"),
        ("shape:1x3x64x64", {"shape": [4], "x": [1, 2]}, ""),  # a shape tensor: these are its values
        ("x:1x3", {"x": None}, ""),
        ("y:1x3", {"x": None}, "leave out the dynamic input 'x'"),
    ],
)
def test_profiles_are_held_against_the_model(shapes: str, inputs: Any, part: str):
    sentence = TensorRT().check_inputs(profiled(shapes, shapes, shapes), inputs)
    assert part in sentence
    assert bool(part) == bool(sentence)


def test_a_model_without_profiles_fits():
    assert TensorRT().check_inputs(TensorRTOptions(), IMAGES) == ""
