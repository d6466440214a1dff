"""Bindings on the CPU and on OpenVINO: right numbers in every way, on memory that is whose the docstrings say."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import warnings
import weakref

import ml_dtypes
import numpy as np
import pytest
from capabilities import SECOND, needs
from hypothesis import given, settings
from hypothesis import strategies as st
from models import identity, light, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from running import (
    ADD,
    DTYPES,
    FEEDS,
    LARGE,
    MODELS,
    NOT_BINDABLE,
    PROMISES,
    ROUNDS,
    SIZES,
    STEPS,
    WAYS,
    by_bind,
    check_any_course,
    check_in_threads,
    check_joining,
    check_runs,
    check_same,
    floats,
    full,
    joining,
    wanted_of,
)
from texts import says

import epkit
from epkit.errors import InputError, RunError, SessionClosed
from epkit.runtime.captured_graph import alter

PROVIDERS = ("cpu", SECOND)
# OpenVINO takes an input of unknown rank for a scalar, and refuses the others.
CASES = [
    (provider, name) for provider in PROVIDERS for name in MODELS if (provider, name) != ("openvino", "unknown rank")
]


@pytest.fixture(scope="module")
def opened():
    """Open each model once for each provider."""
    sessions: dict[tuple[str, bytes], epkit.Session] = {}

    def _opened(provider: str, contents: bytes) -> epkit.Session:
        if (provider, contents) not in sessions:
            config = {"targets": {"t": {"provider": provider}}}  # what it cannot take goes to the CPU
            sessions[provider, contents] = epkit.open(contents, "t", config=config)
        return sessions[provider, contents]

    yield _opened
    for session in sessions.values():
        session.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("provider", "name"), CASES)
def test_every_way_gives_what_plain_onnx_runtime_gives(opened, provider, name, way):
    session = opened(provider, MODELS[name])
    check_runs(WAYS[way](session), MODELS[name], FEEDS[name])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("provider", "name"), [("cpu", "shufflenet"), ("cpu", "squeezenet"), ("openvino", "shufflenet")]
)
def test_real_networks_come_out_the_same_in_every_way(opened, provider, name, way):
    contents = light(name).read_bytes()
    session = opened(provider, contents)
    shape = [one if isinstance(one, int) else 1 for one in session.inputs[0].shape]
    feeds = [{session.inputs[0].name: floats(*shape, seed=seed)} for seed in (0, 1)]
    check_runs(WAYS[way](session), contents, feeds)


@pytest.mark.parametrize("way", ["run", "bind"])
@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=40)
@given(dtype=st.sampled_from(sorted(DTYPES)), rounds=ROUNDS)
def test_every_plain_type_and_any_shape_come_through(opened, provider, way, dtype, rounds):
    check_joining(WAYS[way](opened(provider, joining(dtype))), dtype, rounds)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_two_sessions_and_eight_threads_give_right_numbers(opened, provider, way):
    pair = [(opened(provider, contents), contents) for contents in (mlp(), mlp("N"))]
    check_in_threads(pair, WAYS[way], turns=20)


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=80)
@given(STEPS)
def test_a_binding_is_right_whatever_is_done_one_after_the_other(opened, provider, steps):
    check_any_course(opened(provider, ADD), steps, live=True)


@pytest.mark.parametrize("name", NOT_BINDABLE)
def test_what_cannot_be_bound_is_run_and_said(opened, name):
    session = opened("cpu", MODELS[name])
    with session.bind(FEEDS[name][0]) as binding:
        binding.run()
        assert all("cannot bind" in one.why for one in binding.copies)
        assert binding.copies or name == "sequence in"
    assert by_bind(session)(FEEDS[name][0]).keys() == {one.name for one in session.outputs}


# OpenVINO writes into no buffer that is given: each run has results of its own.
NOT_THERE = ("openvino", "results_are_written_over_by_the_next_run")


@pytest.mark.parametrize(
    ("provider", "promise"), [pair for pair in itertools.product(PROVIDERS, PROMISES) if pair != NOT_THERE]
)
def test_a_binding_keeps_its_promises(opened, provider, promise):
    PROMISES[promise](lambda contents: opened(provider, contents))


# -- memory


@pytest.fixture(params=PROVIDERS)
def provider(request):
    return request.param


class Tensor:
    """A tensor of another library: an array that is seen through DLPack alone."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.array = array
        self.device = device
        self.asked = 0

    def __dlpack__(self, **options: object) -> object:
        self.asked += 1
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


class OldTensor(Tensor):
    """One that speaks DLPack as it was before it knew of read-only memory."""

    def __dlpack__(self, stream: object = None) -> object:
        self.asked += 1
        return self.array.__dlpack__()


def large(number: float = 1) -> np.ndarray:
    return full(number, LARGE)


@pytest.mark.parametrize("wrap", [np.asarray, Tensor, OldTensor], ids=lambda one: one.__name__)
def test_a_large_array_is_read_where_it_is(opened, provider, wrap):
    array = large()
    with opened(provider, identity()).bind(wrap(array)) as binding:
        assert (binding.copies == ()) == (provider == "cpu")
        for number in (2, 3, 4):
            array[:] = number
            assert binding.run()["y"].tolist() == [number] * LARGE
        assert (binding.copies == ()) == (provider == "cpu")


def test_what_was_edited_is_read_again_when_only_another_input_is_refilled(opened, provider):
    a, b = large(), large()
    with opened(provider, ADD).bind({"a": a, "b": b}) as binding:
        for number in (2, 3, 4):
            b[:] = number
            assert binding.run({"a": large(number)})["y"][0] == 2 * number
            assert binding.run({"a": full(1, LARGE)})["y"][0] == 1 + number


def test_a_small_array_is_not_read_again(opened, provider):
    array = full(1, 4)
    with opened(provider, identity()).bind(array) as binding:
        array[:] = 2
        assert binding.run()["y"].tolist() == [1] * 4
        array[:] = 3
        assert binding.run(array)["y"].tolist() == [3] * 4
        array[:] = 4
        assert binding.run()["y"].tolist() == [3] * 4


@pytest.mark.parametrize("wrap", [np.asarray, Tensor, OldTensor], ids=lambda one: one.__name__)
def test_what_is_bound_stays_alive_until_the_binding_lets_go_of_it(opened, provider, wrap):
    class Watched(np.ndarray):
        """An array that can be watched."""

    array = large(5).view(Watched)
    watch = weakref.ref(array)
    binding = opened(provider, identity()).bind(wrap(array))
    del array
    gc.collect()
    others = [large(7) for _ in range(20)]
    for _ in range(3):
        assert binding.run()["y"].tolist() == [5] * LARGE
    binding.close()
    del others
    gc.collect()
    assert watch() is None


def test_an_array_whose_shape_was_changed_in_place_is_bound_anew(opened, provider):
    array = large()[:-1].copy()
    with opened(provider, identity(shape=("N", "M"))).bind(array.reshape(2, -1)) as binding:
        table = array.reshape(2, -1)
        assert binding.run(table)["y"].shape == table.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            table.shape = (4, -1)
        assert binding.run(table)["y"].shape == (4, array.size // 4)


def test_views_of_its_own_results_are_copied_before_they_are_written_over(opened, provider):
    double = model([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", ["N"])], [value("y", ["N"])])
    with opened(provider, double).bind(full(1, 4 * LARGE)) as binding:
        binding.run()
        result = binding.run()["y"]
        result = binding.run(result.view(np.int32).view(np.float32))["y"]
        assert result[0] == 4
        result = binding.run(result[:])["y"]
        assert result[0] == 8
        assert binding.run(result.reshape(2, -1).T.reshape(-1))["y"][0] == 16
        shorter = binding.run(binding.run(full(1, 4 * LARGE))["y"][LARGE:])["y"]
        assert shorter.tolist() == [4] * (3 * LARGE)
        assert binding.run(shorter[::2])["y"].tolist() == [8] * len(shorter[::2])


def test_the_reason_says_that_a_run_would_write_over_its_input(opened):
    array = large()
    with opened("cpu", identity()).bind(array, {"y": array}) as binding:
        assert [(one.name, one.bytes, one.why) for one in binding.copies] == [
            ("x", array.nbytes, "the run writes over it")
        ]


@pytest.mark.parametrize("size", SIZES)
def test_an_array_may_be_input_and_output(opened, provider, size):
    double = model([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", ["N"])], [value("y", ["N"])])
    array = full(1, size)
    with opened(provider, double).bind(array, {"y": array}) as binding:
        assert binding.run()["y"] is array
        assert array.tolist() == [2] * size
        assert binding.run(array)["y"].tolist() == [4] * size
        assert binding.run()["y"].tolist() == [4] * size  # its input was copied, and is what it was


# -- what is said of copies


def test_copies_name_what_was_copied_how_much_of_it_and_why(opened):
    session = opened("cpu", ADD)
    wide = full(1, 2 * LARGE)
    with session.bind({"a": wide[::2], "b": large()}) as binding:
        (copy,) = binding.copies
        assert (copy.name, copy.direction, copy.bytes) == ("a", "in", LARGE * 4)
        assert "not C-contiguous" in copy.why
        binding.run()
        assert binding.copies == ()  # nothing was copied for this run
        binding.run({"a": large().astype(">f4")})
        (copy,) = binding.copies
        assert "big-endian" in copy.why
        binding.run({"a": large()})
        assert binding.copies == ()
    with session.bind({"a": [1.0], "b": full(1, 1)}) as binding:
        assert [(one.name, one.bytes) for one in binding.copies] == [("a", 4), ("b", 4)]
        assert "list made into float32 [1]" in binding.copies[0].why
        for _ in range(3):
            binding.run({"a": full(1, 1), "b": full(1, 1)})
            assert all("64 KiB or less" in one.why for one in binding.copies)
            assert len(binding.copies) == 2


@needs("openvino")
def test_copies_of_a_provider_with_memory_of_its_own_are_said(opened):
    with opened("openvino", identity()).bind(large(), {"y": np.empty(LARGE, np.float32)}) as binding:
        binding.run()
        assert [(one.name, one.direction, one.bytes) for one in binding.copies] == [
            ("x", "in", LARGE * 4),
            ("y", "out", LARGE * 4),
        ]
        assert all(one.why for one in binding.copies)


# -- inputs of every make


class Subclass(np.ndarray):
    """An array of a class of its own."""


def makes(x: np.ndarray) -> dict[str, object]:
    """Return the same numbers in many ways."""
    return {
        "big-endian": x.astype(">f4"),
        "Fortran order": np.asfortranarray(x),
        "every second": np.repeat(x, 2, axis=0)[::2],
        "backwards": x[::-1].copy()[::-1],
        "read-only": np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
        "unaligned": np.frombuffer(b"." + x.tobytes(), np.float32, offset=1).reshape(x.shape),
        "subclass": x.view(Subclass),
        "list": x.tolist(),
        "float16": x.astype(np.float16),
        "DLPack": Tensor(x),
        "DLPack as it was": OldTensor(x),
        "broadcast": np.broadcast_to(x[0], x.shape),
    }


@pytest.mark.parametrize("rows", [6, LARGE // 4 + 1])
@pytest.mark.parametrize("make", makes(floats(1, 1)))
def test_an_input_of_any_make_is_read_rightly(opened, provider, make, rows):
    given = makes(np.round(floats(rows, 4), 1).astype(np.float16).astype(np.float32))[make]
    wanted = np.array(given.array if isinstance(given, Tensor) else given, np.float32)
    with opened(provider, identity(shape=("N", "M"))).bind(np.zeros((2, 2), np.float32)) as binding:
        for _ in range(3):
            check_same(np.array(binding.run(given)["y"]), wanted)
            check_same(np.array(binding.run(np.ones_like(wanted))["y"]), np.ones_like(wanted))


@pytest.mark.parametrize(
    "given", [np.ones(4), np.ones(4, np.int64), np.ones(4, "c8"), None, "text", {"z": 1}, object()]
)
def test_an_input_that_does_not_fit_is_an_error(opened, provider, given):
    with pytest.raises(InputError), opened(provider, identity()).bind(given):
        pass


def test_what_is_on_another_device_is_an_error_before_anything_reads_it(opened, provider):
    given = Tensor(full(1, 4), (2, 0))
    session = opened(provider, identity())
    with says(InputError):
        session.bind(given)
    with says(InputError):
        session.bind(full(1, 4), {"y": given})
    with session.bind(full(1, 4)) as binding:
        with says(InputError):
            binding.run(given)
        assert binding.run()["y"].tolist() == [1] * 4
    for device in ((15, 0), (7, 1), (99, 0)):
        with says(InputError):
            session.bind(Tensor(full(1, 4), device))
    assert given.asked == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [Tensor, OldTensor])
@pytest.mark.parametrize("dtype", ["bool", "float16", "uint8", "int64"])
def test_dlpack_carries_other_types_too_and_bools(opened, provider, dtype, kind, size):
    array = (np.arange(8 * size) % 100).astype(dtype)
    with opened(provider, identity(DTYPES[dtype])).bind(kind(array)) as binding:
        check_same(binding.run()["y"], array)


# -- buffers for outputs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wrap", [np.asarray, Tensor, OldTensor, lambda array: array.view(Subclass)])
def test_results_are_written_into_the_buffer_that_is_given(opened, provider, size, wrap):
    buffer = np.zeros(size, np.float32)
    given = wrap(buffer)
    session = opened(provider, ADD)
    with session.bind({"a": full(1, size), "b": full(2, size)}, {"y": given, "z": None}) as binding:
        for number in (1, 2, 3, 4):
            results = binding.run({"a": full(number, size), "b": full(2, size)})
            assert results["y"] is given
            assert buffer.tolist() == [number + 2] * size
            check_same(results["z"], full(number - 2, size))
    assert buffer.tolist() == [6] * size


def read_only() -> np.ndarray:
    array = np.zeros(4, np.float32)
    array.flags.writeable = False
    return array


BUFFERS = {
    "another type": np.zeros(4),
    "a type of the same size": np.zeros(4, np.int32),
    "more dimensions": np.zeros((4, 1), np.float32),
    "fewer dimensions": np.zeros((), np.float32),
    "not contiguous": np.zeros(8, np.float32)[::2],
    "backwards": np.zeros(4, np.float32)[::-1],
    "read-only": read_only(),
    "big-endian": np.zeros(4, ">f4"),
    "unaligned": np.frombuffer(bytearray(17), np.float32, 4, 1),
    "a list": [0.0] * 4,
    "a number": 0.0,
    "text": "y",
    "on a device": Tensor(np.zeros(4, np.float32), (2, 0)),
    "unreadable": Tensor(np.zeros(8, np.float32)[::2]),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_that_cannot_be_written_into_is_an_error(opened, provider, name):
    with says(InputError) as error:
        opened(provider, identity()).bind(full(1, 4), {"y": BUFFERS[name]})
    assert error.value.hint


def test_buffers_that_share_memory_are_an_error(opened, provider):
    memory = np.zeros(6, np.float32)
    given = {"a": full(1, 4), "b": full(2, 4)}
    session = opened(provider, ADD)
    for buffers in ({"y": memory[:4], "z": memory[:4]}, {"y": memory[:4], "z": memory[2:]}):
        with says(InputError):
            session.bind(given, buffers)
    memory = np.zeros(8, np.float32)
    with session.bind(given, {"y": memory[:4], "z": memory[4:]}) as binding:
        binding.run()
    assert memory.tolist() == [3] * 4 + [-1] * 4


@pytest.mark.parametrize("size", [3, 5, 0])
def test_a_buffer_of_another_size_is_an_error_and_nothing_is_written_past_it(opened, provider, size):
    memory = np.full(size + 20, 7, np.float32)
    session = opened(provider, identity())
    with session.bind(full(1, 4), {"y": memory[10 : 10 + size]}) as binding:
        for _ in range(2):
            with says(RunError):
                binding.run()
        assert (memory == 7).all() or provider == "cpu"
        assert (memory[:10] == 7).all()
        assert (memory[10 + size :] == 7).all()
        binding.run(full(2, size))
        binding.run(full(3, size))
        assert memory[10 : 10 + size].tolist() == [3] * size


def test_a_buffer_for_an_output_of_no_settled_shape_takes_the_result_if_it_fits(opened, provider):
    contents = MODELS["shape that is not as declared"]
    z = np.zeros(3, np.float32)
    y = np.zeros((1, 2), np.float32)
    given = [np.array(one, np.float32) for one in ([1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 1])]
    with opened(provider, contents).bind(given[0], {"z": z, "y": None}) as binding:
        for array in given:
            check_same(binding.run(array), wanted_of(contents, {"x": array}))
    with opened(provider, contents).bind(given[0], {"z": z, "y": y}) as binding:
        for array in given:
            if np.count_nonzero(array) == 2:
                check_same(binding.run(array), wanted_of(contents, {"x": array}))
            else:
                with says(RunError):
                    binding.run(array)


def test_a_buffer_beside_what_cannot_be_bound_is_written_too(opened):
    contents = MODELS["strings beside floats"]
    buffer = np.zeros(2, np.float32)
    feed = FEEDS["strings beside floats"][0]
    with opened("cpu", contents).bind(feed, {"y": buffer, "u": None}) as binding:
        assert binding.run()["y"] is buffer
        check_same(buffer, wanted_of(contents, feed)["y"])
        assert binding.device == "cpu"
        with says(RunError):
            binding.run(FEEDS["strings beside floats"][1])
    with says(InputError):
        opened("cpu", contents).bind(feed, {"u": np.empty(2, object)})


# -- what has no value


def test_what_stands_for_an_initializer_is_run_and_not_bound(opened):
    initial = numpy_helper.from_array(full(10, 2), "w")
    contents = model(
        [helper.make_node("Add", ["x", "w"], ["y"])], [value("x", [2]), value("w", [2])], [value("y", [2])], [initial]
    )
    session = opened("cpu", contents)
    for _ in range(4):
        assert session.run({"x": full(1, 2), "w": full(2, 2)})["y"].tolist() == [3, 3]
        assert session.run({"x": full(1, 2)})["y"].tolist() == [11, 11]
    with says(InputError):
        session.bind({"x": full(1, 2), "w": full(2, 2)})
    with session.bind({"x": full(1, 2), "w": None}) as binding:
        with says(InputError):
            binding.run({"w": full(2, 2)})
        assert binding.run()["y"].tolist() == [11, 11]


def test_none_takes_back_an_optional_input(opened):
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    contents = model(
        [helper.make_node("OptionalHasElement", ["x"], ["y"])],
        [helper.make_value_info("x", kind)],
        [value("y", [], TensorProto.BOOL)],
        opset=18,
    )
    with opened("cpu", contents).bind({"x": full(1, 2)}) as binding:
        assert binding.run()["y"]
        assert not binding.run({"x": None})["y"]
        assert not binding.run()["y"]
        assert binding.run({"x": full(1, 2)})["y"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_types_that_numpy_has_not_are_right_and_said(opened, dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, dtype)))
    contents = model(
        [helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT), helper.make_node("Cast", ["h"], ["y"], to=kind)],
        [value("x", ["N"], kind)],
        [value("y", ["N"], kind)],
        opset=19,
        ir=9,
    )
    with opened("cpu", contents).bind(floats(5).astype(dtype)) as binding:
        for seed in range(3):
            array = floats(5, seed=seed).astype(dtype)
            check_same(binding.run(array)["y"].astype(np.float32), array.astype(np.float32))
        assert {one.name for one in binding.copies} == {"x", "y"}


def test_four_bit_integers_are_right_and_said(opened):
    contents = model(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [value("x", ["N"], TensorProto.INT4)],
        [value("y", ["N"])],
        opset=21,
        ir=10,
    )
    array = np.array([-8, -1, 0, 7, 3], ml_dtypes.int4)
    with opened("cpu", contents).bind(array) as binding:
        check_same(binding.run()["y"], array.astype(np.float32))
        assert binding.copies


# -- numbers that a provider cannot hold


@needs("openvino")
def test_numbers_edited_in_place_are_held_to_what_the_provider_can_hold(opened):
    contents = model(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [value("x", ["N"], TensorProto.INT64)],
        [value("y", ["N"], TensorProto.INT64)],
    )
    array = np.ones(LARGE, np.int64)
    with opened("openvino", contents).bind(array) as binding:
        binding.run()
        array[-1] = 2**40
        with says(InputError):
            binding.run()
        array[-1] = 2
        assert binding.run()["y"][-1] == 4


# -- closing


def slow() -> bytes:
    """Build a model that takes some tenths of a second: products of large matrices, one after the other."""
    weights = [numpy_helper.from_array(np.eye(512, dtype=np.float32), "w")]
    nodes = [helper.make_node("MatMul", [f"h{turn}", "w"], [f"h{turn + 1}"]) for turn in range(40)]
    return model(nodes, [value("h0", ["N", 512])], [value("h40", ["N", 512])], weights)


@pytest.mark.parametrize("refill", [True, False])
def test_closing_waits_for_the_run_of_a_binding_and_not_for_ever(refill):
    session = epkit.open(slow(), "cpu")
    array = floats(512, 512)
    binding = session.bind(array)
    before = np.array(binding.run()["h40"])
    ended: list[BaseException] = []
    running = threading.Event()

    def work() -> None:
        try:
            while True:  # one after the other, with next to no time between them
                check_same(binding.run(array if refill else None)["h40"], before)
                running.set()
        except epkit.errors.RunError as error:
            ended.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    running.wait(60)
    session.close()
    worker.join(60)
    assert "closed" in str(ended)
    with pytest.raises(SessionClosed):
        session.bind(array)


def test_a_run_of_a_steady_binding_that_is_small_does_not_keep_its_session_open():
    session = epkit.open(identity(), "cpu")
    binding = session.bind(full(1, 4))
    array, ended = full(1, 4), []

    def work() -> None:
        try:
            while True:
                binding.run(array)
        except epkit.errors.RunError as error:
            ended.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    time.sleep(0.05)
    session.close()
    worker.join(60)
    assert "closed" in str(ended)


# -- the data that a captured graph is proven with


@given(
    st.sampled_from(sorted(DTYPES)), st.lists(st.integers(-3, 3) | st.integers(-100, 100), max_size=9), st.booleans()
)
def test_the_other_data_differ_in_each_element_and_an_index_stays_one(dtype, numbers, matrix):
    array = np.abs(numbers).astype(dtype) if dtype[0] in "ub" else np.array(numbers, dtype)
    array = array.reshape(1, -1) if matrix else array
    found = alter(array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert (found != array).all()
    if array.size and dtype != "bool" and "float" not in dtype and array.min() >= 0:
        assert found.min() >= 0
        assert found.max() <= max(1, array.max())


def test_a_large_array_is_read_where_it_is_again_after_a_result_of_the_binding_was_fed_back():
    with epkit.open(identity(), "cpu") as session:
        large = np.ones(100_000, np.float32)
        with session.bind(large) as binding:
            binding.run()
            fed_back = binding.run()["y"]
            binding.run(fed_back)
            binding.run(large)
            large[...] = 5
            assert (binding.run()["y"] == 5).all()
            assert binding.copies == ()
