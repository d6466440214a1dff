"""How often are epkit's verdicts wrong?

    python benchmarks/trust.py --simulated [--trials N]   on machines whose noise is known (N = 400: half an hour)
    python benchmarks/trust.py --real [--minutes M]       on this one, through epkit.bench; adds to what is there
    python benchmarks/trust.py --page                     write the figures into docs/benchmark-method.md

Both write results/trust.json as they go: whoever ends them keeps what was measured. The intervals of shares are
Wilson's, at 95 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noise import MACHINES
from page import filled
from trust_real import MODELS, THREADS, asked, trial, write_models
from trust_simulated import EFFECTS, rows, trials

from epkit._system import files

RESULTS = Path(__file__).parent / "results" / "trust.json"
PAGE = Path(__file__).parent.parent / "docs" / "benchmark-method.md"
SEED = 2026
TRIALS = 400
Row = Mapping[str, Any]


def simulated(count: int, seed: int) -> None:
    """Run the simulated trials, and keep the counts as they go."""
    started, found = time.time(), []
    for one in trials(list(MACHINES), count, seed):
        found.append(one)
        if len(found) % 200 == 0:
            _keep(_document() | {"simulated": {"at": _today(), "seed": seed, "rows": rows(found)}})
            print(f"\r{len(found)} trials, {time.time() - started:.0f} s ", end="", file=sys.stderr)
    print(file=sys.stderr)
    _keep(_document() | {"simulated": {"at": _today(), "seed": seed, "rows": rows(found)}})


def real(minutes: float, models: Sequence[str]) -> None:
    """Run real trials for so long, and keep each as soon as it is done."""
    until = time.monotonic() + minutes * 60
    before = _document()["real"]
    seed, done = SEED + len(before), sum(row["model"] in models for row in before)
    with tempfile.TemporaryDirectory(prefix="epkit-trust-") as folder:
        os.environ["EPKIT_CACHE_DIR"] = folder
        files = write_models(Path(folder))
        for one in asked(SEED, models, done):
            if time.monotonic() >= until:
                return
            row, machine = trial(one, files[one.model], seed)
            document = _document()
            _keep(document | {"machine": machine, "real": [*document["real"], row]})
            seed += 1
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def share(part: int, whole: int) -> str:
    """Say a share in percent, with the interval of Wilson (1927): it stands where few or none were counted, too."""
    if not whole:
        return "-"
    z = 1.96
    middle = (part + z * z / 2) / (whole + z * z)
    half = z / (whole + z * z) * math.sqrt(part * (whole - part) / whole + z * z / 4)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return f"{_percent(part / whole)} % [{_percent(low)}, {_percent(high)}]"


def _percent(one: float) -> str:
    return f"{100 * one:.1f}".removesuffix(".0")


def figures(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of each figure, by the name that stands in the page's markers."""
    shown: dict[str, str] = {}
    counted = document["simulated"]["rows"]
    for machine in MACHINES:
        its = {row["effect"]: row for row in counted if row["machine"] == machine}
        shown |= {f"{machine.replace(' ', '-')}-{name}": text for name, text in _of_machine(its).items()}
    every = {effect: _together([row for row in counted if row["effect"] == effect]) for effect in EFFECTS}
    shown |= {f"all-{name}": text for name, text in _of_machine(every).items()}
    same = [row for row in counted if row["effect"] == 1]
    shown["simulated-trials"] = f"{_sum(counted, 'trials'):,}"
    shown["simulated-called"] = f"{_sum(same, 'faster', 'slower')} of {_sum(same, 'trials'):,}"
    shown["simulated-wrong-way"] = f"{_sum([row for row in counted if row['effect'] > 1], 'faster')}"
    for model, threads in itertools.product(MODELS, THREADS):
        its = [row for row in document["real"] if (row["model"], row["threads"]) == (model, threads)]
        shown |= {f"{model}-{threads}-{name}": text for name, text in _of_model(its).items()}
    shown |= {f"real-{name}": text for name, text in _of_model(document["real"]).items()}
    shown["real-machine"] = _about(document)
    return shown


def _together(rows: Sequence[Row]) -> Row:
    """Add up what was counted, and average the rest."""
    known = {name: [row[name] for row in rows if row[name] is not None] for name in rows[0]}
    counts = {name: sum(values) for name, values in known.items() if all(isinstance(one, int) for one in values)}
    return {name: statistics.fmean(known[name]) for name in ("rounds", "floor", "p99_half_width")} | counts


def _of_machine(its: Mapping[float, Row]) -> dict[str, str]:
    same = its[1.0]
    effects = [row for effect, row in its.items() if effect > 1]
    slow = same["p99_half_width"]
    return {
        "wrong": share(same["excludes"], same["trials"]),
        "plain": share(same["plain_wrong"], same["trials"]),
        "called": share(_sum([same], "faster", "slower"), same["trials"]),
        "same": share(same["same"], same["trials"]),
        **{f"found-{round(effect * 100 - 100)}": share(row["slower"], row["trials"]) for effect, row in its.items()},
        "misses": share(_sum(effects, "wrong"), _sum(effects, "trials")),
        "rounds": f"{same['rounds']:.1f}",
        "floor": f"{_percent(same['floor'])} %",
        "p99-wrong": share(same["p99_wrong"], same["p99_trials"]),
        "p99-misses": share(_sum(effects, "p99_wrong"), _sum(effects, "p99_trials")),
        "p99-width": f"{100 * slow:.0f} %" if slow else "-",
    }


def _of_model(its: Sequence[Row]) -> dict[str, str]:
    its = [row for row in its if row["verdict"]]
    same = [row for row in its if row["percent"] == 0]
    shown = {
        "trials": str(len(its)),
        "wrong": share(sum(not row["low"] <= 1 <= row["high"] for row in same), len(same)),
        "called": share(sum(row["verdict"] in ("faster", "slower") for row in same), len(same)),
        "same": share(sum(row["verdict"] == "same" for row in same), len(same)),
        "seconds": f"{statistics.median(row['seconds'] for row in its):.0f}" if its else "-",
        "floor": f"{_percent(statistics.median(row['floor'] for row in its))} %" if its else "-",
    }
    for percent in (3, 5):
        slower = [row for row in its if row["percent"] == percent]
        shown[f"found-{percent}"] = share(sum(row["verdict"] == "slower" for row in slower), len(slower))
    slow = [row["p99"] for row in same if "p99" in row]
    shown["p99-wrong"] = share(sum(not low <= 1 <= high for _, low, high in slow), len(slow))
    return shown


def _about(document: Mapping[str, Any]) -> str:
    rows, machine = document["real"], document["machine"]
    if not rows:
        return "not measured yet"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    loads = [load for row in rows for load in row["load"]]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {versions}; {rows[0]['at'][:10]} to "
        f"{rows[-1]['at'][:10]}, load average {min(loads):.1f} to {max(loads):.1f}"
    )


def _sum(rows: Sequence[Row], *names: str) -> int:
    return sum(row[name] for row in rows for name in names)


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _document() -> dict[str, Any]:
    if RESULTS.exists():
        found: dict[str, Any] = json.loads(RESULTS.read_text())
        return found
    return {"schema": "epkit.trust/1", "simulated": {"rows": []}, "machine": {}, "real": []}


def _keep(document: Mapping[str, Any]) -> None:
    files.write_atomic(RESULTS, json.dumps(document, indent=1) + "\n")


def main() -> None:
    """Run the study, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulated", action="store_true", help="on machines whose noise is known")
    parser.add_argument("--trials", type=int, default=TRIALS, help="per machine, where nothing differs (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the simulated trials (%(default)s)")
    parser.add_argument("--real", action="store_true", help="on this machine")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long that may take (%(default)g)")
    parser.add_argument("--model", action="append", choices=MODELS, help="one of the real ones, not all (repeatable)")
    parser.add_argument("--page", action="store_true", help="write the figures into the page")
    told = parser.parse_args()
    if told.simulated:
        simulated(told.trials, told.seed)
    if told.real:
        real(told.minutes, told.model or MODELS)
    if told.page:
        PAGE.write_text(filled(PAGE.read_text(), figures(_document())))


if __name__ == "__main__":
    main()
