"""Run each candidate alone first, before anything is measured.

One process after the other: whether it opens at all, which providers run the nodes, what starting costs, whether its
outputs are those of the reference, and how long a run takes, by which the time of the benchmark is planned.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from epkit.benchmark.candidate_run import CandidateRun
from epkit.benchmark.environment.nvidia_smi import device_bytes, gpus, used_and_free
from epkit.benchmark.process import WorkerProcess
from epkit.benchmark.run import BenchmarkRun
from epkit.benchmark.schedule import HINDERING, STARTING
from epkit.model.assumed_sizes import describe_assumed
from epkit.model.file import TensorInfo
from epkit.parity.agreement import Agreement, agreement, incomparable
from epkit.parity.metrics import NONE
from epkit.parity.outputs import read
from epkit.parity.tolerance import Tolerance
from epkit.runtime.configured import CPU

WARM_MOST_S = 3.0
SHARE = 0.5
"""The share of the budget that all pilot runs together may take."""


def run_pilots(run: BenchmarkRun, folder: Path) -> None:
    """Run each candidate that has not run yet alone, in random order.

    Each may take half of the time that is left for this, the last one all of it: a slow one gets what the fast ones did
    not need, and one that hangs does not take it all.
    """
    waiting = [candidate for candidate in run.candidates if candidate.fault is None and not candidate.opened]
    run.random.shuffle(waiting)
    _assume(run, next((other.assumed_sizes for other in run.candidates if other.assumed_sizes is not None), None))
    end = time.monotonic() + run.budget.left * SHARE
    for candidate in waiting:
        last = candidate is waiting[-1]
        until = time.monotonic() + (end - time.monotonic()) * (1.0 if last else 0.5)
        run.report(f"trying {candidate.name}")
        with candidate.catch_fault():
            _run_first(candidate, run, folder, until)
            if candidate.compiles and run.processes[-1].cache == "cold":
                # Once more from the cache, as all further processes will start.
                _run_alone(candidate, run, folder, until, outputs=True)
            elif candidate.compiles:
                _write_outputs(candidate, candidate.workers[-1], folder, until)
        candidate.end()


def _run_first(candidate: CandidateRun, run: BenchmarkRun, folder: Path, until: float) -> None:
    """Run one for the first time; the sizes with which it runs are those of all that follow."""
    sizes = _run_alone(candidate, run, folder, until, outputs=not candidate.compiles)
    if sizes:  # the assumed ones do not suit the model: once more, as if these had been known
        _assume(run, sizes)
        _run_alone(candidate, run, folder, until, outputs=not candidate.compiles)
    elif candidate.opened:
        _assume(run, [case["assumed"] for case in candidate.opened["cases"]])


def _assume(run: BenchmarkRun, sizes: Sequence[Mapping[str, int]] | None) -> None:
    for candidate in run.candidates:
        if "feeds" in candidate.request and sizes is not None:
            candidate.assume(sizes)


def _run_alone(
    candidate: CandidateRun, run: BenchmarkRun, folder: Path, until: float, *, outputs: bool
) -> Sequence[Mapping[str, int]]:
    """Run one alone; returns sizes that suit the model, where it had to search for them and did nothing else."""
    candidate.end()
    used_before = used_and_free(gpus())
    began = time.monotonic()
    worker = candidate.start()
    if worker is None:
        return ()
    opened = worker.receive("open", until - time.monotonic())
    if "settled" in opened:
        return cast("Sequence[Mapping[str, int]]", opened["settled"])
    candidate.opened = candidate.opened or opened
    worker.longest_s = max(opened["first_run_s"])
    warmed = worker.warm(WARM_MOST_S, until - time.monotonic())
    candidate.warmups = warmed["warmups"]
    candidate.starting_s = time.monotonic() - began
    # What keeps all cores busy gains nothing from starting at the same time as another one.
    warmups_s = sum(warmup["seconds"] for warmup in candidate.warmups)
    busy_s = 0.0 if candidate.on_one_core else sum(opened["first_run_s"]) + warmups_s
    candidate.adding_s = busy_s + (candidate.starting_s - busy_s) * HINDERING / STARTING
    if outputs:
        _write_outputs(candidate, worker, folder, until)
    finished = {**worker.finish(), "device_bytes": _device_bytes(worker, used_before)}
    run.add(candidate.process(0, opened, warmed, finished))
    return ()


def _device_bytes(worker: WorkerProcess, before: tuple[int, int] | None) -> int | None:
    """Return the memory of a process on NVIDIA GPUs: what the driver reports, or by how much more is used now."""
    if before is None:
        return None
    after = used_and_free(gpus())
    return device_bytes(worker.pid) or (after and max(0, after[0] - before[0])) or None


def _write_outputs(candidate: CandidateRun, worker: WorkerProcess, folder: Path, until: float) -> None:
    files = [str(_outputs_file(folder, candidate, case)) for case in range(len(candidate.opened["cases"]))]
    worker.send("outputs", files=files)
    worker.receive("outputs", until - time.monotonic())


def _outputs_file(folder: Path, candidate: CandidateRun, case: int) -> Path:
    return folder / f"outputs-{candidate.place}-{case}.npz"


def describe_cases(run: BenchmarkRun, inputs: Sequence[TensorInfo]) -> None:
    """Add the inputs of each case, and a note of the sizes that were assumed."""
    reference = reference_of(run.candidates)
    if reference is None:
        return
    opened = reference.opened["cases"]
    run.cases = [
        replace(case, inputs=tuple(reply["inputs"]), inputs_sha256=reply["inputs_sha256"])
        for case, reply in zip(run.cases, opened, strict=True)
    ]
    notes = dict.fromkeys(describe_assumed(reply["assumed"], inputs) for reply in opened)
    run.notes.extend(note for note in notes if note)


def compare_outputs(candidates: Sequence[CandidateRun], folder: Path, tolerance: Tolerance) -> None:
    """Compare the outputs of all on every case with those of the reference."""
    reference = reference_of(candidates)
    for candidate in candidates:
        if candidate.fault is None and candidate is not reference and reference is not None:
            cases = range(len(candidate.opened["cases"]))
            candidate.agreements = tuple(_agreement(reference, candidate, case, folder, tolerance) for case in cases)


def _agreement(
    reference: CandidateRun, candidate: CandidateRun, case: int, folder: Path, tolerance: Tolerance
) -> Agreement | None:
    digests = [each.opened["cases"][case]["inputs_sha256"] for each in (reference, candidate)]
    if digests[0] != digests[1]:
        return incomparable(reference.name, "its session wants other inputs")
    expected, found = (read(_outputs_file(folder, each, case)) for each in (reference, candidate))
    nothing = not any((expected.arrays, expected.left_out, found.arrays, found.left_out))
    if found.dtypes and {*expected.dtypes.values(), *found.dtypes.values()} == {NONE}:
        return incomparable(reference.name, "no output has a value")
    # Calls may return nothing; a model always does.
    return None if nothing else agreement(reference.name, expected, found, tolerance)


def reference_of(candidates: Sequence[CandidateRun]) -> CandidateRun | None:
    """Return the candidate whose outputs are the reference: ONNX Runtime's CPU if it runs, else the first that does."""
    ready = [candidate for candidate in candidates if candidate.fault is None]
    return next((candidate for candidate in ready if candidate.provider == CPU), ready[0] if ready else None)
