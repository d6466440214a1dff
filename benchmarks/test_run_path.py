"""What does a run through epkit cost beside ONNX Runtime's own, with all input checks on?

    uv run pytest benchmarks/test_run_path.py --benchmark-only -s        # about ten minutes

The calls stand in `run_path_arms.py`. They are measured and judged as `epkit bench` does: fresh processes that meet in
short blocks, one thread each. Below 1, epkit is the quicker one. A binding's results view its buffers; those of `run`
are the caller's own, in both. pytest-benchmark times `session.run` beside that, in this process.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import epkit
from epkit.testing.benchmark_fixture import EpkitBench

ARMS = Path(__file__).with_name("run_path_arms.py")
MODELS: Mapping[str, tuple[str, Callable[[], bytes], tuple[int, ...]]] = runpy.run_path(str(ARMS))["MODELS"]
PLAIN = "InferenceSession.run"
BARE = "run_with_iobinding"
"""ONNX Runtime's own, with nothing checked: the input is copied into its buffer, and that is all."""
WATCHED = "session.run, watched"


@pytest.mark.parametrize("key", MODELS)
def test_run_beside_plain_onnx_runtime(key: str, benchmark: BenchmarkFixture, epkit_bench: EpkitBench) -> None:
    arms = {PLAIN: "plain", BARE: "bare", "session.run": "run", "binding.run": "binding"}
    calls = {name: f"{key}_{arm}" for name, arm in arms.items()}
    _measure(key, calls, benchmark, epkit_bench)


@pytest.mark.parametrize("key", list(MODELS)[:2])
def test_run_while_somebody_observes(key: str, benchmark: BenchmarkFixture, epkit_bench: EpkitBench) -> None:
    """Nobody observes a session: its run is as before. Somebody does: this is what each run pays."""
    _measure(key, {"session.run": f"{key}_run", WATCHED: f"{key}_watched"}, benchmark, epkit_bench)


def _measure(key: str, calls: Mapping[str, str], benchmark: BenchmarkFixture, epkit_bench: EpkitBench) -> None:
    title, build, shape = MODELS[key]
    found = epkit_bench.calls({name: f"{ARMS}:{arm}" for name, arm in calls.items()}, tolerance="exact")
    first, *others = calls
    medians = {found.candidates[one.candidate].target: one.median.value_s * 1e6 for one in found.findings.figures}
    assert medians, "too little time: --epkit-budget SECONDS"
    print(f"\n{title}: {first} {medians[first]:.2f} us", end="")
    for name in others:
        one = found.comparison(first, name)
        assert one is not None, "too little time: --epkit-budget SECONDS"
        benchmark.extra_info[f"{name}, ratio to {first}"] = one.time.ratio
        ratio = f"{one.time.ratio:.3f} of it ({one.time.low:.3f} to {one.time.high:.3f})"
        print(f"; {name} {ratio}, {(one.time.ratio - 1) * medians[first]:+.2f} us: {one.verdict}", end="")
    print()
    with epkit.open(build(), "cpu", session_options={"intra_op_num_threads": 1}) as session:
        feed = {session.inputs[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}
        benchmark(session.run, feed)
