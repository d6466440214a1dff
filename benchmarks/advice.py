"""Does what is commonly advised about ONNX Runtime make a difference on this machine?

    python benchmarks/advice.py                  measure (about four minutes) and write results/advice.json
    python benchmarks/advice.py --only NAME ...  measure and print these alone, and write nothing
    python benchmarks/advice.py --page           write the figures of the JSON into docs/common-advice-checked.md

Plain onnxruntime, no epkit. Each advice is two arms: without it and with it. A fresh process opens both and runs short
blocks of them by turns, in random order; its score is the median of the log ratios of neighbouring blocks. Nine
processes give nine scores. The ratio is their median; the interval runs from the second smallest to the second largest,
which holds the true median in 96 % of cases whatever the distribution. Only an interval that lies beyond 2 % as a whole
is called faster or slower, only one within 2 % is called the same. Outputs of the two arms are compared first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from epkit import sample
from epkit._platform import usable_cores

RESULTS = Path(__file__).parent / "results" / "advice.json"
PAGE = Path(__file__).parent.parent / "docs" / "common-advice-checked.md"
PROCESSES = 9
MEMORY_PROCESSES = 5
SMALLEST_EFFECT = 0.02
BLOCK = 0.015
BUDGET = 0.2
# A pool's threads spin for about 50 ms after a run, and would disturb the other arm.
SPIN = 0.06
THREADED_BLOCK = 0.04
THREADED_BUDGET = 0.8
IDLE = 0.01
WARMUP_RUNS = (1, 2, 3, 10)
CORES = usable_cores()


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to open and call a model: properties of SessionOptions, config entries, and a name in `calls`."""

    properties: Mapping[str, object] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)
    call: str = "run"
    saved: bool = False
    """Whether it opens the file that `optimized_model_filepath` wrote."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An advice: the two arms, the models it is tried on, and what a ratio above or below 1 is called."""

    plain: Arm
    advised: Arm
    models: tuple[str, ...]
    threaded: bool = False
    """Whether an arm has threads of its own, which spin after its runs."""
    alone: bool = False
    """Whether it needs a process of its own, in which the advised arm is opened first."""
    words: tuple[str, str] = ("faster", "slower")


def one(call: str = "run", *, saved: bool = False, **properties: object) -> Arm:
    """Make an arm with one thread, so that nothing spins."""
    return Arm({"intra_op_num_threads": 1, **properties}, call=call, saved=saved)


DEFAULT, ONE = Arm(), one()
NO_OPTIMIZATION = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
PARALLEL = {"execution_mode": ort.ExecutionMode.ORT_PARALLEL}
NO_SPINNING = {"session.intra_op.allow_spinning": "0"}
FLUSH = Arm({"intra_op_num_threads": 1}, {"session.set_denormal_as_zero": "1"})
NETS = ("mlp", "sample", "shufflenet")
PAIRS: Mapping[str, Pair] = {
    "control": Pair(ONE, ONE, ("mlp", "sample")),
    "control-threads": Pair(DEFAULT, DEFAULT, ("sample",), threaded=True),
    "threads-physical": Pair(DEFAULT, Arm({"intra_op_num_threads": CORES}), ("mlp", "sample"), threaded=True),
    "threads-one": Pair(DEFAULT, ONE, NETS, threaded=True),
    "threads-double": Pair(DEFAULT, Arm({"intra_op_num_threads": 2 * CORES}), ("mlp", "sample"), threaded=True),
    "parallel": Pair(DEFAULT, Arm(PARALLEL), ("sample", "shufflenet", "branches"), threaded=True),
    "parallel-one": Pair(DEFAULT, Arm({"intra_op_num_threads": 1, **PARALLEL}), ("branches",), threaded=True),
    "spinning": Pair(DEFAULT, Arm(entries=NO_SPINNING), ("mlp", "sample"), threaded=True),
    "spinning-cpu": Pair(
        Arm(call="idle"), Arm(entries=NO_SPINNING, call="idle"), ("mlp",), threaded=True, words=("less", "more")
    ),
    "optimization-none": Pair(ONE, one(graph_optimization_level=NO_OPTIMIZATION), NETS),
    "arena": Pair(ONE, one(enable_cpu_mem_arena=False), ("mlp", "sample")),
    "pattern": Pair(ONE, one(enable_mem_pattern=False), ("mlp", "sample")),
    "arena-pattern": Pair(ONE, one(enable_cpu_mem_arena=False, enable_mem_pattern=False), ("mlp", "sample")),
    "named": Pair(ONE, one("named"), ("identity", "mlp")),
    "bound": Pair(ONE, one("bound"), ("identity", "mlp", "sample")),
    "bound-anew": Pair(ONE, one("bound-anew"), ("identity", "mlp")),
    "ort-values": Pair(ONE, one("ort-values"), ("identity", "mlp", "sample")),
    "astype-needed": Pair(ONE, one("from64"), ("mlp", "sample")),
    "astype-needless": Pair(ONE, one("copy32"), ("mlp", "sample")),
    "fixed-batch": Pair(ONE, Arm({**ONE.properties, "batch": 1}), ("sample",)),
    "saved-open": Pair(
        one("open"), one("open", saved=True, graph_optimization_level=NO_OPTIMIZATION), ("sample", "shufflenet")
    ),
    "saved-open-again": Pair(one("open"), one("open", saved=True), ("sample", "shufflenet")),
    "saved-run": Pair(ONE, one(saved=True, graph_optimization_level=NO_OPTIMIZATION), ("sample",)),
    "denormals-none": Pair(ONE, FLUSH, ("sample",), alone=True),
    "denormals-many": Pair(ONE, FLUSH, ("denormals",), alone=True),
}
WARMUPS = tuple(f"warmup-{count}" for count in WARMUP_RUNS)
MEMORY: Mapping[str, Arm] = {
    "memory-default": DEFAULT,
    "memory-arena": Arm({"enable_cpu_mem_arena": False}),
    "memory-pattern": Arm({"enable_mem_pattern": False}),
    "memory-arena-pattern": Arm({"enable_cpu_mem_arena": False, "enable_mem_pattern": False}),
    "memory-shrink": Arm(call="shrink"),
}


# -- models


def model(name: str) -> str | bytes:
    """Return a path or the bytes of a model."""
    if name == "sample":
        return str(sample.path())
    if name == "shufflenet":
        return str(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_shufflenet.onnx")
    if name == "identity":
        return _built([helper.make_node("Identity", ["x"], ["y"])], {}, 8, 8)
    if name == "branches":
        names = [(f"{branch}", [f"{branch}{depth}" for depth in range(4)]) for branch in "abcd"]
        chains = [_chain("x", weights, branch) for branch, weights in names]
        join = helper.make_node("Concat", list("abcd"), ["y"], axis=1)
        return _built([*sum(chains, []), join], {w: (256, 256) for _, ws in names for w in ws}, 256, 1024)
    layers = {"w0": (256, 512), "w1": (512, 512), "w2": (512, 64)}
    return _built(_chain("x", list(layers), "y"), layers, 256, 64)


def _chain(x: str, weights: Sequence[str], y: str) -> list[onnx.NodeProto]:
    nodes = []
    for place, weight in enumerate(weights):
        last = place == len(weights) - 1
        nodes.append(helper.make_node("MatMul", [x, weight], [f"m{weight}"]))
        nodes.append(helper.make_node("Relu", [f"m{weight}"], [y if last else f"r{weight}"]))
        x = f"r{weight}"
    return nodes


def _built(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, tuple[int, int]], into: int, out: int) -> bytes:
    seeded = np.random.default_rng(1)
    arrays = {name: seeded.standard_normal(shape, np.float32) / 16 for name, shape in weights.items()}
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("x", into), ("y", out))
    )
    graph = helper.make_graph(list(nodes), "advice", [x], [y], tensors)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(made.SerializeToString())


def feed_of(name: str, session: ort.InferenceSession, batch: int = 1) -> dict[str, Any]:
    """Make inputs: seeded numbers in [0, 1), or ones too small for a normal float32."""
    seeded = np.random.default_rng(2)
    batch = 32 if name == "branches" else batch
    arrays = {
        wanted.name: seeded.random([size if isinstance(size, int) else batch for size in wanted.shape], np.float32)
        for wanted in session.get_inputs()
    }
    return {key: array * np.float32(1e-40) for key, array in arrays.items()} if name == "denormals" else arrays


# -- one arm


def opened(name: str, arm: Arm, saved: str) -> ort.InferenceSession:
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
    return ort.InferenceSession(saved if arm.saved else model(name), options, providers=["CPUExecutionProvider"])


def call(name: str, arm: Arm, saved: str) -> Callable[[], Any]:
    """Return what is timed: one run from NumPy to NumPy, in the arm's way."""
    session = opened(name, arm, saved)
    feed = feed_of(name, session)
    names = [wanted.name for wanted in session.get_outputs()]
    wide = {key: array.astype(np.float64) for key, array in feed.items()}
    values = {key: ort.OrtValue.ortvalue_from_numpy(array) for key, array in feed.items()}
    binding = session.io_binding()

    def bind() -> None:
        binding.clear_binding_outputs()
        for key, buffer in buffers.items():
            binding.bind_cpu_input(key, buffer)
        for output in names:
            binding.bind_output(output)

    def bound() -> Any:
        for key, array in feed.items():
            np.copyto(buffers[key], array)
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    buffers = {key: array.copy() for key, array in feed.items()}
    bind()
    calls: Mapping[str, Callable[[], Any]] = {
        "run": lambda: session.run(None, feed),
        "idle": lambda: session.run(None, feed),
        "named": lambda: session.run(names, feed),
        "bound": bound,
        "bound-anew": lambda: (bind(), bound())[1],
        "ort-values": lambda: [one.numpy() for one in session.run_with_ort_values(names, values)],
        "from64": lambda: session.run(None, {key: array.astype(np.float32) for key, array in wide.items()}),
        "copy32": lambda: session.run(None, {key: array.astype(np.float32) for key, array in feed.items()}),
        "open": lambda: opened(name, arm, saved),
    }
    return calls[arm.call]


class Running:
    """An arm, opened and run in a thread of its own: denormals are flushed by thread."""

    def __init__(self, name: str, arm: Arm, saved: str, length: float) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._idle = arm.call == "idle"
        self._call = self._thread.submit(call, name, arm, saved).result()
        self.result = self._thread.submit(self._call).result()
        warm = [self._thread.submit(_times, self._call, 3).result()[-1] for _ in range(2)]
        self._runs = max(1, math.ceil(length / min(warm)))

    def block(self) -> float:
        """Run for a while; return the log of the median run, or of the processor time of an idle request."""
        if self._idle:
            return math.log(self._thread.submit(_idle, self._call).result())
        times = self._thread.submit(_times, self._call, self._runs).result()
        # The first runs after another arm ran find its data in the caches.
        return math.log(statistics.median(times[len(times) // 10 if len(times) >= 20 else 0 :]))


def _times(once: Callable[[], Any], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        once()
        times.append(time.perf_counter() - started)
    return times


def _idle(once: Callable[[], Any], requests: int = 12) -> float:
    started = time.process_time()
    for _ in range(requests):
        once()
        time.sleep(IDLE)
    return max((time.process_time() - started) / requests, 1e-6)


# -- one process


def score(name: str, pair: Pair, saved: str, chance: random.Random) -> float:
    """Return the median log ratio of neighbouring blocks of two freshly opened arms."""
    length, budget = (THREADED_BLOCK, THREADED_BUDGET) if pair.threaded else (BLOCK, BUDGET)
    first = pair.alone or chance.random() < 0.5
    arms = [pair.advised, pair.plain] if first else [pair.plain, pair.advised]
    running = [Running(name, arm, saved, length) for arm in arms]
    advised, plain = running if first else running[::-1]
    if pair.plain.call != "open":
        for a, b in zip(plain.result, advised.result, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    ratios: list[float] = []
    until = time.perf_counter() + budget
    while len(ratios) < 4 or time.perf_counter() < until:
        logs = {}
        for arm in chance.sample([plain, advised], 2):
            time.sleep(SPIN if pair.threaded else 0)
            logs[arm] = arm.block()
        ratios.append(logs[advised] - logs[plain])
    return statistics.median(ratios[1:])


def cold(name: str) -> dict[str, float]:
    """Return how much longer the first runs of a fresh session take than steady ones, as log ratios."""
    times = _times(call(name, DEFAULT, ""), 40)
    steady = statistics.median(times[20:])
    return {f"warmup-{count}": math.log(times[count - 1] / steady) for count in WARMUP_RUNS}


def memory(arm: Arm) -> dict[str, float]:
    """Return what a session on the sample takes, in MB: at its peak, and after a large batch and ten small ones."""
    before = _status("VmRSS")
    session = opened("sample", arm, "")
    options = ort.RunOptions()
    if arm.call == "shrink":
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run(None, feed_of("sample", session, batch=32), options)
    for _ in range(10):
        session.run(None, feed_of("sample", session), options)
    return {"peak": _status("VmHWM") - before, "idle": _status("VmRSS") - before}


def _status(key: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) / 1024  # type: ignore[index]


def worker(name: str, index: int, wanted: Sequence[str], saved: str) -> dict[str, Any]:
    """Measure some advices on one model in this process."""
    if name in MEMORY:
        return {name: memory(MEMORY[name])}
    found: dict[str, Any] = {}
    if set(WARMUPS) & set(wanted):
        found |= {key: value for key, value in cold(name).items() if key in wanted}
    chance = random.Random(f"{name} {index}")
    pairs = [one for one in wanted if one in PAIRS]
    for one in chance.sample(pairs, len(pairs)):
        found[one] = score(name, PAIRS[one], saved, chance)
    return found


# -- all of them


def measure(wanted: Sequence[str], told: Callable[[str], None]) -> dict[str, Any]:
    """Start the processes one after the other, in random order, and return the document."""
    jobs: list[tuple[str, int, list[str]]] = []
    for index in range(PROCESSES):
        together: dict[str, list[str]] = {}
        for key in wanted:
            for name in NETS if key in WARMUPS else PAIRS[key].models if key in PAIRS else ():
                if key in PAIRS and PAIRS[key].alone:
                    jobs.append((name, index, [key]))
                else:
                    together.setdefault(name, []).append(key)
        jobs += [(name, index, keys) for name, keys in together.items()]
    jobs += [(key, index, [key]) for key in wanted if key in MEMORY for index in range(MEMORY_PROCESSES)]
    random.Random(0).shuffle(jobs)
    load, started, found = os.getloadavg(), time.time(), {}  # type: ignore[var-annotated]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sample", "shufflenet"):
            opened(name, one(optimized_model_filepath=str(Path(folder) / f"{name}.onnx")), "")
        for done, (name, index, keys) in enumerate(jobs):
            told(f"{done}/{len(jobs)} {time.time() - started:.0f} s")
            command = [sys.executable, __file__, "--worker", name, str(index), str(Path(folder) / f"{name}.onnx")]
            answer = subprocess.run([*command, *keys], stdout=subprocess.PIPE, check=True)
            for key, value in json.loads(answer.stdout).items():
                found.setdefault((key, name), []).append(value)
    order = {key: place for place, key in enumerate((*PAIRS, *WARMUPS, *MEMORY))}
    places = sorted(found, key=lambda at: (order[at[0]], (*NETS, "").index(at[1]) if at[1] in NETS else -1))
    return {
        "schema": "epkit.advice/1",
        "at": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "seconds": round(time.time() - started),
        "machine": _machine() | {"load_before": load, "load_after": os.getloadavg()},
        "versions": {module.__name__: module.__version__ for module in (ort, np, onnx)},
        "ratios": [ratio(key, name, found[key, name]) for key, name in places if key not in MEMORY],
        "memory_mb": {key: {part: [one[part] for one in found[key, name]] for part in ("peak", "idle")}
                      for key, name in places if key in MEMORY},
    }  # fmt: skip


def ratio(key: str, name: str, scores: Sequence[float]) -> dict[str, Any]:
    """Turn the scores of the processes into a ratio, its interval and a verdict."""
    ordered = sorted(scores)
    middle, low, high = (math.exp(value) for value in (statistics.median(ordered), ordered[1], ordered[-2]))
    words = PAIRS[key].words if key in PAIRS else ("faster", "slower")
    if high < 1 - SMALLEST_EFFECT or low > 1 + SMALLEST_EFFECT:
        verdict = words[low > 1]
    else:
        verdict = "same" if low > 1 - SMALLEST_EFFECT and high < 1 + SMALLEST_EFFECT else "undecided"
    rounded = {"ratio": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}
    return {"name": key, "model": name, **rounded, "verdict": verdict, "scores": [round(one, 5) for one in scores]}


def _machine() -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": CORES,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


# -- what is shown


def figures(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of each figure, by the name that stands in the page's markers."""
    shown: dict[str, str] = {}
    for row in document["ratios"]:
        text = f"{row['model']} {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}] {row['verdict']}"
        shown[row["name"]] = f"{shown[row['name']]}; {text}" if row["name"] in shown else text
    for key, parts in document["memory_mb"].items():
        peak, idle = (round(statistics.median(parts[part])) for part in ("peak", "idle"))
        spread = max(max(values) - min(values) for values in parts.values())
        shown[key] = f"{peak} MB at the peak, {idle} MB afterwards (± {math.ceil(spread / 2)})"
    machine, load = document["machine"], "{:.1f} before and {:.1f} after"
    versions = ", ".join(f"{key} {value}" for key, value in document["versions"].items())
    shown["machine"] = (
        f"{machine['cpu']}, {machine['cores']} cores, {versions}, Python {machine['python']}, {document['at']}, "
        f"load {load.format(machine['load_before'][0], machine['load_after'][0])}, {document['seconds']} s in all"
    )
    return shown


MARKER = re.compile(r"(<!-- figure: ([\w-]+) -->).*?(<!-- end -->)")


def filled(page: str, document: Mapping[str, Any]) -> str:
    """Return the page with the document's figures between its markers."""
    shown = figures(document)
    return MARKER.sub(lambda found: f"{found[1]}{shown[found[2]]}{found[3]}", page)


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*PAIRS, *WARMUPS, *MEMORY])
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        name, index, saved, *wanted = asked.worker
        print(json.dumps(worker(name, int(index), wanted, saved)))
    elif asked.page:
        PAGE.write_text(filled(PAGE.read_text(), json.loads(RESULTS.read_text())))
    else:
        document = measure(asked.only or [*PAIRS, *WARMUPS, *MEMORY], lambda text: print(text, file=sys.stderr))
        if not asked.only:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(document, indent=1) + "\n")
        print("\n".join(f"{key}: {text}" for key, text in figures(document).items()))


if __name__ == "__main__":
    main()
