"""Hold the result of a comparison.

The document that other programs read, `epkit.compare/1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from epkit.parity.agreement import Agreement
from epkit.parity.conditioning import Conditioning
from epkit.parity.divergence import Divergence
from epkit.parity.tolerance import Tolerance
from epkit.session.fault import WorkerFault

SCHEMA = "epkit.compare/1"

Verdict: TypeAlias = Literal["agree", "differ", "ill-conditioned"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outputs for one set of inputs. `seed` is None for outputs that were saved before."""

    seed: int | None
    inputs_sha256: str
    agreement: Agreement

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "seed": self.seed,
            "inputs_sha256": self.inputs_sha256,
            "agreement": self.agreement.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One target: what it ran on, and how its outputs compare with those of the reference."""

    target: str
    provider: str | None = None
    """The provider that took nodes."""
    summary: str = ""
    """Who runs the nodes, in words."""
    fault: WorkerFault | None = None
    """Why there are no outputs."""
    verdict: Verdict | None = None
    """None for the reference, and where there are no outputs."""
    told: str = ""
    runs: tuple[Judgement, ...] = ()
    divergence: Divergence | None = None
    """Where the two part; None where they agree, and where the model cannot be looked into."""
    conditioning: Conditioning | None = None
    """How far rounding alone moves the outputs; None where they agree, and where that could not be measured."""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "target": self.target,
            "provider": self.provider,
            "summary": self.summary,
            "fault": asdict(self.fault) if self.fault else None,
            "verdict": self.verdict,
            "told": self.told,
            "runs": [run.as_json() for run in self.runs],
            "divergence": self.divergence.as_json() if self.divergence else None,
            "conditioning": self.conditioning.as_json() if self.conditioning else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was compared, with what, and by which tolerance."""

    model: str
    """Empty for outputs that were saved before."""
    model_sha256: str
    reference: str
    """The target (or the folder) whose outputs the others' are compared with."""
    rows: tuple[Row, ...]
    tolerance: Tolerance
    inputs: tuple[Mapping[str, object], ...]
    """Name, dtype and shape, and where they come from: a file, or made up."""
    seeds: tuple[int, ...]
    """The seeds of the inputs that were made up and are not the same; empty for outputs that were saved before."""
    notes: tuple[str, ...] = ()

    @property
    def agree(self) -> bool:
        """Whether the outputs of all targets agree."""
        return all(row.fault is None and row.verdict in (None, "agree") for row in self.rows)

    @property
    def exit_code(self) -> int:
        """0 when all agree, 1 when any does not; 3 or 4 when a target has no outputs: the others are compared."""
        faults = [row.fault.exit_code for row in self.rows if row.fault is not None]
        return max(faults, default=0 if self.agree else 1)

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit compare --json`."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "reference": self.reference,
            "agree": self.agree,
            "rows": [row.as_json() for row in self.rows],
            "tolerance": asdict(self.tolerance),
            "inputs": [dict(tensor) for tensor in self.inputs],
            "seeds": list(self.seeds),
            "notes": list(self.notes),
        }
