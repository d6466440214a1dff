"""Targets side by side: real processes, real models, and providers that misbehave on purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import mlp, model, value
from onnx import TensorProto, helper

from epkit._platform import peak_rss
from epkit.benchmark.figures import counted, figures, percentile
from epkit.benchmark.measure import bench
from epkit.benchmark.result import Row, comparisons
from epkit.benchmark.turns import Budget, orders
from epkit.candidates import Feed
from epkit.errors import ConfigError, InputError, ModelError, RunError, UnknownTarget
from epkit.steady import is_steady

ROW_KEYS = {
    "target", "provider", "status", "reason", "hint", "median_s", "p90_s", "p99_s", "open_s", "first_run_s",
    "throughput_per_s", "peak_rss_bytes", "runs", "warmup_runs", "placement", "agreement", "samples_s",
}  # fmt: skip


def workers(parent: int | None = None) -> list[int]:
    """Return the benchmark's processes that are alive; those of one parent, or with 0 of nobody in particular."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            status = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        mine = parent == 0 or int(status[1]) == (parent or os.getpid())
        if b"epkit.benchmark.worker" in command and status[0] != "Z" and mine:
            found.append(int(process.name))
    return found


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert workers() == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "mlp.onnx"
    file.write_bytes(mlp(width=64))
    return file


def strict_json(document: Mapping[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(document, allow_nan=False))


# The whole, on real providers


def test_cpu_openvino_and_cuda_side_by_side(small: Path, empty: Path) -> None:
    heard: list[float] = []
    found = bench(small, ["cpu", "openvino", "cuda"], budget=8, seed=3, progress=lambda _, share: heard.append(share))
    document = strict_json(found.as_json())
    assert document["schema"] == "epkit.bench/1"
    cpu, openvino, cuda = document["candidates"]
    assert all(row.keys() >= ROW_KEYS for row in (cpu, openvino, cuda))

    assert (cpu["status"], cpu["provider"], cpu["agreement"]) == ("ok", "cpu", None)
    assert (openvino["status"], openvino["provider"]) == ("ok", "openvino")
    assert openvino["placement"]["openvino"]["share"] == 1.0
    assert openvino["agreement"]["agree"], openvino["agreement"]["told"]
    for row in (cpu, openvino):
        given = [row[key] for key in ("median_s", "p90_s", "p99_s") if row[key] is not None]
        assert given[0] > 0
        assert given == sorted(given)
        assert (row["p90_s"] is None, row["p99_s"] is None) == (row["runs"] < 20, row["runs"] < 100)
        assert min(row["open_s"], row["import_s"], row["first_run_s"], row["throughput_per_s"], row["cpu_s"]) > 0
        assert row["warmup_runs"] >= 3
        assert row["runs"] == len(counted(row["samples_s"]))
        assert len(row["samples_s"]) == len(document["order"])
        assert figures(row["samples_s"]).median_s == row["median_s"]

    assert (cuda["status"], cuda["median_s"], cuda["samples_s"]) == ("unusable", None, [])
    assert cuda["reason"]
    assert cuda["hint"]

    (comparison,) = document["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["verdict"]) == ("cpu", "openvino", "undecided")
    assert comparison["ratio"] == openvino["median_s"] / cpu["median_s"]
    assert document["environment"]["seed"] == 3
    assert document["environment"]["versions"]["epkit-openvino"]
    assert len(document["environment"]["model_sha256"]) == 64
    assert document["inputs"][0]["shape"] == [1, 64]
    assert "batch" in document["notes"][0]
    assert found.exit_code == 3, "cuda was named"
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_targets_of_a_config_reach_the_processes_and_memory_is_the_childs_own(empty: Path) -> None:
    config = {
        "targets": {
            "plain": {"provider": "cpu", "session_options": {"graph_optimization_level": "ORT_DISABLE_ALL"}},
            "eight": {"provider": "cpu", "warmup": {"dimensions": {"batch": 8}}},
        }
    }
    ballast = b"\1" * 500_000_000
    found = bench(mlp(width=8), ["plain", "eight"], config=config, budget=3, seed=0)
    assert [row.status for row in found.candidates] == ["ok", "ok"]
    assert found.inputs[0]["shape"] == [8, 8]
    assert found.environment.model == "given as bytes"
    assert {"key": "session_options.graph_optimization_level", "value": "ORT_DISABLE_ALL"}.items() <= next(
        dict(one) for one in found.candidates[0].effective if one["key"].endswith("optimization_level")
    ).items()
    assert all(row.peak_rss_bytes is not None and row.peak_rss_bytes < len(ballast) for row in found.candidates)
    assert found.exit_code == 0


def test_sessions_that_want_other_inputs_are_not_compared(empty: Path) -> None:
    sizes = {name: {"free_dimension_overrides": {"batch": size}} for name, size in (("one", 1), ("eight", 8))}
    config = {"targets": {name: {"provider": "cpu", "session_options": one} for name, one in sizes.items()}}
    found = bench(mlp(width=8), ["one", "eight"], config=config, budget=3, seed=0)
    assert found.comparisons == ()
    agreed = found.candidates[1].agreement
    assert agreed is not None
    assert not agreed.agree
    assert "other inputs" in agreed.told


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


def test_a_candidate_that_crashes_hangs_or_raises_is_a_row_and_the_others_go_on(
    small: Path, empty: Path, install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPKIT_PROBE", "quick")  # or their proofs would find them before
    acts = {
        "crashes": "os.kill(os.getpid(), signal.SIGSEGV)",
        "hangs": "time.sleep(600)",
        "raises": "raise OSError('libacme.so is not there')",
    }
    for name, act in acts.items():
        install(name, PLUGIN.format(name=name, act=act))
    found = bench(small, [*acts, "cpu"], budget=3, seed=1)
    rows = {row.target: row for row in found.candidates}
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(acts, "failed") | {"cpu": "ok"}
    assert "SIGSEGV" in rows["crashes"].reason
    assert "in time" in rows["hangs"].reason
    assert "--budget" in rows["hangs"].hint
    assert "libacme.so" in rows["raises"].reason
    assert found.comparisons == ()
    assert found.exit_code == 3


def test_a_process_that_is_killed_while_it_measures_is_a_row(small: Path, empty: Path) -> None:
    killed: list[int] = []

    def kill_one(what: str, share: float) -> None:
        if what == "measuring" and share > 0.5 and not killed:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    found = bench(small, ["cpu", "cpu"], budget=8, seed=1, progress=kill_one)
    assert sorted(row.status for row in found.candidates) == ["failed", "ok"]
    lost = next(row for row in found.candidates if row.status == "failed")
    assert "SIGKILL" in lost.reason
    assert lost.median_s is None
    assert lost.samples_s, "what was measured is kept"
    assert {len(turns) for turns in found.order} == {1, 2}


def test_an_interrupt_leaves_no_process(small: Path, empty: Path) -> None:
    seen: list[int] = []

    def interrupt(what: str, share: float) -> None:
        if what == "measuring":
            seen.extend(workers())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(small, ["cpu", "cpu"], budget=2, progress=interrupt)
    assert len(seen) == 2


def test_a_benchmark_that_is_killed_leaves_no_process(
    small: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = (
        "from epkit.benchmark.measure import bench\n"
        f"bench({str(small)!r}, ['cpu', 'cpu'], budget=60, progress=lambda what, share: print(what, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "measuring\n" for line in process.stdout)
        children = workers(process.pid)
        process.kill()
    assert len(children) == 2
    deadline = time.monotonic() + 10
    while set(children) & set(workers(0)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(children) & set(workers(0))


# What is wrong with the request, or with the model


def test_a_wrong_request_is_said_before_anything_is_probed(small: Path, empty: Path, tmp_path: Path) -> None:
    def never(what: str, share: float) -> None:
        raise AssertionError(what)

    wide = tmp_path / "wide.npy"
    np.save(wide, np.zeros((1, 65), np.float32))
    with pytest.raises(UnknownTarget, match="openvin"):
        bench(small, ["openvin"], progress=never)
    with pytest.raises(ModelError, match="no file"):
        bench(tmp_path / "no.onnx", ["cpu"], progress=never)
    with pytest.raises(ConfigError, match="budget"):
        bench(small, ["cpu"], budget=float("nan"), progress=never)
    with pytest.raises(InputError, match="does not exist"):
        bench(small, ["cpu"], inputs={"x": str(tmp_path / "no.npy")}, progress=never)
    with pytest.raises(InputError, match=r"\[1, 65\]"):
        bench(small, ["cpu"], inputs={"x": str(wide)}, progress=never)
    with pytest.raises(InputError, match="no input 'y'"):
        bench(small, ["cpu"], inputs={"y": str(wide)}, progress=never)


def test_a_model_that_no_candidate_can_open_or_run_is_an_error_and_no_table(empty: Path) -> None:
    unknown = model([helper.make_node("Nonsense", ["x"], ["y"])], [value("x", [2])], [value("y", [2])])
    with pytest.raises(ModelError, match="Nonsense"):
        bench(unknown, ["cpu", "cpu"], budget=4)
    indices = value("i", [1], TensorProto.INT64)
    gather = model([helper.make_node("Gather", ["x", "i"], ["y"])], [value("x", [1]), indices], [value("y", [1])])
    with pytest.raises(RunError, match="out of"):
        bench(gather, ["cpu"], budget=4)


def test_inputs_from_files_are_what_is_measured(empty: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8), np.float32))
    found = bench(mlp(width=8), ["cpu"], inputs={"x": str(tmp_path / "x.npy")}, budget=3)
    assert found.inputs[0]["shape"] == [3, 8]
    assert found.inputs[0]["origin"] == str(tmp_path / "x.npy")
    assert found.notes == ()


# Who runs when


@given(count=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_the_order_is_random_balanced_and_the_same_for_a_seed(count: int, seed: int) -> None:
    rounds = list(islice(orders(count, Random(seed)), 20))
    assert rounds == list(islice(orders(count, Random(seed)), 20))
    assert all(sorted(one) == list(range(count)) for one in rounds)
    for candidate in range(count):
        # Mirrored pairs: over an even number of rounds nobody's mean place is better.
        assert sum(one.index(candidate) for one in rounds) == 10 * (count - 1)


def test_what_has_to_be_over_when_follows_from_the_budget() -> None:
    assert Budget(100.0, 90.0).steady_s == 10.0
    assert Budget(100.0, 90.0).ready_by == 180.0
    assert Budget(100.0, 6.0).steady_s == 3.0
    assert Budget(100.0, 6.0).over == 106.0


@pytest.mark.parametrize(
    ("windows", "steady"),
    [([1.0], False), ([1.0, 1.0, 1.05], True), ([9.0, 1.0, 1.0, 1.0], True), ([1, 1, 1.2], False)],
)
def test_steady_is_three_windows_within_a_tenth(windows: list[float], steady: bool) -> None:
    assert is_steady(windows) is steady


# Figures


def test_percentiles_are_left_out_where_there_are_too_few_runs() -> None:
    few = figures([[1.0] * 9, [1.0] * 9])
    assert few is not None
    assert (few.runs, few.p90_s, few.p99_s) == (9, None, None)
    assert few.notes == ("p90 needs 20 runs, there were 9", "p99 needs 100 runs, there were 9")
    some = figures([[9.0], *([[1.0]] * 50)])
    assert some is not None
    assert (some.p90_s, some.p99_s) == (1.0, None)
    assert figures([]) is None


def test_the_settling_round_and_cold_tenths_are_not_counted() -> None:
    assert counted([[9.0], [2.0, 1.0]]) == [2.0, 1.0]
    assert counted([[9.0]]) == [9.0]
    assert counted([[9.0], [5.0, 4.0, *[1.0] * 18]]) == [1.0] * 18


@given(st.lists(st.floats(1e-6, 10), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_enough_values_do_not_exceed(values: list[float], percent: int) -> None:
    values.sort()
    found = percentile(values, percent)
    assert found in values
    assert 100 * sum(one <= found for one in values) >= percent * len(values)
    assert 100 * sum(one < found for one in values) < percent * len(values)


def test_the_ratio_says_how_many_times_longer_the_second_takes() -> None:
    rows = [Row("no", "no", "unusable"), Row("a", "a", "ok", median_s=2.0), Row("b", "b", "ok", median_s=1.0)]
    (only,) = comparisons(rows)
    assert (only.a, only.b, only.ratio, only.a_row, only.b_row) == ("a", "b", 0.5, 1, 2)


def test_peak_memory_is_known_here() -> None:
    peak = peak_rss()
    assert peak is not None
    assert peak > 2**20
    assert Feed() == Feed({}, {}, {})
