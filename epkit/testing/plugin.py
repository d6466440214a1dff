"""Add epkit's options and fixtures to pytest. Every start of pytest loads this module, so it imports little."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from epkit.testing import benchmark_fixture
from epkit.testing.benchmark_fixture import epkit_bench  # noqa: F401 - a fixture is found where it stands
from epkit.testing.tally import tallied, unproven

PROMISE_OF = "epkit: promise of"
"""The name of the property that reports of promises carry: which provider's it is."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add epkit's options."""
    group = parser.getgroup("epkit", "epkit: proving providers of ONNX Runtime")
    group.addoption("--epkit-provider", metavar="NAME", help="the provider on which --epkit-onnx-suite runs")
    group.addoption(
        "--epkit-onnx-suite",
        action="store_true",
        help="run the onnx package's backend suite: epkit must pass what plain ONNX Runtime passes on the provider",
    )
    group.addoption("--epkit-report", metavar="FILE", type=Path, help="write what the suite found to FILE, as JSON")
    group.addoption(
        "--epkit-require-proven",
        action="store_true",
        help="fail promises that are claimed and cannot be proven here: for machines that have the device",
    )
    benchmark_fixture.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Add the suite where it was asked for."""
    benchmark_fixture.check_options(config)
    provider, suite = config.getoption("--epkit-provider"), config.getoption("--epkit-onnx-suite")
    if suite and not provider:
        raise pytest.UsageError("--epkit-onnx-suite needs --epkit-provider=NAME, such as --epkit-provider=cpu")
    if provider and not suite:
        raise pytest.UsageError("--epkit-provider says where to run --epkit-onnx-suite, which is missing")
    if suite:
        from epkit.testing.onnx_suite.collect import SuitePlugin, wanted

        plugin = SuitePlugin(config, wanted(provider), config.getoption("--epkit-report"))
        config.pluginmanager.register(plugin, "epkit-onnx-suite")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mark the report of a promise with the provider's name; where all must be proven, let the others fail."""
    report = yield
    provider = _provider(item)
    if provider:
        report.user_properties.append((PROMISE_OF, provider))
        why = unproven(_skipped(report))
        if why and item.config.getoption("--epkit-require-proven"):
            report.outcome, report.longrepr = "failed", f"not proven, and --epkit-require-proven is given: {why}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say of each provider how many promises it keeps, and why others are not proven; and what benchmarks found."""
    tallies = tallied(_outcomes(terminalreporter))
    if tallies:
        terminalreporter.section("epkit: promises of providers")
        for provider, tally in tallies.items():
            terminalreporter.line(f"{provider}: {tally.line()}")
    measured = [*benchmark_fixture.said(_reports(terminalreporter))]
    if measured:
        terminalreporter.section("epkit: benchmarks")
        for test, sentence in measured:
            terminalreporter.line(f"{test}: {sentence}")


def _provider(item: pytest.Item) -> str:
    """Return the name of the provider whose promise a test is; empty for any other test."""
    conformance = sys.modules.get("epkit.testing.conformance")
    kind = getattr(item, "cls", None)
    if conformance is None or kind is None or not issubclass(kind, conformance.ProviderConformance):
        return ""
    is_promise = hasattr(getattr(item, "function", None), "claim")
    return str(kind.label()) if is_promise else ""


def _outcomes(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, str, str]]:
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in reporter.stats.get(outcome, ()):
            provider = dict(getattr(report, "user_properties", ())).get(PROMISE_OF)
            if provider and (report.when == "call" or outcome == "error"):
                yield str(provider), outcome, _skipped(report)


def _reports(reporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    """Return one report of each test: of its call, or of the set-up that kept it from being called."""
    outcomes = ("passed", "failed", "skipped", "error", "xfailed", "xpassed")
    reports = [report for outcome in outcomes for report in reporter.stats.get(outcome, ())]
    return [report for report in reports if report.when == "call" or (report.when == "setup" and not report.passed)]


def _skipped(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if report.skipped and isinstance(report.longrepr, tuple) else ""
