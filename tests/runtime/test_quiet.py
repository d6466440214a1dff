"""What ONNX Runtime says of a failure is said once, by epkit, and not on stderr too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import model, value
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import EpkitError, ModelError, RunError


def unopenable() -> bytes:
    """Build a model that no session opens: the kernel of its node does not know the mode."""
    scales = numpy_helper.from_array(np.ones(4, np.float32), "s")
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["y"], mode="odd")]
    return model(nodes, [value("x", [1, 1, 2, 2])], [value("y", [1, 1, 2, 2])], [scales])


def unrunnable() -> bytes:
    """Build a model that opens, and whose run fails in a node: an index that is too large."""
    nodes = [helper.make_node("Gather", ["c", "i"], ["y"])]
    data = numpy_helper.from_array(np.ones(4, np.float32), "c")
    return model(nodes, [value("i", [1], TensorProto.INT64)], [value("y", None)], [data])


def unrunnable_as_it_is() -> bytes:
    """Build a model whose run fails whatever it is given."""
    shape = numpy_helper.from_array(np.array([7, 7], np.int64), "s")
    return model([helper.make_node("Reshape", ["x", "s"], ["y"])], [value("x", ["n"])], [value("y", None)], [shape])


@pytest.mark.parametrize("device", [None, {"cpu": False, "provider": "faulty"}], ids=["cpu", "without"])
def test_a_session_that_does_not_open_logs_nothing(capfd, device):
    with pytest.raises(EpkitError):
        epkit.open(
            unopenable(), "cpu" if device is None else "t", config={"targets": {"t": device or {}}} if device else {}
        )
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_logs_nothing(capfd):
    with epkit.open(unrunnable(), "cpu") as session:
        with pytest.raises(RunError):
            session.run({"i": np.array([99])})
        with pytest.raises(RunError):
            session.run({"i": np.array([99])}, timeout=10)
        binding = session.bind({"i": np.array([1])})
        with pytest.raises(RunError):
            binding.run({"i": np.array([99])})
    assert capfd.readouterr() == ("", "")


def test_a_command_that_fails_prints_its_own_sentence_and_hint(command, empty):
    for name, contents in (
        ("a.onnx", unopenable()),
        ("b.onnx", unrunnable_as_it_is()),
        ("garbage.onnx", b"\x08\x08garbage"),
    ):
        Path(name).write_bytes(contents)
        code, out, err = command("run", name, "-t", "cpu")
        assert (code, out) == (4, "")
        assert {line.split(":")[0].strip() for line in err.splitlines()} <= {"epkit", "hint"}


def test_a_target_can_have_the_log_back(capfd):
    with pytest.raises(ModelError):
        epkit.open(unopenable(), "cpu", session_options={"log_severity_level": 2})
    assert "onnxruntime" in capfd.readouterr().err
