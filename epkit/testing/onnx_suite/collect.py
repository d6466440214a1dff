"""Show the suite in pytest: one item for each case, and a table at the end."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from epkit import wheels
from epkit._system import files
from epkit.discovery.probe import Answer
from epkit.errors import EpkitError, RunError
from epkit.provider import Usable
from epkit.testing.onnx_suite.cases import KINDS, SuiteCase, cases
from epkit.testing.onnx_suite.report import JudgedCase, SuiteReport, lines, report_of
from epkit.testing.onnx_suite.runners import Arms

INSTALL = 'pip install "onnx<1.23"'


@dataclass(frozen=True, slots=True)
class Wanted:
    """A provider that this machine has, and the cases to run on it."""

    provider: str
    detail: str
    cases: Sequence[SuiteCase]


def wanted(provider: str) -> Wanted:
    """Find the cases, and make sure of the provider; raises UsageError."""
    try:
        found = cases()
    except ImportError as error:
        raise pytest.UsageError(f"--epkit-onnx-suite needs the onnx package, whose cases it runs: {INSTALL}") from error
    try:
        return Wanted(provider, _detail(provider), found)
    except EpkitError as error:
        raise pytest.UsageError(f"--epkit-provider={provider}: {error}") from error


class SuitePlugin:
    """Adds the suite to a session of pytest; made where the suite was asked for."""

    def __init__(self, config: pytest.Config, wanted: Wanted, report: Path | None) -> None:
        self.wanted = wanted
        self.judged: list[JudgedCase] = []
        self.arms = Arms(wanted.provider)
        self._report = report
        named = [argument for argument in config.args if argument.startswith(_name(wanted.provider))]
        self.named = {tuple(argument.split("::")[1:]) for argument in named}
        """The kinds and cases that the command line names, such as `onnx-suite[cpu]::node::test_abs`; empty: all."""
        # Without paths, pytest would fill in the project's own tests.
        others = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [argument for argument in others if argument not in named]

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Put the suite beside whatever else the session collects."""
        report = yield
        if isinstance(collector, pytest.Session) and report.passed:
            name = _name(self.wanted.provider)
            suite = Suite.from_parent(collector, name=name, nodeid=name)
            suite.plugin = self
            report.result.append(suite)
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End the workers, and write the report of a session that was not cut short."""
        self.arms.end()
        selected = sum(isinstance(item, CaseItem) for item in session.items)
        if self._report is not None and 0 < len(self.judged) == selected:
            self._report.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(self._report, self.summed().as_json())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the sums."""
        if self.judged:
            terminalreporter.section(_name(self.wanted.provider))
            for line in lines(self.summed()):
                terminalreporter.write_line(line)

    def summed(self) -> SuiteReport:
        """Return the report of what was run."""
        return report_of(self.wanted.provider, self.wanted.detail, _versions(), self.judged)


class Suite(pytest.Collector):
    """All cases on one provider."""

    plugin: SuitePlugin

    def collect(self) -> Iterator[Kind]:
        """Offer a collector a kind."""
        for kind in KINDS:
            yield Kind.from_parent(self, name=kind)


class Kind(pytest.Collector):
    """The cases of one kind: node, light ..."""

    parent: Suite

    def collect(self) -> Iterator[CaseItem]:
        """Offer an item a case."""
        plugin = self.parent.plugin
        for case in plugin.wanted.cases:
            chain = (case.kind, case.name)
            if case.kind == self.name and (
                not plugin.named or any(chain[: len(chosen)] == chosen for chosen in plugin.named)
            ):
                item = CaseItem.from_parent(self, name=case.name)
                item.case, item.plugin = case, plugin
                yield item


class GateBroken(Exception):
    """Plain ONNX Runtime passes the case, epkit does not."""


class CaseItem(pytest.Item):
    """One case: passed where the gate holds, skipped where plain ONNX Runtime fails it too."""

    case: SuiteCase
    plugin: SuitePlugin

    def runtest(self) -> None:
        """Run the case in both arms."""
        try:
            plain, epkit = self.plugin.arms.judge(self.case)
        except RunError as error:
            self.session.shouldfail = error.message  # every other case would say the same
            raise GateBroken(str(error)) from error
        judged = JudgedCase(f"{self.case.kind}::{self.case.name}", plain, epkit)
        self.plugin.judged.append(judged)
        match judged.verdict:
            case "broken":
                message = f"plain ONNX Runtime passes this case on {self.plugin.wanted.provider}, epkit does not"
                raise GateBroken(f"{message} ({epkit.stage}): {epkit.words}\n{self.case.model}")
            case "remaining":
                pytest.skip(f"plain ONNX Runtime does not pass it either: {judged.cause}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Show the sentence, not the lines of the runner."""
        if isinstance(excinfo.value, GateBroken):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, None, str]:
        """Name the case in the report."""
        return self.path, None, self.name


def _name(provider: str) -> str:
    return f"onnx-suite[{provider}]"


def _detail(provider: str) -> str:
    """Return what the machine has for the provider; raises EpkitError when it has nothing."""
    from epkit.config import target
    from epkit.config.file import load
    from epkit.discovery.registry import discover
    from epkit.session.request import plan_target

    registry = discover()
    registry.get(provider)  # a target of the user's config is no provider
    planned = plan_target(target.read(provider, load({}), registry), registry)
    planned.check()
    answer: Answer = planned.answers[provider]
    return answer.availability.detail if isinstance(answer.availability, Usable) else ""


def _versions() -> dict[str, str]:
    """Return the versions on which the outcomes depend: the cases, the runtime, and who carries the arrays."""
    return {name: wheels.version(name) for name in ("onnx", "numpy", "ml_dtypes")} | wheels.runtimes()
