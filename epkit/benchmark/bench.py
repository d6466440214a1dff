"""Benchmark several targets on one model: pilot runs, then rounds side by side, until all pairs are decided."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from epkit._system.arguments import check_integer, check_items, check_mapping, check_positive
from epkit._system.folders import make_scratch_folder
from epkit.benchmark import schedule
from epkit.benchmark.candidate_run import CandidateRun, from_calls, from_targets
from epkit.benchmark.cases import combine_sizes, feed_of
from epkit.benchmark.cpu_settings import add_cpu_settings, cpu_settings
from epkit.benchmark.document import Benchmark, Case, Request
from epkit.benchmark.environment.environment import look
from epkit.benchmark.limits import too_many
from epkit.benchmark.operators.profiler import Task, profile_all, profiling_s
from epkit.benchmark.pilot import compare_outputs, describe_cases, run_pilots
from epkit.benchmark.rounds import first_round, next_round, run_round
from epkit.benchmark.run import BenchmarkRun, Progress
from epkit.benchmark.schedule import Budget, Round, seconds_for_cleanup
from epkit.benchmark.statistics.verdicts import all_differences, is_settled, level_of
from epkit.config.file import ConfigSource, load
from epkit.discovery.registry import discover
from epkit.errors import ConfigError
from epkit.model import sample
from epkit.model.digest import digest_model
from epkit.model.file import Source, TensorInfo
from epkit.parity.feed import Feed, feed
from epkit.parity.tolerance import tolerance_of
from epkit.session.fault import raise_common_fault
from epkit.session.request import OpenRequest, plan_targets, read_candidates

SMALLEST_EFFECT = 0.02


def bench(
    model: Source | None = None,
    targets: Sequence[str] | None = None,
    *,
    config: ConfigSource = None,
    budget: float = 90.0,
    batches: Sequence[int] = (),
    dimensions: Mapping[str, Sequence[int]] | None = None,
    inputs: Mapping[str, str] | None = None,
    bound: bool = False,
    callers: int = 1,
    smallest_effect: float = SMALLEST_EFFECT,
    tolerance: str | float = "auto",
    operators: bool = False,
    output: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
) -> Benchmark:
    """Benchmark targets side by side on one model, each strictly on its first provider.

    Without a model, it is the sample network that comes with epkit; without targets, every installed provider; where
    only `cpu` can be measured, it is compared with itself under other settings.
    `budget` is the time limit of the whole in seconds. `inputs` maps names to .npy files; other inputs are generated,
    the same for all. `batches` are batch sizes, and `dimensions` gives sizes of other dynamic dimensions: each
    combination is a case, on which all candidates are measured. With `bound`, a binding is run instead of the session,
    on buffers where the provider runs; `callers` threads call at the same time. `smallest_effect` is the smallest
    difference that matters, as a share; `tolerance` is how far outputs may be apart, as in `epkit.compare`. With
    `operators`, each candidate is profiled with ONNX Runtime's profiler afterwards. The document is written to `output`
    again and again while it is measured. The `seed` of the random order is drawn, and recorded, when none is given.
    `progress` is called with what is being done, and the share of the time that is spent.

    A candidate that is unavailable, fails, crashes, hangs or computes different outputs is a row with its reason.
    Raises ConfigError before anything is probed, ModelError before any process is started; and the error that all
    candidates have met, when it is the model's or the inputs': ModelError, RunError, ConfigError. When the document
    cannot be written in the end, the ConfigError holds it: `error.benchmark`.
    """
    _check(budget, callers, smallest_effect, seed)
    within = tolerance_of(tolerance)
    time_left, before = Budget(time.monotonic(), budget), look()
    written, registry = load(config), discover()
    wanted = read_candidates(targets, written, registry)
    opening = OpenRequest(sample.path() if model is None else model, config=config)
    contents = opening.read_model(*wanted)
    cases = combine_sizes(contents, *_sizes(batches, dimensions))
    many = too_many(len(wanted), len(cases))
    if many:
        raise ConfigError(many, hint="name fewer targets or fewer sizes")
    given = feed({} if inputs is None else inputs, wanted, contents)
    request = Request(
        model="given as bytes" if isinstance(contents.source, bytes) else str(contents.source),
        model_sha256=digest_model(contents),
        model_bytes=contents.size,
        named=bool(targets),
        budget_s=budget,
        smallest_effect=smallest_effect,
        tolerance=within.name,
        bound=bound,
        callers=callers,
        seed=secrets.randbits(32) if seed is None else seed,
    )
    if progress:
        progress("probing providers", time_left.spent)
    spare = [] if targets else cpu_settings(written, registry)
    candidates = plan_targets([*wanted, *spare], registry, refresh=refresh)
    with make_scratch_folder() as folder:
        message: dict[str, Any] = {
            **opening.for_child(folder).to_json(),
            "feeds": [asdict(feed_of(given, case)) for case in cases],
            "bound": bound,
            "callers": callers,
            "keep": str(folder / "compiled"),
        }
        runs = from_targets(candidates, message)
        file = None if output is None else Path(output)
        run = BenchmarkRun(
            request, cases, runs[: len(wanted)], before, registry, file=file, budget=time_left, progress=progress
        )
        run.notes.extend(written.ignored)
        return _run_all(run, folder, settings=runs[len(wanted) :], inputs=contents.inputs, operators=operators)


def bench_calls(
    calls: Mapping[str, str],
    *,
    budget: float = 90.0,
    callers: int = 1,
    smallest_effect: float = SMALLEST_EFFECT,
    tolerance: str | float = "auto",
    output: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Benchmark callables side by side, by the same method as targets.

    Each is given by a file and the name of a function in it, "arms.py:plain": the function is called in every fresh
    process, and returns what is called in each run, by `callers` threads. What the calls return is compared by
    position, unless it is None.
    """
    _check(budget, callers, smallest_effect, seed)
    for name, where in calls.items():
        if not Path(where.rpartition(":")[0]).is_file():
            raise ConfigError(f"{name}: {where!r} names no function in a file", hint="as in arms.py:plain")
    seed = secrets.randbits(32) if seed is None else seed
    within = tolerance_of(tolerance).name
    request = Request("", "", 0, True, budget, smallest_effect, within, False, callers, seed)
    runs = from_calls(calls, {"callers": callers})
    file = None if output is None else Path(output)
    run = BenchmarkRun(request, [Case("", {})], runs, look(), discover(), file=file, progress=progress)
    with make_scratch_folder() as folder:
        return _run_all(run, folder)


def _run_all(
    run: BenchmarkRun,
    folder: Path,
    *,
    settings: Sequence[CandidateRun] = (),
    inputs: Sequence[TensorInfo] = (),
    operators: bool = False,
) -> Benchmark:
    """Run the pilots, then interleaved rounds, until every pair is decided or the budget is spent.

    `settings` are added to the candidates where `cpu` would be alone.
    """
    with contextlib.ExitStack() as stack:
        for candidate in (*run.candidates, *settings):
            stack.callback(candidate.end)
        run_pilots(run, folder)
        raise_common_fault([candidate.fault for candidate in run.candidates])
        describe_cases(run, inputs)
        unfinished = stack.enter_context(contextlib.ExitStack())
        unfinished.callback(run.save)
        plan = _compare_and_plan(run, folder, operators)
        if add_cpu_settings(run, settings):
            run_pilots(run, folder)
            plan = _compare_and_plan(run, folder, operators)
        _run_rounds(run, plan)
        if not run.blocks and run.active:
            run.notes.append("the time was over before anything could be measured; give more with --budget")
        first = run.candidates[0].request
        if operators:
            task = Task(
                Path(first["model"]), first["in_memory"], first["config"], Feed(**first["feeds"][0]), first["bound"]
            )
            profile_all(run, task)
        unfinished.pop_all()
    run.report("done", 1.0)
    return run.save(complete=True)


def _compare_and_plan(run: BenchmarkRun, folder: Path, operators: bool) -> Round | None:
    """Compare the outputs of the pilot runs, and plan the first round of the candidates that agree."""
    compare_outputs(run.candidates, folder, tolerance_of(run.request.tolerance))
    run.save()
    seconds = run.request.budget_s
    reserved = seconds_for_cleanup(seconds) + (profiling_s(run) if operators else 0.0)
    run.budget = Budget(run.budget.started, seconds, reserved)
    return first_round(run)


def _run_rounds(run: BenchmarkRun, plan: Round | None) -> None:
    for number in range(1, schedule.ROUNDS + 1):
        plan = plan if number == 1 else next_round(run)
        if plan is None:
            break
        run_round(number, plan, run)
        measured = run.measured()
        level = level_of(measured)
        found = list(all_differences(measured))
        if all(each and is_settled(each, level, run.request.smallest_effect) for each in found):
            break
        run.save()


def _check(budget: float, callers: int, smallest_effect: float, seed: int | None) -> None:
    check_positive(budget, "the budget", "give seconds above 0: --budget 90")
    check_integer(callers, "the number of callers", "give a number from 1 on: --callers 4")
    if check_positive(smallest_effect, "the smallest effect", "give a share above 0: 0.02") >= 1:
        raise ConfigError(f"the smallest effect is {smallest_effect!r}", hint="give a share above 0: 0.02")
    if seed is not None and abs(seed) >= 2**63:
        raise ConfigError("the seed has more than 64 bits", hint="give a smaller one: --seed 1")


def _sizes(batches: object, dimensions: object) -> tuple[list[int], dict[str, list[int]]]:
    """Return the sizes to vary as lists of whole numbers; raises ConfigError."""
    hint = "give lists of whole numbers: --batch 1,4,16 --dim height=224,448"
    varied = check_mapping(dimensions, "dimensions", hint)
    return [check_integer(size, "a batch size", hint) for size in check_items(batches, "batches", hint)], {
        name: [
            check_integer(size, f"a size of {name!r}", hint)
            for size in check_items(sizes, f"dimensions of {name!r}", hint)
        ]
        for name, sizes in varied.items()
    }
