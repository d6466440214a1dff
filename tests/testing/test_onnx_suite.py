"""The onnx package's backend suite: what plain ONNX Runtime passes on a provider, epkit passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import warm
from models import model, value
from onnx import helper, numpy_helper
from texts import says

from epkit.errors import RunError
from epkit.testing.onnx_suite.cases import KINDS, SuiteCase, cases
from epkit.testing.onnx_suite.examples import Example, difference, examples
from epkit.testing.onnx_suite.failure_reasons import OTHER, cause_of
from epkit.testing.onnx_suite.report import LEFT, JudgedCase, SuiteReport, report_of
from epkit.testing.onnx_suite.runners import Arm, Outcome

# Says that it is usable, opens by ONNX Runtime's CPU, and is faulty on cases that the tests know.
FAULTY = """
import os
import signal
import time

from epkit.hookspecs import hookimpl
from epkit.provider import Provider
from epkit.runtime.session_wrapper import SessionWrapper

class Wrong(SessionWrapper):
    def run_with_iobinding(self, binding, options=None):
        super().run_with_iobinding(binding, options)
        for one in binding.get_outputs():
            one.numpy()[...] += 1

class Faulty(Provider):
    name = "faulty"
    ort_name = "CPUExecutionProvider"

    def open(self, model, options, create):
        model = str(model)
        if "test_acos/" in model:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "test_acosh/" in model:
            time.sleep(60)
        return Wrong(create()) if "test_add/" in model else create()

@hookimpl
def epkit_providers():
    return [Faulty()]
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "plugin_faulty.py").write_text(FAULTY)
    monkeypatch.setenv("EPKIT_PLUGINS", "plugin_faulty")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.syspath_prepend(folder)


def case(name: str) -> SuiteCase:
    return next(one for one in cases() if one.name == name)


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [warm.PYTHON, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_pytest_starts_without_what_only_the_suite_needs():
    code = "import sys, epkit.testing.plugin; print({'numpy', 'onnx', 'onnxruntime', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_kind_of_case_is_found_with_its_model():
    found = cases()
    assert {one.kind for one in found} == set(KINDS)
    assert len({(one.kind, one.name) for one in found}) == len(found) > 1800
    assert all(Path(one.model).is_file() for one in found)


def test_a_case_holds_when_both_pass_and_is_skipped_with_a_cause_when_neither_does(empty):
    expression = "test_abs or test_cast_FLOAT_to_BFLOAT16 or test_adagrad_multiple"
    done = run_pytest(
        "--epkit-provider=cpu", "--epkit-onnx-suite", "-k", expression, "-v", "--epkit-report=found/cpu.json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "onnx-suite[cpu]::node::test_abs PASSED" in done.stdout
    assert "onnx-suite[cpu]::node::test_cast_FLOAT_to_BFLOAT16 PASSED" in done.stdout
    assert "1 of 3 cases pass in plain ONNX Runtime, 2 in epkit" in done.stdout
    report = SuiteReport(**json.loads((empty / "found" / "cpu.json").read_text()))
    assert (report.cases, report.plain, report.epkit, report.took) == (3, 1, 2, 2)
    assert report.added == {"type not carried": ["node::test_cast_FLOAT_to_BFLOAT16"]}
    assert report.remaining == {"operator unknown": ["node::test_adagrad_multiple"]}


@pytest.mark.slow
def test_what_epkit_fails_and_plain_onnx_runtime_passes_is_a_failure_and_the_others_go_on(empty, faulty):
    names = ("test_abs", "test_acos", "test_add", "test_and2d")
    ids = [f"onnx-suite[faulty]::node::{name}" for name in names]
    done = run_pytest("--epkit-provider=faulty", "--epkit-onnx-suite", "-v", *ids)
    assert done.returncode == 1, done.stdout + done.stderr
    assert [f"{one} PASSED" in done.stdout for one in ids] == [True, False, False, True]
    sentence = "plain ONNX Runtime passes this case on faulty, epkit does not"
    assert f"{sentence} (crashed): the process crashed (SIGSEGV)" in done.stdout
    assert f"{sentence} (outputs): Not equal to tolerance" in done.stdout
    assert "2 failed, 2 passed" in done.stdout


@pytest.fixture
def arm():
    made = []

    def _arm(*arguments):
        made.append(Arm(*arguments))
        return made[-1]

    yield _arm
    for one in made:
        one.end()


@pytest.mark.slow
def test_a_case_that_hangs_is_ended_and_the_next_one_gets_a_new_process(arm, faulty):
    epkit = arm("epkit", "faulty")
    epkit.send(case("test_acosh"))
    hung = epkit.receive(5)
    assert (hung.stage, cause_of(hung)) == ("hung", "hang")
    epkit.send(case("test_abs"))
    assert epkit.receive(60).passed


def test_a_worker_that_cannot_start_is_an_error_not_a_failure_of_every_case(arm):
    plain = arm("plain", "cpu", "epkit.no_such_worker")
    plain.send(case("test_abs"))
    with says(RunError):
        plain.receive(60)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--epkit-provider=cpuu", "--epkit-onnx-suite"], "no provider is named 'cpuu'"),
        (["--epkit-onnx-suite"], "--epkit-onnx-suite needs --epkit-provider=NAME"),
        (["--epkit-provider=cpu"], "--epkit-onnx-suite, which is missing"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(empty, arguments, told):
    done = run_pytest(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert told in done.stderr
    assert len(done.stderr.splitlines()) < 5


def test_a_provider_that_this_machine_lacks_is_a_usage_error_with_its_reason(empty, install):
    source = (
        "from epkit.hookspecs import hookimpl\nfrom epkit.provider import Provider, Unusable\n"
        "class Acme(Provider):\n    name = 'acme'\n    ort_name = 'AcmeExecutionProvider'\n"
        "    def probe(self):\n        return Unusable('no card', hint='buy one')\n"
        "@hookimpl\ndef epkit_providers():\n    return [Acme()]\n"
    )
    install("acme", source)
    from epkit.testing.onnx_suite.collect import wanted

    with pytest.raises(pytest.UsageError, match="acme is not usable on this machine: no card\n  hint: buy one"):
        wanted("acme")


def test_without_the_onnx_package_one_sentence_says_what_to_install(monkeypatch):
    from epkit.testing.onnx_suite.collect import wanted

    monkeypatch.setitem(sys.modules, "onnx.backend.test.loader", None)
    with pytest.raises(pytest.UsageError, match=r"pip install .onnx<1\.23"):
        wanted("cpu")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("Fail: ... Unsupported model IR version: 14, max supported IR version: 13", "IR too new"),
        ("... Opset 27 is under development and support for this is limited.", "opset in development"),
        ("ModelError: ... ai.onnx.preview.training:Adagrad(-1) is not a registered function/op", "operator unknown"),
        ("NotImplemented: ... Could not find an implementation for Add(1) node with name ''", "kernel missing"),
        (
            "NotImplemented: ... Failed to find kernel for Cast(25) (node:'' ep:'CPUExecutionProvider').",
            "kernel missing",
        ),
        ("... false. Provider type for BitShift node with name '' is not set.", "kernel missing"),
        ("RuntimeError: Numpy_type 256 can't be converted to MLDataType.", "type not carried"),
        ("RuntimeError: No corresponding Numpy type for Tensor Type.", "type not carried"),
        (
            "InputError: input 'x' holds 1e+223, which openvino would compute in float32",
            "numbers beyond the provider's type",
        ),
        ("Failed to construct locale with name:en_US.UTF-8", "locale not installed"),
        ("EPFail: [ONNXRuntimeError] : 11 : EP_FAIL : [OpenVINO-EP] - I/O size mismatch", "not taken by OpenVINO"),
        (
            "layout_ == 0 was false. Batchwise recurrent operations (layout == 1) are not supported.",
            "operator not supported in this form",
        ),
        ("a sentence that nobody has seen", OTHER),
    ],
)
def test_onnx_runtimes_words_are_classed(words, cause):
    assert cause_of(Outcome("opening", words)) == cause


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Outcome("crashed", "the process crashed (SIGSEGV)"), "crash"),
        (Outcome("hung", "the process did not answer in time and was ended"), "hang"),
        (Outcome("outputs", "Not equal to tolerance rtol=0.001"), "numbers beyond the tolerance"),
        (Outcome("outputs", "Arrays are not equal; Output 0 has incorrect shape"), "another shape"),
        (Outcome("outputs", "Items are not equal:"), "another dtype"),
    ],
)
def test_how_far_a_case_came_is_a_cause_too(outcome, cause):
    assert cause_of(outcome) == cause


def test_the_report_counts_by_verdict_and_names_what_is_not_simply_passed():
    good, bad = Outcome("passed", took=2, nodes=2), Outcome("outputs", "Items are not equal")
    left = Outcome("passed", nodes=3, left="it failed to open")
    judged = [
        JudgedCase("held", good, good),
        JudgedCase("added", bad, good),
        JudgedCase("left", bad, left),
        JudgedCase("broken", good, bad),
        JudgedCase("remaining", bad, bad),
        JudgedCase("folded", good, Outcome("passed")),
    ]
    report = report_of("acme", "a card", {"onnx": "1.22.0"}, judged)
    assert (report.cases, report.plain, report.epkit) == (6, 3, 4)
    assert (report.took, report.whole, report.folded) == (2, 2, 1)
    assert report.broken == {"broken": "Items are not equal"}
    assert report.added == {"another dtype": ["added"], LEFT: ["left"]}
    assert report.remaining == {"another dtype": ["remaining"]}
    assert SuiteReport(**json.loads(report.as_json())) == report


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "docs" / "onnx-suite").glob("*.json")), ids=lambda file: file.stem
)
def test_the_reports_in_the_documentation_say_that_the_gate_holds(file):
    report = SuiteReport(**json.loads(file.read_text(encoding="utf-8")))
    assert report.provider == file.stem
    assert report.broken == {}
    assert report.epkit == report.plain + sum(map(len, report.added.values()))
    assert report.cases == report.epkit + sum(map(len, report.remaining.values()))
    assert OTHER not in report.remaining


def outputs_differ(expected: list[object], found: list[object], *, random: bool = False) -> str:
    return difference(SuiteCase("node", "x", "", "", 1e-3, 1e-7), Example({}, expected, random), found)


def test_outputs_are_compared_by_dtype_shape_and_tolerance():
    one = np.float32([1, 2])
    assert outputs_differ([one], [one * np.float32(1.0005)]) == ""
    assert outputs_differ([one], [one * np.float32(1.01)]).startswith("Not equal to tolerance")
    assert "incorrect shape" in outputs_differ([one], [one[None]])
    assert outputs_differ([one], [one.astype(np.float64)]).startswith("Items are not equal")
    assert outputs_differ([one.astype(ml_dtypes.bfloat16)], [one.astype(ml_dtypes.bfloat16)]) == ""
    assert outputs_differ([np.array(["a"], object)], [np.array(["b"], object)])


def test_sequences_and_missing_optionals_are_compared_too():
    scalar = np.float32(1)
    assert outputs_differ([[scalar, scalar]], [[scalar, scalar]]) == ""
    assert outputs_differ([[scalar, scalar]], [[scalar, np.float32(2)]])
    assert outputs_differ([[scalar]], [[scalar, scalar]]) == "the outputs are [['tensor', 'tensor']], not [['tensor']]"
    assert outputs_differ([None], [[]]) == "the outputs are [[]], not [None]"
    assert outputs_differ([scalar], []) == "the outputs are [], not ['tensor']"


def test_of_a_model_that_draws_random_numbers_only_dtypes_and_shapes_are_compared(tmp_path):
    node = helper.make_node("RandomUniformLike", ["x"], ["y"])
    shape = value("x", [2])
    (tmp_path / "model.onnx").write_bytes(model([node], [shape], [value("y", [2])]))
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    for name in ("input_0", "output_0"):
        (folder / f"{name}.pb").write_bytes(numpy_helper.from_array(np.zeros(2, np.float32)).SerializeToString())
    drawn = SuiteCase("node", "x", str(tmp_path / "model.onnx"), str(tmp_path), 1e-3, 1e-7)
    example = next(iter(examples(drawn)))
    assert example.random
    assert difference(drawn, example, [np.ones(2, np.float32)]) == ""
    assert difference(drawn, example, [np.ones(3, np.float32)])


def test_inputs_are_read_by_the_name_and_type_that_the_model_gives_them():
    example = next(iter(examples(case("test_identity_sequence"))))
    assert [type(one) for one in example.inputs.values()] == [list]
    light = next(iter(examples(case("test_squeezenet"))))
    assert [one.shape for one in light.inputs.values()] == [(1, 3, 224, 224)]
    assert [one.shape for one in light.outputs] == [(1, 1000, 1, 1)]
