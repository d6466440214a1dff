"""Count the promises that each provider keeps, and list why the others could not be proven here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

NOT_PROVEN = "not proven: "
NOT_CLAIMED = " is not claimed"


@dataclass(slots=True)
class Tally:
    """What became of the promises of one provider."""

    kept: int = 0
    broken: int = 0
    unproven: int = 0
    reasons: dict[str, None] = field(default_factory=dict)
    """Why some are not proven, each once."""
    unclaimed: dict[str, None] = field(default_factory=dict)
    """What the provider does not claim to do."""

    def line(self) -> str:
        """Say it in one line: "12 kept, 9 not proven here: no /dev/acme0 (sudo modprobe acme)"."""
        counts = [f"{self.kept} promise{'' if self.kept == 1 else 's'} kept"]
        counts += [f"{self.broken} broken"] if self.broken else []
        counts += [f"{self.unproven} not proven here: {'; '.join(self.reasons)}"] if self.unproven else []
        unclaimed = f"; not claimed: {', '.join(self.unclaimed)}" if self.unclaimed else ""
        return ", ".join(counts) + unclaimed


def unproven(reason: str) -> str | None:
    """Return why a promise that was skipped is not proven; empty if it is not claimed, None if it is another skip."""
    message = reason.removeprefix("Skipped: ")
    if not message.startswith(NOT_PROVEN):
        return None
    return "" if message.endswith(NOT_CLAIMED) else message.removeprefix(NOT_PROVEN)


def tallied(outcomes: Iterable[tuple[str, str, str]]) -> dict[str, Tally]:
    """Count outcomes, each a provider, pytest's word for what became of a promise, and the reason of a skip."""
    found: dict[str, Tally] = {}
    for provider, outcome, reason in outcomes:
        tally = found.setdefault(provider, Tally())
        why = unproven(reason)
        if outcome == "passed":
            tally.kept += 1
        elif outcome != "skipped":
            tally.broken += 1
        elif why:
            tally.unproven += 1
            tally.reasons[why] = None
        elif why is not None:
            tally.unclaimed[reason.removeprefix("Skipped: ").removeprefix(NOT_PROVEN).removesuffix(NOT_CLAIMED)] = None
    return found
