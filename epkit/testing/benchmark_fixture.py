"""Measure side by side in a test, and compare the result with a baseline.

Loaded at every start of pytest: what is heavy is imported when a test measures.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from epkit._system import files

if TYPE_CHECKING:
    from epkit.benchmark.document import Benchmark
    from epkit.model.file import Source

SAID = "epkit: benchmark"
"""The name of the property in which a test's report carries what its benchmarks found, a sentence each."""
_STATUS = {"unusable": "is unusable: ", "failed": "failed: ", "differs": ""}
"""How a sentence goes on from a candidate's name to its reason, which says itself from what it differs."""


def add_options(parser: pytest.Parser) -> None:
    """Add the options of `epkit_bench`."""
    group = parser.getgroup("epkit-bench", "epkit: benchmarks in tests (epkit_bench)")
    group.addoption("--epkit-targets", metavar="NAMES", help="the candidates where a test names none: cpu,openvino")
    group.addoption("--epkit-budget", metavar="SECONDS", type=_seconds, help="the time of a benchmark that has none")
    group.addoption(
        "--epkit-baselines",
        metavar="DIR",
        type=Path,
        help="compare with DIR/<test>.json: what became slower beside the first candidate fails the test",
    )
    group.addoption(
        "--epkit-save-baselines", action="store_true", help="write the files in --epkit-baselines, compare with none"
    )
    group.addoption(
        "--epkit-bench-output", metavar="DIR", type=Path, help="keep the document of each in DIR/<test>.json"
    )


def check_options(config: pytest.Config) -> None:
    """Refuse options that lack another one."""
    if config.getoption("--epkit-save-baselines") and not config.getoption("--epkit-baselines"):
        raise pytest.UsageError("--epkit-save-baselines needs to know where: --epkit-baselines=DIR")


def _seconds(said: str) -> float:
    seconds = float(said)
    if not 0 < seconds < float("inf"):
        raise ValueError(said)
    return seconds


@pytest.fixture
def epkit_bench(request: pytest.FixtureRequest) -> EpkitBench:
    """Measure targets side by side: `epkit_bench("model.onnx")` returns what `epkit.bench` does.

    The candidates are those of --epkit-targets unless they are given. A candidate that was named and has no figures
    fails the test, and with --epkit-baselines one that became slower beside the first. What it found stands in pytest's
    summary.
    """
    return EpkitBench(request.node)


class EpkitBench:
    """Measures side by side, says so in the summary, and compares with the baseline."""

    def __init__(self, test: pytest.Item) -> None:
        self._test, self._config = test, test.config
        self._count = 0

    def __call__(
        self, model: Source | None = None, targets: Sequence[str] | None = None, **settings: object
    ) -> Benchmark:
        """Measure targets on a model. Settings are the keyword arguments of `epkit.bench`."""
        from epkit.benchmark.bench import bench

        said = self._config.getoption("--epkit-targets") or ""
        names = [name.strip() for name in said.split(",") if name.strip()]
        file = self._file()
        found = bench(model, targets or names or None, **self._settings(settings, file))
        return self._concluded(found, file)

    def calls(self, calls: Mapping[str, str], **settings: object) -> Benchmark:
        """Measure callables: each name stands for "file.py:function", the file beside the test's own.

        The function is called in every fresh process, and returns what is timed. Settings are those of
        `epkit.benchmark.bench.bench_calls`.
        """
        from epkit.benchmark.bench import bench_calls

        beside = self._test.path.parent
        file = self._file()
        found = bench_calls(
            {name: os.fspath(beside / where) for name, where in calls.items()}, **self._settings(settings, file)
        )
        return self._concluded(found, file)

    def _file(self) -> str:
        self._count += 1
        return file_name(self._test.nodeid, self._count)

    def _settings(self, given: Mapping[str, object], file: str) -> dict[str, Any]:
        found = cast(dict[str, Any], {**given})
        budget, folder = self._config.getoption("--epkit-budget"), self._config.getoption("--epkit-bench-output")
        if budget is not None:
            found.setdefault("budget", budget)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            found.setdefault("output", folder / file)
        return found

    def _concluded(self, found: Benchmark, file: str) -> Benchmark:
        from epkit.benchmark.report import sentences

        for at in range(len(found.measured.cases)):
            of = f"{sentences.case(found, at)}: " if len(found.measured.cases) > 1 else ""
            for sentence in sentences.verdicts(found, at):
                self._say(of + sentence)
        without = [
            f"{candidate.target} {_STATUS[candidate.status]}{candidate.reason}"
            for candidate in found.candidates
            if candidate.status != "ok"
        ]
        for sentence in without:
            self._say(sentence)
        if found.exit_code:
            hints = "".join(f"\n  hint: {candidate.hint}" for candidate in found.candidates if candidate.hint)
            pytest.fail(f"there are no figures of all: {'; '.join(without)}{hints}", pytrace=False)
        folder = self._config.getoption("--epkit-baselines")
        if folder is not None:
            self._compare(found, folder / file)
        return found

    def _compare(self, found: Benchmark, baseline: Path) -> None:
        """Hold it against its baseline, or make it the baseline."""
        from epkit.benchmark import storage
        from epkit.benchmark.audit.diff import changes
        from epkit.benchmark.audit.diff_sentences import describe, summarize

        if self._config.getoption("--epkit-save-baselines"):
            baseline.parent.mkdir(parents=True, exist_ok=True)
            storage.write(found, baseline)
            self._say(f"kept as the baseline {baseline}")
            return
        if not baseline.exists():
            self._say(f"there is no baseline {baseline}; --epkit-save-baselines writes it")
            return
        changed = changes(storage.read(baseline), found)
        for sentence in summarize(changed):
            self._say(f"compared with its baseline: {sentence}")
        wrong = [*changed.lost, *map(describe, changed.regressions)]
        if wrong:
            pytest.fail(f"worse than the baseline {baseline}: {'; '.join(wrong)}", pytrace=False)

    def _say(self, sentence: str) -> None:
        self._test.user_properties.append((SAID, sentence))


def file_name(test: str, number: int) -> str:
    """Name the document of a test's benchmark after the test: "tests.test_models.test_ours.json"."""
    plain = test.replace(".py::", ".").replace("::", ".").replace("/", ".")
    name = re.sub(r"[^\w.\[\]-]", "_", plain)
    if name != plain or len(name) > 150:
        # What was left out told it apart from others.
        name = f"{name[:150]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"
    name = files.shorten_name(name, len("-99999.json"))
    return f"{name}.json" if number == 1 else f"{name}-{number}.json"


def said(reports: Sequence[pytest.TestReport]) -> Iterator[tuple[str, str]]:
    """Yield each test that measured with each sentence of it."""
    for report in reports:
        for name, value in report.user_properties:
            if name == SAID:
                yield report.nodeid, str(value)
