"""What is commonly advised about ONNX Runtime, against what it does: the behaviour that the page's verdicts rest on.

Each test is cited on docs/common-advice-checked.md. When one fails with a newer ONNX Runtime, its row has to change.
What prints, or changes the whole process, is tried in a process of its own.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models import identity, mlp, model, value
from onnx import helper, numpy_helper
from texts import says

import epkit
from epkit import wheels
from epkit.discovery import registry
from epkit.discovery.probe import ask
from epkit.errors import ConfigError, ProviderUnavailable
from epkit.model import sample

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "common-advice-checked.md"
PARALLEL = ort.ExecutionMode.ORT_PARALLEL

START = f"""
import json, os, sys, threading
import numpy as np, onnxruntime as ort
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from models import identity, mlp, model, value
from onnx import helper, numpy_helper

def options(properties=(), entries=()):
    made = ort.SessionOptions()
    for key, value in dict(properties).items():
        setattr(made, key, value)
    for key, value in dict(entries).items():
        made.add_session_config_entry(key, value)
    return made

def threads():
    return set(os.listdir("/proc/self/task"))

def started(**properties):
    before = threads()
    session = ort.InferenceSession(mlp(), options(properties))
    return [sorted(os.sched_getaffinity(int(one))) for one in threads() - before]
"""


def child(code: str, *, seconds: float = 60, **environment: str) -> tuple[list[object], str]:
    """Run code in a fresh process; return the JSON that it prints line by line, and what it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line[0] in "[{"], done.stderr


@pytest.fixture(scope="module")
def _without_cuda():
    found = registry.discover()
    if ask([(found.providers["cuda"], None)], found)["cuda"].usable:
        pytest.skip("this machine has CUDA: nothing falls back here")


# -- session options


def test_all_optimizations_one_after_the_other_with_arena_and_pattern_is_the_default():
    defaults = ort.SessionOptions()
    assert defaults.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert defaults.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert (defaults.intra_op_num_threads, defaults.inter_op_num_threads) == (0, 0)
    assert defaults.enable_cpu_mem_arena
    assert defaults.enable_mem_pattern


def test_the_keyword_session_options_is_swallowed():
    options = ort.SessionOptions()
    options.logid = "mine"
    applied = [
        ort.InferenceSession(mlp(), **{keyword: options}).get_session_options().logid
        for keyword in ("session_options", "sess_options")
    ]
    assert applied == ["", "mine"]
    with pytest.raises(TypeError):
        epkit.open(mlp(), "cpu", sess_options={"logid": "mine"})  # type: ignore[call-arg]


@pytest.mark.parametrize("entry", [("session.allow_spinning", "0"), ("session.intra_op.allow_spinning", "off")])
def test_misspelt_config_entries_are_accepted(entry):
    options = ort.SessionOptions()
    options.add_session_config_entry(*entry)
    ort.InferenceSession(mlp(), options)
    with says(ConfigError):
        epkit.open(mlp(), "cpu", session_options={"config": dict([entry])})


def test_session_options_may_be_shared_and_are_copied():
    options = ort.SessionOptions()
    options.logid = "first"
    sessions = [ort.InferenceSession(mlp(), options) for _ in range(2)]
    options.logid = "second"
    assert [one.get_session_options().logid for one in sessions] == ["first", "first"]


# -- threads


def test_an_explicit_number_of_threads_is_not_pinned_to_cores():
    [[default, explicit, cores]], _ = child(
        "print(json.dumps([started(), started(intra_op_num_threads=os.cpu_count()), sorted(os.sched_getaffinity(0))]))"
    )
    assert all(free == cores for free in explicit)
    if all(unpinned == cores for unpinned in default):
        pytest.skip("this needs cores that ONNX Runtime can pin its threads to")
    assert all(len(pinned) < len(cores) for pinned in default)


def test_the_default_number_of_threads_ignores_the_affinity_of_the_process():
    [[everywhere, confined]], _ = child(
        "everywhere = len(started()); os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(json.dumps([everywhere, len(started())]))"
    )
    assert confined == everywhere


def test_the_number_of_threads_between_operators_wants_the_parallel_mode():
    [[sequential, parallel]], _ = child(
        "count = lambda **more: len(started(intra_op_num_threads=1, inter_op_num_threads=4, **more))\n"
        "print(json.dumps([count(), count(execution_mode=ort.ExecutionMode.ORT_PARALLEL)]))"
    )
    assert (sequential, parallel) == (0, 3)
    with epkit.open(mlp(), "cpu", session_options={"inter_op_num_threads": 4}) as session:
        assert any("inter_op_num_threads has no effect" in note for note in session.report.notes)


def test_omp_num_threads_changes_nothing():
    [[usual]], _ = child("print(json.dumps([len(started())]))")
    [[told]], _ = child("print(json.dumps([len(started())]))", OMP_NUM_THREADS="7")
    assert told == usual


def test_one_session_serves_many_threads():
    session = ort.InferenceSession(mlp())
    feeds = [{"x": np.full((3, 16), place, np.float32)} for place in range(8)]
    wanted = [session.run(None, feed)[0] for feed in feeds]
    right: list[bool] = []

    def work(place: int) -> None:
        right.extend(np.array_equal(session.run(None, feeds[place])[0], wanted[place]) for _ in range(50))

    workers = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert right == [True] * 400


FORK = """
import time
session = ort.InferenceSession(mlp(width=256), options({"intra_op_num_threads": 2, "inter_op_num_threads": 2} | %s))
feed = {"x": np.ones((64, 256), np.float32)}
session.run(None, feed)
pid = os.fork()
if pid == 0:
    session.run(None, feed)
    os._exit(0)
until = time.monotonic() + %d
while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
    time.sleep(0.01)
if ended == (0, 0):
    os.kill(pid, 9)
    os.waitpid(pid, 0)
print(json.dumps([ended != (0, 0) and ended[1] == 0]))
"""


def test_a_session_runs_in_a_forked_process():
    assert child(FORK % ("{}", 30))[0] == [[True]]


def test_a_parallel_session_hangs_in_a_forked_process():
    assert child(FORK % ('{"execution_mode": ort.ExecutionMode.ORT_PARALLEL}', 2))[0] == [[False]]


@pytest.mark.parametrize("way", [pickle.dumps, copy.deepcopy])
def test_sessions_and_their_options_cannot_be_pickled(way):
    for thing in (ort.SessionOptions(), ort.InferenceSession(mlp())):
        with pytest.raises(TypeError, match="cannot pickle"):
            way(thing)


DENORMALS = """
half = model([helper.make_node("Mul", ["x", "half"], ["y"])], [value("x", [1])], [value("y", [1])],
             [numpy_helper.from_array(np.array([0.5], np.float32), "half")])
tiny = np.array([1e-38], np.float32)
kept = []
for setting in %r:
    session = ort.InferenceSession(half, options({}, {"session.set_denormal_as_zero": setting}))
    kept.append(bool(session.run(None, {"x": tiny})[0][0]))
later = threading.Thread(target=lambda: kept.append(bool((tiny * np.float32(0.5))[0])))
later.start()
later.join()
kept.append(bool((tiny * np.float32(0.5))[0]))
print(json.dumps(kept))
"""


def test_the_first_session_decides_about_denormals_for_its_thread_and_for_numpy():
    [off_then_on], _ = child(DENORMALS % "01")
    [on_then_off], _ = child(DENORMALS % "10")
    assert off_then_on == [True] * 4
    assert on_then_off == [False] * 4


# -- calling


def test_naming_one_output_computes_the_others_all_the_same():
    nodes = [helper.make_node("Identity", ["x"], ["good"]), helper.make_node("Reshape", ["x", "shape"], ["bad"])]
    shape = numpy_helper.from_array(np.array([3, 7], np.int64), "shape")
    two = model(nodes, [value("x", ["N"])], [value("good", ["N"]), value("bad", [None, None])], [shape])
    session = ort.InferenceSession(two)
    options = ort.RunOptions()
    options.only_execute_path_to_fetches = True
    for given in (None, options):
        with pytest.raises(Exception, match="Reshape"):
            session.run(["good"], {"x": np.ones(4, np.float32)}, given)


def test_float64_is_refused_where_float32_is_wanted():
    with pytest.raises(Exception, match=r"expected: \(tensor\(float\)\)"):
        ort.InferenceSession(mlp()).run(None, {"x": np.ones((1, 16))})


def test_the_result_of_a_binding_is_overwritten_by_the_next_run():
    session = ort.InferenceSession(identity())
    binding = session.io_binding()
    binding.bind_output("y")
    results = []
    for number in (1, 2):
        binding.bind_cpu_input("x", np.full(2, number, np.float32))
        session.run_with_iobinding(binding)
        results.append(binding.get_outputs()[0].numpy())
    assert [result.tolist() for result in results] == [[2, 2], [2, 2]]


def test_a_saved_model_has_operators_that_only_onnx_runtime_knows(tmp_path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    ort.InferenceSession(str(sample.path()), options)
    domains = {node.domain for node in onnx.load(tmp_path / "saved.onnx").graph.node}
    assert any(domain.startswith("com.microsoft") for domain in domains)


# -- providers


OPENED = """
def tried(*providers, severity=2, **more):
    session = ort.InferenceSession(mlp(), options({"log_severity_level": severity}), providers=list(providers), **more)
    return session.get_providers()
"""
CPU = ["CPUExecutionProvider"]


@pytest.mark.usefixtures("_without_cuda")
def test_asking_for_cuda_without_its_libraries_gives_the_cpu_and_no_error():
    answers, said = child(
        OPENED
        + """
print(json.dumps(tried("CUDAExecutionProvider", "CPUExecutionProvider")))
print(json.dumps(tried("CUDAExecutionProvider", enable_fallback=0)))
"""
    )
    assert answers == [CPU, CPU]
    assert "Failed to load library" in said
    with says(ProviderUnavailable):
        epkit.open(mlp(), "cuda")


@pytest.mark.usefixtures("_without_cuda")
def test_available_providers_and_the_device_tell_what_was_built_not_what_works():
    built = "onnxruntime-gpu" in wheels.runtimes()
    assert ("CUDAExecutionProvider" in ort.get_available_providers()) == built
    assert (ort.get_device() == "GPU") == built


@pytest.mark.usefixtures("_without_cuda")
def test_disable_fallback_comes_too_late():
    answers, _ = child(
        OPENED
        + """
session = ort.InferenceSession(mlp(), providers=["CUDAExecutionProvider"])
session.disable_fallback()
session.run(None, {"x": np.ones((1, 16), np.float32)})
print(json.dumps(session.get_providers()))
"""
    )
    assert answers == [CPU]


@pytest.mark.usefixtures("_without_cuda")
def test_only_forbidding_the_cpu_makes_a_missing_cuda_an_error():
    answers, _ = child(
        """
try:
    entries = {"session.disable_cpu_ep_fallback": "1"}
    ort.InferenceSession(mlp(), options({}, entries), providers=["CUDAExecutionProvider"])
except Exception as error:
    print(json.dumps([str(error)]))
"""
    )
    assert "fallback to CPU EP has been explicitly disabled" in answers[0][0]


@pytest.mark.usefixtures("_without_cuda")
def test_wrong_options_of_cuda_and_tensorrt_are_not_looked_at_while_libraries_are_missing():
    answers, _ = child(
        OPENED
        + """
print(json.dumps(tried(("CUDAExecutionProvider", {"gpu_mem_limit": "2GB", "nonsense": "1"}))))
print(json.dumps(tried(("TensorrtExecutionProvider", {"trt_nonsense": "1"}))))
"""
    )
    assert answers == [CPU, CPU]
    with says(ConfigError):
        epkit.open(mlp(), "cuda", options={"gpu_mem_limit": "2GB"})
    with says(ConfigError):
        epkit.open(mlp(), "tensorrt", options={"trt_nonsense": True})


@pytest.mark.usefixtures("_without_cuda")
def test_the_severity_of_a_session_does_not_silence_the_loading_of_providers(capfd):
    _, said = child(OPENED + 'tried("CUDAExecutionProvider", severity=4)')
    assert "Failed to load library" in said
    answers, said = child(
        OPENED
        + """
import contextlib, io
ort.set_default_logger_severity(4)
with contextlib.redirect_stdout(io.StringIO()) as printed:
    tried("TensorrtExecutionProvider", severity=4)
print(json.dumps([printed.getvalue()]))
"""
    )
    assert said == ""
    assert "EP Error" in answers[0][0]
    with epkit.open(mlp(), "t", config={"targets": {"t": {"provider": "tensorrt", "fallback": ["cuda"]}}}):
        assert capfd.readouterr() == ("", "")


# -- the page


@pytest.fixture
def advice(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import advice

    return advice


def test_the_figures_of_the_page_are_those_of_the_json(advice):
    document = json.loads(advice.RESULTS.read_text())
    text = PAGE.read_text()
    assert advice.filled(text, document) == text, "python benchmarks/advice.py --page"
    from page import MARKER

    assert {name for _, name, _ in MARKER.findall(text)} == set(advice.figures(document))


def test_every_ratio_of_the_json_follows_from_its_scores(advice):
    document = json.loads(advice.RESULTS.read_text())
    for row in document["ratios"]:
        assert advice.ratio(row["name"], row["model"], row["scores"]) == row
        assert len(row["scores"]) == advice.PROCESSES
    wanted = {(name, model) for name, pair in advice.PAIRS.items() for model in pair.models}
    wanted |= {(name, model) for name in advice.WARMUPS for model in advice.NETS}
    assert {(row["name"], row["model"]) for row in document["ratios"]} == wanted
    assert document["memory_mb"].keys() == advice.MEMORY.keys()


def test_a_verdict_wants_the_whole_interval_beyond_two_percent(advice):
    def verdict(*percent: float) -> str:
        return advice.ratio("arena", "mlp", [np.log1p(one / 100) for one in percent])["verdict"]

    assert verdict(90, 3, 3, 3, 4, 5, 5, 5, -50) == "slower"
    assert verdict(-90, -3, -3, -3, -4, -5, -5, -5, 50) == "faster"
    assert verdict(1, 3, 3, 3, 4, 5, 5, 5, 1) == "undecided"
    assert verdict(-1, 1, 1, 0, 0, 0, -1, 30, -30) == "same"


def test_every_behaviour_is_cited_on_the_page():
    tests = "".join(file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py"))
    cited = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert [name for name in cited if f"def {name}(" not in tests] == []
    behaviours = Path(__file__).read_text().split("# -- the page")[0]
    assert set(re.findall(r"^def (test_\w+)", behaviours, re.MULTILINE)) - cited == set()
