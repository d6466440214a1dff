"""Write what a benchmark found as sentences.

Pure, and shared by the terminal, Markdown and the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from epkit._system.text import format_count, format_percent, printable
from epkit.benchmark.audit.warnings import warnings
from epkit.benchmark.document import Benchmark, Comparison, Estimate, Request, invert, swap
from epkit.benchmark.labels import labels
from epkit.benchmark.statistics.verdicts import comparable


def label(found: Benchmark, place: int) -> str:
    """Return the name of a candidate; of one target that is measured several times, the second is "cpu (2)"."""
    return printable(labels(found.candidates)[place])


def title(found: Benchmark) -> str:
    """Name the model and the machine."""
    where = found.measured.environment
    return f"{model(found)} on {printable(where.cpu)}, {format_count(where.cores, 'core')}"


def only_settings(found: Benchmark) -> str:
    """Explain that one provider is compared with itself, where it is the only one; empty otherwise."""
    measured = [candidate for candidate in found.candidates if candidate.status == "ok"]
    providers = {candidate.provider for candidate in measured}
    if found.measured.request.named or len(measured) < 2 or len(providers) > 1:
        return ""
    return f"only {printable(*providers)} can be measured here, so its settings are compared"


def when(found: Benchmark) -> str:
    """Return when it began."""
    return printable(found.measured.environment.at).replace("T", " ").replace("Z", " UTC")


def model(found: Benchmark) -> str:
    """Return the file name of the model."""
    return printable(PurePath(found.measured.request.model).name)


def case(found: Benchmark, place: int) -> str:
    """Return the name of a case; empty where there is only one without a name."""
    return printable(found.measured.cases[place].name)


def overview(found: Benchmark) -> tuple[str, ...]:
    """Name the winners, where there are several cases."""
    cases: dict[int | None, list[str]] = {}
    for at, winner in enumerate(found.findings.winners):
        cases.setdefault(winner, []).append(case(found, at))
    if len(found.findings.winners) < 2:
        return ()
    none = cases.pop(None, [])
    lines = [
        f"{label(found, winner)} is the fastest at {_join(its)}" for winner, its in cases.items() if winner is not None
    ]
    return (*lines, *([f"no winner at {_join(none)}"] if none else ()))


def verdicts(found: Benchmark, at: int) -> tuple[str, ...]:
    """Describe every comparison of one case, those of the winner first."""
    winner = found.findings.winners[at] if at < len(found.findings.winners) else None
    compared = sorted(_of_case(found, at), key=lambda each: winner not in (each.a, each.b))
    lines = [verdict(found, each) for each in compared]
    if sum(candidate.status == "ok" for candidate in found.candidates) > 2:
        none = "no winner: no candidate is faster than all others"
        lines.insert(0, none if winner is None else f"{label(found, winner)} is the fastest")
    known = {(each.a, each.b) for each in compared}
    for place, a, b in comparable(found.measured):
        if place == at and (a, b) not in known:
            both = f"{label(found, a)} and {label(found, b)}"
            lines.append(f"undecided: {both} have too few pairs of blocks; {_more_time(found.measured.request)}")
    return tuple(lines)


def verdict(found: Benchmark, compared: Comparison) -> str:
    """Describe a comparison; of the two, the faster one comes first."""
    if compared.verdict == "slower":
        return verdict(found, swap(compared))
    a, b, time, p99 = label(found, compared.a), label(found, compared.b), compared.time, compared.p99
    slow = "" if p99 is None else f"; a slow run (p99) of {b} takes {ratio(p99)} times that of {a}"
    if compared.verdict == "faster":
        gain = invert(time)
        # A reader takes for granted that slow runs are no slower.
        return f"{b} is {_figure(gain.ratio, gain)}x faster than {a}, {_range(gain)}" + (
            slow if p99 and p99.low > 1 else ""
        )
    slow = slow if p99 and not p99.low <= 1 <= p99.high else ""
    if compared.verdict == "same":
        return f"{a} and {b} take the same time ({ratio(time)}){slow}"
    times = f"{b} takes {_figure(time.ratio, time)} times the time of {a}, {_range(time)}{slow}"
    return f"undecided: {times}; {would_help(found.measured.request, compared)}"


def would_help(request: Request, compared: Comparison) -> str:
    """Name what would decide an undecided comparison."""
    if compared.floor > request.smallest_effect:
        return f"minimum detectable difference: {format_percent(compared.floor)}; {_more_time(request)}"
    half = f"{request.smallest_effect * 50:.2g}"
    least = format_percent(request.smallest_effect)
    return f"that is about the smallest difference that matters, {least}; --smallest-effect {half} looks closer"


def _more_time(request: Request) -> str:
    return f"more time would help: --budget {request.budget_s * 2:g}"


def minimum_detectable(found: Benchmark, at: int) -> str:
    """Return the minimum detectable difference on one case; empty where nothing was compared."""
    floors = [format_percent(each.floor) for each in sorted(_of_case(found, at), key=lambda each: each.floor)]
    if not floors:
        return ""
    least, most = floors[0], floors[-1]
    return f"minimum detectable difference: {least if least == most else f'{least} to {most}, depending on which two'}"


def timing(request: Request) -> str:
    """Return what is timed, and how the load is generated."""
    session = "session.run, host to host, checks and copies included"
    timed = "binding.run(), on buffers bound once, where the provider runs" if request.bound else session
    callers = "1 caller" if request.callers == 1 else f"{request.callers} callers at the same time"
    return f"timing: {timed}; {callers}, closed loop"


def method(found: Benchmark) -> tuple[str, ...]:
    """Describe how it was measured, and what the intervals mean."""
    request, findings = found.measured.request, found.findings
    processes = sorted({compared.processes for compared in findings.comparisons})
    lines = [timing(request)]
    if processes:
        count = f"{processes[0]}" if len(processes) == 1 else f"{processes[0]} to {processes[-1]}"
        lines.append(
            f"each candidate ran in {count} fresh processes, one at a time, in short alternating blocks; the interval "
            f"of a ratio comes from the spread between processes, at a confidence of {findings.level * 100:.4g} %"
        )
    smallest = format_percent(request.smallest_effect)
    lines.append(f"{smallest} is the smallest difference that matters: same means that the whole interval is within it")
    return (*lines, "p90 and p99 are left out where there are too few runs for a 95 % interval")


def unfinished(found: Benchmark) -> str:
    """Say that a benchmark was interrupted; empty for one that was not."""
    return "" if found.measured.complete else "it was interrupted: this is what had been measured by then"


def placement(found: Benchmark, place: int) -> str:
    """Return which providers ran the nodes of a candidate, and whether its outputs are right."""
    parts = [printable(found.candidates[place].summary), *parity(found, place)]
    return "; ".join(part for part in parts if part)


def parity(found: Benchmark, place: int) -> Iterator[str]:
    """Describe whether the outputs of a candidate agree with the reference's; where all cases do, by the worst one."""
    agreements = [(at, each) for at, each in enumerate(found.candidates[place].agreements) if each is not None]
    wrong = [(at, each) for at, each in agreements if not each.agree]
    if len(agreements) > 1 and not wrong:
        _, worst = max(agreements, key=lambda pair: pair[1].share or 0.0)
        yield f"{printable(worst.told)}, the worst of {len(agreements)} cases"
        return
    for at, each in wrong or agreements:
        name = case(found, at) if at < len(found.measured.cases) else ""
        yield f"at {name}, {printable(each.told)}" if name else printable(each.told)


def warning_lines(found: Benchmark) -> tuple[str, ...]:
    """Return the reasons to distrust it."""
    return tuple(f"warning: {printable(each)}" for each in warnings(found.measured, found.findings))


def notes(found: Benchmark) -> tuple[str, ...]:
    """Return all notes, those of candidates with their names."""
    mine = [f"{label(found, place)}: {note}" for place, each in enumerate(found.candidates) for note in each.notes]
    return tuple(f"note: {printable(note)}" for note in (*found.measured.notes, *mine))


def ratio(time: Estimate) -> str:
    """Write a ratio with its interval: "0.998, 0.993 to 1.004"."""
    return f"{_figure(time.ratio, time)}, {_range(time)}"


def _range(time: Estimate) -> str:
    return f"{_figure(time.low, time)} to {_figure(time.high, time)}"


def _figure(value: float, of: Estimate) -> str:
    """Write a ratio, with as many digits as its interval is worth."""
    if of.ratio >= 10:
        return f"{value:.3g}"
    return f"{value:.3f}" if of.ratio < 1.1 and of.high - of.low < 0.2 else f"{value:.2f}"


def _of_case(found: Benchmark, at: int) -> list[Comparison]:
    return [compared for compared in found.findings.comparisons if compared.case == at]


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
