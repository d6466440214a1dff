"""Does what is commonly advised about ONNX Runtime make a difference on this machine?

    python benchmarks/advice.py                  measure (about four minutes) and write results/advice.json
    python benchmarks/advice.py --only NAME ...  measure and print these alone, and write nothing
    python benchmarks/advice.py --page           write the figures of the JSON into docs/common-advice-checked.md

Plain onnxruntime, no epkit. A fresh process opens a model without the advice and with it, and runs short blocks of both
by turns, in random order; its score is the median log ratio of neighbouring blocks. Nine processes give nine scores:
the ratio is their median, and the interval runs from the second smallest to the second largest, which holds the true
median in 96 % of cases whatever the distribution. Only an interval that lies beyond 2 % as a whole is called faster or
slower, and only one that lies within 2 % the same.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # neither here nor in the processes that measure

import numpy as np
import onnxruntime as ort
from advice_arms import CORES, MEMORY, NETS, PAIRS, WARMUPS, Arm, models
from advice_worker import opened
from page import filled as into_page

from epkit._system import files

WORKER = Path(__file__).with_name("advice_worker.py")
RESULTS = Path(__file__).parent / "results" / "advice.json"
PAGE = Path(__file__).parent.parent / "docs" / "common-advice-checked.md"
PROCESSES, MEMORY_PROCESSES = 9, 3
SMALLEST_EFFECT = 0.02

Job = tuple[str, int, list[str]]
"""A process: the model, a seed, and what to measure."""


def jobs(wanted: Sequence[str]) -> list[Job]:
    """List the processes to start, in random order; a model's comparisons share one unless they need their own."""
    found: list[Job] = []
    together: dict[str, list[str]] = {}
    for name in wanted:
        if name in MEMORY:
            found += [("sample", index, [name]) for index in range(MEMORY_PROCESSES)]
        elif name in PAIRS and PAIRS[name].alone:
            found += [(PAIRS[name].models[0], index, [name]) for index in range(PROCESSES)]
        else:
            for model in PAIRS[name].models if name in PAIRS else NETS:
                together.setdefault(model, []).append(name)
    found += [(model, index, names) for model, names in together.items() for index in range(PROCESSES)]
    random.Random(0).shuffle(found)
    return found


def measure(wanted: Sequence[str]) -> dict[str, Any]:
    """Start the processes one after the other and return the document."""
    started, load = time.time(), os.getloadavg()
    found: dict[tuple[str, str], list[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, contents in models().items():
            (Path(folder) / f"{name}.onnx").write_bytes(contents)
            opened(Path(folder), name, Arm({"optimized_model_filepath": f"{folder}/{name}.saved.onnx"}))
        todo = jobs(wanted)
        for done, (model, seed, names) in enumerate(todo):
            print(f"\r{done} of {len(todo)} processes, {time.time() - started:.0f} s ", end="", file=sys.stderr)
            command = [sys.executable, str(WORKER), folder, model, str(seed), *names]
            answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            for name, score in json.loads(answer.stdout).items():
                found.setdefault((name, model), []).append(score)
    print(file=sys.stderr)
    places = [(name, model) for name in (*PAIRS, *WARMUPS) for model in models() if (name, model) in found]
    return {
        "schema": "epkit.advice/1",
        "at": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "seconds": round(time.time() - started),
        "machine": _machine() | {"load_before": load, "load_after": os.getloadavg()},
        "versions": {"onnxruntime": ort.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "ratios": [ratio(name, model, found[name, model]) for name, model in places],
        "memory_mb": {name: _columns(found[name, "sample"]) for name in MEMORY if name in wanted},
    }


def ratio(name: str, model: str, scores: Sequence[float]) -> dict[str, Any]:
    """Turn the scores of the processes into a ratio, its interval and a verdict."""
    scores = [round(score, 5) for score in scores]
    ordered = sorted(scores)
    middle, low, high = (math.exp(value) for value in (statistics.median(ordered), ordered[1], ordered[-2]))
    below, above = PAIRS[name].words if name in PAIRS else ("shorter", "longer")
    verdict = "undecided"
    if high < 1 - SMALLEST_EFFECT:
        verdict = below
    elif low > 1 + SMALLEST_EFFECT:
        verdict = above
    elif low > 1 - SMALLEST_EFFECT and high < 1 + SMALLEST_EFFECT:
        verdict = "same"
    numbers = {"ratio": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}
    return {"name": name, "model": model, **numbers, "verdict": verdict, "scores": scores}


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {key: [round(row[key], 1) for row in rows] for key in rows[0]}


def _machine() -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {"cpu": cpu[1] if cpu else platform.processor(), "cores": CORES, "system": platform.platform()}


def figures(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of each figure, by the name that stands in the page's markers."""
    shown: dict[str, str] = {}
    for row in document["ratios"]:
        text = f"{row['model']} {row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {row['verdict']}"
        shown[row["name"]] = f"{shown[row['name']]}; {text}" if row["name"] in shown else text
    for name, parts in document["memory_mb"].items():
        amounts = [f"{_range(values)} MB {part}" for part, values in parts.items()]
        shown[name] = ", ".join(amounts)
    machine, loads = document["machine"], (document["machine"]["load_before"][0], document["machine"]["load_after"][0])
    versions = ", ".join(f"{key} {value}" for key, value in document["versions"].items())
    shown["machine"] = (
        f"{machine['cpu']}, {machine['cores']} cores, {versions}; {document['at']}, {document['seconds']} s, "
        f"load average {loads[0]:.1f} before and {loads[1]:.1f} after"
    )
    return shown


def _range(values: Sequence[float]) -> str:
    low, high = round(min(values)), round(max(values))
    return f"{low}" if low == high else f"{low} to {high}"


def filled(page: str, document: Mapping[str, Any]) -> str:
    """Return the page with the document's figures between its markers."""
    return into_page(page, figures(document))


def main() -> None:
    """Measure, or write the page."""
    every = [*PAIRS, *WARMUPS, *MEMORY]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=every, help="measure these alone, write nothing")
    parser.add_argument("--page", action="store_true", help="write the figures into the page")
    asked = parser.parse_args()
    if asked.page:
        PAGE.write_text(filled(PAGE.read_text(), json.loads(RESULTS.read_text())))
        return
    document = measure(asked.only or every)
    if not asked.only:
        RESULTS.parent.mkdir(exist_ok=True)
        files.write_atomic(RESULTS, json.dumps(document, indent=1) + "\n")
    print("\n".join(f"{name}: {text}" for name, text in figures(document).items()))


if __name__ == "__main__":
    main()
