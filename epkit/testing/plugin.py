"""What does epkit add to pytest? Loaded at every start of pytest where epkit is installed, so it imports little."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("epkit", "epkit: proving providers of ONNX Runtime")
    group.addoption("--epkit-provider", metavar="NAME", help="the provider on which --epkit-onnx-suite runs")
    group.addoption(
        "--epkit-onnx-suite",
        action="store_true",
        help="run the onnx package's backend suite: epkit must pass what plain ONNX Runtime passes on the provider",
    )
    group.addoption("--epkit-report", metavar="FILE", type=Path, help="write what the suite found to FILE, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Add the suite where it was asked for."""
    provider, suite = config.getoption("--epkit-provider"), config.getoption("--epkit-onnx-suite")
    if suite and not provider:
        raise pytest.UsageError("--epkit-onnx-suite needs --epkit-provider=NAME, such as --epkit-provider=cpu")
    if provider and not suite:
        raise pytest.UsageError("--epkit-provider says where to run --epkit-onnx-suite, which is missing")
    if suite:
        from epkit.testing.onnx_suite.items import SuitePlugin, wanted

        plugin = SuitePlugin(config, wanted(provider), config.getoption("--epkit-report"))
        config.pluginmanager.register(plugin, "epkit-onnx-suite")
