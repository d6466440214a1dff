from __future__ import annotations

import pytest

import epkit
from epkit import wheels
from epkit.session.doctor import clash


@pytest.mark.parametrize(
    ("installed", "state", "found", "mend"),
    [
        ({"onnxruntime-gpu": "1.31.1"}, "fine", "onnxruntime-gpu 1.31.1", ""),
        (
            {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"},
            "problem",
            "overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        ),
        ({}, "note", "a build of its own", ""),
    ],
)
def test_distributions_that_share_a_folder_clash(installed, state, found, mend):
    finding = clash(installed)
    assert (finding.state, finding.hint) == (state, mend)
    assert found in finding.found


@pytest.mark.parametrize(("version", "found"), [("1.24.1", {"onnxruntime-qnn": "1.24.1"}), ("2.7.0", {}), ("2.10", {})])
def test_a_wheel_that_has_become_a_plugin_library_is_no_onnx_runtime(version, found, monkeypatch):
    monkeypatch.setattr(wheels, "version", lambda name: version if name == "onnxruntime-qnn" else "")
    assert wheels.runtimes() == found


def test_files_of_another_version_than_the_distribution_says_are_a_problem(monkeypatch):
    monkeypatch.setattr(wheels, "runtimes", lambda: {"onnxruntime-gpu": "0.9"})
    problems = [one for one in epkit.doctor().problems if one.topic == "ONNX Runtime"]
    assert len(problems) == 1
    assert "the distribution says 0.9" in problems[0].found
    assert problems[0].hint == "pip install --force-reinstall onnxruntime-gpu"


def test_a_healthy_installation_has_nothing_to_mend():
    checkup = epkit.doctor()
    assert checkup.problems == ()
    topics = {one.topic for one in checkup.findings}
    assert topics >= {"Python", "system", "ONNX Runtime", "compiled in", "cores", "cache", "provider openvino"}


def test_a_broken_plugin_is_a_problem_with_the_command_that_mends_it(install):
    install("rotten", "import nothing_of_that_name")
    (problem,) = [one for one in epkit.doctor().problems if one.topic == "provider rotten"]
    assert "nothing_of_that_name" in problem.found
    assert problem.hint
