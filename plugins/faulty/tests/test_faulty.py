"""Every fault, in front of a chain: who runs the model instead, what is said, and what is left behind (nothing)."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import onnxruntime
import pytest
import warm
from capabilities import SECOND, needs
from epkit_faulty.disguise import rename, takers
from epkit_faulty.faults import FAULTS
from epkit_faulty.over import over_cpu, over_installed
from epkit_faulty.sessions import Slowed
from models import identity, mlp, model, value
from onnx import TensorProto, helper
from texts import says
from tiers import slow_but

import epkit
from epkit._system.platform import rss
from epkit.cli import main
from epkit.discovery.registry import discover
from epkit.errors import (
    ConfigError,
    EpkitError,
    ModelError,
    PluginError,
    ProviderDropped,
    ProviderUnavailable,
    RunError,
    UnknownTarget,
)

MODEL = mlp()
X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
ONE = {"warmup": {"dimensions": {"batch": 2}}}


@pytest.fixture(scope="module", autouse=True)
def _asked_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Load the faulty providers, and share their proofs, which cost seconds each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPKIT_PLUGINS", "epkit_faulty,epkit_faulty.openvino")
        patch.setenv("EPKIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in ("EPKIT_CONFIG", "EPKIT_DEFAULT", "EPKIT_PROBE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test: no child process, no temporary file, no lock that is held, no build that never ended."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = children()
    yield
    assert children() == before
    # Importing ONNX Runtime 1.31 itself leaves `.ses` there, a number for the machine.
    assert [one.name for one in temporary.iterdir() if one.name != ".ses"] == []
    cache = Path(os.environ["EPKIT_CACHE_DIR"])
    for lock in cache.rglob("*.lock"):
        filelock.FileLock(lock).acquire(timeout=0).lock.release()
    for files in cache.glob("compiled/*/*/files"):
        assert (files.parent / "manifest.json").exists(), f"{files} was begun and never ended"


def children(parent: int | None = None) -> set[int]:
    """Return the processes that this one, or another, has started, but for the one that is forked from; zombies too."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == (parent or os.getpid()):
            found.add(int(stat.parent.name))
    return found - {warm.server_pid()}


def chain(*names: str, **keys: object) -> dict[str, object]:
    return {"targets": {"t": {"provider": names[0], "fallback": list(names[1:]), **ONE, **keys}}}


def opened(*names: str, contents: bytes = MODEL, **keys: object) -> epkit.Session:
    return epkit.open(contents, "t", config=chain(*names, **keys))


def outcomes(session: epkit.Session) -> dict[str, str]:
    return {row.provider: row.outcome for row in session.report.tried}


def reference() -> np.ndarray:
    with epkit.open(MODEL, "cpu") as session:
        return session.run(X)["y"]


def check(session: epkit.Session) -> None:
    """Hold a session to the right numbers, in both ways to run it."""
    wanted = reference()
    np.testing.assert_allclose(session.run(X)["y"], wanted, rtol=1e-5, atol=1e-6)
    with session.bind(X) as binding:
        for _ in range(3):
            np.testing.assert_allclose(binding.run(X)["y"], wanted, rtol=1e-5, atol=1e-6)


BEFORE_A_SESSION = {
    "probe-hangs": ("unusable", r"its proof did not answer in time and was ended \(limit: 3 s\)"),
    "probe-crashes": ("unusable", r"its proof crashed \(SIGSEGV\)"),
    "library-missing": ("unusable", r"libfaulty\.so\.1: cannot open shared object file"),
    "proof-crashes": ("unusable", r"its proof crashed \(SIGSEGV\)"),
    "proof-hangs": ("unusable", r"its proof did not answer in time and was ended \(limit: 3 s\)"),
    "creation-fails": ("failed to open", "opens no model but that of its proof"),
    "creation-crashes": ("failed to open", r"opening it in a process of its own crashed \(SIGSEGV\)"),
    "creation-hangs": ("failed to open", r"a process of its own did not answer in time and was ended \(limit: 12 s\)"),
    "no-node": ("registered, took no node", "other providers of the chain took every node"),
    "nan": ("failed to warm up", "output 'y' holds NaN"),
    "warmup-memory": ("failed to warm up", "the run failed: .*Failed to allocate memory for requested buffer of size"),
}
ISOLATED = {"creation-crashes": True, "creation-hangs": 12}
HARMLESS = {"none", "probe-slow"}
IN_RUNS = {"wrong", "slow", "memory", "leak"}
KINDS = [fault.kind for fault in FAULTS]


def test_every_fault_has_its_test():
    assert set(KINDS) == {*BEFORE_A_SESSION, *HARMLESS, *IN_RUNS}


# -- found when asked for, and not otherwise


def test_the_faulty_providers_are_found_only_when_they_are_asked_for(monkeypatch):
    assert {f"faulty-{kind}" for kind in KINDS} < set(discover().providers)
    monkeypatch.delenv("EPKIT_PLUGINS")
    assert not [name for name in discover().providers if "faulty" in name]
    with pytest.raises(UnknownTarget):
        epkit.open(MODEL, "faulty-slow")


def test_the_faulty_providers_are_in_no_automatic_chain():
    with epkit.open(MODEL) as session:
        assert not [row for row in session.report.tried if "faulty" in row.provider]


def test_importing_the_plugin_loads_neither_an_engine_nor_another_plugin():
    code = (
        "import sys, epkit_faulty, epkit_faulty.openvino\n"
        "names = ('onnxruntime', 'numpy', 'epkit.runtime.api', 'epkit_openvino')\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_fault_says_in_a_sentence_what_goes_wrong():
    for provider in over_cpu():
        told = (type(provider).__doc__ or "").strip()
        assert told.endswith(".")
        assert "\n" not in told
    assert len({provider.ort_name for provider in over_cpu()}) == len(over_cpu()) > len(FAULTS)


def test_the_options_of_a_fault_are_checked():
    for options in ({"percent": 0}, {"percent": "x"}, {"percnt": 1}, {"extra": {"a": "b"}}):
        with pytest.raises(ConfigError):
            epkit.open(MODEL, "faulty-slow", options=options)
    told = {one.key: one.value for one in epkit.explain(MODEL, "faulty-slow", options={"percent": 7}).effective}
    assert told["faulty-slow.percent"] == "7.0"
    with pytest.raises(ConfigError):
        epkit.open(MODEL, "faulty-memory", options={"at": 0})


def test_without_the_plugin_below_them_faults_over_it_are_a_broken_plugin(monkeypatch, tmp_path):
    with says(PluginError):
        over_installed("quantum")
    (tmp_path / "over_quantum.py").write_text(
        "from epkit.hookspecs import hookimpl\n"
        "from epkit_faulty.over import over_installed\n"
        "@hookimpl\n"
        "def epkit_providers():\n"
        "    return over_installed('quantum')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EPKIT_PLUGINS", "over_quantum")
    entry = discover().entry("over_quantum")
    assert entry.status == "broken"
    assert "no installed plugin offers 'quantum'" in entry.reason
    assert entry.hint == 'pip install "epkit[quantum]"'


# -- faults before a session exists


@pytest.mark.parametrize(
    ("kind", "then"),
    [
        *((kind, "cpu") for kind in BEFORE_A_SESSION if kind != "creation-hangs"),
        *slow_but(
            [(kind, SECOND) for kind in BEFORE_A_SESSION], ("creation-fails", SECOND), ("creation-hangs", SECOND)
        ),
    ],
)
def test_a_fault_before_a_session_exists_falls_to_the_next_of_the_chain(kind, then):
    outcome, reason = BEFORE_A_SESSION[kind]
    with opened(f"faulty-{kind}", then, isolate_open=ISOLATED.get(kind, False)) as session:
        assert session.report.provider == then
        first, second, *_ = session.report.tried
        assert (first.provider, first.outcome) == (f"faulty-{kind}", outcome)
        assert (second.provider, second.outcome) == (then, "active")
        assert re.search(reason, first.reason), first.reason
        assert first.hint == ("" if kind == "no-node" else f"faulty-{kind} fails on purpose: name another provider")
        assert ("isolated" in session.report.seconds) == (kind in ISOLATED)
        check(session)


@pytest.mark.parametrize(
    "kind", slow_but(BEFORE_A_SESSION, *(kind for kind in BEFORE_A_SESSION if kind not in ISOLATED))
)
def test_a_provider_that_is_required_is_a_clear_error_instead(kind):
    name = f"faulty-{kind}"
    outcome, reason = BEFORE_A_SESSION[kind]
    kinds = ProviderUnavailable if outcome == "unusable" else ProviderDropped
    told = "took no node of the model" if kind == "no-node" else reason
    strict = chain(name, "openvino", isolate_open=ISOLATED.get(kind, False), strict=True)
    # A bare name has no keys, so that nothing is opened elsewhere first.
    for target, config in [("t", strict)] + [(name, None)] * (kind not in ISOLATED):
        with pytest.raises(kinds, match=told) as error:
            epkit.open(MODEL, target, config=config)
        assert error.value.exit_code == 3
        assert name in error.value.message
        assert error.value.hint


@pytest.mark.parametrize("kind", sorted(HARMLESS))
def test_what_is_slow_to_answer_or_fine_is_used(kind):
    with opened(f"faulty-{kind}", "openvino") as session:
        assert session.report.provider == f"faulty-{kind}"
        assert session.report.placement.keys() == {f"faulty-{kind}"}
        check(session)
    with epkit.open(MODEL, f"faulty-{kind}") as session:
        check(session)


@needs(SECOND)
def test_many_faults_in_one_chain_each_have_their_row():
    kinds = ["probe-crashes", "creation-fails", "library-missing", "nan", "warmup-memory", "no-node"]
    with opened(*(f"faulty-{kind}" for kind in kinds), SECOND) as session:
        found = outcomes(session)
        assert {kind: found[f"faulty-{kind}"] for kind in kinds} == {kind: BEFORE_A_SESSION[kind][0] for kind in kinds}
        assert session.report.provider == SECOND
        check(session)


def test_the_first_faulty_provider_that_opens_takes_the_nodes():
    with opened("faulty-creation-fails", "faulty-none", "faulty-wrong", "openvino") as session:
        assert session.report.provider == "faulty-none"
        assert outcomes(session)["faulty-wrong"] == "registered, took no node"
        check(session)  # who takes no node does no harm


@needs(SECOND)
def test_a_provider_is_not_blamed_for_the_fault_of_a_later_one():
    for kind in ("creation-fails", "no-node"):
        with opened(SECOND, f"faulty-{kind}") as session:
            assert session.report.provider == SECOND
            assert outcomes(session) == {
                SECOND: "active",
                f"faulty-{kind}": BEFORE_A_SESSION[kind][0],
                "cpu": "registered, took no node",
            }
    with opened(SECOND, "faulty-creation-fails", strict=True) as session:
        assert session.report.provider == SECOND


@needs(SECOND)
def test_where_the_cpu_is_forbidden_a_fault_leaves_no_node_to_it():
    with opened("faulty-creation-fails", SECOND, cpu=False) as session:
        assert session.report.placement.keys() == {SECOND}
    with opened("faulty-none", cpu=False) as session:
        assert session.report.placement.keys() == {"faulty-none"}
    with opened("faulty-no-node", SECOND, cpu=False) as session:
        assert session.report.placement.keys() == {SECOND}
    with opened("faulty-none", "faulty-no-node", cpu=False) as session:
        check(session)
    with says(ProviderDropped):
        opened("faulty-no-node", cpu=False)
    with says(ProviderDropped):
        opened("faulty-creation-fails", cpu=False)


def test_a_models_fault_is_the_models_with_a_faulty_provider_too():
    unknown = model([helper.make_node("Bogus", ["x"], ["y"])], [value("x", [1])], [value("y", [1])])
    for names in (["faulty-none"], ["faulty-none", "openvino"], ["faulty-creation-fails", "openvino"]):
        with says(ModelError):
            epkit.open(unknown, "t", config={"targets": {"t": {"provider": names[0], "fallback": names[1:]}}})


@needs(SECOND)
def test_many_threads_fall_back_at_once():
    def one(kind: str) -> str | None:
        with opened(f"faulty-{kind}", SECOND) as session:
            check(session)
            return session.report.provider

    kinds = ["creation-fails", "nan", "probe-crashes", "warmup-memory"] * 2
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, kinds)) == [SECOND] * 8


# -- faults in runs


def within_time(session: epkit.Session, x: np.ndarray) -> np.ndarray:
    return session.run(x, timeout=600)["y"]


def asynchronously(session: epkit.Session, x: np.ndarray) -> np.ndarray:
    return asyncio.run(session.run_async(x))["y"]


WAYS = {
    "run": lambda session, x: session.run(x)["y"],
    "run within a time": within_time,
    "run_async": asynchronously,
}


@pytest.mark.parametrize("at", [1, 2, 3, 5])
@pytest.mark.parametrize("way", [*WAYS, "bind"])
@pytest.mark.parametrize("name", slow_but(["faulty-memory", "faulty-openvino-memory"], "faulty-memory"))
def test_a_run_out_of_memory_is_a_run_error_and_the_session_goes_on(name, way, at):
    with opened(name, "openvino", options={"at": at}) as session:
        assert session.report.provider == name
        wanted = reference()
        binding = session.bind(X) if way == "bind" else None
        for number in range(1, 8):
            if number == at:
                with says(RunError) as error:
                    binding.run(X) if binding else WAYS[way](session, X)
                assert error.value.exit_code == 4
            else:
                found = binding.run(X)["y"] if binding else WAYS[way](session, X)
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        assert session.report.provider == name


def test_threads_that_run_one_session_see_one_run_out_of_memory():
    with opened("faulty-memory", options={"at": 20}) as session:

        def one(_: int) -> str:
            try:
                session.run(X)
            except RunError as error:
                return error.message
            return ""

        with ThreadPoolExecutor(4) as pool:
            failed = [told for told in pool.map(one, range(60)) if told]
        assert len(failed) == 1
        check(session)


@pytest.mark.parametrize("name", ["faulty-wrong", "faulty-openvino-wrong"])
def test_wrong_numbers_are_not_for_opening_to_find_but_for_a_comparison(name):
    with epkit.open(MODEL, name) as session:
        wanted = reference() * 1.1 + 1
        np.testing.assert_allclose(session.run(X)["y"], wanted, rtol=1e-5)
        np.testing.assert_allclose(session.run(X)["y"], wanted, rtol=1e-5)
        with session.bind(X) as binding:
            for _ in range(4):
                np.testing.assert_allclose(binding.run(X)["y"], wanted, rtol=1e-5)


@pytest.mark.slow
def test_a_benchmark_finds_wrong_numbers():
    right, wrong = epkit.bench(MODEL, ["cpu", "faulty-wrong"], budget=20).candidates
    assert (right.status, wrong.status) == ("ok", "differs")
    (agreement,) = wrong.agreements
    assert agreement is not None
    assert not agreement.agree


def test_whole_numbers_come_out_wrong_and_texts_as_they_are():
    with epkit.open(identity(TensorProto.INT64), "faulty-wrong") as session:
        assert session.run(np.array([1, 2]))["y"].tolist() == [2, 3]
    with epkit.open(identity(TensorProto.STRING), "faulty-wrong") as session:
        assert session.run(["a"])["y"].tolist() == ["a"]


def test_a_leak_is_memory_until_the_session_is_closed():
    session = epkit.open(MODEL, "faulty-leak", options={"megabytes": 8})
    before = rss()
    for _ in range(20):
        session.run(X)
    held = rss()
    session.close()
    del session
    after = rss()
    if before is None or held is None or after is None:
        pytest.skip("this system does not tell what memory a process holds")
    assert held - before > 120e6
    assert held - after > 120e6


@pytest.mark.parametrize("share", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("way", ["run", "run_with_iobinding"])
def test_a_slow_run_takes_its_share_longer(way, share):
    class Sleeping:
        def run(self, *_):
            time.sleep(0.02)
            return ["done"]

        def run_with_iobinding(self, *_):
            time.sleep(0.02)

    slowed = Slowed(Sleeping(), share)
    began = time.perf_counter()
    if way == "run":
        assert slowed.run(None, {}) == ["done"]
    else:
        slowed.run_with_iobinding(None)
    assert time.perf_counter() - began >= 0.02 * (1 + share) - 0.001


def test_a_session_in_disguise_goes_when_nobody_holds_it():
    given = onnxruntime.SessionOptions()
    given.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(MODEL, given, providers=["CPUExecutionProvider"])
    rename(session, "FaultyExecutionProvider")
    assert takers(session) == {"FaultyExecutionProvider"}
    held = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert held() is None
    finally:
        gc.enable()


def test_a_slow_session_gives_the_right_numbers():
    with epkit.open(MODEL, "faulty-slow", options={"percent": 50}) as session:
        check(session)


# -- over OpenVINO


@needs("openvino")
@pytest.mark.parametrize("kind", ["probe-crashes", "creation-fails", "creation-crashes", "nan", "warmup-memory"])
def test_a_fault_over_openvino_falls_to_the_cpu(kind):
    with opened(f"faulty-openvino-{kind}", isolate_open=ISOLATED.get(kind, False)) as session:
        assert session.report.provider == "cpu"
        assert session.report.tried[0].outcome == BEFORE_A_SESSION[kind][0]
        check(session)


@needs("openvino")
def test_faults_over_openvino_keep_what_openvino_declares():
    faults = {one.name: one for one in over_installed("openvino")}
    below = discover().get("openvino")
    assert len(faults) == len(over_cpu())
    for fault in faults.values():
        assert fault.ort_name == below.ort_name
        assert (fault.limits.concurrency, fault.limits.validates_output_shape) == ("free", None)
        assert fault.limits.unsupported_types == below.limits.unsupported_types
        assert fault.limits.narrowed_types == below.limits.narrowed_types
        assert fault.self_test.networks == below.self_test.networks
        assert (fault.devices, fault.caching) == (below.devices, below.caching)
    with says(ProviderDropped):
        epkit.open(identity(TensorProto.STRING), "faulty-openvino-none")
    slow = faults["faulty-openvino-slow"]
    written = slow.options.model_validate({"percent": 3, "NUM_STREAMS": 1})
    assert slow.to_ort_options(written, None) == below.to_ort_options(
        below.options.model_validate({"NUM_STREAMS": 1}), None
    )


@needs("openvino")
def test_who_stands_for_the_same_runtime_provider_takes_over_when_the_first_is_dropped():
    for kind in ("creation-fails", "nan"):
        with opened(f"faulty-openvino-{kind}", "openvino") as session:
            assert session.report.provider == "openvino"
            assert outcomes(session) == {
                f"faulty-openvino-{kind}": BEFORE_A_SESSION[kind][0],
                "openvino": "active",
                "cpu": "registered, took no node",
            }
            check(session)
    with opened("faulty-openvino-creation-fails", "faulty-openvino-nan", "openvino") as session:
        assert session.report.provider == "openvino"
    with opened("faulty-openvino-none", "openvino") as session:
        assert outcomes(session)["openvino"] == "same runtime provider"


# -- from the command line


def command(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["epkit", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        pytest.param("rehearsal", 0, "", marks=needs(SECOND)),
        ("faulty-creation-fails", 3, "epkit: faulty-creation-fails did not open for this model: "),
        ("faulty-proof-crashes", 3, "epkit: faulty-proof-crashes is not usable on this machine: its proof crashed"),
        ("faulty-nan", 3, "epkit: faulty-nan failed in warm-up for this model: output 'y' holds NaN"),
        ("first-run", 4, "epkit: the run failed: "),
    ],
)
def test_the_command_line_exits_as_it_says(target, code, said, tmp_path, monkeypatch, capfd):
    (tmp_path / "m.onnx").write_bytes(MODEL)
    (tmp_path / ".git").mkdir()
    (tmp_path / "epkit.toml").write_text(
        f'[targets.rehearsal]\nprovider = "faulty-creation-fails"\nfallback = ["{SECOND}"]\n'
        '[targets.first-run]\nprovider = "faulty-memory"\noptions = { at = 1 }\n'
    )
    monkeypatch.chdir(tmp_path)
    assert command("run", "m.onnx", "-t", target, "--json", monkeypatch=monkeypatch) == code
    out, err = capfd.readouterr()
    assert err.startswith(said)
    if not code:
        assert json.loads(out)["report"]["provider"] == SECOND


def test_a_crash_while_opening_that_is_not_isolated_ends_the_process_and_nothing_else(tmp_path):
    code = "import epkit, sys; epkit.open(sys.stdin.buffer.read(), 'faulty-creation-crashes')"
    done = subprocess.run([sys.executable, "-c", code], input=MODEL, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode < 0
    assert children() == set()


def test_every_error_of_a_rehearsal_says_that_it_is_one():
    with pytest.raises(EpkitError) as error:
        epkit.open(MODEL, "faulty-creation-fails")
    assert error.value.hint == "faulty-creation-fails fails on purpose: name another provider"
