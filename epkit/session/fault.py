"""Describe why a worker process has no result for a candidate, and raise what all candidates have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from epkit import errors
from epkit._system.process import Child
from epkit.errors import ConfigError, EpkitError, InputError, ModelError, RunError

Status: TypeAlias = Literal["unusable", "failed"]


@dataclass(frozen=True, slots=True)
class WorkerFault:
    """What went wrong. `kind` is the class of the error that its process met, empty for none of epkit's."""

    status: Status
    kind: str
    reason: str
    hint: str

    @property
    def exit_code(self) -> int:
        """The exit code of the error; 3 where the process ended without a reply: the provider is not usable."""
        found = getattr(errors, self.kind, None) if self.kind else None
        return found.exit_code if isinstance(found, type) and issubclass(found, EpkitError) else 3


def read_fault(reply: Mapping[str, object]) -> WorkerFault | None:
    """Return the fault that a process reports in its reply; None when it reports none."""
    if "error" not in reply:
        return None
    kind = str(reply["error"])
    status: Status = "unusable" if kind == "ProviderUnavailable" else "failed"
    return WorkerFault(status, kind, str(reply["message"]), str(reply["hint"]))


def lost(child: Child, doing: str, target: str) -> WorkerFault:
    """Return the fault of a process that gave no reply while it was doing something."""
    ending = child.describe_end()
    last = "" if child.timed_out else child.last_line()
    reason = f"its process {ending} while {doing}" + (f": {last}" if last else "")
    return WorkerFault("failed", "", reason, f"epkit run MODEL -t {target}")


def raise_common_fault(faults: Sequence[WorkerFault | None]) -> None:
    """Raise the error that every candidate that this machine has reports: its cause is the model or the inputs."""
    kinds: dict[str, type[EpkitError]] = {
        kind.__name__: kind for kind in (ModelError, RunError, InputError, ConfigError)
    }
    had = [fault for fault in faults if fault is None or fault.status == "failed"]
    first = had[0] if had else None
    if first is not None and first.kind in kinds and all(fault and fault.kind == first.kind for fault in had):
        raise kinds[first.kind](first.reason, hint=first.hint)
