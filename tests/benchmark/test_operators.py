"""Where the time of a run goes: what ONNX Runtime's profile says, read and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from capabilities import needs
from documents import made_up
from hypothesis import given
from hypothesis import strategies as st
from models import light, model, value
from onnx import TensorProto, helper, numpy_helper
from pydantic import TypeAdapter

from epkit.benchmark import storage
from epkit.benchmark.operators.profile import COMPILED, Inside, Node, Operators, read_profile
from epkit.benchmark.operators.profiler import Task, profile
from epkit.benchmark.report.operators import (
    by_operator,
    copies,
    fallback_nodes,
    inside_parts,
    node_seconds,
    operator_tables,
    remarks,
)
from epkit.config.file import load
from epkit.discovery.registry import discover
from epkit.model import sample
from epkit.parity.feed import Feed
from epkit.session.fault import WorkerFault
from epkit.session.request import plan_targets, read_candidates

CPU = {"CPUExecutionProvider": "cpu"}


def profiled(source: Path, target: str, *, bound: bool = False, config: Mapping[str, object] | None = None):
    registry = discover()
    (candidate,) = plan_targets(read_candidates([target], load(config), registry), registry)
    return profile(candidate, Task(source, False, config, Feed(), bound))


def kept(folder: Path, contents: bytes) -> Path:
    file = folder / "model.onnx"
    file.write_bytes(contents)
    return file


def weight(name: str, values: object) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def looping(steps: int) -> bytes:
    """Build a Relu and a Loop of so many steps with an Add in it, and an If that takes one of two branches."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "x"], ["twice"], name="add")],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("x", [8])],
        [value("on", [], TensorProto.BOOL), value("twice", [8])],
    )
    branches = [
        helper.make_graph([helper.make_node(operator, ["l"], ["o"], name=operator)], operator, [], [value("o", [8])])
        for operator in ("Sqrt", "Neg")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Loop", ["n", "t", "r"], ["l"], name="loop", body=body),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0, name="sum"),
        helper.make_node("IsNaN", ["s"], ["c"], name="nan"),
        helper.make_node("If", ["c"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1]),
    ]
    weights = [weight("n", np.int64(steps)), weight("t", np.bool_(True))]
    return model(nodes, [value("x", [8])], [value("y", [8])], weights)


def interrupted() -> bytes:
    """Build a chain in which OpenVINO leaves the one in the middle, Det, to the CPU."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="before"),
        helper.make_node("Det", ["a"], ["d"], name="det"),
        helper.make_node("Add", ["a", "d"], ["y"], name="after"),
    ]
    square = [64, 64]
    return model(nodes, [value("x", square)], [value("y", square)], [weight("w", np.eye(64, dtype=np.float32))])


# Real profiles


def test_every_operator_that_the_cpu_ran_is_there_and_none_fallback_nodes():
    found = profiled(sample.path(), "cpu")
    assert isinstance(found, Operators)
    assert found.runs >= 2
    assert {"Conv", "Softmax", "LayerNormalization"} <= {one.operator for one in found.nodes}
    assert {one.provider for one in found.nodes} == {"cpu"}
    assert {one.calls for one in found.nodes} == {1.0}
    assert all(one.seconds >= 0 for one in found.nodes)
    assert node_seconds(found) > 0
    assert found.slowdown is not None
    assert fallback_nodes(found) == copies(found) == inside_parts(found) == found.launched == ()
    assert found.crossings == 0
    assert TypeAdapter(Operators).validate_json(TypeAdapter(Operators).dump_json(found)) == found


@needs("openvino")
def test_openvino_runs_the_whole_model_as_one_part_and_tells_what_is_inside():
    found = profiled(light("squeezenet"), "openvino", bound=True)
    assert isinstance(found, Operators)
    assert [(one.name, one.operator, one.provider, one.calls) for one in found.nodes] == [
        ("part 0", COMPILED, "openvino", 1.0)
    ]
    assert {one.operator: one.calls for one in found.inside}["Convolution"] == 26
    assert sum(one.share for one in inside_parts(found)) == pytest.approx(1)
    assert [one.title for one in operator_tables(found)][-1] == "Inside the compiled parts, as the provider reports it"


@needs("openvino")
def test_a_node_that_openvino_leaves_to_the_cpu_is_named_and_the_crossings_are_counted(tmp_path):
    found = profiled(kept(tmp_path, interrupted()), "openvino")
    assert isinstance(found, Operators)
    assert [(one.operator, one.provider) for one in found.nodes] == [
        (COMPILED, "openvino"),
        ("Det", "cpu"),
        (COMPILED, "openvino"),
    ]
    assert [one.name for one in fallback_nodes(found)] == ["det"]
    assert found.crossings == 2
    said = remarks(found)
    assert said[0].startswith("1 node fell back from openvino and took ")
    assert "a run crosses between providers 2 times; without a copy: both work in the CPU's memory" in said
    assert [one.title for one in operator_tables(found)][:2] == ["Operators", "Fell back from openvino"]


def test_what_goes_to_a_device_and_back_is_copied(tmp_path):
    found = profiled(kept(tmp_path, interrupted()), "webgpu")
    if isinstance(found, WorkerFault) and found.kind == "ProviderUnavailable":
        pytest.skip(found.reason)
    assert isinstance(found, Operators)
    assert {one.operator: one.moved_bytes for one in copies(found)} == {
        "MemcpyToHost": 64 * 64 * 4,
        "MemcpyFromHost": 4,
    }
    assert [one.name for one in fallback_nodes(found)] == ["det"]
    assert found.crossings == 2
    assert found.launched == ("webgpu",)
    assert "Copies between providers" in [one.title for one in operator_tables(found)]


def test_what_runs_inside_of_a_loop_is_counted_once_and_a_branch_not_taken_not_at_all(tmp_path):
    found = profiled(kept(tmp_path, looping(50)), "cpu")
    assert isinstance(found, Operators)
    by_name = {one.name: one for one in found.nodes}
    assert by_name["add"].calls == 50
    assert by_name["loop"].calls == 1
    assert "Neg" in by_name
    assert "Sqrt" not in by_name
    # A loop that held its body's time as well would make the whole longer than the run.
    assert node_seconds(found) <= found.run_s * 1.5


def test_a_model_that_fails_in_its_run_is_a_fault_with_the_cause(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    contents = model(nodes, [value("x", ["n"])], [value("y", [3])], [weight("s", np.int64([3]))])
    found = profiled(kept(tmp_path, contents), "cpu")
    assert isinstance(found, WorkerFault)
    assert (found.status, found.kind) == ("failed", "RunError")
    assert "Reshape" in found.reason


def test_the_document_keeps_them(tmp_path):
    nodes = (Node("conv", "Conv", "cpu", 1e-3, 1.0), Node("part 0", COMPILED, "openvino", 2e-3, 1.0))
    found = Operators(20, "openvino", 4e-3, 1.1, nodes, (Inside("Add", "openvino", 1e-3, 2.0),), 1.0, (), ("a note",))
    made = made_up({"cpu": 0.01, "openvino": 0.008}, sweeps=2)
    first, second = made.candidates
    measured = replace(made.measured, candidates=(first, replace(second, operators=found)))
    written = replace(made, measured=measured)
    storage.write(written, tmp_path / "bench.json")
    assert storage.read(tmp_path / "bench.json").candidates[1].operators == found


# Reading


def event(name: str, start: int, took: int, operator: str = "", ep: str = "CPU", thread: int = 1, **more: object):
    if operator:
        given = {"provider": f"{ep}ExecutionProvider", "op_name": operator, **more}
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": took, "tid": thread, "args": given}
    return {"cat": "Session", "name": name, "ts": start, "dur": took, "tid": thread, "args": {}}


# As ONNX Runtime 1.31.1 wrote it of a Loop with two steps, shortened.
LOOP = [
    event("pre", 22, 41, "Relu"),
    event("mul", 87, 20, "Mul"),
    event("add", 132, 15, "Add"),
    event("SequentialExecutor::Execute", 86, 66),
    event("mul", 157, 14, "Mul"),
    event("add", 201, 33, "Add"),
    event("SequentialExecutor::Execute", 156, 83),
    event("loop", 72, 180, "Loop"),
    event("SequentialExecutor::Execute", 20, 414),
    event("model_run", 0, 440),
]


def seconds(found: Operators | None) -> dict[str, float]:
    assert found is not None
    return {one.name: pytest.approx(one.seconds * 1e6) for one in found.nodes}


def test_the_own_time_of_a_loop_is_without_its_body():
    found = read_profile(LOOP, CPU, first="cpu", last=1)
    assert seconds(found) == {"pre": 41, "mul": 34, "add": 48, "loop": 180 - 20 - 15 - 14 - 33}


def test_a_loop_in_a_loop_is_counted_once():
    inner = [*LOOP[1:-2], event("SequentialExecutor::Execute", 70, 190)]
    found = read_profile([*inner, event("outer", 60, 210, "Loop"), *LOOP[-2:]], CPU, first="cpu", last=1)
    assert seconds(found) == {"mul": 34, "add": 48, "loop": 98, "outer": 210 - 180}


def test_cold_runs_are_left_out_and_the_median_is_taken():
    cold = [event("a", 5, 5000, "Relu"), event("model_run", 0, 6000)]
    warm = [
        one
        for at, took in ((10_000, 30), (20_000, 10), (30_000, 900))
        for one in (event("a", at + 5, took, "Relu"), event("model_run", at, took + 20))
    ]
    found = read_profile([*cold, *warm], CPU, first="cpu", last=3, plain_s=20e-6)
    assert found is not None
    assert (found.runs, found.run_s, found.slowdown) == (3, pytest.approx(50e-6), pytest.approx(1.5))
    assert seconds(found) == {"a": 30}


def test_a_profile_without_a_complete_run_says_nothing():
    assert read_profile(LOOP[:-1], CPU, first="cpu", last=1) is None


def test_nodes_that_ran_side_by_side_are_said_to():
    events = [event("a", 5, 90, "MatMul"), event("b", 6, 80, "MatMul", thread=2), event("model_run", 0, 100)]
    found = read_profile(events, CPU, first="cpu", last=1)
    assert found is not None
    assert "nodes ran side by side: together they take longer than the run" in remarks(found)


def test_copies_between_two_memories_are_no_fall_back_and_their_cost_is_told():
    """As ONNX Runtime 1.31.1 writes it of WebGPU; made up for CUDA, not recorded on a GPU."""
    events = [
        event("Memcpy_token_1", 1, 10, "MemcpyFromHost", "CUDA", output_size="4096"),
        event("conv", 20, 30, "Conv", "CUDA"),
        event("Memcpy", 60, 20, "MemcpyToHost", "CUDA", output_size="2048"),
        event("nms", 90, 40, "NonMaxSuppression"),
        event("model_run", 0, 140),
    ]
    names = {**CPU, "CUDAExecutionProvider": "cuda"}
    found = read_profile(events, names, first="cuda", last=1, launched=["tensorrt", "cuda"])
    assert found is not None
    assert [one.name for one in copies(found)] == ["Memcpy", "Memcpy_token_1"]
    assert [one.name for one in fallback_nodes(found)] == ["nms"]
    assert remarks(found) == (
        "1 node fell back from cuda and took 40.0 % of the time",
        "a run crosses between providers 1 time; 2 copies of 6.0 KiB take 0.030 ms, 30.0 % of the time, "
        "waiting for the device included",
        "on cuda the time of a node is that of its launch on the device; all nodes together are 71.4 % of a run",
        "read the shares here, and take times from the benchmark",
    )


# Showing

NAMES = st.sampled_from(["Conv", "Add", "MatMul", "Relu", "MemcpyToHost", COMPILED])
SOME = st.builds(
    Operators,
    runs=st.integers(1, 20),
    first=st.just("cpu"),
    run_s=st.floats(1e-6, 1),
    slowdown=st.none() | st.floats(0.5, 3),
    nodes=st.lists(
        st.builds(
            Node, st.text(max_size=3), NAMES, st.sampled_from(["cpu", "openvino"]), st.floats(0, 1), st.floats(0, 9)
        ),
        max_size=30,
    ).map(tuple),
    inside=st.lists(st.builds(Inside, NAMES, st.just("openvino"), st.floats(0, 1), st.floats(0, 9)), max_size=5).map(
        tuple
    ),
)


@given(SOME, st.integers(1, 5))
def test_no_time_is_lost_however_few_rows_are_shown(found, most):
    assert sum(one.seconds for one in by_operator(found)) == pytest.approx(node_seconds(found))
    assert [one.seconds for one in by_operator(found)] == sorted(
        (one.seconds for one in by_operator(found)), reverse=True
    )
    for one in operator_tables(found, most):
        assert len(one.rows) <= most + 1
        assert {len(row) for row in one.rows} <= {len(one.columns)}
    shown = operator_tables(found, most)[0].rows
    total = sum(float(row[2]) for row in shown)
    assert total == pytest.approx(node_seconds(found) * 1e3, abs=1e-3 * len(shown))
