"""Verify a document: recompute every number that follows from others, and compare.

Whatever is printed is recomputed from the samples, and every agreement of outputs is judged again from its figures.
Measurements themselves are checked for contradictions only (`epkit.benchmark.audit.consistency`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from epkit.benchmark.audit.consistency import Fault, Value, contradictions, impossible
from epkit.benchmark.document import Benchmark, Measured
from epkit.benchmark.statistics.verdicts import findings
from epkit.errors import ConfigError
from epkit.parity.agreement import Agreement, incomparable, judged
from epkit.parity.metrics import FLOOR, Metrics
from epkit.parity.tolerance import Tolerance, tolerance_of

SCHEMA = "epkit.bench.verification/1"

NEARLY = 1e-9
"""How far apart two equal numbers may be, as a share: other processors round the last digit otherwise."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was recomputed, and what is wrong."""

    complete: bool
    """Whether the benchmark is finished."""
    values: int
    """How many values of the findings and of agreements were recomputed."""
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
        return {"schema": SCHEMA, "holds": self.holds, **asdict(self)}


def verify(benchmark: Benchmark) -> Verification:
    """Recompute every value that follows from others, and list those that the document has otherwise."""
    measured = benchmark.measured
    wrong = impossible(measured, measured)
    if wrong:
        # Nothing can be computed from impossible numbers.
        return Verification(measured.complete, 0, tuple(wrong))
    values = [*_agreements(measured), *_compare("findings", asdict(benchmark.findings), asdict(findings(measured)))]
    mismatches = (Fault(path, said, found) for path, said, found in values if not _is_same(said, found))
    return Verification(measured.complete, len(values), (*contradictions(measured), *mismatches))


def _compare(path: str, said: object, found: object) -> Iterator[tuple[str, Value, Value]]:
    """Yield the path of every value in two trees, with both values; None for what only the other has."""
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        for key in {**said, **found}:
            yield from _compare(f"{path}.{key}", said.get(key), found.get(key))
    elif isinstance(said, list | tuple) and isinstance(found, list | tuple):
        if len(said) != len(found):
            yield f"{path}, how many", len(said), len(found)
        for at, (its, other) in enumerate(zip(said, found, strict=False)):
            yield from _compare(f"{path}[{at}]", its, other)
    else:
        yield path, _plain(said), _plain(found)


def _plain(value: object) -> Value:
    return value if value is None or isinstance(value, str | int | float) else f"{type(value).__name__} of {value}"


def _is_same(said: Value, found: Value) -> bool:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (said, found)):
        return math.isclose(said, found, rel_tol=NEARLY)  # type: ignore[arg-type]
    return said == found


def _agreements(measured: Measured) -> Iterator[tuple[str, Value, Value]]:
    """Judge every agreement again, from the figures of its outputs."""
    try:
        tolerance = tolerance_of(measured.request.tolerance)
    except ConfigError as error:
        yield "measured.request.tolerance", measured.request.tolerance, error.message
        return
    for at, candidate in enumerate(measured.candidates):
        for case, said in enumerate(candidate.agreements):
            if said is not None:
                path = f"measured.candidates[{at}].agreements[{case}]"
                yield from _compare(path, asdict(said), asdict(_judge_again(said, tolerance)))


def _judge_again(said: Agreement, tolerance: Tolerance) -> Agreement:
    metrics = [_recompute(output.metrics) for output in said.outputs]
    # How far rounding alone moves an output is not measured in a benchmark.
    found = judged(said.reference, metrics, {}, tolerance) if metrics else incomparable(said.reference, "")
    # Why outputs were left out is only in the sentence, at its end.
    rest = said.told.removeprefix(found.told)
    known = said.told.startswith(found.told) and (not metrics or not rest or rest.startswith("; "))
    return replace(found, told=said.told) if known else found


def _recompute(said: Metrics) -> Metrics:
    """Compute the share of an output, and hold its other figures to what they can be."""
    share = said.share
    if said.max_abs is not None and said.largest is not None:
        share = said.max_abs / max(said.largest, FLOOR)
    elements = math.prod(said.shape or ())
    most: Mapping[str, float | None] = {
        "unequal": elements,
        "misplaced": said.unequal,
        "mean_abs": said.max_abs,
        "mean_rel": said.max_rel,
        "cosine": 1,
        "argmax_flips": said.argmax_of,
        "argmax_of": elements,
    }
    held = {
        name: min(max(value, -1 if name == "cosine" else 0), limit)
        for name, limit in most.items()
        if (value := getattr(said, name)) is not None and limit is not None
    }
    return replace(said, share=share, **held)
