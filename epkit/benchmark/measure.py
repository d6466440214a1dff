"""Which of these targets runs the model in how much time?"""

from __future__ import annotations

import contextlib
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from epkit import _platform, sample
from epkit.benchmark import figures
from epkit.benchmark.contender import BLOCK_S, Contender
from epkit.benchmark.environment import environment, look
from epkit.benchmark.result import Benchmark, Row, comparisons
from epkit.benchmark.turns import Budget, get_ready, outputs_file, take_turns
from epkit.candidates import chosen, external_folder, feed, planned, sendable
from epkit.config import ConfigSource, load
from epkit.effective import effective
from epkit.errors import ConfigError
from epkit.faults import raise_common_fault
from epkit.model import Source, digest
from epkit.model import read as read_model
from epkit.parity.agreement import Agreement, agreement, incomparable
from epkit.parity.outputs import Outputs
from epkit.parity.outputs import read as read_outputs
from epkit.registry import discover
from epkit.session import check_fit

RULES: Mapping[str, object] = {
    "timer": "session.run: arrays in host memory in, arrays in host memory out; one caller, a closed loop",
    "block_s": BLOCK_S,
    "measured": "half of the budget, and 10 s at most, for all candidates together",
    "rounds": "each candidate once in a round; rounds in pairs, a random order and the same backwards",
    "settling_rounds": figures.SETTLING_ROUNDS,
    "cold_tenth": f"the first tenth of a block of {figures.LONG_BLOCK} runs or more is not counted",
    "percentiles": f"nearest rank; p90 from {figures.P90_RUNS} runs, p99 from {figures.P99_RUNS}",
    "warm_up": "at least 3 runs and 0.3 s, until three windows of 50 ms lie within 10 %; but never over 3 s",
    "outputs": "the largest difference in an output, as a share of its largest magnitude, against a limit by dtype",
}


def bench(
    model: Source | None = None,
    targets: Sequence[str] | None = None,
    *,
    config: ConfigSource = None,
    budget: float = 90.0,
    inputs: Mapping[str, str] | None = None,
    seed: int | None = None,
    progress: Callable[[str, float], None] | None = None,
    refresh: bool = False,
) -> Benchmark:
    """Measure targets side by side on one model, each strictly on its first provider.

    Without a model, it is the sample network that epkit brings; without targets, every provider that is installed.
    `budget` bounds the whole in seconds. `inputs` maps names to .npy files; other inputs are made up, the same for all.
    The `seed` of the random order is drawn, and recorded, when none is given. `progress` hears what is being done, and
    which share of the whole is done.

    A candidate that cannot be had, fails, crashes or hangs is a row with its reason. Raises ConfigError before
    anything is probed, ModelError before any process is started; and the error that all candidates have met, when it
    is the model's or the inputs': ModelError, RunError, ConfigError.
    """
    if not (math.isfinite(budget) and budget > 0):
        raise ConfigError(f"the budget is {budget!r}", hint="give seconds above 0: --budget 90")
    time_left = Budget(time.monotonic(), budget)
    before = look()
    written, registry = load(config), discover()
    wanted = chosen(targets, written, registry)
    folder_of_weights = next((one for one in map(external_folder, wanted) if one), None)
    contents = read_model(sample.path() if model is None else model, folder=folder_of_weights)
    for target in wanted:
        check_fit(contents, target)
    given = feed(inputs or {}, wanted, contents)
    model_sha256 = digest(contents)
    seed = secrets.randbits(32) if seed is None else seed
    random, tell = Random(seed), progress or _silently
    tell("probing providers", 0.0)
    contenders = [Contender(candidate) for candidate in planned(wanted, registry, refresh=refresh)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epkit-bench-")))
        for one in contenders:
            stack.enter_context(one)
        asked = _model_request(contents.source, folder)
        get_ready(contenders, asked, sendable(config), given, folder, time_left, random, tell)
        raise_common_fault([one.fault for one in contenders])
        began = time.monotonic()
        order = take_turns(contenders, time_left, random, tell)
        measured_s = time.monotonic() - began
        rows = _rows(contenders, folder)
    tell("done", 1.0)
    opened = next((one.opened for one in contenders if one.opened), {})
    guessed = opened.get("guessed", [])
    return Benchmark(
        candidates=rows,
        comparisons=comparisons(rows),
        environment=environment(
            before,
            registry,
            seed=seed,
            model="given as bytes" if isinstance(contents.source, bytes) else str(contents.source),
            model_sha256=model_sha256,
            model_bytes=contents.size,
        ),
        budget_s=budget,
        measured_s=measured_s,
        named=bool(targets),
        inputs=tuple(opened.get("inputs", [])),
        notes=(f"guessed as 1: {', '.join(guessed)}; say --input, or warmup.dimensions in a target",) * bool(guessed),
        rules=RULES,
        order=order,
    )


def _silently(what: str, share: float) -> None:
    """Tell nobody."""


def _model_request(source: Path | bytes, folder: Path) -> dict[str, object]:
    if not isinstance(source, bytes):
        return {"model": str(source), "model_is_bytes": False}
    file = folder / "model"
    file.write_bytes(source)
    return {"model": str(file), "model_is_bytes": True}


def _rows(contenders: Sequence[Contender], folder: Path) -> tuple[Row, ...]:
    """Make the rows; the first candidate that was measured is the one whose outputs the others' are compared with."""
    rows = []
    reference: tuple[Contender, Outputs] | None = None
    for position, one in enumerate(contenders):
        agreed = None
        if one.fault is None:
            found = read_outputs(outputs_file(folder, position))
            if reference is None:
                reference = one, found
            elif one.opened["inputs_sha256"] != reference[0].opened["inputs_sha256"]:
                agreed = incomparable(reference[0].candidate.name, "its session wants other inputs")
            else:
                agreed = agreement(reference[0].candidate.name, reference[1], found)
        rows.append(_row(one, agreed))
    return tuple(rows)


def _parting(agreed: Agreement | None) -> list[str]:
    if agreed is None or agreed.agree:
        return []
    return ["epkit compare MODEL -t A -t B says where the outputs part, and whether the model amplifies rounding"]


def _row(one: Contender, agreed: Agreement | None) -> Row:
    target = one.candidate.plan.target
    settings = effective(one.candidate.plan, _platform.core_limit()).shown
    shown = tuple({"key": each.key, "value": each.value, "origin": each.origin} for each in settings)
    samples = tuple(tuple(block) for block in one.blocks)
    if one.fault is not None:
        fault = one.fault
        provider = target.first.name
        return Row(target.name, provider, fault.status, fault.reason, fault.hint, effective=shown, samples_s=samples)
    found = figures.figures(one.blocks)
    assert found is not None
    return Row(
        target.name,
        one.opened["provider"],
        "ok",
        median_s=found.median_s,
        p90_s=found.p90_s,
        p99_s=found.p99_s,
        throughput_per_s=found.throughput_per_s,
        import_s=one.opened["import_s"],
        open_s=one.opened["open_s"],
        first_run_s=one.opened["first_run_s"],
        peak_rss_bytes=one.finished["peak_rss_bytes"],
        cpu_s=one.finished["cpu_s"],
        runs=found.runs,
        warmup_runs=one.warmed["runs"],
        warmup_s=one.warmed["seconds"],
        warmup_steady=one.warmed["steady"],
        placement=one.opened["placement"],
        summary=one.opened["summary"],
        inputs_sha256=one.opened["inputs_sha256"],
        agreement=agreed,
        effective=shown,
        notes=(*one.opened["notes"], *found.notes, *_parting(agreed)),
        samples_s=samples,
    )
