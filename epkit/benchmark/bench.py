"""Which of these targets runs the model in how much time?"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

from epkit._system.arguments import check_integer, check_items, check_mapping, check_positive
from epkit._system.folders import make_scratch_folder, write_scratch
from epkit.benchmark import budget as times
from epkit.benchmark.budget import Budget
from epkit.benchmark.candidate_run import Contender, of_calls, of_targets
from epkit.benchmark.cases import combined, fed
from epkit.benchmark.contest import Contest
from epkit.benchmark.cpu_settings import cpu_settings, let_settings_take_part
from epkit.benchmark.document import Benchmark, Case, Request, too_many
from epkit.benchmark.environment.environment import look
from epkit.benchmark.operators.inside import look_inside, profiling_s
from epkit.benchmark.operators.profiler import Task
from epkit.benchmark.pilot import describe_cases, judge_outputs, pilot
from epkit.benchmark.record import Record
from epkit.benchmark.rounds import first_round, next_round, run_round
from epkit.benchmark.statistics import differences as scores
from epkit.benchmark.statistics import quantiles
from epkit.benchmark.statistics.verdicts import BEYOND_DOUBT, CONFIDENCE, differences, is_settled, level_of
from epkit.config.file import ConfigSource, load
from epkit.discovery.registry import discover
from epkit.errors import ConfigError
from epkit.model import sample
from epkit.model.digest import digest_model
from epkit.model.file import Source, TensorInfo, read_model
from epkit.parity.feed import Feed, feed
from epkit.parity.tolerance import tolerance_of
from epkit.session.fault import raise_common_fault
from epkit.session.open import check_fit
from epkit.session.request import chosen, external_folder, located, planned, sendable

Progress = Callable[[str, float], None]
SMALLEST_EFFECT = 0.02

RULES: Mapping[str, Any] = {
    "processes": f"{times.PROCESSES} fresh ones of each candidate in a round, fewer where time or memory is short; "
    f"{times.ROUNDS} rounds at most",
    "block_s": f"{times.BLOCK_S}; {times.LONG_BLOCK_S} where a candidate uses several threads, after a lead of "
    f"{times.LEAD_S} that is not counted",
    "meeting": "a block of each candidate, back to back, by processes drawn at random, in mirrored random orders; "
    "all other processes are stopped (on Linux); on a core drawn at random where every candidate keeps to one core",
    "settling_sweeps": quantiles.SETTLING_SWEEPS,
    "cold_tenth": f"the first tenth of a block of {quantiles.LONG_BLOCK} runs or more is not counted",
    "score": "the log ratio of the medians of the two blocks of a meeting, shared out between the two processes by "
    "median polish: the difference of the candidates, as far as a process tells it",
    "interval": "Welch's t on the scores of both candidates' processes, all rounds together",
    "confidence": CONFIDENCE,
    "correction": "Bonferroni, over all comparisons of the benchmark",
    "verdict": "same: the interval lies within the smallest effect; faster or slower: the difference is at least the "
    "smallest effect and the floor; else undecided",
    "floor": f"the half-width of the interval, and as much more as finds a difference in {scores.POWER:.0%} of cases",
    "stopping": "after a round when every floor is at or below the smallest effect, or the interval of "
    f"{BEYOND_DOUBT:.1%} lies beyond it",
    "warm_up": "at least 3 runs and 0.3 s, until three windows of 50 ms lie within 10 %; but never over 3 s",
    "percentiles": "nearest rank, with the interval of order statistics at 95 %, where there are runs enough for one",
}


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
    """Measure targets side by side on one model, each strictly on its first provider.

    Without a model, it is the sample network that epkit brings; without targets, every provider that is installed;
    where only `cpu` can be measured, it is compared with itself under other settings.
    `budget` bounds the whole in seconds. `inputs` maps names to .npy files; other inputs are made up, the same for all.
    `batches` are batch sizes, and `dimensions` gives sizes of other dynamic dimensions: each combination is a case, on
    which all candidates are measured. With `bound`, a binding is run instead of the session, on buffers where the
    provider runs; `callers` threads call at the same time. `smallest_effect` is the smallest difference that matters,
    as a share; `tolerance` is how far outputs may be apart, as in `epkit.compare`. With `operators`, ONNX Runtime's
    profiler says afterwards what each operator takes. The document is written to `output` while it is measured, again
    and again. The `seed` of the random order is drawn, and recorded, when none is given. `progress` hears what is being
    done, and which share of the time is spent.

    A candidate that cannot be had, fails, crashes, hangs or computes something else is a row with its reason. Raises
    ConfigError before anything is probed, ModelError before any process is started; and the error that all candidates
    have met, when it is the model's or the inputs': ModelError, RunError, ConfigError. When the document cannot be
    written in the end, the ConfigError holds it: `error.benchmark`.
    """
    _check(budget, callers, smallest_effect, seed)
    within = tolerance_of(tolerance)
    time_left, before = Budget(time.monotonic(), budget), look()
    written, registry = load(config), discover()
    wanted = chosen(targets, written, registry)
    folder_of_weights = next((one for one in map(external_folder, wanted) if one), None)
    contents = read_model(sample.path() if model is None else model, folder=folder_of_weights)
    for target in wanted:
        check_fit(contents, target)
    cases = combined(contents, *_sizes(batches, dimensions))
    many = too_many(len(wanted), len(cases))
    if many:
        raise ConfigError(many, hint="name fewer targets or fewer sizes")
    given = feed({} if inputs is None else inputs, wanted, contents)
    seed = secrets.randbits(32) if seed is None else seed
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
        seed=seed,
    )
    _tell(progress, time_left)("probing providers")
    spare = [] if targets else cpu_settings(written, registry)
    candidates = planned([*wanted, *spare], registry, refresh=refresh)
    with make_scratch_folder() as folder:
        told: dict[str, Any] = {
            **_model_request(contents.source, folder),
            "config": sendable(config),
            "feeds": [asdict(fed(given, case)) for case in cases],
            "bound": bound,
            "callers": callers,
            "keep": str(folder / "compiled"),
        }
        everyone = of_targets(candidates, told)
        contenders, others = everyone[: len(wanted)], everyone[len(wanted) :]
        file = None if output is None else Path(output)
        record = Record(request, cases, contenders, RULES, before, registry, file)
        record.notes.extend(written.ignored)
        profiled = None
        if operators:
            profiled = Task(
                Path(told["model"]), told["in_memory"], told["config"], Feed(**told["feeds"][0]), bound
            )  # fmt: skip
        return _measured(contenders, record, folder, time_left, progress, profiled, others, contents.inputs)


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
    """Measure callables side by side, by the same method as targets.

    Each is given by a file and the name of a function in it, "arms.py:plain": the function is called in every fresh
    process, and returns what is called in each run, by `callers` threads. What the calls return is compared, place by
    place; None is not.
    """
    _check(budget, callers, smallest_effect, seed)
    for name, where in calls.items():
        if not Path(where.rpartition(":")[0]).is_file():
            raise ConfigError(f"{name}: {where!r} names no function in a file", hint="as in arms.py:plain")
    seed = secrets.randbits(32) if seed is None else seed
    request = Request(
        "", "", 0, True, budget, smallest_effect, tolerance_of(tolerance).name, False, callers, seed
    )  # fmt: skip
    contenders = of_calls(calls, {"callers": callers})
    file = None if output is None else Path(output)
    record = Record(request, [Case("", {})], contenders, RULES, look(), discover(), file)
    with make_scratch_folder() as folder:
        return _measured(contenders, record, folder, Budget(time.monotonic(), budget), progress)


def _measured(
    contenders: list[Contender],
    record: Record,
    folder: Path,
    budget: Budget,
    progress: Progress | None,
    profiled: Task | None = None,
    others: Sequence[Contender] = (),
    inputs: Sequence[TensorInfo] = (),
) -> Benchmark:
    """Let all run alone, then side by side, round by round, until all is told or the time is over.

    `others` take part where `cpu` would be alone.
    """
    request = record.request
    contest = Contest(contenders, record, budget, Random(request.seed), _tell(progress, budget))
    with contextlib.ExitStack() as stack:
        for one in (*contenders, *others):
            stack.callback(one.end)
        pilot(contest, folder)
        raise_common_fault([one.fault for one in contenders])
        describe_cases(contenders, record, inputs)
        judge_outputs(contenders, folder, tolerance_of(request.tolerance))
        unfinished = stack.enter_context(contextlib.ExitStack())
        unfinished.callback(record.keep)
        record.keep()
        measuring = _measuring(contest, profiling=bool(profiled))
        plan = first_round(measuring)
        if let_settings_take_part(contest, others):
            pilot(contest, folder)
            judge_outputs(contenders, folder, tolerance_of(request.tolerance))
            record.keep()
            measuring = _measuring(contest, profiling=bool(profiled))
            plan = first_round(measuring)
        for number in range(1, times.ROUNDS + 1):
            plan = plan if number == 1 else next_round(measuring)
            if plan is None:
                break
            run_round(number, plan, measuring)
            measured = record.measured()
            level = level_of(measured)
            known = list(differences(measured))
            if all(one and is_settled(one, level, request.smallest_effect) for one in known):
                break
            record.keep()
        if not record.blocks and contest.taking_part:
            record.notes.append("the time was over before anything could be measured; give more with --budget")
        if profiled:
            feed = Feed(**contenders[0].request["feeds"][0])
            look_inside(contest, replace(profiled, feed=feed))
        unfinished.pop_all()
    if progress:
        progress("done", 1.0)
    return record.keep(complete=True)


def _measuring(contest: Contest, *, profiling: bool) -> Contest:
    """Put aside the time that ending the processes and the profiler take."""
    budget = contest.budget
    aside = times.ending_s(budget.seconds) + (profiling_s(contest) if profiling else 0.0)
    return replace(contest, budget=Budget(budget.started, budget.seconds - aside))


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
    return [check_integer(one, "a batch size", hint) for one in check_items(batches, "batches", hint)], {
        name: [
            check_integer(one, f"a size of {name!r}", hint)
            for one in check_items(sizes, f"dimensions of {name!r}", hint)
        ]
        for name, sizes in varied.items()
    }


def _model_request(source: Path | bytes, folder: Path) -> dict[str, object]:
    if not isinstance(source, bytes):
        return located(Path(source), in_memory=False)
    file = folder / "model"
    write_scratch(file, source)
    return located(file, in_memory=True)


def _tell(progress: Progress | None, budget: Budget) -> Callable[[str], None]:
    def tell(what: str) -> None:
        if progress:
            progress(what, budget.spent)

    return tell
