"""Does the pytest plugin measure what a test asks for, and hold it against a baseline?

What is judged here are made-up benchmarks, but for the last test, which measures two functions for seconds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from capabilities import SECOND, needs
from documents import made_up

from epkit.benchmark import bench as measure
from epkit.benchmark import storage
from epkit.benchmark.audit.verify import verify
from epkit.benchmark.document import Benchmark
from epkit.testing.benchmark_fixture import file_name

pytest_plugins = ["pytester"]

QUIET = ("-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest", "-p", "no:randomly")
TEST = """
def test_ours(epkit_bench):
    found = epkit_bench("model.onnx")
    assert found.verdict("cpu", "openvino") != "slower"
"""
Measures = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Measures:
    """Let benchmarks be made up, and return what each was asked for."""

    def _measures(*made: Benchmark) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def stand_in(model, targets=None, **settings):
            asked.append({"model": model, "targets": targets, **settings})
            found = made[min(len(asked), len(made)) - 1]
            if "output" in settings:
                storage.write(found, settings["output"])
            return found

        monkeypatch.setattr(measure, "bench", stand_in)
        monkeypatch.setattr(measure, "bench_calls", stand_in)
        return asked

    return _measures


def benchmark(openvino: float = 0.0076, seed: int = 0) -> Benchmark:
    return made_up({"cpu": 0.01, "openvino": openvino}, processes=4, sweeps=6, runs=3, seed=seed)


def run(pytester: pytest.Pytester, *arguments: object, test: str = TEST) -> pytest.RunResult:
    pytester.makepyfile(test_it=test)
    return pytester.runpytest_inprocess(*QUIET, *map(str, arguments))


def test_the_verdicts_stand_in_the_summary(pytester, measures):
    measures(benchmark())
    result = run(pytester)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*epkit: benchmarks*", "test_it.py::test_ours: *openvino*faster*cpu*"])


def test_what_a_test_does_not_say_the_command_line_does(pytester, measures):
    asked = measures(benchmark())
    run(pytester, "--epkit-targets", "cpu, openvino,", "--epkit-budget", "20").assert_outcomes(passed=1)
    assert asked == [{"model": "model.onnx", "targets": ["cpu", "openvino"], "budget": 20.0}]
    said = "def test_it(epkit_bench): epkit_bench(None, ['a'], budget=3.0, batches=(1, 4))"
    run(pytester, "--epkit-targets", "cpu", "--epkit-budget", "20", test=said)
    assert asked[1] == {"model": None, "targets": ["a"], "budget": 3.0, "batches": (1, 4)}
    run(pytester)
    assert asked[2] == {"model": "model.onnx", "targets": None}


def test_a_candidate_that_became_slower_beside_the_first_fails_the_test(pytester, measures):
    measures(benchmark(), benchmark(0.0076, seed=1), benchmark(0.0090, seed=2))
    baselines = ("--epkit-baselines", "kept")
    kept = run(pytester, *baselines, "--epkit-save-baselines")
    kept.assert_outcomes(passed=1)
    kept.stdout.fnmatch_lines(["*kept as the baseline *test_it.test_ours.json"])
    assert storage.read(pytester.path / "kept" / "test_it.test_ours.json") == benchmark()
    run(pytester, *baselines).assert_outcomes(passed=1)
    slower = run(pytester, *baselines)
    slower.assert_outcomes(failed=1)
    slower.stdout.fnmatch_lines(
        ["worse than the baseline *.json: openvino relative to cpu: *x faster before, *x faster now: * % slower, *"]
    )


def test_a_baseline_that_is_missing_or_of_something_else_is_said(pytester, measures):
    measures(benchmark())
    result = run(pytester, "--epkit-baselines", "kept")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*there is no baseline *test_ours.json; --epkit-save-baselines writes it"])
    (pytester.path / "kept").mkdir()
    storage.write(made_up({"cpu": 1.0}, batches=(1,)), pytester.path / "kept" / "test_it.test_ours.json")
    result = run(pytester, "--epkit-baselines", "kept")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*compared with its baseline: nothing of the two can be compared"])


def test_a_named_candidate_without_figures_fails_the_test(pytester, measures):
    from dataclasses import replace

    found = benchmark()
    gone = replace(found.candidates[1], status="unusable", reason="no driver", hint="install one")
    measured = replace(found.measured, candidates=(found.candidates[0], gone))
    measures(replace(found, measured=measured))
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["there are no figures of all: openvino is unusable: no driver", "  hint: install one"])
    result.stdout.fnmatch_lines(["test_it.py::test_ours: openvino is unusable: no driver"])


def test_documents_are_kept_under_the_name_of_the_test(pytester, measures):
    measures(benchmark())
    twice = """
    import pytest

    @pytest.mark.parametrize("size", ["a/b", "4"])
    def test_ours(epkit_bench, size):
        epkit_bench("model.onnx")
        epkit_bench("model.onnx")
    """
    run(pytester, "--epkit-bench-output", "documents", test=twice).assert_outcomes(passed=2)
    names = sorted(file.name for file in (pytester.path / "documents").iterdir())
    assert names[:2] == ["test_it.test_ours[4]-2.json", "test_it.test_ours[4].json"]
    assert len(names) == 4


def test_other_tests_have_other_files():
    tests = ["a/test_b.py::test_c", "a/test_b.py::test_c[x/y]", "a/test_b.py::test_c[x y]", "a/test_b.py::C::test_c"]
    tests.append("a/test_b.py::test_c[" + "x" * 300 + "]")
    names = [file_name(test, number) for test in tests for number in (1, 2)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 200
    assert names[0] == "a.test_b.test_c.json"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--epkit-save-baselines"], "--epkit-save-baselines needs to know where: --epkit-baselines=DIR"),
        (["--epkit-budget", "0"], "invalid _seconds value"),
    ],
)
def test_options_that_make_no_sense_are_refused(pytester, arguments, told):
    result = run(pytester, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert told in result.stderr.str()


def test_callables_are_files_beside_the_test(pytester, measures):
    asked = measures(benchmark())
    run(pytester, test="def test_it(epkit_bench): epkit_bench.calls({'cpu': 'arms.py:plain'}, callers=2)")
    assert asked == [{"model": {"cpu": str(pytester.path / "arms.py:plain")}, "targets": None, "callers": 2}]


def test_nothing_heavy_is_imported_where_no_test_measures():
    code = (
        "import sys, epkit.testing.plugin\n"
        "heavy = ('numpy', 'pydantic', 'onnxruntime', 'rich', 'click', 'epkit.benchmark')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@needs(SECOND)
def test_two_functions_are_really_measured_side_by_side(pytester):
    pytester.makepyfile(
        arms="""
        def short():
            return lambda: float(max(range(2_000)) > 0)

        def long():
            return lambda: float(max(range(8_000)) > 0)
        """
    )
    test = """
    def test_it(epkit_bench):
        found = epkit_bench.calls({"short": "arms.py:short", "long": "arms.py:long"}, tolerance="exact")
        assert found.verdict("short", "long") == "slower"
    """
    result = run(pytester, "--epkit-budget", "10", "--epkit-bench-output", "kept", test=test)
    result.assert_outcomes(passed=1)
    found = storage.read(pytester.path / "kept" / "test_it.test_it.json")
    assert found.measured.complete
    assert verify(found).holds
