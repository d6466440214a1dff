"""What is held on a device: whose it is, when it is read, and which thread may replay a graph. No GPU is needed."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import onnxruntime
import pytest
from models import identity
from texts import says

from epkit.errors import RunError
from epkit.runtime.bound_inputs import BoundInputs, DeviceInput
from epkit.runtime.captured_graph import CapturedGraphs
from epkit.runtime.device_array import DeviceArray, overlaps, to_ort_value


def plain(contents: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])


# -- taking what is there


class Producer:
    """Memory of a GPU, as far as DLPack tells: it says for which stream it was asked."""

    def __init__(self, array: np.ndarray, requires_grad: bool = False) -> None:
        self.array = array
        self.dtype = array.dtype
        self.requires_grad = requires_grad
        self.streams: list[object] = []

    def __dlpack__(self, stream: object = None) -> object:
        self.streams.append(stream)
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        # As those libraries do that do not know DLPack's bool.
        array = self.array.view(np.uint8) if self.array.dtype == bool else self.array
        return array.__dlpack__()


class Streamless(Producer):
    def __dlpack__(self) -> object:  # type: ignore[override]
        return self.array.__dlpack__()


@pytest.mark.parametrize("dtype", ["float32", "bool", "uint8"])
def test_a_producer_is_asked_to_come_before_the_default_stream_and_its_type_is_kept(dtype: str):
    producer = Producer(np.ones(4, dtype))
    value = to_ort_value(onnxruntime, plain(identity()), producer, "x")
    assert producer.streams == [1]
    assert value.data_ptr() == producer.array.ctypes.data
    assert value.numpy().dtype == dtype


def test_a_producer_that_knows_no_streams_is_taken_without():
    producer = Streamless(np.ones(4, np.float32))
    assert to_ort_value(onnxruntime, plain(identity()), producer, "x").data_ptr() == producer.array.ctypes.data


def test_a_tensor_that_requires_a_gradient_is_to_be_detached():
    with says(RunError) as error:
        to_ort_value(onnxruntime, plain(identity()), Producer(np.ones(4, np.float32), requires_grad=True), "x")
    assert ".detach()" in error.value.hint
    with pytest.raises(RunError) as error:
        to_ort_value(onnxruntime, plain(identity()), Producer(np.ones((4, 4), np.float32).T[:2]), "x")
    assert ".contiguous()" in error.value.hint


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_an_array_of_another_session_goes_through_dlpack_where_the_place_knows_it(dtype: str):
    """ONNX Runtime binds a value that a session allocated to that session alone."""
    one, other = plain(identity()), plain(identity())
    value = one.create_ortvalue_from_shape_and_type([4], np.dtype(dtype), "cpu", 0)
    waited: list[str] = []

    def array(place: str) -> DeviceArray:
        return DeviceArray(value, place, nullcontext(), lambda: waited.append(place), one)

    assert to_ort_value(onnxruntime, one, array("cuda:0"), "x") is value
    assert to_ort_value(onnxruntime, other, array("webgpu:0"), "x") is value
    assert waited == []
    with pytest.raises(ValueError, match="session that created it"):
        other.io_binding().bind_ortvalue_input("x", value)
    shared = to_ort_value(onnxruntime, other, array("cuda:0"), "x")
    assert waited == ["cuda:0"]
    assert (shared.data_ptr(), shared.data_type()) == (value.data_ptr(), value.data_type())
    other.io_binding().bind_ortvalue_input("x", shared)


# -- waiting for who writes to it


class Bound:
    """A binding that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def bind_ortvalue_input(self, name: str, value: object) -> None:
        self.asked.append(f"bind {name}")

    def synchronize_inputs(self) -> None:
        self.asked.append("wait")


@pytest.mark.parametrize(("place", "waits"), [("cuda:0", ["wait"]), ("webgpu:0", [])])
def test_what_is_held_on_a_device_is_waited_for_before_each_run(place: str, waits: list[str]):
    binding = Bound()
    feeds = BoundInputs(None, binding, place, place, lambda _: False, in_place=True)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(4, np.float32))
    feeds.bind({"x": (DeviceInput(value, value, np.dtype(np.float32), (4,), 16), "")})
    assert binding.asked == ["bind x", *waits]
    feeds.rebind()
    assert binding.asked == ["bind x", *waits, *waits]


# -- where it is


class Memory:
    def __init__(self, start: int, size: int) -> None:
        self.data_ptr = lambda: start
        self.tensor_size_in_bytes = lambda: size


@pytest.mark.parametrize(
    ("start", "size", "by_address", "by_handle"),
    [(100, 8, True, True), (104, 8, True, False), (96, 8, True, False), (108, 8, False, False), (100, 0, False, False)],
)
def test_only_addresses_have_ranges(start: int, size: int, by_address: bool, by_handle: bool):
    one, other = Memory(100, 8), Memory(start, size)
    assert overlaps(one, other, "cuda:0") is by_address
    assert overlaps(one, other, "webgpu:0") is by_handle


# -- graphs


class Recorded:
    """Runs that are counted, with the number of the graph of each; graphs that were released are not forgotten."""

    def __init__(self) -> None:
        self.numbers: list[str] = []

    def run_with_iobinding(self, binding: object, options: onnxruntime.RunOptions) -> None:
        self.numbers.append(options.get_run_config_entry("gpu_graph_id"))

    def release_captured_graph(self, number: int) -> None:
        pass


def test_a_thread_with_the_number_of_one_that_ended_captures_too():
    session = Recorded()
    graph = CapturedGraphs(session, onnxruntime).new(None)
    for _ in range(20):
        thread = threading.Thread(target=graph.run)
        thread.start()
        thread.join()
    assert session.numbers == ["1"] * 40  # each captures, and replays
    graph.run()
    graph.run()
    assert len(session.numbers) == 43


def test_a_graph_that_was_released_is_captured_under_a_new_number():
    session = Recorded()
    graphs = CapturedGraphs(session, onnxruntime)
    one, other = graphs.new(None), graphs.new(None)
    for graph in (one, other, one):
        graph.run()
        graph.release()
    assert session.numbers == ["1", "1", "2", "2", "3", "3"]
