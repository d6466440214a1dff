"""Captured graphs on WebGPU: replays are right or refused, for many inputs, shapes, threads and bindings."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from epkit_webgpu.provider import WebGpu
from growth import MOST_KB, grown
from models import identity, model, value
from onnx import TensorProto, helper, numpy_helper
from running import ADD, FEEDS, MODELS, STRING, by_bind, check_in_threads, check_same, floats, full, owned, wanted_of
from together import together

import epkit
from epkit.discovery import probe
from epkit.discovery.registry import discover
from epkit.errors import ProviderDropped, RunError
from epkit.provider import Unusable
from epkit.runtime.binding import MOST_GRAPHS

MLP = MODELS["mlp"]
Opened = Callable[[bytes], epkit.Session]


@pytest.fixture(scope="module", autouse=True)
def _usable() -> None:
    answer = probe.ask([(WebGpu(), None)], discover())["webgpu"].availability
    if isinstance(answer, Unusable):
        pytest.skip(f"{answer.reason}: {answer.hint}")


def open_captured(contents: bytes, **keys: object) -> epkit.Session:
    target = {"provider": "webgpu", "cuda_graph": True, "session_options": {"intra_op_num_threads": 1}, **keys}
    return epkit.open(contents, "t", config={"targets": {"t": target}})


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    sessions: dict[bytes, epkit.Session] = {}

    def _opened(contents: bytes) -> epkit.Session:
        if contents not in sessions:
            sessions[contents] = open_captured(contents)
        return sessions[contents]

    yield _opened
    for session in sessions.values():
        session.close()


def captured(binding: epkit.Binding) -> bool:
    return binding._bound is not None and binding._bound.graph is not None


STALE = "a replay of the captured graph gives other numbers"


def unless_refused(binding: epkit.Binding, feed: object = None) -> dict[str, object] | None:
    """Run; None where the graph is refused, since its replays are stale."""
    try:
        return binding.run(feed)
    except RunError as error:
        if STALE not in str(error):
            raise
        return None


class Released:
    """A session of ONNX Runtime that tells which graphs it was asked to release."""

    def __init__(self, session: object) -> None:
        self._session = session
        self.numbers: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def release_captured_graph(self, number: int) -> None:
        self.numbers.append(number)
        self._session.release_captured_graph(number)  # type: ignore[attr-defined]


@pytest.fixture
def released(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the graphs that the session of MLP released."""
    graphs = opened(MLP)._caller.graphs
    assert graphs is not None
    watched = Released(graphs._session)
    monkeypatch.setattr(graphs, "_session", watched)
    return watched.numbers


def test_replays_give_what_the_cpu_gives_for_many_inputs_and_shapes(opened: Opened):
    session = opened(MLP)
    assert session.report.graph is not None
    assert session.report.graph.possible
    with session.bind({"x": floats(2, 16)}) as binding:
        assert captured(binding)
        for seed, rows in enumerate((2, 2, 5, 2, 5, 1, 1, 5, 2)):
            for _ in range(3):
                feed = {"x": floats(rows, 16, seed=seed)}
                check_same(owned(binding.run(feed)), wanted_of(MLP, feed))
            check_same(owned(binding.run()), wanted_of(MLP, feed))


@pytest.mark.parametrize("name", ["convolutions", "two in, two out", "one value twice", "scalar"])
def test_other_models_are_right_too_or_refused(opened: Opened, name: str):
    with opened(MODELS[name]).bind(FEEDS[name][0]) as binding:
        for feed in FEEDS[name]:
            found = unless_refused(binding, feed)
            if found is not None:
                check_same(owned(found), wanted_of(MODELS[name], feed))


def test_more_shapes_than_are_kept_make_room_and_are_captured_again(opened: Opened, released: list[int]):
    with opened(MLP).bind({"x": floats(1, 16)}) as binding:
        for rows in (*range(1, MOST_GRAPHS + 4), 1, 2, MOST_GRAPHS + 3):
            feed = {"x": floats(rows, 16, seed=rows)}
            check_same(owned(binding.run(feed)), wanted_of(MLP, feed))
            check_same(owned(binding.run()), wanted_of(MLP, feed))
        made = len(set(released))
        assert made >= 4
        assert len(binding._graphs) <= MOST_GRAPHS
    assert len(set(released)) == len(released)
    assert len(released) > made  # closing releases the rest


def test_graphs_of_bindings_that_were_dropped_are_released(opened: Opened, released: list[int]):
    session = opened(MLP)
    for seed in range(5):
        feed = {"x": floats(2, 16, seed=seed)}
        check_same(owned(session.bind(feed).run()), wanted_of(MLP, feed))
        gc.collect()
    assert len(released) >= 4


def test_a_partial_refill_may_change_shapes(opened: Opened):
    contents = MODELS["two in, two out"]
    feed = {"a": floats(2, 3), "b": floats(3), "s": np.array(2, np.float32)}
    with opened(contents).bind(feed) as binding:
        binding.run()
        for rows in (4, 2, 4, 1):
            feed["a"] = floats(rows, 3, seed=rows)
            check_same(owned(binding.run({"a": feed["a"]})), wanted_of(contents, feed))
            feed["s"] = np.array(rows, np.float32)
            check_same(owned(binding.run({"s": feed["s"]})), wanted_of(contents, feed))


def test_threads_with_a_binding_each_give_right_numbers(opened: Opened):
    check_in_threads([(opened(MLP), MLP)], by_bind, threads=4)


def test_plain_runs_and_bindings_on_the_cpu_go_uncaptured_beside_captured_ones(opened: Opened):
    session = opened(MLP)
    with session.bind({"x": floats(2, 16)}) as binding, session.bind({"x": floats(2, 16)}, device="cpu") as other:
        assert not captured(other)
        for seed in range(4):
            feed = {"x": floats(2, 16, seed=seed)}
            check_same(session.run(feed), wanted_of(MLP, feed))
            check_same(owned(binding.run(feed)), wanted_of(MLP, feed))
            check_same(session.run({"x": floats(3, 16)}, timeout=60), wanted_of(MLP, {"x": floats(3, 16)}))
            check_same(owned(other.run(feed)), wanted_of(MLP, feed))
            check_same(owned(binding.run()), wanted_of(MLP, feed))


def test_device_arrays_are_copied_into_the_address_that_a_graph_reads(opened: Opened):
    session = opened(ADD)
    first = session.bind({"a": full(1, 4), "b": full(2, 4)})
    with first, session.bind({"a": first.run()["y"], "b": full(1, 4)}) as second:
        check_same(owned(second.run())["y"], full(4, 4))
        for number in range(3):
            result = first.run({"a": full(number, 4)})["y"]
            check_same(owned(second.run({"a": result}))["y"], full(number + 3, 4))
            assert "one address" in second.copies[0].why
        result = second.run()["y"]
        check_same(owned(second.run({"a": result}))["y"], full(6, 4))  # its own


def test_buffers_that_are_given_are_written_by_replays(opened: Opened):
    session = opened(ADD)
    with session.bind({"a": full(1, 4), "b": full(2, 4)}) as other:
        buffer = other.run()["y"]
    with session.bind({"a": full(1, 4), "b": full(2, 4)}, {"y": buffer}) as binding:
        for number in range(4):
            assert binding.run({"a": full(number, 4)})["y"] is buffer
            check_same(buffer.numpy(), full(number + 2, 4))


@pytest.mark.parametrize("order", ["binding first", "session first", "neither"])
def test_what_is_closed_first_does_not_matter(order: str):
    session = open_captured(MLP)
    feed = {"x": floats(2, 16)}
    bindings = [session.bind(feed) for _ in range(2)]
    results = [one.run()["y"] for one in bindings]
    if order == "binding first":
        bindings[0].close()
    if order != "neither":
        session.close()
    for one in bindings if order == "session first" else ():
        one.close()
    del bindings, session
    gc.collect()
    for result in results:
        check_same(result.numpy(), wanted_of(MLP, feed)["y"])


def test_the_option_of_the_provider_asks_for_the_same(opened: Opened):
    target = {"provider": "webgpu", "options": {"enableGraphCapture": True}}
    with epkit.open(MLP, "t", config={"targets": {"t": target}}) as session:
        assert session.report.graph == opened(MLP).report.graph
        feed = {"x": floats(2, 16, seed=3)}
        with session.bind({"x": floats(2, 16)}) as binding:
            assert captured(binding)
            binding.run()
            check_same(owned(binding.run(feed)), wanted_of(MLP, feed))


# What stands in the way


def branches() -> bytes:
    def branch(name: str, operator: str) -> object:
        return helper.make_graph([helper.make_node(operator, ["x"], ["y"])], name, [], [value("y", ["N"])])

    nodes = [
        helper.make_node("If", ["c"], ["z"], then_branch=branch("yes", "Relu"), else_branch=branch("no", "Neg")),
    ]
    return model(nodes, [value("x", ["N"]), value("c", [], TensorProto.BOOL)], [value("z", ["N"])])


def sliced() -> bytes:
    return model(
        [helper.make_node("Slice", ["x", "from", "to"], ["y"])],
        [value("x", ["N"]), value("from", [1], TensorProto.INT64), value("to", [1], TensorProto.INT64)],
        [value("y", [2])],
    )


TWO = np.array([2])
OBSTACLES = {
    "control flow": (branches(), {"x": full(-1, 3), "c": np.array(True)}, "If, Loop or Scan"),
    "strings": (
        model(
            [helper.make_node("Identity", ["t"], ["u"]), helper.make_node("Relu", ["x"], ["y"])],
            [value("t", ["N"], STRING), value("x", ["N"])],
            [value("u", ["N"], STRING), value("y", ["N"])],
        ),
        {"t": np.array(["a", "b"], object), "x": full(1, 2)},
        "input 't' is string",
    ),
    "a node on the CPU": (
        model(
            [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["i"], ["j"])],
            [value("x", ["N"]), value("i", ["N"], TensorProto.INT64)],
            [value("y", ["N"]), value("j", ["N"], TensorProto.INT64)],
        ),
        {"x": full(1, 2), "i": TWO},
        "graph capture",
    ),
    "an output whose shape depends on data": (
        MODELS["shape from data"],
        {"x": np.array([0, 1], np.float32)},
        "output 'y' is int64 [1, K], whose shape does not follow",
    ),
    "an input that is read on the CPU": (
        sliced(),
        {"x": floats(5), "from": np.array([1]), "to": np.array([3])},
        "'from' is read on the CPU",
    ),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_stands_in_the_way_is_named_and_the_session_goes_on_without(name: str):
    contents, feed, told = OBSTACLES[name]
    with open_captured(contents) as session:
        graph = session.report.graph
        assert graph is not None
        assert not graph.possible
        assert told in graph.summary()
        with session.bind(feed) as binding:
            for _ in range(3):
                check_same(owned(binding.run()), wanted_of(contents, feed))
    with pytest.raises(ProviderDropped, match="asks for captured graphs") as error:
        open_captured(contents, strict=True)
    assert told in str(error.value)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_provider_that_captures_none_is_an_obstacle(provider: str):
    target = {"provider": provider, "cuda_graph": True}
    with epkit.open(MLP, "t", config={"targets": {"t": target}}) as session:
        assert session.report.graph is not None
        assert f"{provider} captures no graphs" in session.report.graph.summary()
        feed = {"x": floats(2, 16)}
        with session.bind(feed) as binding:
            check_same(owned(binding.run()), wanted_of(MLP, feed))
    with pytest.raises(ProviderDropped, match="captures no graphs"):
        epkit.open(MLP, "t", config={"targets": {"t": {**target, "strict": True}}})


# What a replay would give wrongly


@pytest.mark.parametrize("fill", [floats(2, 4), np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32)])
@pytest.mark.parametrize("operator", ["Identity", "Flatten"])
def test_a_model_whose_replays_are_stale_is_refused_whatever_it_is_bound_to(opened: Opened, operator: str, fill):
    """ONNX Runtime captures no copies between buffers: every replay gives what the first run gave."""
    contents = model([helper.make_node(operator, ["x"], ["y"])], [value("x", ["N", "M"])], [value("y", ["N", "M"])])
    with opened(contents).bind({"x": fill}) as binding:
        for _ in range(2):
            with pytest.raises(RunError, match=f"{STALE} for 'y'"):
                binding.run()
    check_same(opened(contents).run({"x": fill}), wanted_of(contents, {"x": fill}))


@pytest.mark.parametrize("dtype", ["int32", "float32", "uint32"])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_one_number_that_is_passed_on_by_a_copy_is_not_taken_for_right(opened: Opened, dtype: str, number: int):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    contents = model(
        [helper.make_node("Reshape", ["x", "s"], ["y"]), helper.make_node("Add", ["x", "x"], ["z"])],
        [value("x", [1, 1], kind)],
        [value("y", [1], kind), value("z", [1, 1], kind)],
        [numpy_helper.from_array(np.array([-1]), "s")],
    )
    with open_captured(contents) as session, session.bind({"x": np.full((1, 1), number, dtype)}) as binding:
        if unless_refused(binding) is None:
            return
        for other in range(3):
            check_same(owned(binding.run({"x": np.full((1, 1), other, dtype)})), {
                "y": np.full(1, other, dtype), "z": np.full((1, 1), 2 * other, dtype)
            })  # fmt: skip


def test_a_stale_output_that_hardly_changes_is_caught(opened: Opened):
    """Ten thousand, and a hundredth of the input beside it."""
    contents = model(
        [helper.make_node("Add", ["x", "much"], ["h"]), helper.make_node("Flatten", ["h"], ["y"])],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
        [numpy_helper.from_array(np.full(1, 10_000, np.float32), "much")],
    )
    x = floats(2, 4)
    with opened(contents).bind({"x": x}) as binding:
        if unless_refused(binding) is None:
            return
        check_same(owned(binding.run({"x": x + 1})), wanted_of(contents, {"x": x + 1}))


class Idle:
    """A session whose replays do nothing at all."""

    def __init__(self, session: object, uncaptured: object) -> None:
        self._session = session
        self._uncaptured = uncaptured
        self.runs = 0

    def run_with_iobinding(self, binding: object, options: object) -> None:
        self.runs += options is not self._uncaptured
        if options is self._uncaptured or self.runs == 1:
            self._session.run_with_iobinding(binding, self._uncaptured)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


def test_a_replay_that_does_nothing_is_caught():
    with open_captured(MLP) as session:
        graphs = session._caller.graphs
        assert graphs is not None
        graphs._session = Idle(graphs._session, graphs.uncaptured)
        with session.bind({"x": floats(2, 16)}) as binding, pytest.raises(RunError, match="other numbers"):
            binding.run()


def test_a_capture_that_fails_leaves_nothing_behind(opened: Opened):
    with opened(ADD).bind({"a": full(1, 4), "b": full(2, 4)}) as binding:
        binding.run()
        for _ in range(2):
            with pytest.raises(RunError):
                binding.run({"a": full(1, 3), "b": full(1, 5)})
        for number in range(3):
            check_same(owned(binding.run({"a": full(number, 4), "b": full(2, 4)}))["y"], full(number + 2, 4))
            check_same(owned(binding.run({"a": full(number, 3), "b": full(1, 3)}))["y"], full(number + 1, 3))


def test_bindings_of_many_threads_come_and_go(opened: Opened):
    def work(number: int) -> None:
        for turn in range(5):
            feed = {"x": floats(1 + turn % 3, 16, seed=10 * number + turn)}
            check_same(owned(opened(MLP).bind(feed).run()), wanted_of(MLP, feed))

    together(work, 4)
    check_same(owned(opened(identity()).run({"x": full(1, 2)})), {"y": full(1, 2)})


DROPPED = """
session = epkit.open(mlp(), "t", config={"targets": {"t": {"provider": "webgpu", "cuda_graph": True}}})
arrays = [np.ones((rows, 16), np.float32) for rows in (1, 5)]

def bound():
    for array in arrays:
        session.bind(array).run()
        with session.bind(array) as binding:
            binding.run()

watched(times(bound), 50, 100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc/self/statm")
def test_memory_does_not_grow_with_the_bindings_that_were_made_and_dropped():
    assert grown(DROPPED) < MOST_KB
