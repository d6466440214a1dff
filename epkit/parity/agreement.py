"""Decide whether outputs agree with those of the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from epkit.parity.metrics import Metrics, measure
from epkit.parity.outputs import Outputs
from epkit.parity.tolerance import AUTO, Judged, Tolerance, judge


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether all outputs agree with those of `reference`, and how far the worst are apart."""

    reference: str
    agree: bool
    told: str
    max_abs: float | None
    share: float | None
    outputs: tuple[Judged, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "reference": self.reference,
            "agree": self.agree,
            "told": self.told,
            "max_abs": self.max_abs,
            "share": self.share,
            "outputs": [output.as_json() for output in self.outputs],
        }


def agreement(
    name: str,
    reference: Outputs,
    other: Outputs,
    tolerance: Tolerance = AUTO,
    moved: Mapping[str, float] | None = None,
) -> Agreement:
    """Compare all outputs with those of the reference, called `name`.

    `moved` says by which share rounding alone moves an output, where that is known.
    """
    left_out = {**reference.left_out, **other.left_out}
    return judged(name, tuple(measured(reference, other)), left_out, tolerance, moved)


def measured(reference: Outputs, other: Outputs) -> Iterator[Metrics]:
    """Measure each output against that of the reference; what cannot be compared is left out."""
    for name, expected in reference.arrays.items():
        dtype, found = reference.dtypes[name], other.dtypes.get(name)
        if found is not None:
            yield measure(name, expected, other.arrays[name], dtype, found)
        elif name not in other.left_out:
            yield Metrics(name, dtype, None, expected.shape)
    for name, array in other.arrays.items():
        if name not in reference.arrays and name not in reference.left_out:
            yield Metrics(name, None, other.dtypes[name], None, array.shape)


def judged(
    name: str,
    metrics: Sequence[Metrics],
    left_out: Mapping[str, str],
    tolerance: Tolerance = AUTO,
    moved: Mapping[str, float] | None = None,
) -> Agreement:
    """Judge what was measured; `left_out` says why there is nothing of some outputs."""
    found = tuple(judge(metric, tolerance, (moved or {}).get(metric.output, 0.0)) for metric in metrics)
    wrong = [output for output in found if not output.agree]
    reasons = "".join(f"; {output}: {why}" for output, why in left_out.items())
    largest = max(found, key=lambda output: output.metrics.share or 0.0, default=None)
    if wrong:
        more = f", and {len(wrong) - 1} more outputs differ" if len(wrong) > 1 else ""
        message = f"differs from {name}: {wrong[0].told}{more}"
    elif largest is None:
        return incomparable(name, "there is no output that can be" + reasons)
    else:
        message = f"agrees with {name}: {largest.told}"
    return Agreement(
        name,
        bool(found) and not wrong,
        message + reasons,
        max((output.metrics.max_abs for output in found if output.metrics.max_abs is not None), default=None),
        max((output.metrics.share for output in found if output.metrics.share is not None), default=None),
        found,
    )


def incomparable(name: str, why: str) -> Agreement:
    """Say that the outputs cannot be compared with those of `name`; they count as disagreeing."""
    return Agreement(name, False, f"not compared with {name}: {why}", None, None, ())
