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
class Fault:
    """What went wrong. `kind` is the class of the error that its process met, empty for none of epkit's."""

    status: Status
    kind: str
    reason: str
    hint: str

    @property
    def exit_code(self) -> int:
        """The exit code of the error; 3 where the process came to grief: the provider cannot be had."""
        found = getattr(errors, self.kind, None) if self.kind else None
        return found.exit_code if isinstance(found, type) and issubclass(found, EpkitError) else 3


def told(reply: Mapping[str, object]) -> Fault | None:
    """Return the fault that a process tells of in its reply; None when it tells of none."""
    if "error" not in reply:
        return None
    kind = str(reply["error"])
    status: Status = "unusable" if kind == "ProviderUnavailable" else "failed"
    return Fault(status, kind, str(reply["message"]), str(reply["hint"]))


def lost(child: Child, doing: str, target: str) -> Fault:
    """Return the fault of a process that gave no reply while it was doing something."""
    ending = child.describe_end()
    said = "" if child.timed_out else child.last_line()
    reason = f"its process {ending} while {doing}" + (f": {said}" if said else "")
    return Fault("failed", "", reason, f"epkit run MODEL -t {target}")


def raise_common_fault(faults: Sequence[Fault | None]) -> None:
    """Raise what every candidate says that this machine has: it is the model's fault, or the inputs', and no one's."""
    kinds: dict[str, type[EpkitError]] = {one.__name__: one for one in (ModelError, RunError, InputError, ConfigError)}
    had = [one for one in faults if one is None or one.status == "failed"]
    first = had[0] if had else None
    if first is not None and first.kind in kinds and all(one and one.kind == first.kind for one in had):
        raise kinds[first.kind](first.reason, hint=first.hint)
