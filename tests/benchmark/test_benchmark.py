"""Targets side by side: real processes, real models, and providers that misbehave on purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from capabilities import SECOND, needs
from models import mlp, model, value
from onnx import TensorProto, helper
from processes import alive
from texts import says

from epkit.benchmark import process as runner
from epkit.benchmark import schedule as times
from epkit.benchmark import storage
from epkit.benchmark.bench import bench, bench_calls
from epkit.benchmark.document import Benchmark
from epkit.benchmark.process import WORKER
from epkit.benchmark.statistics.verdicts import findings
from epkit.errors import ConfigError, InputError, ModelError, RunError, UnknownTarget


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert alive(WORKER) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "mlp.onnx"
    file.write_bytes(mlp(width=64))
    return file


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    """Let a round be over soon, and be the only one: what is promised here does not rest on figures."""
    with pytest.MonkeyPatch.context() as patch:
        for name, number in {"PROCESSES": 2, "ROUNDS": 1, "STEADY_S": 1.0, "PASSES": 3}.items():
            patch.setattr(times, name, number)
        yield


# The whole, on real providers


@pytest.fixture(scope="module")
def real(small: Path, _short: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Path, list[float]]:
    """Measure once what several tests look at: two batch sizes, two callers."""
    heard: list[float] = []
    file = tmp_path_factory.mktemp("bench") / "found.json"
    found = bench(
        small,
        ["cpu", "openvino", "cuda"],
        budget=90,
        batches=[1, 4],
        callers=2,
        seed=3,
        output=file,
        progress=lambda _, share: heard.append(share),
    )
    return found, file, heard


@needs(SECOND)
def test_cpu_and_openvino_are_compared_on_every_case(real: tuple[Benchmark, Path, list[float]]) -> None:
    found, _, heard = real
    cpu, openvino, cuda = found.candidates
    assert (cpu.status, cpu.provider, cpu.agreements) == ("ok", "cpu", ())
    assert (openvino.status, openvino.provider) == ("ok", SECOND)
    assert openvino.placement is not None
    assert openvino.placement[SECOND]["share"] == 1.0
    assert [one is not None and one.agree for one in openvino.agreements] == [True, True]
    assert (cuda.status, bool(cuda.reason), bool(cuda.hint)) == ("unusable", True, True)
    assert [(one.name, one.inputs[0]["shape"]) for one in found.measured.cases] == [
        ("batch=1", [1, 64]),
        ("batch=4", [4, 64]),
    ]
    assert [(one.case, one.a, one.b) for one in found.findings.comparisons] == [(0, 0, 1), (1, 0, 1)]
    assert all(one.time.low <= one.time.ratio <= one.time.high for one in found.findings.comparisons)
    assert found.findings.level == pytest.approx(0.975)
    assert found.exit_code == 3, "cuda was named"
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


@needs(SECOND)
def test_figures_rest_on_several_fresh_processes(real: tuple[Benchmark, Path, list[float]]) -> None:
    measured, found = real[0].measured, real[0].findings
    assert [(one.candidate, one.case) for one in found.figures] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    for one in found.figures:
        assert one.processes == 2
        assert one.median.value_s > 0
        assert one.throughput_per_s > 0
        assert one.warmup_runs >= 3
        assert one.first_run_s is not None
    cpu, openvino = found.starts
    assert cpu.open_cold_s is None, "ONNX Runtime's CPU keeps nothing that it compiles"
    assert openvino.open_cold_s is not None
    assert openvino.open_cold_s > 0
    assert all(one.peak_rss_bytes and one.import_s > 0 and one.open_s > 0 for one in found.starts)
    states = {(one.candidate, one.round > 0): one.cache for one in measured.processes}
    assert states[1, True] == "warm", "all but the first start from what that one compiled"


@needs(SECOND)
def test_in_a_pair_every_candidate_runs_once_and_nobody_is_favoured(
    real: tuple[Benchmark, Path, list[float]],
) -> None:
    measured = real[0].measured
    pairs: dict[tuple[int, int], list[int]] = {}
    for one in measured.blocks:
        pairs.setdefault((one.round, one.pair), []).append(measured.processes[one.process].candidate)
    whole = [tuple(one) for one in pairs.values() if len(one) == 2]
    assert len(whole) >= len(pairs) - 1
    assert {tuple(sorted(one)) for one in whole} == {(0, 1)}
    first = Counter(one[0] for one in whole)
    # In balance in every sweep but the last, which may be cut off.
    assert abs(first[0] - first[1]) <= 2


@needs(SECOND)
def test_the_document_says_the_same_as_what_was_returned(real: tuple[Benchmark, Path, list[float]]) -> None:
    found, file, _ = real
    assert storage.read(file) == found
    assert findings(found.measured) == found.findings
    assert found.measured.complete
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.slow
def test_targets_of_a_config_and_bound_buffers_reach_the_processes(empty: Path) -> None:
    config = {
        "targets": {
            "plain": {"provider": "cpu", "session_options": {"graph_optimization_level": "ORT_DISABLE_ALL"}},
            "eight": {"provider": "cpu", "warmup": {"dimensions": {"batch": 8}}},
        }
    }
    ballast = b"\1" * 500_000_000
    found = bench(mlp(width=8), ["plain", "eight"], config=config, budget=90, bound=True, seed=0)
    assert [row.status for row in found.candidates] == ["ok", "ok"]
    (only,) = found.measured.cases
    assert only.inputs[0]["shape"] == [8, 8]
    assert found.measured.request.model == "given as bytes"
    settings = {one["key"]: one["value"] for one in found.candidates[0].effective}
    assert settings["session_options.graph_optimization_level"] == "ORT_DISABLE_ALL"
    peaks = [one.peak_rss_bytes for one in found.findings.starts]
    assert all(one is not None and one < len(ballast) for one in peaks), "memory is the process's own"
    assert found.exit_code == 0


def test_callables_are_measured_by_the_same_method(tmp_path: Path) -> None:
    arms = tmp_path / "arms.py"
    arms.write_text(
        "import numpy as np\n"
        "def one():\n    return lambda: {'y': np.ones(3)}\n"
        "def two():\n    return lambda: [np.ones(3)]\n"
        "def three():\n    return lambda: [np.zeros(3)]\n"
    )
    found = bench_calls({name: f"{arms}:{name}" for name in ("one", "two", "three")}, budget=90, seed=0)
    assert [row.status for row in found.candidates] == ["ok", "ok", "differs"]
    assert found.comparison("one", "two") is not None
    with says(ConfigError):
        bench_calls({"a": "nowhere.py:f"})


# Candidates that misbehave

PLUGIN = """
import os, signal, time
from epkit.hookspecs import hookimpl
from epkit.provider import Provider

class Twin(Provider):
    name = {name!r}
    ort_name = "CPUExecutionProvider"

    def prepare(self, runtime):
        {act}

@hookimpl
def epkit_providers():
    return [Twin()]
"""


@pytest.mark.slow
@needs(SECOND)
def test_a_candidate_that_crashes_hangs_raises_or_computes_something_else_is_a_row_and_the_others_go_on(
    small: Path, empty: Path, install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPKIT_PROBE", "quick")  # or their proofs would find them before
    monkeypatch.setenv("EPKIT_PLUGINS", "epkit_faulty")
    acts = {
        "crashes": "os.kill(os.getpid(), signal.SIGSEGV)",
        "hangs": "time.sleep(600)",
        "raises": "raise OSError('libacme.so is not there')",
    }
    for name, act in acts.items():
        install(name, PLUGIN.format(name=name, act=act))
    found = bench(small, ["faulty-wrong", *acts, "faulty-memory", "cpu"], budget=45, seed=1)
    rows = {row.target: row for row in found.candidates}
    assert {name: row.status for name, row in rows.items()} == {
        **dict.fromkeys(acts, "failed"),
        "faulty-wrong": "differs",
        "faulty-memory": "failed",
        "cpu": "ok",
    }
    assert "SIGSEGV" in rows["crashes"].reason
    assert "in time" in rows["hangs"].reason
    assert "--budget" in rows["hangs"].hint
    assert "libacme.so" in rows["raises"].reason
    assert "differs from cpu" in rows["faulty-wrong"].reason, "the CPU is the reference, wherever it was named"
    assert found.findings.comparisons == ()
    measured = [found.candidates[one.candidate].target for one in found.findings.figures]
    assert measured == ["cpu"], found.measured.notes
    assert found.exit_code == 3


@pytest.mark.slow
def test_a_candidate_that_is_far_too_slow_does_not_take_the_others_their_time(small: Path, tmp_path: Path) -> None:
    arms = tmp_path / "arms.py"
    arms.write_text(
        "import time\n"
        "def quick():\n    return lambda: time.sleep(0.001)\n"
        "def slow():\n    return lambda: time.sleep(3)\n"
    )
    found = bench_calls({name: f"{arms}:{name}" for name in ("slow", "quick")}, budget=25, seed=0)
    slow, quick = found.candidates
    assert (slow.status, quick.status) == ("failed", "ok")
    assert "3 s a run" in slow.reason
    assert int(slow.hint.removeprefix("--budget ")) > 50
    assert [one.candidate for one in found.findings.figures] == [1]


@pytest.mark.slow
def test_processes_that_start_slowly_are_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LEAST_LIMIT_S", 60.0)
    arms = tmp_path / "arms.py"
    arms.write_text(
        "import pathlib, time\n"
        "def one():\n"
        "    seen = pathlib.Path(__file__).with_suffix('.seen')\n"
        "    time.sleep(9 if seen.exists() else 0)\n"
        "    seen.touch()\n"
        "    return lambda: time.sleep(0.001)\n"
    )
    found = bench_calls({"one": f"{arms}:one"}, budget=8, seed=0)
    assert [one.processes for one in found.findings.figures] == [2], found.measured.notes


@pytest.mark.slow
def test_sessions_that_want_other_inputs_are_not_compared(empty: Path) -> None:
    sizes = {name: {"free_dimension_overrides": {"batch": size}} for name, size in (("one", 1), ("eight", 8))}
    config = {"targets": {name: {"provider": "cpu", "session_options": one} for name, one in sizes.items()}}
    found = bench(mlp(width=8), ["one", "eight"], config=config, budget=90, seed=0)
    assert found.findings.comparisons == ()
    assert [one.status for one in found.candidates] == ["ok", "differs"]
    assert "other inputs" in found.candidates[1].reason


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_measures_is_a_row(small: Path, empty: Path) -> None:
    killed: list[int] = []

    def kill_one(what: str, share: float) -> None:
        if what == "measuring" and not killed:
            killed.append(alive(WORKER)[0])
        elif what == "measuring":
            killed.append(0)
            if len(killed) == 10:  # a while after the beginning
                os.kill(killed[0], signal.SIGKILL)

    found = bench(small, ["cpu", "cpu"], budget=90, seed=1, progress=kill_one)
    assert sorted(row.status for row in found.candidates) == ["failed", "ok"]
    lost = next(place for place, row in enumerate(found.candidates) if row.status == "failed")
    assert "SIGKILL" in found.candidates[lost].reason
    assert lost not in {one.candidate for one in found.findings.figures}
    by = [found.measured.processes[one.process].candidate for one in found.measured.blocks]
    assert lost in by, "what was measured is kept"


@pytest.mark.slow
def test_an_interrupt_leaves_no_process_and_keeps_what_was_measured(small: Path, empty: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    calls: list[str] = []

    def interrupt(what: str, share: float) -> None:
        calls.append(what)
        if calls.count("measuring") == 10:
            seen.extend(alive(WORKER))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(small, ["cpu", "cpu"], budget=90, progress=interrupt, output=tmp_path / "kept.json")
    assert len(seen) >= 4
    kept = storage.read(tmp_path / "kept.json")
    assert not kept.measured.complete
    assert kept.measured.blocks


@pytest.mark.slow
def test_a_benchmark_that_is_killed_leaves_no_process_and_its_document(
    small: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = tmp_path / "kept.json"
    script = (
        "from epkit.benchmark import schedule as times\n"
        "from epkit.benchmark.bench import bench\n"
        "times.PROCESSES = 2\n"
        f"bench({str(small)!r}, ['cpu', 'cpu'], budget=60, output={str(file)!r},"
        " progress=lambda what, share: print(what, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "measuring\n" for line in process.stdout)
        children = alive(WORKER, process.pid)
        deadline = time.monotonic() + 30
        while not storage.read(file).measured.blocks and time.monotonic() < deadline:
            time.sleep(0.2)
        process.kill()
    assert len(children) >= 4
    deadline = time.monotonic() + 10
    while set(children) & set(alive(WORKER, 0)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(children) & set(alive(WORKER, 0)), "stopped ones neither"
    assert storage.read(file).measured.blocks


# What is wrong with the request, or with the model


def test_a_wrong_request_is_said_before_anything_is_probed(small: Path, empty: Path, tmp_path: Path) -> None:
    def never(what: str, share: float) -> None:
        raise AssertionError(what)

    wide = tmp_path / "wide.npy"
    np.save(wide, np.zeros((1, 65), np.float32))
    with says(UnknownTarget):
        bench(small, ["cud"], progress=never)
    with says(ModelError):
        bench(tmp_path / "no.onnx", ["cpu"], progress=never)
    with says(ConfigError):
        bench(small, ["cpu"], budget=float("nan"), progress=never)
    with says(ConfigError):
        bench(small, ["cpu"], callers=0, progress=never)
    with says(ConfigError):
        bench(small, ["cpu"], smallest_effect=0, progress=never)
    with says(ConfigError):
        bench(small, ["cpu"], tolerance="imagez", progress=never)
    with says(ConfigError):
        bench(small, ["cpu"], dimensions={"height": [1]}, progress=never)
    with says(ConfigError):
        bench(small, ["cpu"], batches=[0], progress=never)
    with says(InputError):
        bench(small, ["cpu"], inputs={"x": str(tmp_path / "no.npy")}, progress=never)
    with says(InputError):
        bench(small, ["cpu"], inputs={"x": str(wide)}, progress=never)
    with says(InputError):
        bench(small, ["cpu"], inputs={"y": str(wide)}, progress=never)


def test_a_model_that_no_candidate_can_open_or_run_is_an_error_and_no_table(empty: Path, tmp_path: Path) -> None:
    unknown = model([helper.make_node("Nonsense", ["x"], ["y"])], [value("x", [2])], [value("y", [2])])
    with says(ModelError):
        bench(unknown, ["cpu", "cpu"], budget=60, output=tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    indices = value("i", [1], TensorProto.INT64)
    gather = model([helper.make_node("Gather", ["x", "i"], ["y"])], [value("x", [1]), indices], [value("y", [1])])
    with says(RunError):
        bench(gather, ["cpu"], budget=60)


@needs(SECOND)
def test_inputs_from_files_are_what_is_measured_and_a_short_budget_is_said(empty: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8), np.float32))
    found = bench(mlp(width=8), ["cpu"], inputs={"x": str(tmp_path / "x.npy")}, budget=1)
    assert found.measured.cases[0].inputs[0]["shape"] == [3, 8]
    assert found.measured.cases[0].inputs[0]["origin"] == str(tmp_path / "x.npy")
    assert found.findings.figures == ()
    (note,) = found.measured.notes
    assert "--budget" in note
