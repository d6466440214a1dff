"""The options of `cuda`: ONNX Runtime's own, checked before it sees them."""

from __future__ import annotations

import mmap
import re
from typing import Any

import pytest
from epkit_cuda.options import CudaOptions
from epkit_cuda.provider import Cuda
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epkit.discovery import nvidia
from epkit.discovery.listing import options

OPTIONS = [name for name in CudaOptions.model_fields if name != "extra"]
SWITCHES = [name for name in OPTIONS if "bool" in str(CudaOptions.model_fields[name].annotation)]


def sent(**options: Any) -> dict[str, str]:
    return Cuda().to_ort_options(CudaOptions(**options), None)


def test_every_option_is_one_that_the_provider_library_knows():
    runtime = nvidia.find_runtime()
    assert runtime is not None
    with runtime.library("cuda").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert [name for name in OPTIONS if content.find(name.encode() + b"\0") < 0] == []


def test_every_option_says_in_a_sentence_what_it_is_and_its_default():
    for one in options(CudaOptions):
        assert one.name == "extra" or re.fullmatch(r"[A-Z].{15,}\([^()]+\)\.", one.meaning, re.DOTALL), one.name


def test_options_are_sent_as_onnx_runtime_reads_them():
    assert sent(use_tf32=False, gpu_mem_limit=2**31, cudnn_conv_algo_search="HEURISTIC", enable_cuda_graph=True) == {
        "use_tf32": "0",
        "gpu_mem_limit": "2147483648",
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1",
    }


def test_the_device_of_the_target_is_sent_as_device_id():
    assert Cuda().to_ort_options(CudaOptions(), 1) == {"device_id": "1"}


@given(st.dictionaries(st.sampled_from(SWITCHES), st.booleans()))
def test_switches_are_sent_as_digits_or_refused(options: dict[str, bool]):
    try:
        text = sent(**options)
    except ValidationError:
        return
    assert text == {name: str(int(value)) for name, value in options.items()}


@given(st.integers(-(2**70), 2**70))
def test_numbers_are_sent_as_plain_digits_or_refused(number: int):
    for name in ("gpu_mem_limit", "user_compute_stream", "sdpa_kernel"):
        try:
            assert sent(**{name: number}) == {name: f"{number:d}"}
        except ValidationError:
            assert number < 1 or number > 127


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"device_id": 1}, "write `device = 1` on the target"),
        ({"gpu_mem_limit": "2GB"}, "gpu_mem_limit"),
        ({"gpu_mem_limit": 0}, "gpu_mem_limit"),
        ({"gpu_mem_limit": 2**64}, "gpu_mem_limit"),
        ({"sdpa_kernel": 128}, "sdpa_kernel"),
        ({"cudnn_conv_algo_search": "heuristic"}, "'EXHAUSTIVE', 'HEURISTIC' or 'DEFAULT'"),
        ({"arena_extend_strategy": 1}, "'kNextPowerOfTwo' or 'kSameAsRequested'"),
        ({"use_tf32": "maybe"}, "use_tf32"),
        ({"tunable_op_tuning_enable": True}, "no effect without tunable_op_enable = true"),
        ({"tunable_op_enable": True, "tunable_op_max_tuning_duration_ms": 5}, "tunable_op_tuning_enable"),
        ({"has_user_compute_stream": True}, "needs user_compute_stream"),
        ({"has_user_compute_stream": False, "user_compute_stream": 4096}, "drop one"),
        ({"user_compute_stream": 0}, "user_compute_stream"),
        ({"gpu_external_alloc": 4096}, "come together"),
        ({"gpu_external_empty_cache": 4096}, "gpu_external_alloc and gpu_external_free"),
        ({"gpu_external_alloc": 1, "gpu_external_free": 2, "user_compute_stream": 3}, "cannot be combined"),
        ({"enable_cudnn": False, "fuse_conv_bias": True}, "no effect with enable_cudnn = false"),
        ({"enable_cudnn": False, "sdpa_kernel": 9}, "sdpa_kernel asks for cuDNN"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], part: str):
    with pytest.raises(ValidationError) as caught:
        CudaOptions(**options)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "name", ["default_memory_arena_cfg", "do_copy_on_default_stream", "prefer_nhwc_mode", "max_mem", "device_type"]
)
def test_what_onnx_runtime_does_not_know_is_refused(name: str):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        CudaOptions(**{name: "1"})


def test_what_is_newer_than_epkit_passes_unchecked():
    assert sent(use_tf32=True, extra={"brand_new": "7"}) == {"use_tf32": "1", "brand_new": "7"}
