"""How is a change between two benchmarks told in words?"""

from __future__ import annotations

from collections.abc import Iterator

from epkit.benchmark.audit.comparability import Differs
from epkit.benchmark.audit.diff import Change, Changes
from epkit.benchmark.document import Estimate


def sentence(one: Change) -> str:
    """Say how two candidates stand beside each other, before and now: "... 9 % slower, 6 to 12"."""
    case = f"{one.case}: " if one.case else ""
    return f"{case}{one.b} beside {one.a}: {_beside(one.before)} before, {_beside(one.now)} now: {_change(one)}"


def obstacle(one: Differs) -> str:
    """Say what differs, and what is not compared for that reason."""
    what = {
        "everything": "nothing is compared",
        "this case": "this case is not compared",
        "times": "times are not compared and no change is judged",
    }
    if one.forbids == "verdicts":
        return f"{one.what}: {one.before} before, {one.now} now: what changed may be their doing, and is not judged"
    return f"{one.what} is not the same ({one.before} before, {one.now} now): {what[one.forbids]}"


def summary(found: Changes) -> Iterator[str]:
    """Say in one sentence each what is wrong, what keeps the two apart, and what changed."""
    yield from found.lost
    yield from (obstacle(one) for one in found.differs if one.forbids != "nothing")
    yield from found.missing
    yield from (sentence(one) for one in found.changes)
    if not found.comparable:
        yield "nothing of the two can be compared"


def _beside(ratio: Estimate) -> str:
    factor = max(ratio.ratio, 1 / ratio.ratio)
    if factor < 1.005:
        return "as fast"
    return f"{factor:.3g}x {'slower' if ratio.ratio > 1 else 'faster'}"


def _change(one: Change) -> str:
    low, high = one.change.low, one.change.high
    match one.verdict:
        case "slower":
            return f"{_percent(one.change.ratio)} % slower, {_percent(low)} to {_percent(high)}"
        case "faster":
            return f"{_percent(1 / one.change.ratio)} % faster, {_percent(1 / high)} to {_percent(1 / low)}"
        case "same":
            return f"the same, {_between(one.change)}"
        case "undecided":
            return f"undecided, {_between(one.change)} (what can be told here is {_percent(1 + one.floor)} %)"
    return f"not judged, {_between(one.change)}"


def _between(change: Estimate) -> str:
    return f"between {_signed(change.low)} and {_signed(change.high)}"


def _signed(ratio: float) -> str:
    return f"{_percent(ratio)} % slower" if ratio >= 1 else f"{_percent(1 / ratio)} % faster"


def _percent(ratio: float) -> str:
    percent = (ratio - 1) * 100
    return f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"
