from __future__ import annotations

import onnxruntime
import pytest
from epkit_cpu.provider import Cpu
from models import identity
from texts import says

from epkit.config import file, target
from epkit.discovery import registry
from epkit.errors import ConfigError


def test_onnx_runtime_ignores_whatever_the_cpu_is_given():
    options = onnxruntime.SessionOptions()
    options.add_provider(Cpu.ort_name, {"use_arena": "banana", "nope": "1"})
    session = onnxruntime.InferenceSession(identity(), options, enable_fallback=0)
    assert session.get_provider_options() == {Cpu.ort_name: {}}


@pytest.mark.parametrize(
    ("options", "told"),
    [({"use_arena": True}, "no such option of cpu"), ({"extra": {"use_arena": "1"}}, "write session_options")],
)
def test_so_every_option_is_an_error_that_names_session_options(options: dict[str, object], told: str):
    written = file.load({"targets": {"t": {"provider": "cpu", "options": options}}}, environ={})
    with says(ConfigError) as error:
        target.read("t", written, registry.discover())
    assert "session_options" in str(error.value)
