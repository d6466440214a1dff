"""What does a run through epkit cost beside ONNX Runtime's own, with all input checks on?

    uv run pytest benchmarks/test_run_path.py --benchmark-only -s

Both run in this process, on one core, in short blocks that alternate in random order; a ratio is that of two blocks'
medians, and what is printed is the median of the ratios with its quartiles. Below 1, epkit is the quicker one.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from models import identity, light, model, value
from onnx import helper, numpy_helper
from pytest_benchmark.fixture import BenchmarkFixture

import epkit

PAIRS = 60


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
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    feed = {plain.get_inputs()[0].name: array}
    with epkit.open(contents, "cpu", session_options={"intra_op_num_threads": 1}) as session:
        calls = {"plain": lambda: plain.run(None, feed), "epkit": lambda: session.run(feed)}
        np.testing.assert_array_equal(calls["plain"]()[0], next(iter(session.run(feed).values())))
        ratios = [_pair(calls, runs) for _ in range(PAIRS)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        benchmark.extra_info["ratio to plain"] = middle
        print(f"\n{name}: session.run / InferenceSession.run = {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
        benchmark.pedantic(calls["epkit"], rounds=20, iterations=runs)


def _pair(calls: dict[str, Callable[[], object]], runs: int) -> float:
    medians = {}
    for key in random.sample(sorted(calls), len(calls)):
        seconds = []
        for _ in range(runs):
            started = time.perf_counter_ns()
            calls[key]()
            seconds.append(time.perf_counter_ns() - started)
        # The first runs after another session's are slower than any that follow.
        medians[key] = statistics.median(seconds[len(seconds) // 10 :])
    return medians["epkit"] / medians["plain"]
