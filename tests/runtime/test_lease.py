from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from capabilities import LIBRARY, needs
from hypothesis import given, settings
from hypothesis import strategies as st
from models import identity, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from texts import says
from together import together

import epkit
from epkit.errors import RunError
from epkit.runtime import fast_path


def lent(session: epkit.Session) -> int:
    leases = session._caller._pool
    return sum(len(idle) for idle in leases._idle.values()) if leases is not None else 0


def passing(nodes, outputs) -> bytes:
    """Build a model that gives back its input beside, or instead of, computing."""
    graph = helper.make_graph(nodes, "passing", [value("x", ["N"])], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


MODELS = {
    "input passed through": passing([], [value("x", ["N"])]),
    "input beside an output": passing([helper.make_node("Relu", ["x"], ["y"])], [value("y", ["N"]), value("x", ["N"])]),
    "initializer as output": model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", ["N"])],
        [value("y", ["N"]), value("c", [2])],
        [numpy_helper.from_array(np.array([5, 6], np.float32), "c")],
    ),
    "one value twice": model(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])],
        [value("x", ["N"])],
        [value("y", ["N"]), value("z", ["N"])],
    ),
    "a shape that depends on values": model(
        [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)],
        [value("x", ["N"])],
        [value("y", [1, "N"])],
    ),
    "two inputs": model(
        [helper.make_node("Add", ["x", "b"], ["y"])], [value("x", ["N"]), value("b", ["M"])], [value("y", ["N"])]
    ),
    "mlp": mlp(),
}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=12))
def test_every_run_gives_what_plain_onnx_runtime_gives(name, runs):
    contents = MODELS[name]
    plain = onnxruntime.InferenceSession(contents)
    kept: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    with epkit.open(contents, "cpu", config={}) as session:
        for size, seed in runs:
            x = np.random.default_rng(seed).integers(0, 2, size).astype(np.float32)
            feed = {"x": np.repeat(x[:, None], 16, axis=1) if name == "mlp" else x}
            if name == "two inputs":
                feed["b"] = feed["x"] + 1
            wanted = dict(zip([one.name for one in plain.get_outputs()], plain.run(None, feed), strict=True))
            kept.append((session.run(feed), wanted))
        for found, wanted in kept:  # all at the end: no result may be written over by a later run
            for output, array in wanted.items():
                np.testing.assert_allclose(found[output], array, rtol=1e-6)


def test_small_inputs_borrow_a_binding_and_large_ones_do_not():
    with epkit.open(identity(), "cpu") as session:
        for _ in range(3):
            session.run(np.ones(8, np.float32))
        assert lent(session) >= 1
    with epkit.open(identity(), "cpu") as session:
        before = lent(session)
        for _ in range(3):
            session.run(np.ones(fast_path.MOST_BYTES, np.float32))
        assert lent(session) == before


def test_bindings_are_bounded_however_many_shapes_and_threads_come():
    with epkit.open(identity(), "cpu") as session:
        for size in range(3 * fast_path.MOST_SHAPES):
            for _ in range(2):
                session.run(np.ones(size, np.float32))
        assert len(session._caller._pool._idle) <= fast_path.MOST_SHAPES
        array = np.ones(8, np.float32)
        together(lambda _: [session.run(array) for _ in range(50)], 32)
        assert all(len(idle) <= fast_path.MOST_IDLE + 1 for idle in session._caller._pool._idle.values())


def test_threads_never_see_each_others_numbers():
    wrong: list[object] = []
    with epkit.open(identity(), "cpu") as session:

        def work(number: int) -> None:
            array = np.full(8, number, np.float32)
            results = [session.run(array)["y"] for _ in range(300)]
            wrong.extend(result for result in results if (result != number).any())

        together(work)
    assert wrong == []


def test_a_run_that_fails_leaves_the_next_one_right():
    gather = model(
        [helper.make_node("Gather", ["t", "i"], ["y"])],
        [value("i", ["N"], TensorProto.INT64)],
        [value("y", ["N"])],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32), "t")],
    )
    with epkit.open(gather, "cpu") as session:
        for _ in range(3):
            assert session.run([2])["y"].tolist() == [2]
            with says(RunError):
                session.run([7])


@needs(LIBRARY)
def test_a_plugin_library_lends_nothing_since_it_may_write_a_smaller_output_and_say_nothing():
    with epkit.open(mlp(), LIBRARY) as session:
        for _ in range(3):
            session.run(np.ones((1, 16), np.float32))
        assert lent(session) == 0
