"""Single runs are cancelled, tagged and adapted; models say what their exporter wrote; sessions travel."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from models import mlp, model, value
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import ConfigError, RunCancelled, RunError, RunTimeout

node = helper.make_node
X = np.ones((2, 16), np.float32)


def long() -> bytes:
    """Build a loop that ends after minutes, unless it is stopped."""
    body = helper.make_graph(
        [node("Identity", ["condition"], ["goes_on"]), node("Tanh", ["a"], ["b"])],
        "body",
        [value("i", [], TensorProto.INT64), value("condition", [], TensorProto.BOOL), value("a", ["n"])],
        [value("goes_on", [], TensorProto.BOOL), value("b", ["n"])],
    )
    return model(
        [node("Loop", ["times", "", "x"], ["y"], body=body)],
        [value("x", ["n"]), value("times", [], TensorProto.INT64)],
        [value("y", ["n"])],
    )


MANY = {"x": np.ones(4, np.float32), "times": np.array(2**40)}
FEW = {"x": np.ones(4, np.float32), "times": np.array(2)}


@pytest.fixture(scope="module")
def session():
    with epkit.open(mlp(), "cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def loop():
    with epkit.open(long(), "cpu", session_options={"intra_op_num_threads": 1}) as opened:
        yield opened


@pytest.mark.parametrize("timeout", [None, 600])
def test_a_run_is_cancelled_from_another_thread_and_the_session_goes_on(loop, timeout):
    options = epkit.RunOptions()
    threading.Timer(0.2, options.cancel).start()
    with pytest.raises(RunCancelled):
        loop.run(MANY, timeout=timeout, options=options)
    assert options.cancelled
    assert loop.run(FEW)["y"].shape == (4,)


def test_options_that_were_cancelled_begin_no_run(loop):
    options = epkit.RunOptions()
    options.cancel()
    with pytest.raises(RunCancelled):
        loop.run(FEW, options=options)
    with pytest.raises(RunCancelled):
        asyncio.run(loop.run_async(FEW, options=options))


def test_one_cancels_all_runs_of_its_options_and_no_others(loop):
    options, ended = epkit.RunOptions(), []

    def run() -> None:
        with pytest.raises(RunCancelled):
            loop.run(MANY, options=options)
        ended.append(1)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert loop.run(FEW, options=epkit.RunOptions())["y"].shape == (4,)
    options.cancel()
    for thread in threads:
        thread.join(60)
    assert len(ended) == 2


def test_a_run_that_is_too_long_is_too_long_whatever_its_options(loop):
    with pytest.raises(RunTimeout):
        loop.run(MANY, timeout=0.1, options=epkit.RunOptions())


def test_options_change_no_result(session):
    wanted = session.run(X)["y"]
    options = epkit.RunOptions(log_severity_level=4, log_verbosity_level=1, logid="request 7")
    for _ in range(3):
        assert np.array_equal(session.run(X, options=options)["y"], wanted)
        assert np.array_equal(session.run(X, ["y"], options=options, timeout=60)["y"], wanted)
    assert np.array_equal(asyncio.run(session.run_async(X, options=options))["y"], wanted)


def failing() -> bytes:
    wanted = numpy_helper.from_array(np.array([7, 3]), "wanted")
    return model([node("Reshape", ["x", "wanted"], ["y"])], [value("x", ["h"])], [value("y", None)], [wanted])


@pytest.mark.parametrize("severity", [3, 4])
def test_how_much_is_logged_is_said_for_single_runs(capfd, severity):
    with epkit.open(failing(), "cpu") as opened:
        capfd.readouterr()
        with pytest.raises(RunError):
            opened.run(np.ones(2, np.float32), options=epkit.RunOptions(log_severity_level=severity, logid="request-7"))
    assert ("request-7" in capfd.readouterr().err) is (severity == 3)


@pytest.mark.parametrize("wrong", [-1, 5, True, "loud"])
def test_a_severity_that_there_is_not_is_refused(wrong):
    with pytest.raises(ConfigError):
        epkit.RunOptions(log_severity_level=wrong)


def adapted(tmp_path, scale: float) -> str:
    """Write an adapter that sets the weights "a" and "b", which a model takes as initializers of its own."""
    adapter = onnxruntime.AdapterFormat()
    numbers = np.full((16, 16), scale, np.float32)
    adapter.set_parameters({"a": onnxruntime.OrtValue.ortvalue_from_numpy(numbers)})
    file = str(tmp_path / f"{scale}.onnx_adapter")
    adapter.export_adapter(file)
    return file


def overridable() -> bytes:
    """Build a product with weights that a run may replace: they are inputs too."""
    weights = numpy_helper.from_array(np.zeros((16, 16), np.float32), "a")
    return model(
        [node("MatMul", ["x", "a"], ["y"])],
        [value("x", ["n", 16]), value("a", [16, 16])],
        [value("y", ["n", 16])],
        [weights],
    )


def test_adapters_are_active_in_the_runs_that_name_them_and_in_no_others(tmp_path):
    small, large = (epkit.RunOptions(adapters=[adapted(tmp_path, scale)]) for scale in (1, 2))
    with epkit.open(overridable(), "cpu") as session:
        for _ in range(3):
            assert session.run(X)["y"].max() == 0
            assert session.run(X, options=small)["y"].tolist() == np.full((2, 16), 16).tolist()
            assert session.run(X, options=large)["y"].tolist() == np.full((2, 16), 32).tolist()


def test_an_adapter_that_is_none_is_refused(tmp_path, session):
    with pytest.raises(ConfigError):
        epkit.RunOptions(adapters=[tmp_path / "none.onnx_adapter"])
    (tmp_path / "odd.onnx_adapter").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError):
        session.run(X, options=epkit.RunOptions(adapters=[tmp_path / "odd.onnx_adapter"]))


# -- metadata


METADATA = {"names": "{0: 'person', 1: 'bicycle'}", "stride": "32", "empty": "", "character": "ä\nb"}


def described() -> bytes:
    found = onnx.load_from_string(mlp())
    helper.set_model_props(found, METADATA)
    return found.SerializeToString()


def test_a_session_has_the_models_metadata_and_nobody_changes_it():
    with epkit.open(described(), "cpu") as session:
        assert dict(session.metadata) == METADATA
        with pytest.raises(TypeError):
            session.metadata["names"] = ""
    with epkit.open(mlp(), "cpu") as session:
        assert dict(session.metadata) == {}


def test_metadata_is_read_from_a_model_in_ort_format_too(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    plain = onnxruntime.InferenceSession(described(), options, providers=["CPUExecutionProvider"])
    with epkit.open(tmp_path / "m.ort", "cpu") as session:
        again = onnxruntime.InferenceSession(str(tmp_path / "m.ort"), providers=["CPUExecutionProvider"])
        assert dict(session.metadata) == again.get_modelmeta().custom_metadata_map
    assert plain.get_modelmeta().custom_metadata_map == METADATA


def test_inspect_shows_metadata_whole_for_programs_and_short_for_people(command, empty):
    found = onnx.load_from_string(described())
    helper.set_model_props(found, {**METADATA, "long": "word " * 100})
    (empty / "m.onnx").write_bytes(found.SerializeToString())
    answer = json.loads(command("inspect", "m.onnx", "--json")[1])
    assert answer["metadata"]["character"] == "ä\nb"
    _, out, _ = command("inspect", "m.onnx")
    assert "stride = 32" in out
    assert all(len(line) < 200 for line in out.splitlines())


def test_the_report_has_the_metadata():
    with epkit.open(described(), "cpu") as session:
        assert session.report.metadata == METADATA
        assert session.report.as_json()["metadata"] == METADATA


# -- pickling


@pytest.mark.parametrize("source", ["bytes", "path"])
def test_a_session_that_is_pickled_opens_again_in_the_same_way(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(mlp())
    given = mlp() if source == "bytes" else "m.onnx"
    config = {"targets": {"t": {"provider": "cpu", "cast": True}}}
    with epkit.open(given, "t", session_options={"intra_op_num_threads": 1}, config=config) as first:
        stored = pickle.dumps(first)
        wanted = first.run(X)["y"]
        monkeypatch.chdir("/")
        with pickle.loads(stored) as second, copy.deepcopy(first) as third:
            for session in (second, third):
                assert session is not first
                assert np.array_equal(session.run(X.astype(np.float64))["y"], wanted)  # as `cast` allows
                assert session.report.target == "t"


def test_a_session_opens_again_in_another_process(tmp_path):
    with epkit.open(mlp(), "cpu") as session:
        (tmp_path / "session").write_bytes(pickle.dumps(session))
        wanted = session.run(X)["y"]
    code = (
        "import pickle, sys, numpy; session = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(session.run(numpy.ones((2, 16), numpy.float32))['y'].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "session"], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), wanted, rtol=1e-6)


def test_a_pickle_of_a_model_that_is_gone_is_an_error_of_the_model(tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(mlp())
    with epkit.open(file, "cpu") as session:
        stored = pickle.dumps(session)
    file.unlink()
    with pytest.raises(epkit.errors.ModelError):
        pickle.loads(stored)
