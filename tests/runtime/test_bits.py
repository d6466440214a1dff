"""Numbers that NumPy has no type for often travel as integers that hold their bits: these are not their values."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest

from epkit.errors import InputError
from epkit.model.file import TensorInfo
from epkit.runtime.inputs import Inputs

KINDS = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
ONNX = {"float8_e4m3fn": "float8e4m3fn", "float8_e5m2": "float8e5m2"} | {
    "float8_e4m3fnuz": "float8e4m3fnuz",
    "float8_e5m2fnuz": "float8e5m2fnuz",
    "bfloat16": "bfloat16",
}


def carried(values: np.ndarray, how: str) -> np.ndarray:
    """Return what holds the bits of these numbers in a type that NumPy has."""
    if how == "saved":
        file = io.BytesIO()
        np.save(file, values)
        file.seek(0)
        return np.load(file)
    return values.view(f"{how}{8 * values.itemsize}")


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize(
    ("kind", "how"),  # NumPy cannot read what it saves of float8_e5m2
    [(kind, how) for kind in KINDS for how in ("uint", "saved") if (kind, how) != ("float8_e5m2", "saved")],
)
def test_integers_of_the_same_width_are_refused_with_a_hint_that_gives_the_right_numbers(kind, how, cast):
    dtype = np.dtype(getattr(ml_dtypes, kind))
    values = np.array([1.5, -2.0, 0.25], np.float32).astype(dtype)
    inputs = Inputs([TensorInfo("x", ONNX[kind], (3,))], cast=cast)
    with pytest.raises(InputError) as error:
        inputs.feed({"x": carried(values, how)})
    assert f".view(ml_dtypes.{kind})" in error.value.hint
    mended = carried(values, how).view(dtype)
    np.testing.assert_array_equal(inputs.feed({"x": mended})["x"].astype(np.float32), [1.5, -2.0, 0.25])


def test_signed_integers_of_the_same_width_may_be_either():
    inputs = Inputs([TensorInfo("x", "bfloat16", (1,))])
    with pytest.raises(InputError) as error:
        inputs.feed({"x": np.array([3], np.int16)})
    assert ".view(" in error.value.hint
    assert ".astype(" in error.value.hint


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint32", "uint8"])
def test_values_of_another_width_are_converted_with_astype(dtype):
    inputs = Inputs([TensorInfo("x", "bfloat16", (1,))])
    with pytest.raises(InputError) as error:
        inputs.feed({"x": np.array([3], dtype)})
    assert ".view(" not in error.value.hint
