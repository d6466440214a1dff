"""Compare what calls cost in two checkouts, side by side: `python benchmarks/checkouts.py BEFORE AFTER [--rounds 10]`.

For each round, each checkout has a fresh process for every figure, in an order drawn at random: `import epkit`,
`epkit --help` as a whole process, and in one process on one thread `epkit.open` of the sample model on the CPU,
`session.run` and `binding.run` of a model of one Identity. A figure is the median of one process; the table has the
median over the rounds, and the ratio after / before with the range of the middle half of the rounds. Both checkouts run
on the packages of this Python, such as a worktree of the commit before: `git worktree add ../before COMMIT`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FIGURES = {
    "import epkit": 1e3,
    "epkit --help": 1e3,
    "epkit.open": 1e3,
    "session.run": 1e6,
    "binding.run": 1e6,
}
"""What is measured, and how many of the unit that it is shown in make a second."""
UNITS = {1e3: "ms", 1e6: "us"}
OPENS, RUNS = 40, 20_000


def measure(figure: str) -> float:
    """Return the seconds of one figure, in this process."""
    if figure == "import epkit":
        started = time.perf_counter()
        import epkit

        return time.perf_counter() - started
    import numpy as np

    import epkit

    options = {"intra_op_num_threads": 1}
    if figure == "epkit.open":
        model = next(Path(str(epkit.__file__)).parent.rglob("sample.onnx"))
        return _median(lambda: epkit.open(model, "cpu", session_options=options).close(), OPENS)
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from models import identity

    session = epkit.open(identity(shape=(8,)), "cpu", session_options=options)
    feeds = [{session.inputs[0].name: np.full(8, at, np.float32)} for at in range(2)]
    if figure == "session.run":
        return _median(lambda: [session.run(feed) for feed in feeds], RUNS) / 2
    binding = session.bind(feeds[0])
    return _median(lambda: [binding.run(feed) for feed in feeds], RUNS) / 2


def _median(call: Callable[[], object], times: int) -> float:
    for _ in range(max(3, times // 10)):
        call()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def ask(figure: str, root: Path, cache: str) -> float:
    """Return the seconds of one figure in a fresh process of a checkout."""
    places = [root, *sorted(place for place in (root / "plugins").iterdir() if place.is_dir())]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "EPKIT_CACHE_DIR": cache}
    environ |= {"ORT_DISABLE_TELEMETRY": "1"}
    whole = figure == "epkit --help"
    command = ["-m", "epkit", "--help"] if whole else [__file__, "--figure", figure]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=environ, cwd=cache, capture_output=True, check=True)
    return time.perf_counter() - started if whole else float(done.stdout)


def main() -> None:
    """Print a Markdown table, or measure one figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument("after", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", choices=FIGURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.figure:
        print(json.dumps(measure(arguments.figure)))
        return
    roots = [arguments.before.resolve(), arguments.after.resolve()]
    draw = random.Random(arguments.seed)
    found: dict[str, list[tuple[float, float]]] = {figure: [] for figure in FIGURES}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(arguments.rounds + 1):
            for figure in FIGURES:
                order = draw.sample(range(2), 2)
                times = {at: ask(figure, roots[at], cache) for at in order}
                if number:  # the first fills caches
                    found[figure].append((times[0], times[1]))
    print("| | before | after | after / before | middle half of the rounds |")
    print("| --- | --- | --- | --- | --- |")
    for figure, pairs in found.items():
        scale = FIGURES[figure]
        before, after = (statistics.median(column) * scale for column in zip(*pairs, strict=True))
        ratios = [later / earlier for earlier, later in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4)
        unit = UNITS[scale]
        print(f"| `{figure}` | {before:.3g} {unit} | {after:.3g} {unit} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
