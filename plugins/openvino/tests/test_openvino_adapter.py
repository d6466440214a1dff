from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from capabilities import needs
from epkit_openvino import adapter, processor
from epkit_openvino.provider import OpenVino

from epkit import wheels
from epkit.model import sample
from epkit.provider import Unusable, Usable

OPENVINO = OpenVino()

needs_adapter = pytest.mark.skipif(not adapter.supported(), reason="the adapter is made for Linux on x86-64")
needs_wheel = pytest.mark.skipif(not wheels.version("onnxruntime-ep-openvino"), reason="OpenVINO is not installed")


@pytest.fixture
def made_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let the processor be of another maker, as far as epkit can tell."""

    def pretend(maker: str, model: str = "a processor") -> None:
        facts = tmp_path / "cpuinfo"
        facts.write_text(f"vendor_id\t: {maker}\nmodel name\t: {model}\nflags\t\t: fpu avx2 fma bmi2\n")
        monkeypatch.setattr(processor, "CPUINFO", facts)

    monkeypatch.delenv(adapter.VARIABLE, raising=False)
    return pretend


# When it is used


@needs_adapter
@pytest.mark.parametrize(
    ("maker", "mode", "used"),
    [
        ("GenuineIntel", "", False),
        ("GenuineIntel", "auto", False),
        ("GenuineIntel", "on", True),
        ("GenuineIntel", "off", False),
        ("AuthenticAMD", "", True),
        ("AuthenticAMD", "auto", True),
        ("AuthenticAMD", "on", True),
        ("AuthenticAMD", "off", False),
        ("", "auto", True),
    ],
)
def test_the_adapter_is_used_where_the_processor_is_not_intel_s_or_as_the_environment_says(
    maker: str, mode: str, used: bool, made_by, monkeypatch: pytest.MonkeyPatch
):
    made_by(maker)
    monkeypatch.setenv(adapter.VARIABLE, mode)
    assert adapter.used() is used
    assert bool(OPENVINO.library.preload()) is used
    assert (OPENVINO.library.path() == adapter.LIBRARY) is used


def test_other_systems_register_the_library_itself(made_by, monkeypatch: pytest.MonkeyPatch):
    made_by("AuthenticAMD")
    monkeypatch.setenv(adapter.VARIABLE, "on")
    monkeypatch.setattr(sys, "platform", "win32")
    assert not adapter.used()


@needs_wheel
def test_a_mode_that_is_none_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(adapter.VARIABLE, "yes")
    answer = OPENVINO.probe()
    assert isinstance(answer, Unusable)
    assert adapter.VARIABLE in answer.hint


@needs_wheel
@needs_adapter
def test_the_probe_and_every_report_say_that_the_adapter_is_used(made_by):
    made_by("AuthenticAMD")
    answer = OPENVINO.probe()
    assert isinstance(answer, Usable)
    assert "AMD" in answer.detail
    assert adapter.VARIABLE in answer.note
    made_by("GenuineIntel")
    answer = OPENVINO.probe()
    assert isinstance(answer, Usable)
    assert "adapter" not in answer.detail + answer.note


@needs_wheel
@needs_adapter
def test_an_onnx_runtime_that_cannot_make_device_records_is_a_reason(made_by, monkeypatch: pytest.MonkeyPatch):
    made_by("AuthenticAMD")
    monkeypatch.setattr(wheels, "runtimes", lambda: {"onnxruntime": "1.23.2"})
    answer = OPENVINO.probe()
    assert isinstance(answer, Unusable)
    assert answer.hint == "pip install 'onnxruntime>=1.24'"


def test_the_answer_of_a_probe_is_remembered_for_one_processor_and_one_mode(made_by, monkeypatch: pytest.MonkeyPatch):
    answers = set()
    for maker, model in (("GenuineIntel", "x"), ("AuthenticAMD", "x"), ("AuthenticAMD", "y")):
        made_by(maker, model)
        answers.add(tuple(OPENVINO.fingerprint()))
    monkeypatch.setenv(adapter.VARIABLE, "off")
    answers.add(tuple(OPENVINO.fingerprint()))
    assert len(answers) == 4


def test_a_class_on_top_of_openvino_inherits_the_adapter(made_by):
    class Mine(OpenVino):
        name = "mine"

    made_by("AuthenticAMD")
    assert Mine().library.preload() == OPENVINO.library.preload()
    assert Mine().library.path() == OPENVINO.library.path()


@pytest.mark.parametrize(("maker", "name"), [("AuthenticAMD", "AMD"), ("GenuineIntel", "Intel"), ("", "unknown")])
def test_the_processor_is_named_as_people_name_it(
    maker: str, name: str, made_by, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made_by(maker, "EPYC 9B14")
    assert name in processor.maker_name()
    assert processor.model() == "EPYC 9B14"
    assert processor.instructions() == " ".join([*maker.split(), "avx2", "fma"])
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "gone")
    assert processor.maker() == ""


# What it does


def in_a_process(code: str, **environ: str) -> list[str]:
    """Run `code` after `register(name, path)` and `listed()` were defined; the lines that it prints."""
    prologue = (
        "import ctypes, sys\n"
        "import onnxruntime as ort\n"
        "from epkit import wheels\n"
        "from epkit_openvino import adapter, provider\n"
        "real = wheels.library(provider._MODULE, provider._LIBRARY)\n"
        "def listed(): return [one.device.type.name for one in ort.get_ep_devices() if 'OpenVINO' in one.ep_name]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prologue + code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environ,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_wheel
@needs_adapter
def test_through_the_adapter_openvino_lists_every_cpu_once():
    code = (
        "ctypes.CDLL(str(real))\n"
        "ort.register_execution_provider_library('o', str(adapter.LIBRARY))\n"
        "print([one.ep_name for one in ort.get_ep_devices() if one.device.type.name == 'CPU'].count("
        "'OpenVINOExecutionProvider'))\n"
    )
    assert in_a_process(code) == ["1"]


@needs_wheel
@needs_adapter
def test_where_the_library_lists_the_cpu_by_itself_the_adapter_changes_nothing():
    code = (
        "ort.register_execution_provider_library('o', str(real))\n"
        "alone = listed()\n"
        "ort.unregister_execution_provider_library('o')\n"
        "ort.register_execution_provider_library('p', str(adapter.LIBRARY))\n"
        "print(alone)\n"
        "print(listed())\n"
    )
    alone, adapted = in_a_process("ctypes.CDLL(str(real))\n" + code)
    if alone == "[]":
        pytest.skip("OpenVINO's library lists no device of this machine by itself")
    assert alone == adapted


@needs_wheel
@needs_adapter
def test_without_openvino_s_library_the_adapter_is_refused_with_a_sentence():
    code = (
        "try:\n"
        "    ort.register_execution_provider_library('o', str(adapter.LIBRARY))\n"
        "except Exception as error:\n"
        "    print('not loaded' in str(error))\n"
    )
    assert in_a_process(code) == ["True"]


@needs_wheel
@needs_adapter
def test_the_adapter_can_be_registered_and_unregistered_again_and_again():
    code = (
        "ctypes.CDLL(str(real))\n"
        "for _ in range(5):\n"
        "    ort.register_execution_provider_library('o', str(adapter.LIBRARY))\n"
        "    assert 'CPU' in listed()\n"
        "    ort.unregister_execution_provider_library('o')\n"
        "    assert not listed()\n"
        "print('done')\n"
    )
    assert in_a_process(code) == ["done"]


@needs("plugin openvino")
@needs_wheel
@needs_adapter
def test_the_plain_script_of_explain_runs_through_the_adapter(tmp_path: Path):
    model = str(sample.path())
    environ = os.environ | {adapter.VARIABLE: "on"}
    told = subprocess.run(
        [sys.executable, "-m", "epkit", "explain", model, "-t", "openvino", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    )
    explained = json.loads(told.stdout)
    (script := tmp_path / "script.py").write_text(explained["script"])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OpenVINOExecutionProvider")
    assert any(adapter.VARIABLE in note for note in explained["notes"])
