from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from models import model, value
from onnx import TensorProto, helper

import epkit
from epkit.errors import RunError

SMALL = {
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float8e4m3fn": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "float8e4m3fnuz": (TensorProto.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
    "float8e5m2": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
    "float8e5m2fnuz": (TensorProto.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz),
}


def casts(dtype: int) -> bytes:
    """Build small = Cast(x), big = Cast(s), y = x + x: plain and small floats on both sides."""
    nodes = [
        helper.make_node("Cast", ["x"], ["small"], to=dtype),
        helper.make_node("Cast", ["s"], ["big"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "x"], ["y"]),
    ]
    inputs = [value("x", ["N"]), value("s", ["N"], dtype)]
    return model(nodes, inputs, [value("small", ["N"], dtype), value("big", ["N"]), value("y", ["N"])], opset=19, ir=9)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [0, 1, 3])
def test_small_floats_go_in_and_come_out_as_what_they_are(name, size):
    number, dtype = SMALL[name]
    x = np.array([0.5, -2.0, 1.5][:size], np.float32)
    small = np.array([1.0, -0.25, 4.0][:size], dtype)
    with epkit.open(casts(number), "cpu") as session:
        found = session.run({"x": x, "s": small})
        again = session.run({"x": x + 1, "s": small})
    assert found["small"].dtype == dtype
    np.testing.assert_array_equal(found["small"].astype(np.float32), x)
    np.testing.assert_array_equal(found["big"], small.astype(np.float32))
    np.testing.assert_array_equal(found["y"], x + x)
    np.testing.assert_array_equal(again["y"], x + x + 2)
    assert not np.shares_memory(found["y"], again["y"])


def test_only_some_outputs_may_be_asked_for():
    with epkit.open(casts(TensorProto.BFLOAT16), "cpu") as session:
        found = session.run({"x": [1.0], "s": [2.0]}, ["small"])
    assert list(found) == ["small"]
    assert found["small"].dtype == ml_dtypes.bfloat16


def test_strided_and_read_only_small_floats_are_copied():
    with epkit.open(casts(TensorProto.BFLOAT16), "cpu") as session:
        wide = np.arange(6).astype(ml_dtypes.bfloat16)
        wide.flags.writeable = False
        np.testing.assert_array_equal(session.run({"x": [1, 1, 1], "s": wide[::-2]})["big"], [5, 3, 1])


@pytest.mark.parametrize(("dtype", "number"), [("int4", TensorProto.INT4), ("uint4", TensorProto.UINT4)])
def test_four_bit_integers_are_packed_and_unpacked(dtype, number):
    node = helper.make_node("Cast", ["x"], ["y"], to=number)
    back = helper.make_node("Cast", ["s"], ["z"], to=TensorProto.FLOAT)
    contents = model(
        [node, back],
        [value("x", ["N"]), value("s", ["N"], number)],
        [value("y", ["N"], number), value("z", ["N"])],
        opset=21,
        ir=10,
    )
    small = np.array([1, 7, 3], getattr(ml_dtypes, dtype))
    with epkit.open(contents, "cpu") as session:
        found = session.run({"x": [1, 2, 7], "s": small})
    assert found["y"].dtype == getattr(ml_dtypes, dtype)
    assert found["y"].astype(int).tolist() == [1, 2, 7]
    assert found["z"].tolist() == [1, 7, 3]


def test_text_beside_small_floats_is_a_clear_error():
    nodes = [
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16),
    ]
    contents = model(
        nodes,
        [value("s", ["N"], TensorProto.STRING), value("x", ["N"])],
        [value("t", ["N"], TensorProto.STRING), value("y", ["N"], TensorProto.BFLOAT16)],
    )
    with epkit.open(contents, "cpu") as session, pytest.raises(RunError, match="'s' is text"):
        session.run({"s": ["a"], "x": [1.0]})
