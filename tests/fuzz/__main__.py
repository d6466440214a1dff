"""Try `epkit` on what nobody meant to give it: `python tests/fuzz --seconds 60 --seed 1`.

Mutated models, documents, configs and arguments; streams, locales, homes and folders as they should not be. Each trial
runs in a process of its own, within limits. It must end in the right answer, or in one of epkit's errors: exit code 1
to 4 and a sentence, never a traceback, a crash or a hang. Exit code 1 when one did not; each is printed with the
command that repeats it, and its files are kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

# Before anything of ONNX Runtime is loaded: processes are forked from this one, which must have one thread only.
os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

from judge import wrong
from process import run, warm_up
from trials import KINDS, trial

MOST_FAILURES = 10


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--kind", choices=sorted(KINDS), help="only trials of this kind")
    asked.add_argument("--trial", type=int, help="only this one, and print what it did")
    asked.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="where files of failures are kept")
    options = asked.parse_args()
    began = time.monotonic()
    tried: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    failures = 0
    with tempfile.TemporaryDirectory(prefix="epkit-fuzz-") as name:
        base = Path(name)
        warm_up(base)
        number = options.trial or 0
        while time.monotonic() - began < options.seconds and failures < MOST_FAILURES:
            folder = base / "trial"
            folder.mkdir()
            one = trial(options.seed, number, folder, options.kind)
            outcome = run(one, folder, base)
            tried[one.kind] += 1
            codes[str(outcome.code)] += 1
            why = wrong(one, outcome)
            if why or options.trial is not None:
                print(one.told(), outcome.told(), sep="\n", flush=True)
            if why:
                failures += 1
                kind = f" --kind {options.kind}" if options.kind else ""
                kept = _kept(folder, options.keep / f"{options.seed}-{number}")
                print(f"FAILED: {why}\n  python tests/fuzz --seed {options.seed} --trial {number}{kind}")
                print(f"  its files: {kept}\n", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            number += 1
            if options.trial is not None:
                break
    print(f"seed {options.seed}, {sum(tried.values())} trials in {time.monotonic() - began:.0f} s")
    print("  " + ", ".join(f"{count} of {kind}" for kind, count in sorted(tried.items())))
    print("  exit codes: " + ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())))
    print(f"  failures: {failures}")
    return 1 if failures else 0


def _kept(folder: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, place, symlinks=True, ignore_dangling_symlinks=True)
    return place


if __name__ == "__main__":
    sys.exit(main())
