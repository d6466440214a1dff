"""Bindings on a WebGPU device, by the same cases and bodies as those on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from epkit_webgpu.provider import WebGpu
from hypothesis import given, settings
from hypothesis import strategies as st
from models import identity, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from running import (
    ADD,
    DTYPES,
    FEEDS,
    LARGE,
    MODELS,
    PROMISES,
    SIZES,
    STEPS,
    WAYS,
    by_bind,
    by_bind_for_each,
    check_any_course,
    check_in_threads,
    check_joining,
    check_runs,
    check_same,
    floats,
    full,
    joining,
    owned,
    wanted_of,
)
from together import together

import epkit
from epkit.discovery import probe
from epkit.discovery.registry import discover
from epkit.errors import InputError, RunError
from epkit.provider import Unusable

# Numbers that are made on the CPU, beside others on the device.
BESIDE = model(
    [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Identity", ["i"], ["j"]),
        helper.make_node("Reshape", ["i", "flat"], ["k"]),
    ],
    [value("x", ["K"]), value("i", ["N", "M"], TensorProto.INT64)],
    [value("y", ["K"]), value("j", ["N", "M"], TensorProto.INT64), value("k", ["L"], TensorProto.INT64)],
    [numpy_helper.from_array(np.array([-1]), "flat")],
)
Opened = Callable[[bytes], epkit.Session]


@pytest.fixture(scope="module", autouse=True)
def _usable() -> None:
    answer = probe.ask([(WebGpu(), None)], discover())["webgpu"].availability
    if isinstance(answer, Unusable):
        pytest.skip(f"{answer.reason}: {answer.hint}")


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """Open each model once; nodes that WebGPU cannot take go to the CPU."""
    sessions: dict[bytes, epkit.Session] = {}
    target = {"provider": "webgpu", "session_options": {"intra_op_num_threads": 1}}

    def _opened(contents: bytes) -> epkit.Session:
        if contents not in sessions:
            sessions[contents] = epkit.open(contents, "t", config={"targets": {"t": target}})
        return sessions[contents]

    yield _opened
    for session in sessions.values():
        session.close()


@pytest.mark.parametrize("name", MODELS)
def test_every_way_gives_what_plain_onnx_runtime_gives(opened: Opened, name: str):
    session = opened(MODELS[name])
    for way in WAYS.values():
        check_runs(way(session), MODELS[name], FEEDS[name])


@settings(max_examples=60)
@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    rounds=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0, 1, 3, LARGE]), st.integers(0, 99)),
        min_size=1,
        max_size=4,
    ),
)
def test_every_plain_type_and_any_shape_come_through(opened: Opened, dtype: str, rounds):
    check_joining(by_bind(opened(joining(dtype))), dtype, rounds)


@pytest.mark.parametrize("way", WAYS)
def test_two_sessions_and_eight_threads_give_right_numbers(opened: Opened, way: str):
    pair = [(opened(contents), contents) for contents in (mlp(), mlp("N"))]
    check_in_threads(pair, WAYS[way])


def test_threads_whose_results_are_new_buffers_in_each_run_give_right_numbers(opened: Opened):
    """What is let go of outside of the lock that guards runs must do no harm."""
    contents = MODELS["shape that is not as declared"]

    def work(number: int) -> None:
        call = by_bind_for_each(opened(contents)) if number % 2 else by_bind(opened(contents))
        random = np.random.default_rng(number)
        for _ in range(10):
            feed = {"x": random.integers(0, 2, 5).astype(np.float32)}
            check_same(owned(call(feed)), wanted_of(contents, feed))

    together(work)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_binding_keeps_its_promises(opened: Opened, promise: str):
    PROMISES[promise](opened)


@pytest.mark.parametrize("cuda_graph", [False, True])
@settings(max_examples=40)
@given(STEPS)
def test_a_binding_is_right_whatever_is_done_one_after_the_other(adding, cuda_graph: bool, steps):
    check_any_course(adding[cuda_graph], steps, live=False)


@pytest.fixture(scope="module")
def adding() -> Iterator[dict[bool, epkit.Session]]:
    """A session without and with captured graphs."""
    targets = {f"{graphs}": {"provider": "webgpu", "cuda_graph": graphs} for graphs in (False, True)}
    found = {graphs: epkit.open(ADD, f"{graphs}", config={"targets": targets}) for graphs in (False, True)}
    yield found
    for session in found.values():
        session.close()


# What is on the device


@pytest.mark.parametrize("size", SIZES)
def test_results_stay_on_the_device_until_they_are_asked_for(opened: Opened, size: int):
    with opened(identity()).bind(full(3, size)) as binding:
        result = binding.run()["y"]
        assert isinstance(result, epkit.DeviceArray)
        assert (result.device, result.shape, result.dtype, result.nbytes, len(result)) == (
            "webgpu:0", (size,), np.float32, size * 4, size,
        )  # fmt: skip
        check_same(result.numpy(), full(3, size))
        check_same(np.asarray(result), full(3, size))
        assert np.asarray(result, np.float64).dtype == np.float64
        with pytest.raises(ValueError, match="without a copy"):
            np.asarray(result, copy=False)
        result.numpy()[:] = 7  # the caller's own
        check_same(result.numpy(), full(3, size))
        with pytest.raises(BufferError, match=r"\.numpy\(\)"):
            np.from_dlpack(result)  # type: ignore[arg-type]
        assert "DeviceArray" in repr(result)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_on_the_device_is_bound_where_it_is(opened: Opened, size: int):
    first, second = opened(ADD), opened(identity())
    with first.bind({"a": full(1, size), "b": full(2, size)}) as one:
        result = one.run()["y"]
        with second.bind(result) as other:
            assert other.copies == ()
            check_same(owned(other.run())["y"], full(3, size))
            one.run({"a": full(5, size)})  # writes over what the other reads
            check_same(owned(other.run())["y"], full(7, size))
            assert other.copies == ()
            one.close()
            gc.collect()
            check_same(owned(other.run())["y"], full(7, size))
    with opened(identity()).bind(result, device="cpu") as binding:
        (copy,) = binding.copies
        assert "DeviceArray" in copy.why
        check_same(binding.run()["y"], full(7, size))
    check_same(second.run(result)["y"], full(7, size))


def test_what_does_not_fit_the_model_is_an_error_where_it_is(opened: Opened):
    with opened(identity()).bind(full(1, 4)) as binding:
        result = binding.run()["y"]
        with pytest.raises(InputError, match="as it is"):
            opened(identity(TensorProto.INT32)).bind(result)
        with pytest.raises(InputError, match="as it is"):
            opened(mlp()).bind(result)


def test_buffers_on_the_device_are_written_into(opened: Opened):
    session = opened(ADD)
    feed = {"a": full(1, 4), "b": full(2, 4)}
    with session.bind(feed) as first, session.bind(feed) as second:
        y, z = first.run()["y"], second.run()["z"]
        with session.bind(feed, {"y": y, "z": z}) as binding:
            for number in range(4):
                results = binding.run({"a": full(number, 4)})
                assert results["y"] is y
                assert results["z"] is z
                check_same(owned(results), {"y": full(number + 2, 4), "z": full(number - 2, 4)})
                assert [one.name for one in binding.copies] == ["a"]
        with pytest.raises(InputError, match="same buffer"):
            session.bind(feed, {"y": y, "z": y})
        with session.bind(feed, {"y": y}) as binding:  # an input that is an output's buffer
            check_same(owned(binding.run({"a": y, "b": full(1, 4)})), {"y": full(6, 4)})
            check_same(owned(binding.run({"a": y, "b": full(1, 4)})), {"y": full(7, 4)})
        for size in (3, 5):
            other = {"a": full(1, size), "b": full(2, size)}
            with session.bind(other, {"y": y}) as binding, pytest.raises(RunError, match="buffer"):
                binding.run()
    for elsewhere in (np.zeros(4, np.float32), [0.0] * 4):
        with pytest.raises(InputError, match="on cpu"):
            session.bind(feed, {"y": elsewhere})
    with session.bind(feed, {"y": np.zeros(4, np.float32)}, device="cpu") as binding:
        assert {one.name for one in binding.copies} == {"a", "b"}
        check_same(binding.run()["y"], full(3, 4))
        assert "y" in {one.name for one in binding.copies}
    with pytest.raises(InputError, match="not on the CPU"):
        session.bind(feed, {"y": y}, device="cpu")


def test_an_output_that_is_made_on_the_cpu_is_not_put_into_a_buffer_of_another_shape(opened: Opened):
    session = opened(BESIDE)

    def feed(numbers: np.ndarray) -> dict[str, object]:
        return {"x": full(1, 2), "i": numbers}

    given = np.arange(6).reshape(2, 3)
    for array in (given.T.copy(), given[:, :2].copy(), np.tile(given, (2, 1))):
        buffer = session.bind(feed(array)).run()["j"]
        with session.bind(feed(given), {"j": buffer}) as binding, pytest.raises(RunError, match="buffer"):
            binding.run()
        check_same(owned({"j": buffer})["j"], array)
        with session.bind(feed(array + 1), {"j": buffer}) as binding:
            check_same(owned(binding.run())["j"], array + 1)


def test_copies_between_the_cpu_and_the_device_are_said(opened: Opened):
    with opened(identity()).bind(full(1, LARGE)) as binding:
        assert [(one.name, one.direction, one.bytes) for one in binding.copies] == [("x", "in", 4 * LARGE)]
        assert "webgpu:0" in binding.copies[0].why
        binding.run()
        assert binding.copies == ()
        binding.run(np.repeat(full(1, LARGE), 2)[::2])
        assert "not C-contiguous" in binding.copies[0].why


@pytest.mark.parametrize("size", SIZES)
def test_an_array_on_the_cpu_is_copied_when_it_is_bound_and_read_again_with_a_binding_on_the_cpu(opened, size):
    array = full(1, size)
    with opened(identity()).bind(array) as binding:
        array[:] = 2
        check_same(owned(binding.run())["y"], full(1, size))
    with opened(identity()).bind(array, device="cpu") as binding:
        array[:] = 3
        check_same(binding.run()["y"], full(3 if size == LARGE else 2, size))


def test_an_input_that_is_read_on_the_cpu_is_seen_to_change(opened: Opened):
    """ONNX Runtime copies it there when it is bound, and at no other time."""
    contents = model(
        [helper.make_node("Slice", ["x", "from", "to"], ["y"])],
        [value("x", ["N"]), value("from", [1], TensorProto.INT64), value("to", [1], TensorProto.INT64)],
        [value("y", ["K"])],
    )
    x = floats(8)
    feeds = [
        {"x": x, "from": np.array([begin]), "to": np.array([end])} for begin, end in ((0, 2), (1, 3), (5, 7), (1, 8))
    ]
    check_runs(by_bind(opened(contents)), contents, feeds)
    session = opened(BESIDE)

    def put(number: int, buffer: epkit.DeviceArray | None = None) -> epkit.DeviceArray:
        return session.bind({"x": full(1, 2), "i": np.array([[number]])}, {"k": buffer}).run()["k"]

    start, end = put(0), put(2)

    def move(begin: int) -> None:
        put(begin, start)
        put(begin + 2, end)

    with opened(contents).bind({"x": x, "from": start, "to": end}) as binding:
        for begin in (0, 1, 3, 4):
            move(begin)
            check_same(owned(binding.run())["y"], x[begin : begin + 2])
            move(begin + 1)
            check_same(owned(binding.run({"x": x}))["y"], x[begin + 1 : begin + 3])


def test_results_outlive_their_session():
    session = epkit.open(mlp(), "webgpu")
    feed = {"x": floats(3, 16)}
    binding = session.bind(feed)
    result = binding.run()["y"]
    session.close()
    del session, binding
    gc.collect()
    check_same(result.numpy(), wanted_of(mlp(), feed)["y"])
    with epkit.open(identity(shape=("N", "M")), "webgpu") as later, later.bind(result) as binding:
        check_same(owned(binding.run())["y"], wanted_of(mlp(), feed)["y"])
