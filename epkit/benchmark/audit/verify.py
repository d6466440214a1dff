"""Does every number in a document follow from what was measured?

Whatever is printed is worked out again from the samples, and every agreement of outputs is judged again from its
figures. What was measured itself is only looked at for contradictions (`epkit.benchmark.soundness`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from epkit.benchmark.audit.consistency import Fault, Value, broken, contradictions
from epkit.benchmark.document import Benchmark
from epkit.benchmark.statistics.verdicts import findings
from epkit.errors import ConfigError
from epkit.parity.agreement import Agreement, incomparable, judged
from epkit.parity.metrics import FLOOR, Metrics
from epkit.parity.tolerance import Tolerance, tolerance_of

SCHEMA = "epkit.bench.verification/1"

NEARLY = 1e-9
"""How far apart two numbers may be that are the same, as a share: other processors round the last digit otherwise."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what does not hold."""

    complete: bool
    """Whether the benchmark came to its end."""
    values: int
    """How many values of the findings and of agreements were worked out again."""
    faults: tuple[Fault, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    @property
    def exit_code(self) -> int:
        """0 when everything holds, else 1."""
        return 0 if self.holds else 1

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        faults = [asdict(one) for one in self.faults]
        return {
            "schema": SCHEMA,
            "holds": self.holds,
            "complete": self.complete,
            "values": self.values,
            "faults": faults,
        }


def verify(benchmark: Benchmark) -> Verification:
    """Work out every value that follows from others, and say which ones are not what the document says."""
    measured = benchmark.measured
    wrong = broken(measured)
    if wrong:
        # Nothing can be worked out of numbers that are none.
        return Verification(measured.complete, 0, tuple(wrong))
    pairs = list(_agreements(benchmark))
    pairs += _pairs("findings", asdict(benchmark.findings), asdict(findings(measured)))
    return Verification(
        measured.complete,
        len(pairs),
        (
            *contradictions(measured),
            *(Fault(path, said, found) for path, said, found in pairs if not _same(said, found)),
        ),
    )


_Pair = tuple[str, Value, Value]
"""Where a value stands, what the document says, and what was worked out."""


def _pairs(path: str, said: object, found: object) -> Iterator[_Pair]:
    """Put the values of two trees side by side; what only one of them has stands beside None."""
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        for key in {**said, **found}:
            yield from _pairs(f"{path}.{key}", said.get(key), found.get(key))
    elif isinstance(said, list | tuple) and isinstance(found, list | tuple):
        if len(said) != len(found):
            yield f"{path}, how many", len(said), len(found)
        for at in range(min(len(said), len(found))):
            yield from _pairs(f"{path}[{at}]", said[at], found[at])
    else:
        yield path, _plain(said), _plain(found)


def _plain(value: object) -> Value:
    return value if value is None or isinstance(value, str | int | float) else f"{type(value).__name__} of {value}"


def _same(said: Value, found: Value) -> bool:
    if (
        isinstance(said, bool)
        or isinstance(found, bool)
        or isinstance(said, str | None)
        or isinstance(found, str | None)
    ):
        return said == found
    return math.isclose(said, found, rel_tol=NEARLY)


def _agreements(benchmark: Benchmark) -> Iterator[_Pair]:
    """Judge every agreement again, from the figures of its outputs."""
    measured = benchmark.measured
    try:
        tolerance = tolerance_of(measured.request.tolerance)
    except ConfigError as error:
        yield "measured.request.tolerance", measured.request.tolerance, error.message
        return
    for at, candidate in enumerate(measured.candidates):
        for case, said in enumerate(candidate.agreements):
            if said is not None:
                yield from _agreement(f"measured.candidates[{at}].agreements[{case}]", said, tolerance)


def _agreement(path: str, said: Agreement, tolerance: Tolerance) -> Iterator[_Pair]:
    metrics = [one.metrics for one in said.outputs]
    # How far rounding alone moves an output is not measured in a benchmark.
    found = judged(said.reference, metrics, {}, tolerance) if metrics else incomparable(said.reference, "")
    for at, (one, again) in enumerate(zip(said.outputs, found.outputs, strict=True)):
        its_path = f"{path}.outputs[{at}]"
        yield from _figures(f"{its_path}.metrics", one.metrics)
        yield f"{its_path}.agree", one.agree, again.agree
        yield f"{its_path}.told", one.told, again.told
        yield f"{its_path}.allowed", one.allowed, again.allowed
    yield f"{path}.agree", said.agree, found.agree
    yield f"{path}.told", said.told, _told(said.told, found.told, open_end=not metrics)
    yield f"{path}.max_abs", said.max_abs, found.max_abs
    yield f"{path}.share", said.share, found.share


def _told(said: str, found: str, *, open_end: bool) -> str:
    """Return what a sentence should be. Why outputs were left out is known to nobody but the sentence, at its end."""
    more = said.removeprefix(found)
    return said if said.startswith(found) and (open_end or not more or more.startswith("; ")) else found


def _figures(path: str, said: Metrics) -> Iterator[_Pair]:
    """Work out those figures of an output that follow from its others, and hold the rest to what they can be."""
    if said.max_abs is not None and said.largest is not None:
        yield f"{path}.share", said.share, said.max_abs / max(said.largest, FLOOR)
    elements = math.prod(said.shape or ())
    for name, value, most in _bounds(said, elements):
        if value is not None and most is not None:
            yield f"{path}.{name}", value, min(max(value, -1 if name == "cosine" else 0), most)


def _bounds(said: Metrics, elements: int) -> Sequence[tuple[str, float | None, float | None]]:
    return (
        ("unequal", said.unequal, elements),
        ("misplaced", said.misplaced, said.unequal),
        ("mean_abs", said.mean_abs, said.max_abs),
        ("mean_rel", said.mean_rel, said.max_rel),
        ("cosine", said.cosine, 1),
        ("argmax_flips", said.argmax_flips, said.argmax_of),
        ("argmax_of", said.argmax_of, elements),
    )
