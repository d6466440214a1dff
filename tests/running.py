"""What every way of running a model must give: one set of cases and bodies, for every provider and device."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import strategies as st
from models import identity, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from together import together

import epkit
from epkit.errors import InputError, RunError
from epkit.runtime.bound_inputs import SMALL

Call = Callable[[Any], dict[str, Any]]
Way = Callable[[epkit.Session], Call]


def by_run(session: epkit.Session) -> Call:
    return session.run


def by_run_within_time(session: epkit.Session) -> Call:
    return lambda feed: session.run(feed, timeout=600)


def by_bind(session: epkit.Session, device: str | None = None) -> Call:
    """Bind once and refill; what comes out is copied, since the next run writes over it."""
    bindings: list[epkit.Binding] = []

    def call(feed: Any) -> dict[str, Any]:
        if not bindings:
            bindings.append(session.bind(feed, device=device))
            return owned(bindings[0].run())
        return owned(bindings[0].run(feed))

    return call


def by_bind_on_the_cpu(session: epkit.Session) -> Call:
    return by_bind(session, "cpu")


def by_bind_for_each(session: epkit.Session) -> Call:
    def call(feed: Any) -> dict[str, Any]:
        with session.bind(feed) as binding:
            binding.run()
            return binding.run()  # they outlive the binding

    return call


WAYS: dict[str, Way] = {
    "run": by_run,
    "run within a time": by_run_within_time,
    "bind": by_bind,
    "bind on the CPU": by_bind_on_the_cpu,
    "bind for each": by_bind_for_each,
}


def owned(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results that no later run writes over."""
    return {
        name: np.array(one) if isinstance(one, np.ndarray) or hasattr(one, "__array__") else one
        for name, one in results.items()
    }


def check_same(found: Any, wanted: Any, name: str = "") -> None:
    """Compare what may be arrays, None, or lists and dicts of them."""
    if isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys(), name
        for key, one in wanted.items():
            check_same(found[key], one, f"{name}/{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), name
        for one, other in zip(found, wanted, strict=True):
            check_same(one, other, name)
    elif isinstance(wanted, np.ndarray):
        array = np.asarray(found)
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape), name
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(array, wanted, err_msg=name)
    else:
        assert found == wanted, name


@functools.cache
def plain(contents: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])


def wanted_of(contents: bytes, feed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ONNX Runtime's own CPU gives."""
    session = plain(contents)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feed)), strict=True))


def check_runs(call: Call, contents: bytes, feeds: Sequence[Mapping[str, Any]]) -> None:
    """Run one feed after the other, and hold all results at the end: none may be written over by a later run."""
    found = [call(feed) for feed in feeds]
    for feed, results in zip(feeds, found, strict=True):
        check_same(results, wanted_of(contents, feed))


def check_in_threads(
    sessions: Sequence[tuple[epkit.Session, bytes]], way: Way, threads: int = 8, turns: int = 8
) -> None:
    """Run sessions of `mlp` from many threads, each with a way of its own and inputs of its own."""

    def work(number: int) -> None:
        random = np.random.default_rng(number)
        calls = [(way(session), contents) for session, contents in sessions]
        for turn in range(turns):
            call, contents = calls[(number + turn) % len(calls)]
            feed = {"x": random.standard_normal((1 + (number + turn) % 4, 16), dtype=np.float32)}
            check_same(call(feed), wanted_of(contents, feed))

    together(work, threads)


# -- models, and what they are fed


FLOAT, INT64, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
LARGE = SMALL // 4 + 1
"""So many floats are not copied into a binding, but bound where they are."""


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def passing(nodes: Sequence[Any], outputs: Sequence[Any]) -> bytes:
    """Build a model of one input "x" that may itself be an output."""
    return model(nodes, [value("x", ["N"])], outputs)


node = helper.make_node


def convolutions() -> bytes:
    weights = [numpy_helper.from_array(floats(8, 8, 3, 3, seed=seed) / 9, name) for seed, name in enumerate("ab")]
    nodes = [
        node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "b"], ["d"], strides=[2, 2]),
        node("GlobalAveragePool", ["d"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Softmax", ["f"], ["y"]),
    ]
    return model(nodes, [value("x", ["N", 8, 8, 8])], [value("y", ["N", 8])], weights)


MODELS = {
    "mlp": mlp(),
    "convolutions": convolutions(),
    "identity": identity(),
    "scalar": identity(shape=()),
    "two in, two out": model(
        [node("Add", ["a", "b"], ["sum"]), node("Mul", ["a", "s"], ["product"])],
        [value("a", ["N", "M"]), value("b", ["M"]), value("s", [])],
        [value("sum", ["N", "M"]), value("product", ["N", "M"])],
    ),
    "mixed types": model(
        [node("Where", ["c", "a", "b"], ["y"]), node("Not", ["c"], ["d"])],
        [value("c", ["N"], BOOL), value("a", ["N"]), value("b", ["N"])],
        [value("y", ["N"]), value("d", ["N"], BOOL)],
    ),
    "shape from data": model(
        [node("NonZero", ["x"], ["y"])], [value("x", ["N"])], [value("y", [1, "K"], INT64)]
    ),
    "shape that is not as declared": model(
        [node("NonZero", ["x"], ["n"]), node("Cast", ["n"], ["y"], to=FLOAT), node("Relu", ["x"], ["z"])],
        [value("x", ["N"])],
        [value("y", [1, "N"]), value("z", ["N"])],
    ),
    "unknown rank": model([node("Relu", ["x"], ["y"])], [value("x", None)], [value("y", None)]),
    "input passed through": passing([], [value("x", ["N"])]),
    "input beside an output": passing([node("Relu", ["x"], ["y"])], [value("y", ["N"]), value("x", ["N"])]),
    "initializer as output": model(
        [node("Relu", ["x"], ["y"])],
        [value("x", ["N"])],
        [value("y", ["N"]), value("c", [2])],
        [numpy_helper.from_array(np.array([5, 6], np.float32), "c")],
    ),
    "one value twice": model(
        [node("Relu", ["x"], ["y"]), node("Identity", ["y"], ["z"])],
        [value("x", ["N"])],
        [value("y", ["N"]), value("z", ["N"])],
    ),
    "reshaped": model(
        [node("Relu", ["x"], ["h"]), node("Flatten", ["h"], ["y"])],
        [value("x", ["N", "M", 2])],
        [value("y", ["N", "K"])],
    ),
    "no input": model([node("Relu", ["c"], ["y"])], [], [value("y", [2])], [
        numpy_helper.from_array(np.array([-1, 1], np.float32), "c")
    ]),
    "strings": identity(STRING),
    "strings beside floats": model(
        [node("Identity", ["t"], ["u"]), node("Relu", ["x"], ["y"])],
        [value("t", ["N"], STRING), value("x", ["N"])],
        [value("u", ["N"], STRING), value("y", ["N"])],
    ),
    "sequence": model(
        [node("SplitToSequence", ["x"], ["y"], axis=0)],
        [value("x", ["N", 2])],
        [helper.make_tensor_sequence_value_info("y", FLOAT, None)],
    ),
    "sequence in": model(
        [node("ConcatFromSequence", ["s"], ["y"], axis=0)],
        [helper.make_tensor_sequence_value_info("s", FLOAT, None)],
        [value("y", [None])],
    ),
    "no value": model(
        [node("Optional", [], ["y"], type=helper.make_tensor_type_proto(FLOAT, [2])), node("Relu", ["x"], ["z"])],
        [value("x", ["N"])],
        [
            helper.make_value_info("y", helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2]))),
            value("z", ["N"]),
        ],
    ),
}  # fmt: skip

NOT_BINDABLE = ("strings", "strings beside floats", "sequence", "sequence in", "no value")


def _vectors(*sizes: int) -> list[dict[str, Any]]:
    return [{"x": floats(size, seed=seed)} for seed, size in enumerate(sizes)]


FEEDS: dict[str, list[dict[str, Any]]] = {
    "mlp": [{"x": floats(rows, 16, seed=seed)} for seed, rows in enumerate((1, 5, 5, 0, 1, LARGE // 16 + 1, 2))],
    "convolutions": [{"x": floats(rows, 8, 8, 8, seed=seed)} for seed, rows in enumerate((1, 1, 2, 40, 1))],
    "identity": _vectors(3, 3, LARGE, LARGE, 0, 3, 2 * LARGE, 1),
    "scalar": [{"x": np.array(number, np.float32)} for number in (1, 2, np.nan)],
    "two in, two out": [
        {"a": floats(rows, columns), "b": floats(columns, seed=1), "s": np.array(rows, np.float32)}
        for rows, columns in ((2, 3), (2, 3), (LARGE, 2), (1, LARGE), (0, 4), (2, 3))
    ],
    "mixed types": [
        {"c": floats(size) > 0, "a": floats(size, seed=1), "b": floats(size, seed=2)} for size in (4, 4, LARGE, 0, 5)
    ],
    "shape from data": [{"x": np.array(one, np.float32)} for one in ([1, 0, 2], [0, 0, 0], [1, 1, 1], [], [3])],
    "shape that is not as declared": [
        {"x": np.array(one, np.float32)} for one in ([1, 1], [1, 0], [0, 0], [1, 1, 1], [1, 0, 1], [])
    ],
    "unknown rank": [{"x": floats(*shape)} for shape in ((2,), (2, 3), (), (1, 2, 0), (2,))],
    "input passed through": _vectors(3, 3, LARGE, LARGE, 0, 3),
    "input beside an output": _vectors(3, 3, LARGE, LARGE, 0, 3),
    "initializer as output": _vectors(3, 3, LARGE, 0),
    "one value twice": _vectors(3, 3, LARGE, 0),
    "reshaped": [{"x": floats(*shape)} for shape in ((2, 3, 2), (2, 3, 2), (1, 1, 2), (2, LARGE, 2))],
    "no input": [{}, {}, {}],
    "strings": [{"x": np.array(one, object)} for one in (["a", "b"], [], ["späß", ""])],
    "strings beside floats": [{"t": np.array(["a"] * size, object), "x": floats(size)} for size in (2, 3)],
    "sequence": [{"x": floats(rows, 2)} for rows in (2, 3, 1)],
    "sequence in": [{"s": [floats(2), floats(rows)]} for rows in (2, 3, 0)],
    "no value": _vectors(2, 3),
}

# -- every plain type

_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in (*_NUMBERS, "bool")}


@functools.cache
def joining(dtype: str) -> bytes:
    """Build a model that joins "a" and "b" along the first axis into "y", and passes each through an Identity."""
    kind = DTYPES[dtype]
    return model(
        [
            node("Concat", ["a", "b"], ["y"], axis=0),
            node("Identity", ["a"], ["c"]),
            node("Identity", ["b"], ["d"]),
        ],
        [value("a", ["N", "K"], kind), value("b", ["M", "K"], kind)],
        [value("y", ["T", "K"], kind), value("c", ["N", "K"], kind), value("d", ["M", "K"], kind)],
    )


def contents_of(dtype: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Return random numbers of a type, small ones: what narrows int64 refuses the others."""
    numbers = np.random.default_rng(seed).integers(0 if dtype[0] in "ub" else -100, 100, shape)
    return (numbers % 2 if dtype == "bool" else numbers).astype(dtype)


ROUNDS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0, 1, 3, LARGE]), st.integers(0, 99)),
    min_size=1,
    max_size=6,
)
"""Rows of "a", rows of "b", columns of both, and a seed."""


def check_joining(call: Call, dtype: str, rounds: Sequence[tuple[int, int, int, int]]) -> None:
    feeds = [
        {"a": contents_of(dtype, (rows, columns), seed), "b": contents_of(dtype, (more, columns), seed + 1)}
        for rows, more, columns, seed in rounds
    ]
    check_runs(call, joining(dtype), feeds)


# -- what every binding promises, wherever it is

Open = Callable[[bytes], epkit.Session]
ADD = model(
    [node("Add", ["a", "b"], ["y"]), node("Sub", ["a", "b"], ["z"])],
    [value("a", ["N"]), value("b", ["N"])],
    [value("y", ["N"]), value("z", ["N"])],
)
SIZES = (4, LARGE)


def full(number: float, size: int) -> np.ndarray:
    return np.full(size, number, np.float32)


def refused_refills_change_nothing(open_: Open) -> None:
    session = open_(ADD)
    for size in SIZES:
        with session.bind({"a": full(1, size), "b": full(2, size)}) as binding:
            for wrong in (
                {"a": full(7, size), "b": np.ones(size, np.float64)},
                {"a": full(7, size), "b": np.ones((size, 1), np.float32)},
                {"a": full(7, size), "b": None},
                {"a": full(7, size), "c": full(1, size)},
                {"a": full(7, 2 * size), "b": "text"},
                full(7, size),
                3,
            ):
                with pytest.raises(InputError):
                    binding.run(wrong)
                check_same(owned(binding.run()), {"y": full(3, size), "z": full(-1, size)})
            check_same(owned(binding.run({"a": full(5, size)})), {"y": full(7, size), "z": full(3, size)})


def a_run_that_fails_leaves_the_next_one_right(open_: Open) -> None:
    session = open_(ADD)
    with session.bind({"a": full(1, 4), "b": full(2, 4)}) as binding:
        for _ in range(3):  # the second and third run go shorter ways than the first
            binding.run()
            with pytest.raises(RunError):
                binding.run({"a": full(1, 3), "b": full(1, 5)})  # ONNX Runtime finds out that they do not go together
            with pytest.raises(RunError):
                binding.run()
            check_same(owned(binding.run({"a": full(1, 4), "b": full(4, 4)}))["y"], full(5, 4))
            check_same(owned(binding.run({"a": full(2, 4)}))["y"], full(6, 4))


def a_partial_refill_keeps_the_rest(open_: Open) -> None:
    session = open_(ADD)
    for size in SIZES:
        b = full(2, size)
        with session.bind({"a": full(1, size), "b": b}) as binding:
            for number in range(4):
                check_same(owned(binding.run({"a": full(number, size)}))["y"], full(number + 2, size))
            check_same(owned(binding.run({"a": full(1, 1)}))["y"], full(3, size))  # other shapes, too
            check_same(owned(binding.run({"b": full(3, 1), "a": full(1, size)}))["y"], full(4, size))


def results_outlive_everything(open_: Open) -> None:
    for name in ("identity", "shape from data", "input passed through", "initializer as output", "reshaped"):
        for feed in FEEDS[name]:
            session = open_(MODELS[name])
            binding = session.bind({key: array.copy() for key, array in feed.items()})
            binding.run()
            results = binding.run()
            binding.close()
            del binding
            gc.collect()
            others = [np.full_like(array, 7) for array in feed.values() for _ in range(20)]
            check_same(owned(results), wanted_of(MODELS[name], feed))
            del others


def results_are_written_over_by_the_next_run(open_: Open) -> None:
    for size in SIZES:
        with open_(mlp()).bind({"x": floats(size, 16)}) as binding:
            first = binding.run()["y"]
            before = np.array(first)
            second = binding.run({"x": floats(size, 16, seed=1)})["y"]
            check_same(np.array(first), np.array(second))
            assert not np.array_equal(before, np.asarray(second))


def its_own_results_may_be_fed_to_it(open_: Open) -> None:
    double = model([node("Add", ["x", "x"], ["y"])], [value("x", ["N"])], [value("y", ["N"])])
    session = open_(double)
    for size in SIZES:
        with session.bind(full(1, size)) as binding:
            result = binding.run()
            for power in range(2, 6):
                result = binding.run(result["y"])
                check_same(owned(result)["y"], full(2**power, size))


def one_binding_serves_one_thread_at_a_time(open_: Open) -> None:
    session = open_(mlp())
    told: list[BaseException] = []
    with session.bind({"x": floats(1_000, 16)}) as binding:
        right = owned(binding.run())
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                try:
                    binding.run()
                except RunError as error:
                    told.append(error)
                    stop.set()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for one in threads:
            one.start()
        stop.wait(30)
        stop.set()
        for one in threads:
            one.join()
        assert told
        assert all("in another thread" in str(one) for one in told)
        check_same(owned(binding.run()), right)


def what_is_closed_says_so(open_: Open) -> None:
    session = open_(ADD)
    binding = session.bind({"a": full(1, 4), "b": full(1, 4)})
    for _ in range(3):
        binding.run({"a": full(1, 4), "b": full(1, 4)})
    binding.close()
    binding.close()
    with pytest.raises(RunError, match="the binding is closed"):
        binding.run()
    with pytest.raises(RunError, match="the binding is closed"):
        binding.run({"a": full(1, 4), "b": full(1, 4)})
    assert binding.copies == ()
    assert "closed" in repr(binding)
    with session.bind({"a": full(1, 4), "b": full(1, 4)}) as other:
        other.run()
    with pytest.raises(RunError, match="the binding is closed"):
        other.run()


def bad_requests_are_errors_before_anything_is_bound(open_: Open) -> None:
    session = open_(ADD)
    right = {"a": full(1, 4), "b": full(1, 4)}
    for wrong in ({}, {"a": full(1, 4)}, {**right, "c": 1}, {**right, "b": None}, {**right, "b": np.ones(4)}, 3):
        with pytest.raises(InputError):
            session.bind(wrong)
    for outputs in (["y", "nope"], [], "nope", [1], {"nope": None}, {1: None}, {"y": 3}, {}):
        with pytest.raises(InputError):
            session.bind(right, outputs)
    for device in ("nowhere", "cuda:7", 0):
        with pytest.raises(InputError):
            session.bind(right, device=device)  # type: ignore[arg-type]
    for outputs in ("y", ["y"], ("y",), {"y": None}):
        with session.bind(right, outputs) as binding:
            assert list(binding.run()) == ["y"]
    for outputs in (["z", "y"], {"z": None, "y": None}, ["z", "y", "z"]):
        with session.bind(right, outputs) as binding:
            for _ in range(3):
                assert list(binding.run(right)) == ["z", "y"] == list(session.run(right, list(outputs)))


PROMISES = {
    one.__name__: one
    for one in (
        refused_refills_change_nothing,
        a_run_that_fails_leaves_the_next_one_right,
        a_partial_refill_keeps_the_rest,
        results_outlive_everything,
        results_are_written_over_by_the_next_run,
        its_own_results_may_be_fed_to_it,
        one_binding_serves_one_thread_at_a_time,
        what_is_closed_says_so,
        bad_requests_are_errors_before_anything_is_bound,
    )
}


# -- any course of things

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["both", "a", "b"]),
            st.sampled_from([1, 3, LARGE, LARGE + 1]),
            st.sampled_from(["as it is", "as it is", "as it is", "list", "big-endian", "every second"]),
            st.integers(0, 9),
        ),
        st.tuples(
            st.sampled_from(["again", "wrong", "own y", "own z as both", "edit", "edit b and refill a", "older y"])
        ),
    ),
    min_size=1,
    max_size=12,
)


def _made(kind: str, array: np.ndarray) -> object:
    match kind:
        case "list":
            return array.tolist() if array.size < LARGE else array.astype(np.float16)
        case "big-endian":
            return array.astype(">f4")
        case "every second":
            return np.repeat(array, 2)[::2]
    return array


def check_any_course(session: epkit.Session, steps: Sequence[tuple[Any, ...]], *, live: bool) -> None:
    """Do one thing after the other with a binding of ADD; `live` says that large arrays are read where they are."""
    now = {"a": full(1, 3), "b": full(2, 3)}
    bound: dict[str, np.ndarray] = {}  # large arrays that were bound as they are
    older: list[tuple[Any, np.ndarray]] = []  # results of shapes that the binding has given up
    with session.bind({name: array.copy() for name, array in now.items()}) as binding:
        results = binding.run()
        for step in steps:
            given: dict[str, Any] = {}
            before = len(now["a"])
            match step:
                case ("both" | "a" | "b" as which, size, kind, seed):
                    size = size if which == "both" else before
                    for number, name in enumerate("ab" if which == "both" else which):
                        now[name] = np.round(floats(size, seed=seed + number))
                        bound.pop(name, None)
                        given[name] = _made(kind, now[name].copy())
                        if live and kind == "as it is" and size >= LARGE:
                            bound[name] = given[name]
                case ("wrong",):
                    with pytest.raises(InputError):
                        binding.run({"a": full(9, before), "b": np.ones(before, complex)})
                case ("own y",):
                    now["a"] = np.array(results["y"])
                    bound.pop("a", None)
                    given = {"a": results["y"]}
                case ("own z as both",):
                    now["a"] = now["b"] = np.array(results["z"])
                    bound.clear()
                    given = {"a": results["z"], "b": results["z"]}
                case ("edit" | "edit b and refill a" as which,):
                    for name, array in bound.items():
                        array += 1
                        now[name] = array.copy()
                    if which != "edit":
                        bound.pop("a", None)
                        now["a"] = full(5, before)
                        given = {"a": full(5, before)}
                case ("older y",) if older:
                    value_, kept = older[-1]
                    now["a"], now["b"] = np.array(value_), np.array(value_)
                    bound.clear()
                    given = {"a": value_, "b": value_}
            if given and len(now["a"]) != before:
                older.append((results["y"], np.array(results["y"])))
            results = binding.run(given or None)
            check_same(owned(results), {"y": now["a"] + now["b"], "z": now["a"] - now["b"]}, str(step))
        for result, kept in older:
            assert np.array(result).shape == kept.shape
