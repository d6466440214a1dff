"""What does a run through epkit cost beside ONNX Runtime's own, with all input checks on?

    uv run pytest benchmarks/test_run_path.py --benchmark-only -s

All run in this process, on one core, in short blocks that alternate in random order; a ratio is that of two blocks'
medians, and what is printed is the median of the ratios with its quartiles. Below 1, epkit is the quicker one. A
binding's results view its buffers; those of `run` are the caller's own, in both.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from models import identity, light, model, value
from onnx import helper, numpy_helper
from pytest_benchmark.fixture import BenchmarkFixture

import epkit

BLOCKS = 60
PLAIN = "InferenceSession.run"
Call = Callable[[dict[str, np.ndarray]], Any]


def mlp() -> bytes:
    """Build three matrix products, 256-512-512-64, with Relu between them."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    last = "x"
    for layer, shape in enumerate([(256, 512), (512, 512), (512, 64)]):
        weights.append(numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) / 20, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu" if layer < 2 else "Identity", [f"m{layer}"], [f"h{layer}"]))
        last = f"h{layer}"
    return model(nodes, [value("x", ["N", 256])], [value(last, ["N", 64])], weights)


MODELS: dict[str, tuple[Callable[[], bytes], tuple[int, ...], int]] = {
    "Identity on 8 floats": (identity, (8,), 300),
    "MLP 256-512-512-64": (mlp, (1, 256), 100),
    "light_resnet50": (lambda: light("resnet50").read_bytes(), (1, 3, 224, 224), 2),
}


@pytest.fixture(autouse=True)
def _one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("name", MODELS)
def test_run_beside_plain_onnx_runtime(name: str, benchmark: BenchmarkFixture) -> None:
    build, shape, runs = MODELS[name]
    contents = build()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    plain = onnxruntime.InferenceSession(contents, options)
    rng = np.random.default_rng(0)
    # Two of them in turn, so that no call finds the array that it was given last.
    feeds = itertools.cycle([{plain.get_inputs()[0].name: rng.random(shape, dtype=np.float32)} for _ in range(2)])
    with epkit.open(contents, "cpu", session_options={"intra_op_num_threads": 1}) as session:
        binding = session.bind(next(feeds))
        calls: dict[str, Call] = {
            PLAIN: lambda feed: plain.run(None, feed),
            "session.run": session.run,
            "binding.run": binding.run,
        }
        for _ in range(4):
            _check(plain, calls, next(feeds))
        medians = [_medians(calls, feeds, runs) for _ in range(BLOCKS)]
        _check(plain, calls, next(feeds))
        print(f"\n{name}: InferenceSession.run {statistics.median(one[PLAIN] for one in medians) / 1e3:.1f} us", end="")
        for call in ("session.run", "binding.run"):
            ratios = sorted(one[call] / one[PLAIN] for one in medians)
            low, middle, high = statistics.quantiles(ratios, n=4)
            benchmark.extra_info[f"{call}, ratio to plain"] = middle
            print(f"; {call} {middle:.3f} of it (quartiles {low:.3f} to {high:.3f})", end="")
        print()
        feed = next(feeds)
        benchmark.pedantic(session.run, args=(feed,), rounds=20, iterations=runs)


WATCHED = "session.run, watched"


@pytest.mark.parametrize("name", list(MODELS)[:2])
def test_run_while_somebody_observes(name: str, benchmark: BenchmarkFixture) -> None:
    """Nobody observes a session: its run is as before. Somebody does: this is what each run pays."""
    build, shape, runs = MODELS[name]
    contents = build()
    one_thread = {"intra_op_num_threads": 1}
    rng = np.random.default_rng(0)
    events: list[object] = []
    with contextlib.ExitStack() as stack:
        before = stack.enter_context(epkit.open(contents, "cpu", session_options=one_thread))
        stack.enter_context(epkit.observe(events.append))
        watched = stack.enter_context(epkit.open(contents, "cpu", session_options=one_thread))
        assert type(before._caller.session) is onnxruntime.InferenceSession  # the same code as ever runs it
        (only,) = before.inputs
        feeds = itertools.cycle([{only.name: rng.random(shape, dtype=np.float32)} for _ in range(2)])
        calls: dict[str, Call] = {"session.run": before.run, WATCHED: watched.run}
        medians = [_medians(calls, feeds, runs) for _ in range(BLOCKS)]
        benchmark.pedantic(watched.run, args=(next(feeds),), rounds=20, iterations=runs)
    ratios = sorted(one[WATCHED] / one["session.run"] for one in medians)
    low, middle, high = statistics.quantiles(ratios, n=4)
    extra = statistics.median(one[WATCHED] - one["session.run"] for one in medians) / 1e3
    benchmark.extra_info["watched, ratio to unwatched"] = middle
    print(f"\n{name}: an observer makes a run {middle:.3f} of its time (quartiles {low:.3f} to {high:.3f}),")
    print(f"{extra:.2f} us more; {len(events)} events were told")


def _check(plain: onnxruntime.InferenceSession, calls: dict[str, Call], feed: dict[str, np.ndarray]) -> None:
    wanted = plain.run(None, feed)
    for call in ("session.run", "binding.run"):
        for found, array in zip(calls[call](feed).values(), wanted, strict=True):
            np.testing.assert_array_equal(found, array)


def _medians(calls: dict[str, Call], feeds: Iterator[dict[str, np.ndarray]], runs: int) -> dict[str, float]:
    """Return the median nanoseconds of each call, from a block of runs each, in random order."""
    medians = {}
    for key in random.sample(sorted(calls), len(calls)):
        seconds = []
        for _ in range(runs):
            feed = next(feeds)
            started = time.perf_counter_ns()
            calls[key](feed)
            seconds.append(time.perf_counter_ns() - started)
        # The first runs after another session's are slower than any that follow.
        medians[key] = statistics.median(seconds[len(seconds) // 10 :])
    return medians
