"""What memory is held, what gives it back, and what is said of it beforehand."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from capabilities import SECOND
from hypothesis import given, settings
from hypothesis import strategies as st
from models import identity, mlp, model, value
from onnx import TensorProto, helper
from texts import says
from tiers import slow_but
from together import together

import epkit
from epkit.config.file import load
from epkit.config.target import arenas, read
from epkit.discovery.registry import discover
from epkit.errors import ConfigError, ProviderUnavailable
from epkit.model import sample
from epkit.runtime.arena import ArenaShrinkage, count_bytes

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds")


def chain(**keys: object) -> dict[str, object]:
    return {"targets": {"t": {"provider": "cpu", **keys}}}


def child(code: str) -> list[int]:
    """Run code in a process of its own; it prints what it held at some points, in bytes."""
    start = "import json, numpy as np, epkit\nfrom epkit.model import sample\n"
    start += "from epkit._system.platform import rss, trim_heap\n"
    start += "from models import mlp, model, value\nfrom onnx import helper\n"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


# -- shrinking

LARGE_RUN = """
config = {{"targets": {{"t": {{"provider": "cpu", "session_options": {options}, **{keys}}}}}}}
session = epkit.open(sample.path(), "t", config=config)
small = np.zeros((1, 3, 128, 128), np.float32)
for _ in range(3): session.run(small)
before = rss()
for size in {sizes}:
    session.run(np.zeros((size, 3, 128, 128), np.float32))
after = rss()
session.run(small)
print(json.dumps([before, after, rss()]))
"""


def large_run(*, keys: object = {}, options: object = {}, sizes: object = (64,)) -> tuple[int, int]:
    """Return by how much the memory of a process has grown after large runs, and after a small one more."""
    before, after, later = child(LARGE_RUN.format(keys=keys, options=options, sizes=sizes))
    return after - before, later - before


@linux
@pytest.mark.parametrize("sizes", [(64,), pytest.param((8, 16, 32, 64), marks=pytest.mark.slow)])
def test_a_large_run_holds_its_memory_unless_it_is_told_to_give_it_back(sizes):
    held, _ = large_run(sizes=sizes)
    assert held > 32 * MIB
    _, later = large_run(sizes=sizes, keys={"shrink_above": "4 MiB"})
    assert later < held / 2


@pytest.mark.slow
@linux
def test_without_an_arena_what_was_freed_is_given_back_too():
    held, _ = large_run()
    _, free = large_run(options={"enable_cpu_mem_arena": False}, keys={"shrink_above": "4 MiB"})
    assert free < held / 2


WARMED_UP = """
config = {"targets": {"t": {"provider": "cpu", "shrink_above": "4 MiB", "warmup": {"batches": [64, 1]}}}}
with epkit.open(sample.path(), "cpu") as other:
    other.run(np.zeros((1, 3, 128, 128), np.float32))
before = rss()
session = epkit.open(sample.path(), "t", config=config)
print(json.dumps([before, rss(), session.report.warmup[1].grew_bytes]))
"""


@linux
def test_a_warm_up_with_large_shapes_does_not_hold_memory_that_is_to_be_given_back():
    before, after, grew = child(WARMED_UP)
    assert grew > 32 * MIB
    assert after - before < grew / 2


LARGE_OUTPUT = """
grow = model([helper.make_node("Expand", ["x", "shape"], ["y"])],
             [value("x", [1]), value("shape", [1], 7)], [value("y", ["n"])])
session = epkit.open(grow, "t", config={"targets": {"t": {"provider": "cpu", "shrink_above": "1 MiB"}}})
run = lambda n: session.run({"x": np.ones(1, np.float32), "shape": np.array([n])})
run(4)
before = rss()
kept = run(16_000_000)["y"]
run(4)
held = rss()
whole = bool((kept == 1).all())
del kept
run(4)
print(json.dumps([before, held, rss(), whole]))
"""


@linux
def test_a_large_output_is_given_back_with_the_first_run_after_it_was_dropped():
    before, held, later, whole = child(LARGE_OUTPUT)
    assert whole
    assert held - before > 32 * MIB
    assert later - before < (held - before) / 2


LENT = """
session = epkit.open(mlp(), "t", config={"targets": {"t": {"provider": "cpu", "shrink_above": "1 MiB"}}})
small = np.zeros((1, 16), np.float32)
for _ in range(5): session.run(small)
before = rss()
session.run(np.zeros((500_000, 16), np.float32))
held = rss()
session.run(small)
print(json.dumps([before, held, rss()]))
"""


@linux
def test_a_run_that_would_borrow_a_binding_gives_back_too():
    before, held, later = child(LENT)
    assert held - before > 16 * MIB
    assert later - before < (held - before) / 2


def test_runs_with_a_time_limit_and_runs_that_are_awaited_give_back_too(monkeypatch):
    told = []
    monkeypatch.setattr(ArenaShrinkage, "set_option", lambda self, options: told.append(options))
    array = np.zeros((4096, 16), np.float32)
    with epkit.open(mlp(), "t", config=chain(shrink_above="64 KiB", warmup={"runs": 0})) as session:
        session.run(array, timeout=60)
        asyncio.run(session.run_async(array))
    assert len(told) == 2


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 9)), min_size=1, max_size=8))
def test_results_are_the_same_with_and_without(runs):
    with (
        epkit.open(mlp(), "cpu", config={}) as plain,
        epkit.open(mlp(), "t", config=chain(shrink_above=4096)) as frugal,
    ):
        kept = []
        for batch, seed in runs:
            array = np.random.default_rng(seed).standard_normal((batch, 16), dtype=np.float32)
            kept.append((plain.run(array)["y"], frugal.run(array)["y"], frugal.run(array, ["y"])["y"]))
        for wanted, *found in kept:  # at the end: what a run returned stays what it was
            for one in found:
                np.testing.assert_array_equal(one, wanted)


def test_types_that_plain_run_cannot_carry_are_given_back_too():
    array = np.arange(4096).astype(ml_dtypes.bfloat16)
    with epkit.open(identity(TensorProto.BFLOAT16), "t", config=chain(shrink_above=1024)) as session:
        for _ in range(3):
            assert (session.run(array)["y"] == array).all()


def test_many_threads_may_shrink_one_session():
    wrong: list[object] = []
    with epkit.open(identity(), "t", config=chain(shrink_above=1024)) as session:

        def work(number: int) -> None:
            for count in (8, 4096, 8, 100_000):
                result = session.run(np.full(count, number, np.float32))["y"]
                wrong.extend([number] * bool((result != number).any()))

        together(work)
    assert wrong == []


def test_only_runs_above_the_limit_carry_the_option_and_the_first_one_after_their_outputs_are_gone():
    shrink = ArenaShrinkage(100, ["cpu:0"])
    small, large = {"x": np.zeros(10, np.uint8)}, {"x": [np.zeros(60, np.uint8), np.zeros(60, np.uint8)]}
    assert count_bytes(large) == 120
    assert not shrink.should_shrink(small)
    assert shrink.should_shrink(large)
    result = {"y": np.zeros(101, np.uint8)}
    view = result["y"][3:]
    shrink.record_results(result)
    assert not shrink.should_shrink(small)
    del result
    assert not shrink.should_shrink(small)
    del view
    assert shrink.should_shrink(small)
    assert not shrink.should_shrink(small)


@pytest.mark.parametrize(
    ("keys", "held"),
    [
        ({"provider": "cpu"}, ("cpu:0",)),
        ({"provider": "openvino", "cpu": False}, ("cpu:0",)),
        ({"provider": "cuda", "device": 1}, ("cpu:0", "gpu:1")),
        ({"provider": "tensorrt", "fallback": ["cuda"]}, ("cpu:0", "gpu:0")),
        ({"provider": "cuda", "session_options": {"enable_cpu_mem_arena": False}}, ("gpu:0",)),
        ({"provider": "cpu", "session_options": {"enable_cpu_mem_arena": False}}, ()),
    ],
)
def test_the_arenas_of_a_session_follow_from_its_providers(keys, held):
    target = read("t", load({"targets": {"t": keys}}), discover())
    assert arenas(target.chain, target.session_options) == held


def test_an_arena_that_a_session_does_not_have_would_fail_the_run():
    session = onnxruntime.InferenceSession(mlp())
    feed = {"x": np.zeros((1, 16), np.float32)}
    for arena, there in (("cpu:0", True), ("gpu:0", False), ("cuda:0", False), ("cpu:1", False)):
        options = onnxruntime.RunOptions()
        ArenaShrinkage(0, [arena]).set_option(options)
        with contextlib.nullcontext() if there else pytest.raises(Exception, match="INVALID_ARGUMENT"):
            session.run(None, feed, options)


@pytest.mark.parametrize("provider", slow_but(["cpu", SECOND], "cpu"))
def test_a_session_shrinks_only_the_arenas_that_it_has(provider):
    for cpu in (True, False) if provider == "openvino" else (True,):
        config = {"targets": {"t": {"provider": provider, "cpu": cpu, "shrink_above": 16}}}
        with epkit.open(mlp(), "t", config=config) as session:
            assert session.run(np.ones((4, 16), np.float32))["y"].shape == (4, 16)


ARENA = """
session = epkit.open(sample.path(), "cpu", session_options={"enable_cpu_mem_arena": ARENA})
session.run(np.zeros((1, 3, 128, 128), np.float32))
trim_heap()
before = rss()
session.run(np.zeros((64, 3, 128, 128), np.float32))
trim_heap()
print(json.dumps([before, rss()]))
"""


@linux
def test_an_arena_holds_what_a_session_without_one_frees():
    (before, after), (free_before, free_after) = (child(ARENA.replace("ARENA", str(arena))) for arena in (True, False))
    assert after - before > 32 * MIB
    assert free_after - free_before < (after - before) / 2


def test_the_limit_is_bytes_or_text_with_a_unit():
    for written, held in (("64 MiB", 64 * MIB), ("1KB", 1000), (4096, 4096)):
        assert read("t", load(chain(shrink_above=written)), discover()).shrink_above == held
    for wrong in (0, -1, "many", "", True, [1]):
        with says(ConfigError):
            read("t", load(chain(shrink_above=wrong)), discover())


# -- the settings of ONNX Runtime


@pytest.mark.parametrize("name", ["enable_cpu_mem_arena", "enable_mem_pattern", "enable_mem_reuse"])
@pytest.mark.parametrize("setting", [True, False])
def test_memory_settings_reach_the_session(name, setting):
    with epkit.open(mlp(), "cpu", session_options={name: setting}) as session:
        assert getattr(session._caller.session.get_session_options(), name) is setting


@pytest.mark.parametrize(
    "key",
    ["session.use_env_allocators", "session.use_device_allocator_for_initializers", "session.disable_prepacking"],
)
def test_memory_entries_reach_the_session(key):
    with epkit.open(mlp(), "cpu", session_options={"config": {key: True}}) as session:
        assert session._caller.session.get_session_options().get_session_config_entry(key) == "1"
        assert session.run(np.ones((1, 16), np.float32))["y"].shape == (1, 16)


@pytest.mark.slow
@linux
def test_a_memory_pattern_takes_a_piece_of_its_own_from_the_second_run_of_a_shape_on():
    planned, _ = large_run(sizes=(64, 64))
    free, _ = large_run(sizes=(64, 64), options={"enable_mem_pattern": False})
    assert planned > 1.2 * free


# -- closing

THIRTY = """
contents = mlp(width=2048)  # 32 MiB of weights
array = np.zeros((1, 2048), np.float32)
with epkit.open(mlp(), "{provider}") as session:
    session.run(np.zeros((1, 16), np.float32))
before, opened, closed = rss(), [], []
sessions = []
for _ in range(30):
    session = epkit.open(contents, "{provider}")
    session.run(array)
    opened.append(rss() - before)
    session.close()
    closed.append(rss() - before)
    sessions.append(session)  # one that is closed holds nothing, though somebody still holds it
print(json.dumps([min(opened), max(opened), closed[0], max(closed), closed[-1]]))
"""


@pytest.mark.slow
@linux
@pytest.mark.parametrize("provider", slow_but(["cpu", SECOND], "cpu"))
def test_thirty_sessions_opened_and_closed_take_no_more_than_a_few(provider):
    least, most, first, highest, last = child(THIRTY.format(provider=provider))
    assert least > 24 * MIB  # the weights were there
    assert most < 6 * 32 * MIB
    assert highest < least + 32 * MIB
    assert last < max(least / 2, 48 * MIB)
    assert last < first + 32 * MIB


# -- estimates, and what is measured beside them


@given(st.integers(1, 200), st.integers(1, 1000), st.integers(1, 64))
def test_an_estimate_grows_with_the_batch_but_for_the_weights(width, batch, other):
    found = epkit.inspect(mlp(width=width), (batch, other))
    for one in found.batches:
        held = one.estimate
        assert held.weights == 2 * width * width * 4
        assert held.inputs == held.outputs == one.batch * width * 4
        assert held.batch == one.batch
        assert held.total == held.weights + held.inputs + held.outputs
        assert f"batch as {one.batch}" in held.covers
    assert [one.batch for one in found.batches] == list(dict.fromkeys((batch, other)))


def test_intermediate_tensors_are_estimated_where_the_model_declares_them():
    one, four = (row.estimate for row in epkit.inspect(sample.path(), (1, 4)).batches)
    assert four.intermediates == pytest.approx(4 * one.intermediates, rel=0.01)
    assert one.at_once < one.intermediates / 4
    assert four.declared == four.computed > 50


@given(st.integers(2, 12), st.integers(1, 50), st.booleans())
def test_an_intermediate_tensor_counts_from_its_node_to_the_last_one_that_reads_it(depth, batch, residual):
    names = ["x", *(f"h{index}" for index in range(depth))]
    nodes = [helper.make_node("Sin", [read], [made]) for read, made in itertools.pairwise(names)]
    # The first one lives to the end where the last node reads it once more.
    nodes.append(helper.make_node("Add", [names[-1], names[1] if residual else names[-1]], ["y"]))
    graph = helper.make_graph(nodes, "deep", [value("x", ["n"])], [value("y", ["n"])])
    graph.value_info.extend(value(name, ["n"]) for name in names[1:])
    contents = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (row,) = epkit.inspect(contents.SerializeToString(), (batch,)).batches
    assert row.estimate.intermediates == depth * batch * 4
    assert row.estimate.at_once == min(depth, 3 if residual else 2) * batch * 4


def test_a_first_dimension_without_a_name_is_the_batch():
    (row,) = epkit.inspect(identity(shape=[None, 8]), (5,)).batches
    assert row.estimate.inputs == row.estimate.outputs == 5 * 8 * 4
    (row,) = epkit.inspect(identity(shape=[None, "width"]), (5,)).batches
    assert row.estimate.inputs == 5 * 4


@pytest.mark.parametrize(
    ("contents", "arguments", "told"),
    [
        (mlp(batch=2), {"batches": (1,)}, "no input whose first dimension is dynamic"),
        (identity(shape=[]), {"batches": (1,)}, "no input whose first dimension is dynamic"),
        (mlp(), {"batches": (0,)}, "an integer of at least 1"),
        (mlp(), {"batches": (True,)}, "an integer of at least 1"),
        (mlp(), {"target": "cpu"}, "no batch size"),
        (mlp(), {"batches": (1,), "target": "cpuu"}, "cpuu"),
        (
            mlp(),
            {"batches": (1,), "target": "t", "config": chain(warmup={"dimensions": {"batch": 2}})},
            "size of batch is set already",
        ),
    ],
)
def test_batch_sizes_that_cannot_be_are_config_errors(contents, arguments, told):
    with says(ConfigError):
        epkit.inspect(contents, **arguments)


def test_what_a_machine_does_not_have_cannot_be_measured_on_it():
    if next(row for row in epkit.providers().rows if row.name == "tensorrt").status == "usable":
        pytest.skip("this machine has tensorrt")
    with says(ProviderUnavailable):
        epkit.inspect(mlp(), (1,), "tensorrt")


@linux
@pytest.mark.parametrize("provider", slow_but(["cpu", SECOND], "cpu"))
def test_what_was_measured_stands_beside_the_estimate(provider, tmp_path):
    (tmp_path / "m.onnx").write_bytes(mlp(width=256))
    found = epkit.inspect(tmp_path / "m.onnx", (1, 20_000), provider)
    one, many = (row.measured for row in found.batches)
    assert one is not None
    assert many is not None
    assert one.provider == many.provider == provider
    assert "100 %" in many.summary
    estimate = found.batches[1].estimate
    assert one.run is not None
    assert many.run is not None
    assert many.opened is not None
    assert many.run - one.run > 0.9 * (estimate.inputs + estimate.outputs) > 2 * one.run
    assert many.total == many.opened + many.run
    written = json.loads(json.dumps(found.as_json()))["batches"][1]
    assert written["measured"]["total"] == many.total
    assert written["estimate"]["total"] == estimate.total


def test_a_target_from_a_mapping_and_a_model_given_as_bytes_can_be_measured():
    (row,) = epkit.inspect(mlp(), (4,), "t", chain(session_options={"intra_op_num_threads": 1})).batches
    assert row.measured is not None
    assert (row.measured.provider, row.measured.fault) == ("cpu", "")


def test_a_batch_size_that_the_model_does_not_run_is_a_fault_of_that_row():
    fixed = model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", ["batch", 2])],
        [value("y", ["batch", 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [1.0] * 6)],
    )
    two, three = (row.measured for row in epkit.inspect(fixed, (2, 3), "cpu").batches)
    assert two is not None
    assert three is not None
    assert "Add" in two.fault
    assert two.total is None
    assert three.fault == ""
