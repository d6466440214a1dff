"""Describe an exported file: its inputs and outputs, what is open in it, and the proof that it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from epkit.model.file import TensorInfo
from epkit.parity.agreement import Agreement
from epkit.prepare.export.proof import WITHOUT_FAST_PATH, Trial, summarize

SCHEMA = "epkit.export/1"


@dataclass(frozen=True, slots=True)
class Exported:
    """An ONNX file made from a PyTorch module.

    `file` is None where the proof failed: then nothing was written. `trials` holds one comparison with PyTorch for each
    batch size and seed; `opset` is what the file asks for, `asked_opset` what the caller asked for.
    """

    file: Path | None
    bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    asked_opset: int | None
    exporter: str
    dynamic: Mapping[str, Sequence[int]]
    """Open dimensions, each with the sizes that were run."""
    trials: tuple[Trial, ...]
    source_sha256: str
    notes: tuple[str, ...]
    seconds: float

    @property
    def parity(self) -> Agreement:
        """The comparison that is furthest off."""
        return summarize(self.trials)

    def summary(self) -> str:
        """Return in a sentence what the file is."""
        named = ", ".join(output.name for output in self.outputs)
        what = (
            f"opset {self.opset}, {_count(len(self.inputs), 'input')}, {_count(len(self.outputs), 'output')} ({named})"
        )
        shown = "; ".join(f"{name} is open, proven at {_listed(sizes)}" for name, sizes in self.dynamic.items())
        return f"{what}; {shown or 'all sizes are fixed'}"

    def as_json(self) -> dict[str, object]:
        """Return it as the document `epkit.export/1`."""
        return {
            "schema": SCHEMA,
            "file": None if self.file is None else str(self.file),
            "bytes": self.bytes,
            "inputs": [asdict(tensor) for tensor in self.inputs],
            "outputs": [asdict(tensor) for tensor in self.outputs],
            "opset": self.opset,
            "asked_opset": self.asked_opset,
            "exporter": self.exporter,
            "dynamic": {name: list(sizes) for name, sizes in self.dynamic.items()},
            "parity": self.parity.as_json() | {"trials": [trial.as_json() for trial in self.trials]},
            "source_sha256": self.source_sha256,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def fast_path_note(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return what to know where a file agrees with PyTorch only without its fast path."""
    if not any(trial.agreement.reference == WITHOUT_FAST_PATH for trial in trials):
        return ()
    return (
        "the file agrees with PyTorch's transformer layers as defined, not with their fast path, which fills padded "
        "rows with zeros: compare with torch.backends.mha.set_fastpath_enabled(False)",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _listed(sizes: Sequence[int]) -> str:
    *rest, last = map(str, sizes)
    return f"{', '.join(rest)} and {last}" if rest else last
