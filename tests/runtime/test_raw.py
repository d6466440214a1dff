from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import model, value
from onnx import TensorProto, helper
from texts import says

import epkit
from epkit.errors import InputError, RunError
from epkit.model.dtypes import from_raw, onnx_name, to_raw

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


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [("int4", [1, 7, -8]), ("uint4", [1, 15, 3]), ("int2", [1, -2, 0, -1, 1]), ("uint2", [1, 3, 2, 0, 1])],
)
def test_integers_of_a_few_bits_are_packed_and_unpacked(dtype, numbers):
    number = getattr(TensorProto, dtype.upper())
    node = helper.make_node("Cast", ["x"], ["y"], to=number)
    back = helper.make_node("Cast", ["s"], ["z"], to=TensorProto.FLOAT)
    contents = model(
        [node, back],
        [value("x", ["N"]), value("s", ["N"], number)],
        [value("y", ["N"], number), value("z", ["N"])],
        opset=25,
        ir=13,
    )
    small = np.array(numbers, getattr(ml_dtypes, dtype))
    with epkit.open(contents, "cpu") as session:
        found = session.run({"x": np.float32(numbers), "s": small})
        listed = session.run({"x": np.float32(numbers), "s": numbers})
        beyond = 2 ** int(dtype[-1])
        with says(InputError):
            session.run({"x": [1.0], "s": [beyond]})
    assert found["y"].dtype == getattr(ml_dtypes, dtype)
    assert found["y"].astype(int).tolist() == numbers
    assert found["z"].tolist() == listed["z"].tolist() == numbers


def test_powers_of_two_in_eight_bits_go_in_and_come_out():
    number = TensorProto.FLOAT8E8M0
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=number),
        helper.make_node("Cast", ["s"], ["z"], to=TensorProto.FLOAT),
    ]
    inputs = [value("x", ["N"]), value("s", ["N"], number)]
    contents = model(nodes, inputs, [value("y", ["N"], number), value("z", ["N"])], opset=25, ir=13)
    small = np.array([0.25, 1, 64], ml_dtypes.float8_e8m0fnu)
    with epkit.open(contents, "cpu") as session:
        found = session.run({"x": np.float32([2, 4, 0.5]), "s": small})
    assert found["y"].dtype == ml_dtypes.float8_e8m0fnu
    assert found["y"].astype(np.float32).tolist() == [2, 4, 0.5]
    assert found["z"].tolist() == [0.25, 1, 64]


@given(
    dtype=st.sampled_from(["uint2", "int2", "uint4", "int4", "float4_e2m1fn", "float8_e8m0fnu", "bfloat16"]),
    data=st.binary(max_size=40),
)
def test_what_becomes_raw_memory_can_be_read_back(dtype, data):
    kind = np.dtype(getattr(ml_dtypes, dtype))
    narrow = {"2": 3, "4": 15}.get(dtype[-1], 15 if dtype.startswith("float4") else 255)
    whole = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], np.uint8) & narrow
    array = whole.astype(np.int8).astype(kind) if "int" in dtype else whole.view(kind)
    memory = to_raw(array)
    back = from_raw(memory.ctypes.data, array.shape, onnx_name(kind))
    assert back.dtype == kind
    assert to_raw(back).tobytes() == memory.tobytes()
    np.testing.assert_array_equal(back.astype(np.float32), array.astype(np.float32))


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
    with epkit.open(contents, "cpu") as session, says(RunError):
        session.run({"s": ["a"], "x": [1.0]})
