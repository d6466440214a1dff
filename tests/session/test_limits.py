"""Nothing runs without an end where a limit is given, and a warm-up always has one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from models import mlp, model, value
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import ConfigError, RunTimeout


def endless(*, folded: bool = False) -> bytes:
    """Build a model with a loop of 2^40 rounds; `folded` makes all of it constant, so that opening does not end."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c_in"], ["c_out"]),
            helper.make_node("Add", ["v_in", "one"], ["v_out"]),
        ],
        "body",
        [value("i", [], TensorProto.INT64), value("c_in", [], TensorProto.BOOL), value("v_in", [1])],
        [value("c_out", [], TensorProto.BOOL), value("v_out", [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    weights = [
        numpy_helper.from_array(np.array(2**40, np.int64), "times"),
        numpy_helper.from_array(np.array(True), "on"),
    ]
    if folded:
        weights.append(numpy_helper.from_array(np.zeros(1, np.float32), "start"))
    nodes = [helper.make_node("Loop", ["times", "on", "start" if folded else "x"], ["last"], body=body)]
    nodes.append(helper.make_node("Add", ["last", "x"], ["y"]))
    return model(nodes, [value("x", [1])], [value("y", [1])], weights)


@pytest.fixture
def file(empty: Path) -> Path:
    (empty / "endless.onnx").write_bytes(endless())
    return empty / "endless.onnx"


def limited(*words: object) -> tuple[int, str, str, float]:
    """Run `epkit` in a process of its own; also returns how long it took."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "epkit", *map(str, words)], capture_output=True, text=True, timeout=100, env=os.environ
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


@pytest.mark.slow
def test_a_warm_up_that_does_not_end_is_stopped_and_said(file):
    with epkit.open(file, "t", config={"targets": {"t": {"provider": "cpu", "warmup": {"timeout": 0.5}}}}) as session:
        assert any("0.5 s" in note for note in session.report.notes)
        with pytest.raises(RunTimeout):
            session.run({"x": [1.0]}, timeout=0.5)


def test_a_warm_up_within_its_limit_is_as_without(tmp_path):
    (tmp_path / "m.onnx").write_bytes(mlp())
    with epkit.open(
        tmp_path / "m.onnx", "t", config={"targets": {"t": {"provider": "cpu", "warmup": {"timeout": 60}}}}
    ) as session:
        assert session.report.warmup[0].runs == 2
        assert session.report.notes == () or all("s and was stopped" not in note for note in session.report.notes)


@pytest.mark.parametrize("seconds", [0, -1, "soon", True])
def test_a_limit_of_a_warm_up_is_checked(seconds):
    with pytest.raises(ConfigError):
        epkit.open(mlp(), "t", config={"targets": {"t": {"provider": "cpu", "warmup": {"timeout": seconds}}}})


@pytest.mark.slow
def test_a_run_without_an_end_ends_at_its_timeout(file):
    code, out, err, seconds = limited("run", file, "-t", "cpu", "--timeout", "3")
    assert (code, out) == (4, "")
    assert err.startswith("epkit: ")
    assert "--timeout" in err
    assert seconds < 60


@pytest.mark.slow
def test_a_model_that_does_not_even_open_ends_at_the_timeout(empty):
    (empty / "folded.onnx").write_bytes(endless(folded=True))
    code, out, err, _ = limited("run", empty / "folded.onnx", "-t", "cpu", "--timeout", "3", "--json")
    assert code == 4
    assert json.loads(out)["error"]["type"] == "RunTimeout"
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_comparison_without_an_end_ends_at_its_timeout_and_leaves_nothing(file, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code, _, err, _ = limited("compare", file, "-t", "cpu", "-t", "cpu", "--timeout", "5")
    assert code == 4
    assert "Traceback" not in err
    assert not list(tmp_path.glob("epkit-scratch-*"))


def test_a_timeout_that_is_long_enough_changes_nothing(command, empty):
    (empty / "m.onnx").write_bytes(mlp())
    for words in (("run", "m.onnx", "-t", "cpu"), ("explain", "m.onnx", "-t", "cpu")):
        assert command(*words, "--timeout", "90")[0] == 0
    for wrong in ("0", "-1", "soon", "nan"):
        assert command("run", "m.onnx", "--timeout", wrong)[0] == 2


def test_ten_thousand_outputs_are_written_in_a_moment(tmp_path):
    from epkit.model.array_files import save_outputs

    began = time.process_time()
    files = save_outputs(
        {f"y {at}": np.zeros(1, np.float32) for at in range(3000)} | {"y_0": np.zeros(1)}, tmp_path / "out"
    )
    assert len({*files.values()}) == 3001
    assert time.process_time() - began < 20
