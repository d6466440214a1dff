from __future__ import annotations

import math
import pickle
import sys
from functools import cache

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from models import identity, model, value
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from texts import says

from epkit.errors import InputError, ModelError
from epkit.model.dtypes import from_raw, needs_ml_dtypes, numpy_dtype, onnx_name, onnx_type_number, to_raw
from epkit.model.file import TensorInfo
from epkit.runtime.inputs import Inputs

ONNX = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}
PLAIN = [name for name in ONNX if name != "string"]
EXOTIC = ["bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4", "int4"]


@cache
def opened(dtype: str) -> onnxruntime.InferenceSession:
    """Open y = x for any shape, in ONNX Runtime itself."""
    return plain_session(identity(ONNX[dtype], None))


def plain_session(contents: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])


def inputs(dtype, shape=None, **more):
    return Inputs([TensorInfo("x", dtype, shape)], **more)


def fed(given, dtype, shape=None, **more):
    return inputs(dtype, shape, **more).feed({"x": given})["x"]


def through(given, dtype, shape=None, **more):
    """Return what ONNX Runtime makes of a value after epkit's conversion."""
    return opened(dtype).run(None, inputs(dtype, shape, **more).feed({"x": given}))[0]


def refusal(given, dtype="float32", shape=None, **more) -> InputError:
    with pytest.raises(InputError) as caught:
        fed(given, dtype, shape, **more)
    return caught.value


def number(one: object) -> int | float:
    """Return a NumPy number of any dtype as the Python number that it is."""
    if isinstance(one, bool | int | float) and not isinstance(one, np.generic):
        return one
    return int(one) if type(one).__name__.removeprefix("u").startswith(("int", "bool")) else float(one)


def same(one: object, other: object) -> bool:
    left, right = number(one), number(other)
    return left == right or (math.isnan(left) and math.isnan(right))


# What arrives


@pytest.mark.parametrize("dtype", PLAIN)
def test_an_array_that_fits_is_passed_on_as_it_is(dtype):
    x = np.ones((2, 3), dtype)
    assert fed(x, dtype, ("N", 3)) is x
    np.testing.assert_array_equal(through(x, dtype), x)


def test_a_dict_that_fits_is_passed_on_as_it_is():
    asked = {"x": np.ones(2, np.float32)}
    assert inputs("float32", ("N",)).feed(asked) is asked


@pytest.mark.parametrize("dtype", [*PLAIN, "string"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 3)])
def test_every_type_works_with_no_dimension_and_with_no_element(dtype, shape):
    x = np.full(shape, "ä\0b", object) if dtype == "string" else np.ones(shape, dtype)
    found = through(x, dtype)
    assert found.shape == shape
    np.testing.assert_array_equal(found, x)


def test_one_input_needs_no_name():
    x = np.ones(2, np.float32)
    for given_ in (x, [1, 1], np.ones(2, np.float16)):
        np.testing.assert_array_equal(inputs("float32", ("N",)).feed(given_)["x"], x)


def test_any_mapping_will_do(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(3, dtype=np.float32))
    with np.load(tmp_path / "x.npz") as stored:
        np.testing.assert_array_equal(inputs("float32", ("N",)).feed(stored)["x"], [0, 1, 2])


def test_arrays_that_were_pickled_or_have_a_metadata_dtype_are_not_copied():
    for x in (
        pickle.loads(pickle.dumps(np.ones(2, np.float32))),
        np.ones(2, np.dtype(np.float32, metadata={"unit": "m"})),
    ):
        assert np.shares_memory(fed(x, "float32"), x)


def test_a_longlong_is_an_int64():
    np.testing.assert_array_equal(through(np.array([1, -2], "q"), "int64"), [1, -2])


LAYOUTS = {
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "fortran": np.asfortranarray,
    "reversed": lambda x: np.flip(np.flip(x).copy()) if x.ndim else x,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "big-endian fortran": lambda x: np.asfortranarray(x.astype(x.dtype.newbyteorder(">"))),
    "unaligned": lambda x: _unaligned(x),
    "read-only": lambda x: _read_only(x),
    "subclass": lambda x: x.view(np.memmap),
    "broadcast": lambda x: np.broadcast_to(x, (2, *x.shape)),
}


def _unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@given(
    npst.arrays(
        st.sampled_from([np.dtype(name) for name in PLAIN]),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.sampled_from(sorted(LAYOUTS)),
)
def test_the_layout_in_memory_changes_nothing(x, layout):
    laid_out = LAYOUTS[layout](x)
    before = laid_out.copy()
    found = through(laid_out, x.dtype.name)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, np.broadcast_to(x, found.shape))
    assert found.shape == laid_out.shape
    np.testing.assert_array_equal(laid_out, before)
    ready = fed(laid_out, x.dtype.name)
    assert ready.flags.c_contiguous
    assert ready.flags.aligned
    assert ready.dtype.isnative


# Arrays: nothing is lost, or an error


ARRAYS = npst.arrays(
    st.one_of(
        npst.boolean_dtypes(),
        npst.integer_dtypes(endianness="?"),
        npst.unsigned_integer_dtypes(endianness="?"),
        npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
        npst.complex_number_dtypes(),
        npst.datetime64_dtypes(),
        npst.timedelta64_dtypes(),
        st.just(np.dtype([("a", "i4")])),
    ),
    npst.array_shapes(min_dims=0, max_dims=2, min_side=0),
)


@given(ARRAYS, st.sampled_from([*PLAIN, *EXOTIC]))
@example(np.array([2**53 + 1]), "float64")
@example(np.array([2**64 - 1], np.uint64), "float64")
@example(np.array([-(2**63)]), "float64")
def test_an_array_arrives_without_loss_or_not_at_all(x, dtype):
    try:
        found = fed(x, dtype)
    except InputError:
        return
    assert found.dtype == numpy_dtype(dtype)
    assert found.shape == x.shape
    assert x.dtype.kind in "biuf"
    assert all(map(same, x.ravel(), found.ravel()))
    if not needs_ml_dtypes(dtype):
        np.testing.assert_array_equal(through(x, dtype), found)


@pytest.mark.parametrize("dtype", [*PLAIN, *EXOTIC])
@pytest.mark.parametrize("source", ["bool", "int8", "uint8", "float16", *EXOTIC])
@pytest.mark.parametrize("cast", [False, True])
def test_every_number_of_a_small_type_arrives_as_itself_or_not_at_all(source, dtype, cast):
    small = numpy_dtype(source)
    if small.itemsize == 1:
        codes = {"bool": range(2), "uint4": range(16), "int4": range(-8, 8)}.get(source)
        every = np.arange(256, dtype=np.uint8).view(small) if codes is None else np.array(list(codes), small)
    else:
        every = np.arange(2**16, dtype=np.uint16).view(small)[:: 1 if source == dtype else 97]
    # Without leave to cast the type alone decides; with it each number for itself.
    parts = every.reshape(-1, 1) if cast and source != dtype else [every]
    for part in parts:
        try:
            found = fed(part, dtype, cast=cast)
        except InputError:
            assert source != dtype
            continue
        if cast and "float" in dtype:
            assert [math.isfinite(number(one)) for one in found] == [math.isfinite(number(one)) for one in part]
        else:
            assert all(map(same, found, part))


@given(ARRAYS, st.sampled_from([*PLAIN, *EXOTIC]))
@example(np.array([1e39]), "float32")
@example(np.array([3.4e38]), "bfloat16")
@example(np.array([np.inf]), "float8e4m3fn")
@example(np.array([2**31]), "int32")
@example(np.array([2**63], np.uint64), "int64")
@example(np.array([2**53 + 1]), "float64")
@example(np.array([2**64 - 1], np.uint64), "float16")
def test_with_cast_a_number_may_be_rounded_but_neither_wraps_nor_becomes_infinite(x, dtype):
    try:
        found = fed(x, dtype, cast=True)
    except InputError:
        return
    assert found.dtype == numpy_dtype(dtype)
    assert x.dtype.kind in "biuf"
    for before, after in zip(map(number, x.ravel()), map(number, found.ravel()), strict=True):
        if "float" not in dtype:
            assert before == after
        elif isinstance(before, float) and not math.isfinite(before):
            assert same(before, after)
        else:
            assert math.isfinite(after)
            unit = float(ml_dtypes.finfo(found.dtype).eps)
            smallest = float(ml_dtypes.finfo(found.dtype).smallest_normal)
            assert abs(before - after) <= unit * max(abs(before), smallest)


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        ("int32", "int64"),
        ("uint8", "int16"),
        ("bool", "int64"),
        ("bool", "float32"),
        ("int64", "float64"),
        ("uint16", "float32"),
        ("float16", "float32"),
        ("float32", "float64"),
        ("bfloat16", "float32"),
        ("float8e5m2", "float32"),
        ("int4", "int8"),
    ],
)
def test_widening_needs_no_leave(source, dtype):
    x = np.array([0, 1, 0], numpy_dtype(source))
    np.testing.assert_array_equal(through(x, dtype), np.array([0, 1, 0], dtype))


@pytest.mark.parametrize(
    ("source", "dtype"),
    [("float64", "float32"), ("int64", "int32"), ("int64", "float32"), ("float32", "bfloat16"), ("int8", "int4")],
)
def test_narrowing_within_a_kind_needs_cast_and_the_error_says_so(source, dtype):
    x = np.array([0, 1, -2], source)
    assert "cast = true" in refusal(x, dtype).hint
    np.testing.assert_array_equal(fed(x, dtype, cast=True).astype(np.float64), [0, 1, -2])


@pytest.mark.parametrize(("source", "dtype"), [("float32", "int32"), ("int32", "uint32"), ("int64", "bool")])
def test_cast_does_not_leave_the_kind(source, dtype):
    error = refusal(np.ones(2, source), dtype, cast=True)
    assert f"got {source} [2]" in error.message
    assert "cast = true" not in error.hint


@pytest.mark.parametrize(
    ("given_", "got"),
    [
        (np.ma.array([1.0, 2.0], mask=[0, 1]), "a masked array"),
        (np.array([(1,)], [("a", "i4")]), "structured [1]"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64[D] [1]"),
        (np.array([1, 2], "m8[s]"), "timedelta64[s] [2]"),
        (np.array([1j]), "complex128 [1]"),
        (np.array([1, 2], object), "object [2]"),
        (np.array(["1"]), "string [1]"),
        (np.array([None]), "object [1]"),
    ],
)
@pytest.mark.parametrize("cast", [False, True])
def test_arrays_of_no_plain_numbers_are_refused(given_, got, cast):
    for dtype in ("float32", "int64", "bool", "bfloat16"):
        assert f"got {got}" in refusal(given_, dtype, cast=cast).message


# Python's numbers take the model's dtype


NUMBERS = st.one_of(st.booleans(), st.integers(), st.integers(-300, 300), st.floats(), st.floats(width=16))


@given(
    st.one_of(NUMBERS, st.lists(NUMBERS), st.lists(st.lists(NUMBERS, min_size=2, max_size=2))), st.sampled_from(PLAIN)
)
@example([2**53 + 1], "float64")
@example([10**5000], "float64")
@example([10**5000], "int64")
@example([math.nan], "bool")
@example([math.nan], "int8")
@example([math.inf], "int64")
def test_a_python_number_arrives_as_itself_or_rounded_to_a_float_or_not_at_all(given_, dtype):
    try:
        found = fed(given_, dtype)
    except InputError:
        return
    assert found.dtype == np.dtype(dtype)
    wanted = np.array(given_, object)
    assert found.shape == wanted.shape
    for before, after in zip(wanted.ravel(), found.ravel(), strict=True):
        if isinstance(before, float) and found.dtype.kind == "f":
            with np.errstate(over="ignore"):
                assert same(after, found.dtype.type(before))
            assert math.isinf(before) == math.isinf(after)
        else:
            assert same(before, after)
    np.testing.assert_array_equal(through(given_, dtype), found)


@pytest.mark.parametrize(
    ("given_", "dtype", "says"),
    [
        (300, "uint8", "300, which uint8 cannot hold"),
        ([-1], "uint16", "-1, which uint16 cannot hold"),
        (1.5, "int64", "1.5, which int64 cannot hold"),
        ([2], "bool", "2, which bool cannot hold"),
        ([8], "int4", "8, which int4 cannot hold"),
        ([1e39], "float32", "1e+39, which float32 cannot hold"),
        ([1e39], "bfloat16", "1e+39, which bfloat16 cannot hold"),
        ([math.inf], "float8e4m3fn", "inf, which float8e4m3fn cannot hold"),
        ([16777217], "float32", "16777217, which float32 cannot hold exactly"),
        ([10**400], "float64", "an integer of 1329 bits, which float64 cannot hold"),
        ([math.nan], "int32", "nan, which int32 cannot hold"),
        ("a", "float32", "got str"),
        ([1, "a"], "float32", "str in a list"),
        ([None], "float32", "NoneType in a list"),
        ([1j], "float32", "complex in a list"),
        ([[1], [2, 3]], "float32", "a list whose rows have 1 and 2 items"),
        ([1, [2]], "float32", "a list whose rows are not all as deep"),
        ([np.float64(0.1)], "float32", "float64 in a list"),
        ([np.zeros(2)], "float32", "ndarray in a list"),
        (range(3), "int64", "got range"),
        ({1, 2}, "int64", "got set"),
        (b"a", "string", "got bytes"),
        (object, "float32", "got type"),
    ],
)
def test_a_value_that_cannot_be_had_is_named(given_, dtype, says):
    assert says in refusal(given_, dtype).message


def test_a_list_that_holds_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    assert "deep" in refusal(endless).message


def test_numpy_numbers_in_lists_follow_the_rule_of_arrays():
    np.testing.assert_array_equal(through([np.float32(0.5), 1.5, np.int8(2)], "float32"), [0.5, 1.5, 2])


@pytest.mark.parametrize("dtype", EXOTIC)
def test_python_numbers_become_types_that_numpy_lacks(dtype):
    found = fed([1, 0.0, 4.0], dtype)
    assert found.dtype == numpy_dtype(dtype)
    np.testing.assert_array_equal(found.astype(np.float32), [1, 0, 4])


# Texts


@pytest.mark.parametrize(
    "given_",
    [
        ["ä", "b\0c"],
        ("ä", "b\0c"),
        np.array(["ä", "b\0c"]),
        np.array(["ä", "b\0c"], ">U3"),
        np.array(["ä", "b\0c"], object),
        np.array(["ä".encode(), b"b\0c"]),
        np.array(["ä", "-", "b\0c"])[::2],
        np.array(["ä", "b\0c"], np.dtypes.StringDType()),
    ],
)
def test_texts_arrive_whole_however_they_are_stored(given_):
    assert through(given_, "string").tolist() == ["ä", "b\0c"]


@given(st.lists(st.text()))
def test_any_list_of_texts_arrives_or_is_refused(texts):
    try:
        assert through(texts, "string").tolist() == texts
    except InputError:
        assert any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)


def test_a_single_text_is_a_tensor_without_dimensions():
    assert through("a", "string").item() == "a"
    assert through(np.str_("a"), "string").item() == "a"


@pytest.mark.parametrize(
    "given_",
    [
        np.array(["a", 1], object),
        np.array(["a", None], object),
        np.array(["a", None], np.dtypes.StringDType(na_object=None)),
        np.array([b"\xff"]),
        ["a", 1],
        [b"a"],
        ["\ud800"],
        1,
        np.array([1]),
    ],
)
def test_what_is_not_text_is_refused_where_text_is_wanted(given_):
    assert "wants string" in refusal(given_, "string").message


# Other libraries


class Tensor:
    """A tensor of another library: DLPack, and a device."""

    def __init__(self, array, device=None, fault=None):
        self._array, self._device, self._fault = array, device, fault

    def __dlpack__(self, **how):
        if self._fault:
            raise self._fault
        return self._array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self._device or self._array.__dlpack_device__()


@pytest.mark.parametrize("dtype", PLAIN)
def test_dlpack_tensors_are_read_in_place(dtype):
    x = np.ones((2, 2), dtype)
    found = fed(Tensor(x), dtype)
    np.testing.assert_array_equal(found, x)
    assert np.shares_memory(found, x)
    np.testing.assert_array_equal(through(Tensor(x[:, :1]), dtype), x[:, :1])


def test_a_tensor_on_another_device_is_refused_by_the_name_of_the_device():
    error = refusal(Tensor(np.ones(2, np.float32), device=(2, 1)))
    assert "got Tensor on cuda:1" in error.message
    assert "CPU" in error.hint
    assert "device type 99:0" in refusal(Tensor(np.ones(2, np.float32), device=(99, 0))).message


def test_a_tensor_that_will_not_be_read_says_why():
    class Gradient(Tensor):
        requires_grad = True

    fault = BufferError("Can't export tensors that require gradient")
    error = refusal(Gradient(np.ones(2, np.float32), fault=fault))
    assert "require gradient" in error.message
    assert ".detach()" in error.hint


def test_objects_that_give_an_array_are_read():
    class Series:
        def __array__(self, dtype=None, copy=None):
            return np.arange(3, dtype=np.float32)

    np.testing.assert_array_equal(through(Series(), "float32"), [0, 1, 2])


def test_values_of_onnx_runtime_itself_arrive_with_their_own_type():
    make = onnxruntime.OrtValue.ortvalue_from_numpy
    np.testing.assert_array_equal(through(make(np.array([True, False])), "bool"), [True, False])
    small = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ones(2, np.uint8), 17)
    assert "got OrtValue" in refusal(small, "uint8").message


# Names, shapes and the model's own words


def test_the_error_is_in_the_models_own_words():
    wanted = ("N", 3, 224, None)
    error = refusal(np.zeros((3, 224, 224)), "float32", wanted)
    assert error.message == "input 'x' wants float32 [N, 3, 224, ?], got float64 [3, 224, 224]"
    error = refusal(np.zeros((1, 4, 224, 1), np.float32), "float32", wanted)
    assert error.message == "input 'x' wants float32 [N, 3, 224, ?], got float32 [1, 4, 224, 1]"


@given(
    npst.array_shapes(min_dims=0, min_side=0, max_side=3), st.lists(st.sampled_from([0, 1, 2, "N", None]), max_size=4)
)
def test_a_shape_is_refused_exactly_when_onnx_runtime_refuses_it(shape, wanted):
    # It takes a model's scalar for "any rank".
    assume(wanted)
    session = plain_session(identity(TensorProto.FLOAT, wanted))
    x = np.ones(shape, np.float32)
    try:
        ready = inputs("float32", tuple(wanted)).feed({"x": x})
    except InputError:
        with pytest.raises(InvalidArgument):
            session.run(None, {"x": x})
    else:
        np.testing.assert_array_equal(session.run(None, ready)[0], x)


def test_a_shape_is_checked_anew_at_every_call():
    session = inputs("float32", ("N", 2))
    for shape, fits in (
        ((1, 2), True),
        ((3, 2), True),
        ((3, 3), False),
        ((3,), False),
        ((1, 2), True),
        ((1, 3), False),
    ):
        x = np.zeros(shape, np.float32)
        if fits:
            assert session.feed({"x": x})["x"] is x
        else:
            with says(InputError):
                session.feed({"x": x})


def test_dimensions_of_one_name_may_differ_as_they_may_for_onnx_runtime():
    ends = [value("a", ["N"]), value("b", ["N"])], [value("c", ["N"]), value("d", ["N"])]
    nodes = [helper.make_node("Identity", ["a"], ["c"]), helper.make_node("Identity", ["b"], ["d"])]
    feed = two().feed({"a": [1, 2], "b": [3]})
    found = plain_session(model(nodes, *ends)).run(None, feed)
    assert [one.tolist() for one in found] == [[1, 2], [3]]


def two() -> Inputs:
    return Inputs([TensorInfo("a", "float32", ("N",)), TensorInfo("b", "float32", ("N",))])


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"a": [1]}, "input 'b' is missing", "a, b"),
        ({}, "inputs 'a', 'b' are missing", "a, b"),
        ({"a": [1], "bb": [1]}, "the model has no input 'bb'", "'b'"),
        ({"a": [1], "b": [1], "c": [1]}, "the model has no input 'c'", "a, b"),
        ({"a": [1], "b": [1], 3: [1]}, "the model has no input 3", "a, b"),
        ({"a": [1], "b": None}, "input 'b' wants float32 [N], got None", ""),
        (np.ones(1), "the model has 2 inputs, got ndarray", "a, b"),
        (None, "the model has 2 inputs, got None", "a, b"),
    ],
)
def test_wrong_names_are_told_with_the_right_ones(asked, message, hint):
    with pytest.raises(InputError) as caught:
        two().feed(asked)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_model_without_inputs_takes_none():
    assert Inputs([]).feed({}) == {}
    with says(InputError):
        Inputs([]).feed([1.0])


def test_an_initializer_may_be_overridden_or_left_alone():
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "test",
        [value("x", ["N"]), value("w", [1])],
        [value("y", ["N"])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [5.0])],
    )
    contents = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    session = plain_session(contents)
    ready = inputs("float32", ("N",), overridable=[TensorInfo("w", "float32", (1,))])
    for given_, wanted in (({}, 6), ({"w": None}, 6), ({"w": [2]}, 3)):
        assert session.run(None, ready.feed({"x": [1], **given_}))[0].tolist() == [wanted]
    with says(InputError):
        ready.feed({"x": [1], "w": [1, 2]})


# Optional values, sequences, maps


def nested(proto, op, outputs, opset=18):
    contents = model([helper.make_node(op, ["x"], ["y"])], [helper.make_value_info("x", proto)], outputs, opset=opset)
    return plain_session(contents)


TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"])
SEQUENCE = helper.make_sequence_type_proto(TENSOR)


@pytest.mark.parametrize(
    ("dtype", "proto", "given_"),
    [("optional(float32)", TENSOR, [1, 2]), ("optional(sequence(float32))", SEQUENCE, [[1, 2], []])],
)
def test_an_optional_input_may_be_none_or_left_out(dtype, proto, given_):
    optional = helper.make_optional_type_proto(proto)
    session = nested(optional, "OptionalHasElement", [value("y", [], TensorProto.BOOL)])
    ready = inputs(dtype, ("N",))
    for asked, has in (({"x": given_}, True), ({"x": None}, False), ({}, False), (None, False)):
        assert session.run(None, ready.feed(asked))[0].item() is has
    same_ = nested(optional, "Identity", [helper.make_value_info("y", optional)])
    (found,) = same_.run(None, ready.feed({"x": given_}))
    assert np.array_equal(found, given_) if proto is TENSOR else [one.tolist() for one in found] == given_


def test_an_optional_input_that_is_there_is_checked():
    message = "input 'x' wants optional(float32) [N], got float32 [1, 2]"
    assert refusal(np.ones((1, 2), np.float32), "optional(float32)", ("N",)).message == message


@pytest.mark.parametrize("dtype", [*PLAIN, "string"])
def test_sequences_take_lists_of_what_becomes_an_array(dtype):
    proto = helper.make_sequence_type_proto(helper.make_tensor_type_proto(ONNX[dtype], None))
    session = nested(proto, "Identity", [helper.make_value_info("y", proto)])
    one = np.array(["a", "b"]) if dtype == "string" else np.array([1, 0], np.dtype(dtype).newbyteorder(">"))
    given_ = (one, one.tolist(), one[::-1], one[:0])
    (found,) = session.run(None, inputs(f"sequence({dtype})").feed({"x": given_}))
    assert [each.tolist() for each in found] == [one.tolist(), one.tolist(), one.tolist()[::-1], []]
    assert session.run(None, inputs(f"sequence({dtype})").feed({"x": []})) == [[]]


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (np.ones(2, np.float32), "got ndarray"),
        (None, "got None"),
        ([[1], None], "got None at position 1"),
        ([[1], np.ones(2)], "got float64 [2] at position 1"),
    ],
)
def test_what_is_no_sequence_is_refused(given_, says):
    assert says in refusal(given_, "sequence(float32)").message


def test_a_map_takes_a_dict():
    proto = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    node = helper.make_node("CastMap", ["x"], ["y"], domain="ai.onnx.ml", cast_to="TO_FLOAT", map_form="DENSE")
    session = plain_session(
        model([node], [helper.make_value_info("x", proto)], [value("y", None)], domains=["ai.onnx.ml"])
    )
    feed = inputs("map(int64, float32)").feed({"x": {np.int64(0): 1.5, 1: np.float32(2), True + 1: 3}})
    assert session.run(None, feed)[0].tolist() == [[1.5, 2, 3]]


@pytest.mark.parametrize(
    ("given_", "dtype", "says"),
    [
        ({0: 1e39}, "map(int64, float32)", "1e+39"),
        ({"a": 1.0}, "map(int64, float32)", "got str in the map"),
        ({0: "a"}, "map(int64, float32)", "got str in the map"),
        ({1: 1.0}, "map(string, float32)", "int"),
        ({0: [1.0]}, "map(int64, float32)", "got list in the map"),
        ({2**63: 1.0}, "map(int64, float32)", "9223372036854775808"),
        ({}, "map(int64, float32)", "an empty map"),
        ([1.0], "map(int64, float32)", "got list"),
        ({0: "a"}, "map(int64, string)", "got dict"),
        ([{0: 1.0}], "sequence(map(int64, float32))", "got list"),
    ],
)
def test_what_onnx_runtime_would_not_take_as_a_map_is_refused(given_, dtype, says):
    assert says in refusal(given_, dtype).message


# Types that NumPy lacks


@pytest.mark.parametrize("dtype", EXOTIC)
def test_raw_memory_is_read_back_as_it_was(dtype):
    for count in (0, 1, 2, 5):
        x = np.array([1, 0, 4, 2, 3][:count], numpy_dtype(dtype)).reshape(-1, 1)
        memory = to_raw(x).copy()
        found = from_raw(memory.ctypes.data, x.shape, dtype)
        memory[...] = 0
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, x)


def test_negative_four_bit_integers_are_read_back_as_they_were():
    x = np.arange(-8, 8).astype(ml_dtypes.int4)
    memory = to_raw(x)
    assert memory.size == 8
    np.testing.assert_array_equal(from_raw(memory.ctypes.data, (16,), "int4"), x)


def test_texts_have_no_raw_form():
    with pytest.raises(ValueError, match="raw"):
        to_raw(np.array(["a"], object))
    with pytest.raises(ValueError, match="raw"):
        from_raw(0, (1,), "string")


@pytest.mark.parametrize("name", [*ONNX, *EXOTIC])
def test_names_numbers_and_dtypes_agree_with_onnx(name):
    proto = getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper()))
    assert onnx_type_number(name) == proto
    assert numpy_dtype(name) == helper.tensor_dtype_to_np_dtype(proto)
    assert inputs(name).exotic is (name in EXOTIC)
    assert name == "string" or onnx_name(numpy_dtype(name)) == name


def test_without_ml_dtypes_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModelError) as caught:
        inputs("bfloat16")
    assert "bfloat16" in caught.value.message
    assert caught.value.hint == "pip install ml_dtypes"
    assert inputs("float32").feed({"x": [1]})


def test_a_type_that_no_array_holds_is_a_model_error():
    with says(ModelError):
        inputs("sparse_tensor(float32)")
