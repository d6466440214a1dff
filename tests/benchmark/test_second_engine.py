"""Something real is compared on every machine: two engines, or ONNX Runtime's CPU under settings people argue about."""

from __future__ import annotations

import json
import os
import platform
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from models import mlp
from packaging.requirements import Requirement

import epkit
from epkit._system import platform as _platform
from epkit.benchmark import schedule as times
from epkit.benchmark import storage
from epkit.benchmark.document import Benchmark
from epkit.benchmark.report import sentences
from epkit.benchmark.report.markdown import markdown
from epkit.config.built_in import BUILT_IN, choose, describe
from epkit.discovery import listing
from epkit.discovery.listing import ENGINE_WHEELS, ProviderRow, second_engine
from epkit.errors import UnknownTarget

MODEL = mlp(width=64)
EVERYTHING_ELSE = "cuda,tensorrt,openvino,webgpu"
PLUGINS = Path(__file__).parents[2] / "plugins"

pytestmark = pytest.mark.usefixtures("empty")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a round be over soon, and be the only one: what is promised here does not rest on figures."""
    for name, number in {"PROCESSES": 2, "ROUNDS": 1, "STEADY_S": 0.5, "PASSES": 3}.items():
        monkeypatch.setattr(times, name, number)


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_DISABLE_PLUGINS", EVERYTHING_ELSE)


@pytest.fixture
def one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system holds no process to a core")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def measured(found: Benchmark) -> list[str]:
    return [one.target for one in found.candidates if one.status == "ok"]


# -- built-in targets


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_target_is_opened_by_its_name_and_its_setting_is_said(name):
    with epkit.open(MODEL, name) as session:
        assert session.report.provider == "cpu"
    effective = {row.key: row for row in epkit.explain(MODEL, name).effective}
    key, _, value = describe(name).partition(" = ")
    row = next(row for full, row in effective.items() if full.endswith(key))
    assert str(row.value).lower() in (value.lower(), {"false": "0"}.get(value))
    assert name in row.origin


def test_a_target_of_the_config_comes_before_a_built_in_one_of_its_name_and_may_extend_one():
    config = {
        "targets": {
            "cpu-no-arena": {"provider": "cpu", "session_options": {"inter_op_num_threads": 3}},
            "mine": {"extends": "cpu-one-thread", "session_options": {"enable_cpu_mem_arena": False}},
        }
    }
    own = {row.key: row for row in epkit.explain(MODEL, "cpu-no-arena", config=config).effective}
    assert str(own["session_options.inter_op_num_threads"].value) == "3"
    assert str(own["session_options.enable_cpu_mem_arena"].value) != "False"
    mine = {row.key: row.value for row in epkit.explain(MODEL, "mine", config=config).effective}
    assert str(mine["session_options.intra_op_num_threads"]) == "1"
    assert str(mine["session_options.enable_cpu_mem_arena"]).lower() in ("false", "0")


def test_a_misspelt_built_in_target_is_an_error_with_the_right_spelling():
    with pytest.raises(UnknownTarget) as error:
        epkit.open(MODEL, "cpu-one-threat")
    assert "'cpu-one-thread'" in error.value.hint
    with pytest.raises(UnknownTarget) as error:
        epkit.open(MODEL, "openvin")
    assert "cpu-one-thread" not in error.value.hint


def test_on_one_core_no_setting_is_about_threads():
    assert len(choose(1)) >= 2
    assert len(choose(2)) >= 2
    assert {*choose(1), *choose(2)} == set(BUILT_IN)
    assert not [name for name in choose(1) if "thread" in describe(name) or "spinning" in describe(name)]


# -- epkit bench without a target


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Benchmark]:
    def _bench(*targets: str, **more: object) -> Benchmark:
        file = tmp_path / "found.json"
        found = epkit.bench(MODEL, list(targets) or None, budget=120, seed=1, output=file, **more)
        assert storage.read(file) == found
        return found

    return _bench


@pytest.mark.slow
def test_where_cpu_is_the_only_provider_it_is_compared_with_itself_and_that_is_said(only_cpu, bench, command, tmp_path):
    found = bench()
    settings = choose(_platform.usable_cores())
    assert measured(found) == ["cpu", *settings]
    assert len(found.findings.comparisons) == 3
    assert found.exit_code == 0
    assert not found.measured.request.named
    (note,) = [note for note in found.measured.notes if "cpu" in note]
    for name in settings:
        assert name in note
        assert describe(name) in note
    assert sentences.only_settings(found)
    assert sentences.only_settings(found) in markdown(found)
    document = str(tmp_path / "found.json")
    assert command("bench", "verify", document)[0] == 0
    code, out, _ = command("bench", "show", document)
    assert code == 0
    assert sentences.only_settings(found) in out.splitlines()
    code, out, _ = command("bench", "diff", document, document, "--json")
    assert code == 0
    assert len(json.loads(out)["changes"]) == 3


FAULTY = """
from epkit.hookspecs import hookimpl
from epkit_faulty.over import over_cpu
@hookimpl
def epkit_providers():
    return [one for one in over_cpu() if one.name == "faulty-{kind}"]
"""


@pytest.mark.slow
def test_where_another_provider_fails_on_the_model_cpu_is_compared_with_itself_on_one_core_too(
    only_cpu, one_core, install, bench
):
    install("acme", FAULTY.format(kind="wrong"))
    found = bench()
    assert [one.status for one in found.candidates if one.target == "faulty-wrong"] == ["differs"]
    assert measured(found) == ["cpu", *choose(1)]
    assert len(found.findings.comparisons) == 3


@pytest.mark.slow
def test_where_there_are_two_engines_no_setting_is_added(only_cpu, install, bench):
    install("acme", FAULTY.format(kind="none"))
    found = bench()
    assert measured(found) == ["cpu", "faulty-none"]
    assert not sentences.only_settings(found)
    assert not [note for note in found.measured.notes if "cpu-one-thread" in note]


@pytest.mark.slow
def test_what_was_named_is_compared_and_nothing_else(only_cpu, bench):
    assert [one.target for one in bench("cpu").candidates] == ["cpu"]


# -- epkit providers


def row(name: str, status: str, hint: str = "") -> ProviderRow:
    return ProviderRow(name, name, name, "epkit", status, "a reason", hint)


CPU = row("cpu", "usable")
NO_CUDA = row("cuda", "unusable", "pip install cuda")


def test_with_two_usable_providers_nothing_has_to_be_brought():
    assert second_engine([CPU, row("acme", "usable"), NO_CUDA], "linux", "x86_64") == ()


def test_on_an_x86_64_machine_the_second_engine_is_the_one_that_needs_no_gpu():
    first, *others = second_engine([CPU, NO_CUDA], "linux", "x86_64")
    assert (first.provider, first.hint) == ("openvino", 'pip install "epkit[openvino]"')
    assert "GPU" not in first.needs
    assert all("GPU" in one.needs for one in others)
    assert {one.provider: one.hint for one in others}["cuda"] == "pip install cuda"


@pytest.mark.parametrize("status", ["disabled", "broken", "unusable"])
def test_of_a_plugin_that_is_there_its_own_advice_is_given(status):
    first, *_ = second_engine([CPU, row("openvino", status, "mend it")], "win32", "AMD64")
    assert (first.provider, first.hint) == ("openvino", "mend it")


def test_what_has_no_wheel_for_a_machine_is_not_advised():
    assert [one.provider for one in second_engine([CPU, NO_CUDA], "linux", "aarch64")] == ["webgpu"]
    assert [one.provider for one in second_engine([CPU], "darwin", "arm64")] == ["webgpu"]
    assert second_engine([CPU], "linux", "riscv64") == ()


STRANGE = {("darwin", "x86_64"), ("darwin", "AMD64"), ("linux", "AMD64"), ("win32", "x86_64")}


@pytest.mark.parametrize("name", ["openvino", "webgpu"])
def test_the_machines_are_those_that_the_plugin_itself_names(name):
    written = tomllib.loads((PLUGINS / name / "pyproject.toml").read_text(encoding="utf-8"))
    markers = [Requirement(one).marker for one in written["project"]["dependencies"] if "onnxruntime" in one]
    way = next(way for way in ENGINE_WHEELS if way.provider == name)
    for system in ("linux", "win32", "darwin"):
        for machine in ("x86_64", "AMD64", "aarch64", "arm64", "ARM64", "riscv64"):
            its = {"sys_platform": system, "platform_machine": machine}
            there = any(marker is not None and marker.evaluate(its) for marker in markers)
            # A machine's name belongs to its system: Linux has no AMD64, Windows no x86_64.
            if (system, machine) in STRANGE:
                continue
            assert way.runs_on(system, machine) == there, (system, machine)


def test_providers_says_what_would_bring_a_second_engine(only_cpu, command):
    ways = second_engine(listing.providers().rows, sys.platform, platform.machine())
    code, out, _ = command("providers", "--json")
    assert code == 0
    assert [one["provider"] for one in json.loads(out)["second_engine"]] == [one.provider for one in ways]
    code, out, _ = command("providers")
    assert code == 0
    for way in ways:
        assert way.hint in out


def test_where_there_are_two_engines_providers_says_nothing_of_a_third(only_cpu, install, command):
    install("acme", FAULTY.format(kind="none"))
    assert json.loads(command("providers", "--json")[1])["second_engine"] == []
