from __future__ import annotations

import onnxruntime
import pytest
from epkit_cpu.provider import Cpu, CpuOptions
from hypothesis import given
from hypothesis import strategies as st
from models import identity
from pydantic import ValidationError

from epkit import config, registry, target
from epkit.errors import ConfigError


def test_onnx_runtime_ignores_whatever_the_cpu_is_given():
    options = onnxruntime.SessionOptions()
    options.add_provider(Cpu.ort_name, {"use_arena": "banana", "nope": "1"})
    session = onnxruntime.InferenceSession(identity(), options, enable_fallback=0)
    assert session.get_provider_options() == {Cpu.ort_name: {}}


@given(st.dictionaries(st.text(), st.one_of(st.booleans(), st.integers(), st.text()), min_size=1, max_size=3))
def test_so_every_option_is_an_error_that_names_session_options(written: dict[str, object]):
    with pytest.raises(ValidationError, match="write session_options"):
        CpuOptions.model_validate(written)


@pytest.mark.parametrize("options", [{"use_arena": True}, {"extra": {"use_arena": "1"}}])
def test_a_target_with_cpu_options_says_so(options: dict[str, object], empty: object):
    written = config.load({"targets": {"t": {"provider": "cpu", "options": options}}})
    with pytest.raises(ConfigError, match=f"options.{next(iter(options))}: cpu has no options: write session_options"):
        target.read("t", written, registry.discover())


def test_no_options_are_no_error():
    assert Cpu().encode(CpuOptions(), None) == {}
    assert Cpu().encode(CpuOptions.model_validate({}), None) == {}
