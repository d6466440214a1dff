"""What does a benchmark say, in sentences?

Pure, and shared by all that shows a document: the table, Markdown and the page say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from epkit._system.text import format_count, format_list, format_percent, printable
from epkit.benchmark.audit.warnings import doubts
from epkit.benchmark.document import Benchmark, Comparison, Estimate, Request, turned
from epkit.benchmark.statistics.verdicts import couples


def label(found: Benchmark, place: int) -> str:
    """Return how a candidate is called; one target that takes part several times is numbered."""
    target = found.candidates[place].target
    same = [at for at, one in enumerate(found.candidates) if one.target == target]
    return printable(target) if len(same) == 1 else f"{printable(target)} ({same.index(place) + 1})"


def title(found: Benchmark) -> str:
    """Say what was measured, and where."""
    where = found.measured.environment
    return f"{model(found)} on {printable(where.cpu)}, {format_count(where.cores, 'core')}"


def alone(found: Benchmark) -> str:
    """Say that one provider is compared with itself, where it is the only one that there is; empty otherwise."""
    measured = [one for one in found.candidates if one.status == "ok"]
    providers = {one.provider for one in measured}
    if found.measured.request.named or len(measured) < 2 or len(providers) > 1:
        return ""
    return f"only {printable(*providers)} can be measured here, so its settings are compared"


def when(found: Benchmark) -> str:
    """Say when it began."""
    return printable(found.measured.environment.at).replace("T", " ").replace("Z", " UTC")


def model(found: Benchmark) -> str:
    """Return the name of the model's file, or what there is instead."""
    return printable(PurePath(found.measured.request.model).name)


def case(found: Benchmark, place: int) -> str:
    """Return the name of a case; empty where there is only one without a name."""
    return printable(found.measured.cases[place].name)


def overview(found: Benchmark) -> tuple[str, ...]:
    """Say who wins, where there are several cases."""
    winners = found.findings.winners
    if len(winners) < 2:
        return ()
    said = [
        f"{label(found, winner)} is the fastest at {format_list([case(found, at) for at in cases])}"
        for winner, cases in _gathered(winners).items()
        if winner is not None
    ]
    nobody = _gathered(winners).get(None)
    if nobody:
        said.append(f"no winner at {format_list([case(found, at) for at in nobody])}")
    return tuple(said)


def verdicts(found: Benchmark, at: int) -> tuple[str, ...]:
    """Say how the candidates stand on one case, the winner's comparisons first."""
    winner = found.findings.winners[at] if at < len(found.findings.winners) else None
    mine = sorted(_of_case(found, at), key=lambda one: winner not in (one.a, one.b))
    said = [verdict(found, one) for one in mine]
    if sum(one.status == "ok" for one in found.candidates) > 2:
        best = (
            "no winner: nobody is faster than all others"
            if winner is None
            else f"{label(found, winner)} is the fastest"
        )
        said.insert(0, best)
    compared = {(one.a, one.b) for one in mine}
    for where, a, b in couples(found.measured):
        if where == at and (a, b) not in compared:
            both = f"{label(found, a)} and {label(found, b)}"
            said.append(f"undecided: {both} did not meet often enough; {_more_time(found.measured.request)}")
    return tuple(said)


def verdict(found: Benchmark, one: Comparison) -> str:
    """Say how two candidates stand; of the two, the quicker one comes first."""
    if one.verdict == "slower":
        return verdict(found, turned(one))
    a, b, time = label(found, one.a), label(found, one.b), one.time
    if one.verdict == "faster":
        gain = inverse(time)
        said = f"{b} is {_figure(gain.ratio, gain)}x faster than {a}, {_range(gain)}"
        # A reader would take it for granted that slow runs are no slower.
        return said + (_slow_runs(one, a, b) if one.p99 is not None and one.p99.low > 1 else "")
    apart = one.p99 is not None and not one.p99.low <= 1 <= one.p99.high
    slow = _slow_runs(one, a, b) if apart else ""
    if one.verdict == "same":
        return f"{a} and {b} take the same time ({written(time)}){slow}"
    told = f"{b} takes {_figure(time.ratio, time)} times the time of {a}, {_range(time)}{slow}"
    return f"undecided: {told}; {would_help(found.measured.request, one)}"


def _slow_runs(one: Comparison, a: str, b: str) -> str:
    return "" if one.p99 is None else f"; a slow run (p99) of {b} takes {written(one.p99)} times that of {a}"


def would_help(request: Request, one: Comparison) -> str:
    """Say what would turn an undecided comparison into a decided one."""
    least = format_percent(request.smallest_effect)
    if one.floor > request.smallest_effect:
        return f"only {format_percent(one.floor)} and more could be told; {_more_time(request)}"
    half = f"{request.smallest_effect * 50:.2g}"
    return f"that is about the smallest difference that matters, {least}; --smallest-effect {half} looks closer"


def _more_time(request: Request) -> str:
    return f"more time would help: --budget {request.budget_s * 2:g}"


def floor(found: Benchmark, at: int) -> str:
    """Say which differences could be told on one case; empty where nothing was compared."""
    floors = [format_percent(one.floor) for one in sorted(_of_case(found, at), key=lambda one: one.floor)]
    if not floors:
        return ""
    least, most = floors[0], floors[-1]
    if least == most:
        return f"differences of {least} and more could be told here today"
    return f"differences of {least} to {most} and more could be told here today, depending on which two"


def timed(request: Request) -> str:
    """Say what is inside of the timer, and how the load is made."""
    inside = (
        "binding.run() is timed: on buffers that were bound once, where the provider runs"
        if request.bound
        else "session.run is timed: from arrays on the host to arrays on the host, with all checks and copies"
    )
    callers = "one caller starts" if request.callers == 1 else f"{request.callers} callers at the same time each start"
    return f"{inside}; {callers} the next run when the last is done (a closed loop)"


def method(found: Benchmark) -> tuple[str, ...]:
    """Say how it was measured, and what the intervals mean."""
    request, findings = found.measured.request, found.findings
    processes = sorted({one.processes for one in findings.comparisons})
    each = f"{processes[0]}" if len(processes) == 1 else f"{processes[0]} to {processes[-1]}" if processes else ""
    said = [timed(request)]
    if each:
        said.append(
            f"each candidate ran in {each} fresh processes, one at a time, in short blocks side by side; an interval "
            f"of a ratio comes from how far processes are apart, and holds at {percent_of_confidence(findings.level)}"
        )
    said.append(
        f"{format_percent(request.smallest_effect)} is the smallest difference that matters: with the whole interval "
        "within it, two take the same time"
    )
    said.append("p90 and p99 are left out where there are too few runs for a 95 % interval")
    return tuple(said)


def percent_of_confidence(level: float) -> str:
    """Write a level of confidence: 0.95 is "95 %", 0.9917 is "99.17 %"."""
    return f"{level * 100:.4g} %"


def ended_early(found: Benchmark) -> str:
    """Say that a benchmark did not come to its end; empty for one that did."""
    return "" if found.measured.complete else "it was ended before its time: this is what had been measured by then"


def ran(found: Benchmark, place: int) -> str:
    """Say who ran the nodes of a candidate, and whether its outputs are right."""
    one = found.candidates[place]
    parts = [printable(one.summary), *parity(found, place)]
    return "; ".join(part for part in parts if part)


def parity(found: Benchmark, place: int) -> Iterator[str]:
    """Say whether the outputs of a candidate agree with the reference's; where all cases do, with the worst of them."""
    told = [(at, one) for at, one in enumerate(found.candidates[place].agreements) if one is not None]
    wrong = [(at, one) for at, one in told if not one.agree]
    if len(told) > 1 and not wrong:
        _, worst = max(told, key=lambda pair: pair[1].share or 0.0)
        yield f"{printable(worst.told)}, the worst of {len(told)} cases"
        return
    for at, one in wrong or told:
        name = case(found, at) if at < len(found.measured.cases) else ""
        yield f"at {name}, {printable(one.told)}" if name else printable(one.told)


def doubtful(found: Benchmark) -> tuple[str, ...]:
    """Return what speaks against believing it."""
    return tuple(f"doubt: {printable(one)}" for one in doubts(found.measured, found.findings))


def notes(found: Benchmark) -> tuple[str, ...]:
    """Return all notes, those of the candidates with their names."""
    mine = [f"{label(found, place)}: {note}" for place, one in enumerate(found.candidates) for note in one.notes]
    return tuple(f"note: {printable(one)}" for one in (*found.measured.notes, *mine))


def written(one: Estimate) -> str:
    """Write a ratio with its interval: "0.998, 0.993 to 1.004"."""
    return f"{_figure(one.ratio, one)}, {_range(one)}"


def inverse(one: Estimate) -> Estimate:
    """Return how many times as fast something is that takes so many times as long."""
    return Estimate(1 / one.ratio, 1 / one.high, 1 / one.low)


def _range(one: Estimate) -> str:
    return f"{_figure(one.low, one)} to {_figure(one.high, one)}"


def _figure(value: float, of: Estimate) -> str:
    """Write a ratio, with as many digits as its interval is worth."""
    if of.ratio >= 10:
        return f"{value:.3g}"
    return f"{value:.3f}" if of.ratio < 1.1 and of.high - of.low < 0.2 else f"{value:.2f}"


def _of_case(found: Benchmark, at: int) -> list[Comparison]:
    return [one for one in found.findings.comparisons if one.case == at]


def _gathered(winners: Sequence[int | None]) -> dict[int | None, list[int]]:
    found: dict[int | None, list[int]] = {}
    for at, winner in enumerate(winners):
        found.setdefault(winner, []).append(at)
    return found
