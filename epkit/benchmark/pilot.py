"""How does each candidate run the model by itself, before anything is measured side by side?

One process after the other, alone on the machine: whether it opens at all, where the nodes run, what starting costs,
whether its outputs are those of the reference, and how long a run takes, which the time of the benchmark is planned by.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from epkit.benchmark.budget import HINDERING, STARTING
from epkit.benchmark.candidate_run import Contender
from epkit.benchmark.contest import Contest
from epkit.benchmark.environment.nvidia_smi import device_bytes, gpus, used_and_free
from epkit.benchmark.process import Reply, Runner
from epkit.benchmark.record import Record
from epkit.model.assumed_sizes import describe_assumed
from epkit.model.file import TensorInfo
from epkit.parity.agreement import Agreement, agreement, incomparable
from epkit.parity.metrics import NONE
from epkit.parity.outputs import read
from epkit.parity.tolerance import Tolerance
from epkit.runtime.configured import CPU

WARM_MOST_S = 3.0
SHARE = 0.5
"""The share of the budget that all of this may take."""


def pilot(contest: Contest, folder: Path) -> None:
    """Let each candidate that has not run yet run alone, in random order.

    Each may take half of the time that is left for this, the last one all of it: a slow one gets what the quick ones
    did not need, and one that hangs does not take it all.
    """
    record = contest.record
    waiting = [one for one in contest.contenders if one.fault is None and not one.opened]
    contest.random.shuffle(waiting)
    _settle(contest, next((one.settled for one in contest.contenders if one.settled is not None), None))
    ready_by = time.monotonic() + contest.budget.left * SHARE
    for one in waiting:
        last = one is waiting[-1]
        until = time.monotonic() + (ready_by - time.monotonic()) * (1.0 if last else 0.5)
        contest.tell(f"trying {one.name}")
        with one.blamed():
            _first(one, contest, folder, until)
            if one.compiles and record.processes[-1].cache == "cold":
                # Once more, from what was kept: as all that follow will start.
                _alone(one, record, folder, until, outputs=True)
            elif one.compiles:
                _outputs_of(one, one.runners[-1], folder, until)
        one.end()


def _first(one: Contender, contest: Contest, folder: Path, until: float) -> None:
    """Let one run for the first time; the sizes with which it does are those of all that follow."""
    sizes = _alone(one, contest.record, folder, until, outputs=not one.compiles)
    if sizes:  # the assumed ones do not suit the model: once more, as if these had been known
        _settle(contest, sizes)
        _alone(one, contest.record, folder, until, outputs=not one.compiles)
    elif one.opened:
        _settle(contest, [case["assumed"] for case in one.opened["cases"]])


def _settle(contest: Contest, sizes: Sequence[Mapping[str, int]] | None) -> None:
    for one in contest.contenders:
        if "feeds" in one.request and sizes is not None:
            one.settle(sizes)


def _alone(one: Contender, record: Record, folder: Path, until: float, *, outputs: bool) -> Sequence[Mapping[str, int]]:
    """Run one; returns sizes that suit the model, where it had to look for them and did nothing else."""
    one.end()
    held_before = used_and_free(gpus())
    began = time.monotonic()
    runner = one.start()
    if runner is None:
        return ()
    opened = runner.answer("open", until - time.monotonic())
    if "settled" in opened:
        return cast("Sequence[Mapping[str, int]]", opened["settled"])
    one.opened = one.opened or opened
    runner.longest_s = max(opened["first_run_s"])
    warmed = warm(runner, until - time.monotonic())
    one.warmups = warmed["warmups"]
    one.starting_s = time.monotonic() - began
    # What keeps all cores busy gains nothing from being started beside another one.
    busy_s = 0.0 if one.on_one_core else sum(opened["first_run_s"]) + sum(its["seconds"] for its in one.warmups)
    one.adding_s = busy_s + (one.starting_s - busy_s) * HINDERING / STARTING
    if outputs:
        _outputs_of(one, runner, folder, until)
    record.add(one.process(0, opened, warmed, {**finish(runner), "device_bytes": _held(runner, held_before)}))
    return ()


def warm(runner: Runner, seconds: float) -> Reply:
    """Run every case until steady."""
    # Half of the time is left for the run that is under way when it is over.
    runner.ask("warm", seconds=min(WARM_MOST_S, max(0.0, seconds / 2)))
    return runner.answer("warm", seconds)


def finish(runner: Runner) -> Reply:
    """Ask for memory."""
    runner.ask("finish")
    return runner.answer("finish", 0.0)


def _held(runner: Runner, before: tuple[int, int] | None) -> int | None:
    """Return the memory that a process holds on NVIDIA GPUs: as the driver tells, or by how much more is held now."""
    if before is None:
        return None
    after = used_and_free(gpus())
    return device_bytes(runner.pid) or (after and max(0, after[0] - before[0])) or None


def _outputs_of(one: Contender, runner: Runner, folder: Path, until: float) -> None:
    runner.ask("outputs", files=[str(_file(folder, one, case)) for case in range(len(one.opened["cases"]))])
    runner.answer("outputs", until - time.monotonic())


def _file(folder: Path, one: Contender, case: int) -> Path:
    return folder / f"outputs-{one.place}-{case}.npz"


def describe_cases(contenders: Sequence[Contender], record: Record, inputs: Sequence[TensorInfo]) -> None:
    """Say of each case on which inputs it ran, and which sizes were assumed."""
    reference = reference_of(contenders)
    if reference is None:
        return
    told = reference.opened["cases"]
    record.cases = [
        replace(case, inputs=tuple(one["inputs"]), inputs_sha256=one["inputs_sha256"])
        for case, one in zip(record.cases, told, strict=True)
    ]
    for note in dict.fromkeys(describe_assumed(one["assumed"], inputs) for one in told):
        if note:
            record.notes.append(note)


def judge_outputs(contenders: Sequence[Contender], folder: Path, tolerance: Tolerance) -> None:
    """Compare the outputs of all on every case with those of the reference."""
    reference = reference_of(contenders)
    for one in contenders:
        if one.fault is None and one is not reference and reference is not None:
            cases = range(len(one.opened["cases"]))
            one.agreements = tuple(_agreed(reference, one, case, folder, tolerance) for case in cases)


def _agreed(reference: Contender, one: Contender, case: int, folder: Path, tolerance: Tolerance) -> Agreement | None:
    if reference.opened["cases"][case]["inputs_sha256"] != one.opened["cases"][case]["inputs_sha256"]:
        return incomparable(reference.name, "its session wants other inputs")
    expected, found = read(_file(folder, reference, case)), read(_file(folder, one, case))
    nothing = not any((expected.arrays, expected.left_out, found.arrays, found.left_out))
    if found.dtypes and {*expected.dtypes.values(), *found.dtypes.values()} == {NONE}:
        return incomparable(reference.name, "no output has a value")
    # Calls may return nothing; a model always does.
    return None if nothing else agreement(reference.name, expected, found, tolerance)


def reference_of(contenders: Sequence[Contender]) -> Contender | None:
    """Return whose outputs count: those of ONNX Runtime's CPU if it takes part, else the first one's that has any."""
    ready = [one for one in contenders if one.fault is None]
    return next((one for one in ready if one.provider == CPU), ready[0] if ready else None)
