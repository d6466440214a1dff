"""A model may declare wrong shapes of its outputs: every way to run it gives what plain ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import model, value
from onnx import TensorProto, helper

import epkit
from epkit.errors import RunError


def frozen(declared, op: str = "Relu", size: int | str = 4) -> bytes:
    """Build y = Relu(x), x being [b, 4], whose output is declared as given."""
    return model([helper.make_node(op, ["x"], ["y"])], [value("x", ["b", size])], [value("y", declared)])


def reshaping(declared) -> bytes:
    """Build y = Reshape(x, s), of whose shape ONNX Runtime knows nothing but what is declared, beside z = Relu(x)."""
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"]), helper.make_node("Relu", ["x"], ["z"])]
    inputs = [value("x", ["n", "m"]), value("s", ["rank"], TensorProto.INT64)]
    return model(nodes, inputs, [value("y", declared), value("z", ["n", "m"])])


def plain(contents: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(contents, options)


def check_same(found, session: onnxruntime.InferenceSession, feed) -> None:
    for one, wanted in zip(session.get_outputs(), session.run(None, feed), strict=True):
        assert found[one.name].shape == wanted.shape
        assert found[one.name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[one.name], wanted)


DECLARED = {
    "one row": frozen([1, 4]),
    "more rows": frozen([5, 4]),
    "no row": frozen([0, 4]),
    "the other size": frozen(["b", 5], size="w"),
    "another rank": frozen([12]),
    "any rank": frozen(None),
}


@pytest.mark.parametrize("name", DECLARED)
def test_an_output_of_another_shape_than_declared_comes_out_of_every_call(name):
    reference = plain(DECLARED[name])
    with epkit.open(DECLARED[name], "cpu", config={}) as session:
        binding = session.bind(np.zeros((3, 4), np.float32))
        for rows in (3, 3, 3, 3, 1, 1, 1, 5, 5, 5, 3, 3):
            x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
            check_same(session.run(x), reference, {"x": x})
            check_same(binding.run(x), reference, {"x": x})
            check_same(binding.run(), reference, {"x": x})
            with session.bind(x) as fresh:
                for _ in range(3):
                    check_same(fresh.run(), reference, {"x": x})


def test_shapes_that_are_as_declared_still_borrow_a_binding():
    with epkit.open(frozen([1, 4]), "cpu", config={}) as session:
        for rows in (3, 3, 3, 1, 1, 1):
            session.run(np.ones((rows, 4), np.float32))
        waiting = {key: len(idle) for key, idle in session._caller._pool._idle.items()}
    assert waiting == {(3, 4): 0, (1, 4): 1}


def test_a_buffer_of_the_real_shape_takes_the_output_whatever_the_model_declares():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    buffer = np.zeros((3, 4), np.float32)
    with epkit.open(frozen([1, 4]), "cpu", config={}) as session, session.bind(x, {"y": buffer}) as binding:
        for run in range(1, 4):
            assert binding.run(x * run)["y"] is buffer
            np.testing.assert_array_equal(buffer, x * run)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_buffer_of_another_shape_than_the_real_one_is_an_error_whatever_the_model_declares(rows):
    memory = np.full((rows + 2, 4), 7, np.float32)
    with (
        epkit.open(frozen([1, 4]), "cpu", config={}) as session,
        session.bind(np.ones((3, 4), np.float32), {"y": memory[:rows]}) as binding,
    ):
        for _ in range(2):
            with pytest.raises(RunError) as error:
                binding.run()
            assert error.value.hint
    assert (memory[rows:] == 7).all()


SIZES = st.one_of(st.integers(0, 4), st.sampled_from(["n", "m", "k"]))
RUNS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from(["same", "turned", "flat", "deep"])),
    min_size=1,
    max_size=5,
)


def shape_for(rows: int, columns: int, how: str) -> list[int]:
    return {
        "same": [rows, columns],
        "turned": [columns, rows],
        "flat": [rows * columns],
        "deep": [1, rows, columns],
    }[how]


@settings(max_examples=60)
@given(st.one_of(st.none(), st.lists(SIZES, max_size=3)), RUNS)
def test_runs_and_bindings_give_what_plain_onnx_runtime_gives_whatever_is_declared(declared, runs):
    contents = reshaping(declared)
    reference = plain(contents)
    bound: epkit.Binding | None = None
    with epkit.open(contents, "cpu", config={}, session_options={"log_severity_level": 4}) as session:
        for rows, columns, how in [one for one in runs for _ in range(3)] + runs:
            x = np.random.default_rng(rows).random((rows, columns), dtype=np.float32)
            feed = {"x": x, "s": np.array(shape_for(rows, columns, how))}
            if rows == 0:
                feed["s"] = np.array([0, columns])  # Reshape reads a 0 as "as the input's"
            check_same(session.run(feed), reference, feed)
            bound = bound or session.bind(feed)
            check_same(bound.run(feed), reference, feed)
            check_same(bound.run(), reference, feed)
            wanted = reference.run(None, feed)[0]
            if declared is not None and wanted.ndim == len(declared):
                buffer = np.zeros(wanted.shape, np.float32)
                with session.bind(feed, {"y": buffer, "z": None}) as into:
                    for _ in range(3):
                        into.run()
                        np.testing.assert_array_equal(buffer, wanted)


def test_warm_up_goes_on_where_the_model_declares_a_wrong_shape_and_says_so():
    config = {"targets": {"t": {"provider": "cpu", "warmup": {"shapes": [{"x": [3, 4]}, {"x": [2, 4]}]}}}}
    with epkit.open(frozen([1, 4]), "t", config=config) as session:
        assert [one.shapes["x"] for one in session.report.warmup] == [(3, 4), (2, 4)]
        assert any("[3, 4]" in note and "[1, 4]" in note for note in session.report.notes)
