"""Report the results of the suite on a provider, in numbers and names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

from epkit.testing.onnx_suite.failure_reasons import cause_of
from epkit.testing.onnx_suite.runners import Outcome

Verdict: TypeAlias = Literal["held", "added", "broken", "remaining"]

LEFT = "not opened on the provider: epkit went on without it"


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """A case, and what plain ONNX Runtime and epkit made of it."""

    name: str
    plain: Outcome
    epkit: Outcome

    @property
    def verdict(self) -> Verdict:
        """Both pass (held), only epkit does (added), only plain ONNX Runtime does (broken), or neither (remaining)."""
        if self.plain.passed:
            return "held" if self.epkit.passed else "broken"
        return "added" if self.epkit.passed else "remaining"

    @property
    def cause(self) -> str:
        """What plain ONNX Runtime failed on and epkit did not, or what epkit failed on; empty where both pass."""
        match self.verdict:
            case "held":
                return ""
            case "added":
                return LEFT if self.epkit.left else cause_of(self.plain)
            case _:
                return cause_of(self.epkit)


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """The sums over all cases, and the names behind those that are not simply passed by both."""

    provider: str
    detail: str
    """What the provider's probe found on the machine."""
    versions: Mapping[str, str]
    cases: int
    plain: int
    """How many plain ONNX Runtime passes."""
    epkit: int
    """How many epkit passes."""
    took: int
    """In how many of those that epkit passes the provider ran nodes."""
    whole: int
    """In how many of those it ran every node."""
    folded: int
    """How many of those that epkit passes have no node to run."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """What plain ONNX Runtime passes and epkit does not, with what epkit said."""
    added: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What only epkit passes, by what plain ONNX Runtime fails on."""
    remaining: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What neither passes, by what epkit fails on."""

    def as_json(self) -> str:
        """Return it as text that a version control system can compare."""
        return json.dumps(asdict(self), indent=1) + "\n"


def report_of(provider: str, detail: str, versions: Mapping[str, str], judged: Sequence[JudgedCase]) -> SuiteReport:
    """Sum up."""
    passed = [case.epkit for case in judged if case.epkit.passed]
    return SuiteReport(
        provider,
        detail,
        versions,
        cases=len(judged),
        plain=sum(case.plain.passed for case in judged),
        epkit=len(passed),
        took=sum(case.took > 0 for case in passed),
        whole=sum(0 < case.nodes == case.took for case in passed),
        folded=sum(case.nodes == 0 for case in passed),
        broken={case.name: case.epkit.words for case in judged if case.verdict == "broken"},
        added=_by_cause(case for case in judged if case.verdict == "added"),
        remaining=_by_cause(case for case in judged if case.verdict == "remaining"),
    )


def lines(report: SuiteReport) -> list[str]:
    """Say it for a terminal."""
    message = [
        f"{report.plain} of {report.cases} cases pass in plain ONNX Runtime, {report.epkit} in epkit",
        f"{report.provider} ran nodes in {report.took} of those, all nodes in {report.whole}; "
        f"{report.folded} have no node to run",
    ]
    for title, by_cause in (("only epkit passes", report.added), ("neither passes", report.remaining)):
        message += [f"{title}: {len(names):5}  {cause}" for cause, names in by_cause.items()]
    return message


def _by_cause(judged: Iterable[JudgedCase]) -> dict[str, list[str]]:
    """Group names by cause, the most frequent first."""
    found: dict[str, list[str]] = {}
    for case in judged:
        found.setdefault(case.cause, []).append(case.name)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))
