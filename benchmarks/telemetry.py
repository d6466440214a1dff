"""Measure what ONNX Runtime's telemetry costs: `python benchmarks/telemetry.py [--pairs 40]`.

Fresh processes by turns, with and without it, each of which imports ONNX Runtime, opens epkit's sample network and runs
it. The interval of the median difference within a pair is a bootstrap's, at 95 %. docs/telemetry.md has what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

VARIABLE = "ORT_DISABLE_TELEMETRY"
RESAMPLES = 4000


def main() -> None:
    """Measure pairs of processes, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child()))
        return
    pairs = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(arguments.pairs):
            found = {on: process(on, cache) for on in random.sample([False, True], 2)}
            pairs.append((found[False], found[True]))
    for name in pairs[0][0]:
        off, on = ([pair[at][name] for pair in pairs] for at in (0, 1))
        low, high = interval([b - a for a, b in zip(off, on, strict=True)])
        middle = statistics.median(b - a for a, b in zip(off, on, strict=True))
        print(f"{name:24} off {statistics.median(off):10.2f}   on {middle:+8.2f} [{low:+.2f}, {high:+.2f}]")


def process(on: bool, cache: str) -> dict[str, float]:
    """Measure one process. What switches telemetry off by itself in a pipeline is taken from its environment."""
    kept = {
        name: text for name, text in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS", "TF_BUILD", VARIABLE)
    }
    own = {"XDG_CACHE_HOME": cache} | ({} if on else {VARIABLE: "1"})
    command = [sys.executable, __file__, "--child"]
    done = subprocess.run(command, env=kept | own, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def child() -> dict[str, float]:
    """Import, open and run, and then do nothing for a second."""
    import numpy as np

    from epkit.model import sample

    started = (time.perf_counter(), time.process_time())
    import onnxruntime

    imported = (time.perf_counter(), time.process_time())
    session = onnxruntime.InferenceSession(str(sample.path()), providers=["CPUExecutionProvider"])
    opened = time.perf_counter()
    feed = {"image": np.zeros((1, 3, 128, 128), np.float32)}
    session.run(None, feed)
    runs, before = [], time.process_time()
    for _ in range(100):
        begun = time.perf_counter()
        session.run(None, feed)
        runs.append(time.perf_counter() - begun)
    ran = time.process_time()
    time.sleep(1)
    return {
        "import, ms": (imported[0] - started[0]) * 1e3,
        "import, CPU ms": (imported[1] - started[1]) * 1e3,
        "open, ms": (opened - imported[0]) * 1e3,
        "run, median ms": statistics.median(runs) * 1e3,
        "run, CPU ms": (ran - before) * 10,
        "idle, CPU ms a second": (time.process_time() - ran) * 1e3,
        "memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return where the median difference lies."""
    drawn = sorted(statistics.median(random.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    return drawn[int(RESAMPLES * 0.025)], drawn[int(RESAMPLES * 0.975)]


if __name__ == "__main__":
    main()
