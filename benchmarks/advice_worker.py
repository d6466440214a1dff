"""How do two ways to run a model compare in one process?

Started by advice.py: `advice_worker.py FOLDER MODEL SEED NAME...` prints the scores of these comparisons as JSON.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from advice_arms import MEMORY, PAIRS, WARMUPS, Arm, Pair

BLOCK, BUDGET = 0.012, 0.16
"""Seconds of a block, and of a comparison."""
THREADED_BLOCK, THREADED_BUDGET = 0.03, 0.6
SPIN = 0.06
"""Seconds to wait for the threads of the other arm to stop spinning: 50 ms on the machine this was written on."""
REQUESTS, REST = 12, 0.01
"""Of a block with idle time: its requests, and the seconds between them."""


def opened(folder: Path, model: str, arm: Arm) -> ort.InferenceSession:
    """Open a session as the arm says."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in arm.properties.items():
        if key == "batch":
            options.add_free_dimension_override_by_name(key, value)
        else:
            setattr(options, key, value)
    for key, value in arm.entries.items():
        options.add_session_config_entry(key, value)
    file = folder / f"{model}{'.saved' if arm.saved else ''}.onnx"
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def feed_for(session: ort.InferenceSession, batch: int = 1, scale: float = 1.0) -> dict[str, Any]:
    """Make inputs: seeded numbers from 0 to `scale`."""
    seeded = np.random.default_rng(2)
    sizes = {one.name: [size if isinstance(size, int) else batch for size in one.shape] for one in session.get_inputs()}
    return {name: seeded.random(shape, np.float32) * np.float32(scale) for name, shape in sizes.items()}


def call(folder: Path, model: str, arm: Arm) -> Callable[[], Any]:
    """Return what is timed: for most arms a run, from NumPy arrays to NumPy arrays."""
    session = opened(folder, model, arm)
    # The branches are worth running side by side only if they take a while; denormals are below 1.2e-38.
    feed = feed_for(session, 32 if model == "branches" else 1, 1e-40 if model == "denormals" else 1.0)
    names = [one.name for one in session.get_outputs()]
    buffers = {name: array.copy() for name, array in feed.items()}
    wide = {name: array.astype(np.float64) for name, array in feed.items()}
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feed.items()}
    binding = session.io_binding()

    def bind() -> None:
        binding.clear_binding_outputs()
        for name, buffer in buffers.items():
            binding.bind_cpu_input(name, buffer)
        for name in names:
            binding.bind_output(name)

    def bound() -> Any:
        for name, array in feed.items():
            np.copyto(buffers[name], array)
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    def bound_anew() -> Any:
        bind()
        return bound()

    bind()
    calls: Mapping[str, Callable[[], Any]] = {
        "run": lambda: session.run(None, feed),
        "idle": lambda: session.run(None, feed),
        "named": lambda: session.run(names, feed),
        "bound": bound,
        "bound-anew": bound_anew,
        "ort-values": lambda: [one.numpy() for one in session.run_with_ort_values(names, values)],
        "from-float64": lambda: session.run(None, {name: one.astype(np.float32) for name, one in wide.items()}),
        "from-float32": lambda: session.run(None, {name: one.astype(np.float32) for name, one in feed.items()}),
        "open": lambda: opened(folder, model, arm),
    }
    return calls[arm.call]


class Running:
    """An arm, opened and run in a thread of its own: whether denormals are flushed is a property of the thread."""

    def __init__(self, folder: Path, model: str, arm: Arm, seconds: float) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._block = _processor_time if arm.call == "idle" else _times
        self._call = self._thread.submit(call, folder, model, arm).result()
        self.result = self._thread.submit(self._call).result()
        warm = self._thread.submit(_times, self._call, 3).result()
        self._runs = REQUESTS if arm.call == "idle" else math.ceil(seconds / min(warm))

    def block(self, core: int | None) -> float:
        """Run for a while, on one core or any, and return the log of the median.

        The first runs, which come after the other arm's, are left out.
        """
        if core is not None:
            self._thread.submit(os.sched_setaffinity, 0, {core}).result()
        values = self._thread.submit(self._block, self._call, self._runs).result()
        return math.log(statistics.median(values[len(values) // 10 if len(values) >= 20 else 0 :]))


def _times(once: Callable[[], Any], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        once()
        times.append(time.perf_counter() - started)
    return times


def _processor_time(once: Callable[[], Any], runs: int) -> list[float]:
    """Return the processor time of a run and the rest after it, the mean over all: its clock may tick slowly."""
    started = time.process_time()
    for _ in range(runs):
        once()
        time.sleep(REST)
    return [max((time.process_time() - started) / runs, 1e-6)]


def score(folder: Path, model: str, pair: Pair, chance: random.Random) -> float:
    """Return the median log ratio of neighbouring blocks of the two arms, freshly opened; the first pair is dropped."""
    seconds, budget = (THREADED_BLOCK, THREADED_BUDGET) if pair.threaded else (BLOCK, BUDGET)
    arms = [pair.plain, pair.advised]
    advised_first = pair.alone or chance.random() < 0.5
    running = [Running(folder, model, arm, seconds) for arm in (reversed(arms) if advised_first else arms)]
    plain, advised = reversed(running) if advised_first else running
    if pair.plain.call != "open":
        for wanted, given in zip(plain.result, advised.result, strict=True):
            np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-5)
    ratios: list[float] = []
    until = time.perf_counter() + budget
    while len(ratios) < 4 or time.perf_counter() < until:
        logs = {}
        core = None if pair.threaded else chance.choice(sorted(os.sched_getaffinity(0)))
        for arm in chance.sample([plain, advised], 2):
            time.sleep(SPIN if pair.threaded else 0)
            logs[arm] = arm.block(core)
        ratios.append(logs[advised] - logs[plain])
    return statistics.median(ratios[1:])


def cold(folder: Path, model: str) -> dict[str, float]:
    """Return by how much the first runs of a session are longer than steady ones, as log ratios."""
    times = _times(call(folder, model, Arm()), 25)
    steady = statistics.median(times[12:])
    return {name: math.log(times[run - 1] / steady) for name, run in WARMUPS.items()}


def memory(folder: Path, arm: Arm) -> dict[str, float]:
    """Return the MB that a session on the sample takes: at the peak, and after two large batches between small ones."""
    before = _megabytes("VmRSS")
    session = opened(folder, "sample", arm)
    options = ort.RunOptions()
    if arm.call.startswith("shrink"):
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    for batch in ([] if arm.call.endswith("large first") else [1]) + [32, 32] + [1] * 10:
        session.run(None, feed_for(session, batch), options)
    return {"at the peak": _megabytes("VmHWM") - before, "afterwards": _megabytes("VmRSS") - before}


def _megabytes(key: str) -> float:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else math.nan


def scores(folder: Path, model: str, seed: str, names: Sequence[str]) -> dict[str, Any]:
    """Measure these, in random order; the first runs of a session first, while the process is fresh."""
    found: dict[str, Any] = {name: memory(folder, MEMORY[name]) for name in names if name in MEMORY}
    if WARMUPS.keys() & names:
        found |= {name: value for name, value in cold(folder, model).items() if name in names}
    chance = random.Random(f"{model} {seed}")
    pairs = [name for name in names if name in PAIRS]
    return found | {name: score(folder, model, PAIRS[name], chance) for name in chance.sample(pairs, len(pairs))}


if __name__ == "__main__":
    print(json.dumps(scores(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])))
