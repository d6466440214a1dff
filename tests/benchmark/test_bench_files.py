"""Do `bench verify` and `bench diff` find what is wrong with documents, and what changed between two?"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from documents import made_up
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from texts import says

from epkit.benchmark import storage
from epkit.benchmark.audit.diff import changes, subtract
from epkit.benchmark.audit.diff_sentences import summarize
from epkit.benchmark.audit.verify import verify
from epkit.benchmark.document import Benchmark, Findings, Measured
from epkit.benchmark.labels import labels
from epkit.benchmark.statistics.differences import Difference
from epkit.benchmark.statistics.verdicts import findings
from epkit.cli._bench_files import diff as diff_command
from epkit.cli._bench_files import verify as verify_command
from epkit.errors import ConfigError
from epkit.parity.agreement import agreement, incomparable
from epkit.parity.outputs import Outputs
from epkit.parity.tolerance import tolerance_of

SMALL = made_up({"cpu": 0.01, "openvino": 0.0076, "cuda": 0.002}, batches=(1, 4), processes=3, sweeps=3, runs=3)
DOCUMENT = SMALL.as_json()
MEASURED, FINDINGS = TypeAdapter(Measured), TypeAdapter(Findings)

Path = tuple[str | int, ...]


def numbers(value: object, path: Path = ()) -> Iterator[Path]:
    """Yield the place of every number, but truth values."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, (*path, key))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from numbers(part, (*path, at))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def changed(document: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    document = copy.deepcopy(document)
    part: Any = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return document


def at(document: object, path: Path) -> Any:
    for key in path:
        document = document[key]  # type: ignore[index]
    return document


def read(document: dict[str, Any]) -> Benchmark:
    return Benchmark(MEASURED.validate_python(document["measured"]), FINDINGS.validate_python(document["findings"]))


def spelt(path: Path) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


NUMBERS = list(numbers(DOCUMENT))
FOUND = [path for path in NUMBERS if path[0] == "findings"]
JUDGED = [path for path in NUMBERS if path[-1] in ("share", "allowed", "max_abs") and "agreements" in path]
COUNTED = [
    ("measured", "blocks", place, "samples_s", number)
    for place, block in enumerate(SMALL.measured.blocks)
    if block.pass_number >= 1
    for number in range(len(block.samples_s))
]


@pytest.mark.parametrize("times", [{"cpu": 0.01, "openvino": 0.0076}, {"cpu": 0.0001}])
@pytest.mark.parametrize("batches", [(), (1, 4)])
def test_a_document_as_it_was_written_holds(times, batches, tmp_path):
    written = made_up(times, batches=batches, runs=25)
    storage.write(written, tmp_path / "a.json")
    found = verify(storage.read(tmp_path / "a.json"))
    assert found.holds, found.faults
    assert found.values > 20


@given(st.sampled_from(FOUND + JUDGED), st.floats(1e-6, 10), st.booleans())
@settings(max_examples=60)
def test_any_number_of_the_findings_that_is_changed_is_found(path, by, down):
    said = at(DOCUMENT, path)
    value = said + (1 if isinstance(said, int) else (abs(said) or 1) * by) * (-1 if down else 1)
    found = verify(read(changed(DOCUMENT, path, value)))
    assert spelt(path) in " ".join(one.path for one in found.faults) or path in JUDGED
    assert not found.holds


@given(st.sampled_from(COUNTED), st.floats(1e-6, 10))
@settings(max_examples=20)
def test_any_run_that_counts_and_is_changed_is_found(path, by):
    """Its findings are no longer those of the document."""
    found = verify(read(changed(DOCUMENT, path, at(DOCUMENT, path) * (1 + by))))
    assert any("throughput_per_s" in one.path for one in found.faults)


@given(st.sampled_from(NUMBERS), st.sampled_from([-1, 0, 0.5, 7, 1e9]))
@settings(max_examples=60)
@example(("measured", "blocks", 0, "process"), 99)
@example(("measured", "blocks", 0, "case"), -1)
def test_any_number_that_is_changed_is_found_unless_nothing_follows_from_it(path, value):
    said = at(DOCUMENT, path)
    value = math.floor(value) if isinstance(said, int) else value
    document = changed(DOCUMENT, path, value)
    found = verify(read(document))
    if found.holds and value != said:
        assert path[0] == "measured"
        assert FINDINGS.dump_python(findings(read(document).measured), mode="json") == DOCUMENT["findings"]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("blocks", 2, "samples_s", 0), float("nan"), "a number"),
        (("blocks", 2, "samples_s", 1), -0.1, "more than 0"),
        (("blocks", 2, "samples_s"), [], "at least one run"),
        (("blocks", 2, "process"), 12, "there are 12 processes, counted from 0"),
        (("blocks", 2, "case"), 2, "there are 2 cases, counted from 0"),
        (("blocks", 2, "round"), 2, "is one of round 1"),
        (("blocks", 2, "pass_number"), 2, "of the same pair"),
        (("blocks", 2, "core"), 1, "of the same pair"),
        (("blocks", 20, "pair"), 0, "it was over: others have run since"),
        (("processes", 3, "candidate"), 3, "there are 3 candidates, counted from 0"),
        (("processes", 3, "first_run_s"), [0.1] * 3, "2 at most: one for each case"),
        (("candidates", 1, "agreements", 0, "reference"), "cup", "no candidate is called so"),
        (("candidates", 1, "status"), "differs", "its outputs agree in every case"),
        (("candidates", 1, "agreements", 1, "agree"), False, "differs: agrees with cpu"),
        (("request", "smallest_effect"), 0.0, "more than 0"),
    ],
)
def test_what_cannot_have_happened_is_found(path, value, told):
    found = verify(read(changed(DOCUMENT, ("measured", *path), value)))
    assert any(told in str(one.found) for one in found.faults), found.faults


def test_a_candidate_cannot_meet_itself():
    measured = SMALL.measured
    blocks = list(measured.blocks)
    blocks[1] = replace(blocks[1], process=blocks[0].process)
    found = verify(replace(SMALL, measured=replace(measured, blocks=tuple(blocks))))
    assert any("is paired with itself" in str(one.found) for one in found.faults)


@pytest.mark.parametrize("said", ["auto", "images", "exact", "0.0001"])
def test_every_agreement_that_epkit_makes_is_judged_the_same_again(said):
    import numpy as np

    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10)
    names = {"y": "float32", "n": "int64"}
    first = Outputs({"y": x, "n": np.arange(3)}, names, {})
    left_out = Outputs({"y": x * (1 + 5e-4)}, {"y": "float32"}, {"n": "a str cannot be compared"})
    wrong = Outputs({"y": x[::-1], "n": np.arange(3) + 1}, names, {})
    for other in (first, left_out, wrong):
        judged = agreement("cpu", first, other, tolerance_of(said))
        held = _with_agreement(judged, said)
        assert not [one for one in held.faults if "agreements" in one.path], (said, judged)
    assert not [one for one in _with_agreement(incomparable("cpu", "why"), said).faults if "agreements" in one.path]


def _with_agreement(judged, said):
    measured = SMALL.measured
    candidate = replace(measured.candidates[1], agreements=(judged, judged))
    candidates = (measured.candidates[0], candidate, replace(measured.candidates[2], agreements=()))
    request = replace(measured.request, tolerance=said)
    return verify(replace(SMALL, measured=replace(measured, request=request, candidates=candidates)))


def test_a_tolerance_that_was_stretched_is_found():
    path = ("measured", "candidates", 1, "agreements", 0, "outputs", 0, "allowed")
    for allowed in (0.5, 1e-4, None):
        assert not verify(read(changed(DOCUMENT, path, allowed))).holds


@pytest.mark.parametrize(("content", "code"), [("", 2), ("[]", 2), ('{"schema": "epkit.bench/1"}', 2)])
def test_what_is_no_document_is_a_wrong_request(content, code, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(content)
    result = CliRunner().invoke(verify_command, [str(file)])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == code


def test_a_document_of_the_schema_before_is_read_as_this_one(tmp_path):
    older = copy.deepcopy(DOCUMENT)
    older["schema"] = "epkit.bench/2"
    for block in older["measured"]["blocks"]:
        block.update(sweep=block.pop("pass_number"), meeting=block.pop("pair"))
    for compared in older["findings"]["comparisons"]:
        compared["meetings"] = compared.pop("pairs")
    older["measured"]["environment"].update(load_after=[1.0, 0.6, 0.5], page_cache="read just before", seconds=80.1)
    (tmp_path / "older.json").write_text(json.dumps(older))
    found = storage.read(tmp_path / "older.json")
    assert found.as_json() == DOCUMENT
    assert verify(found).holds
    assert changes(found, SMALL) == changes(SMALL, SMALL)


def test_verify_names_what_does_not_hold(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(DOCUMENT))
    result = CliRunner().invoke(verify_command, [str(file)])
    assert (result.exit_code, "all are the same" in result.output) == (0, True)
    file.write_text(json.dumps(changed(DOCUMENT, ("findings", "comparisons", 0, "time", "ratio"), 0.5)))
    result = CliRunner().invoke(verify_command, [str(file)])
    assert result.exit_code == 1
    assert "findings.comparisons[0].time.ratio" in result.output
    assert " 0.5 " in result.output
    found = json.loads(CliRunner().invoke(verify_command, [str(file), "--json"]).output)
    assert (found["holds"], found["faults"][0]["said"]) == (False, 0.5)


# -- what changed from one document to another

BEFORE = made_up({"cpu": 0.01, "openvino": 0.0076}, seed=1)


def on(benchmark: Benchmark, **facts: object) -> Benchmark:
    """Say that it was measured in another environment, or that something else was asked for."""
    measured = benchmark.measured
    request = {name: value for name, value in facts.items() if hasattr(measured.request, name)}
    environment = {name: value for name, value in facts.items() if hasattr(measured.environment, name)}
    assert {*request, *environment} == {*facts}
    measured = replace(
        measured,
        request=replace(measured.request, **request),
        environment=replace(measured.environment, **environment),
    )
    return replace(benchmark, measured=measured)


@pytest.mark.parametrize(
    ("now", "verdict", "code"), [(0.0076, "same", 0), (0.0083, "slower", 1), (0.0069, "faster", 0)]
)
def test_a_change_of_how_two_stand_beside_each_other_is_judged(now, verdict, code):
    """Here the machine itself is half as fast as before, which changes nothing."""
    found = changes(BEFORE, made_up({"cpu": 0.02, "openvino": 2 * now}, seed=2))
    (one,) = found.changes
    assert (one.verdict, found.exit_code) == (verdict, code)
    assert one.change.low < now / 0.0076 < one.change.high
    assert one.change.ratio == pytest.approx(one.now.ratio / one.before.ratio)


def test_the_change_stands_in_a_sentence():
    found = changes(BEFORE, made_up({"cpu": 0.01, "openvino": 0.0083}, seed=2))
    (told,) = summarize(found)
    assert told.startswith("openvino relative to cpu: 1.32x faster before, 1.2x faster now: ")
    assert " % slower, " in told
    (same,) = summarize(changes(BEFORE, BEFORE))
    assert ": 1.32x faster before, 1.32x faster now: the same, between " in same


def test_what_is_undecided_says_what_could_be_told():
    noisy = [made_up({"cpu": 0.01, "openvino": 0.01}, processes=2, noise=0.3, sweeps=3, seed=seed) for seed in (1, 2)]
    found = changes(*noisy)
    assert found.changes[0].verdict == "undecided"
    (told,) = summarize(found)
    assert re.search(r"undecided, between \S+ % faster and \S+ % slower \(minimum detectable change: \S+ %\)$", told)


def test_a_document_beside_itself_has_not_changed():
    found = changes(SMALL, SMALL)
    assert [one.change.ratio for one in found.changes] == [1.0] * 6
    assert found.differs == found.missing == found.lost == ()
    assert found.level == pytest.approx(1 - 0.05 / 6)
    assert found.exit_code == 0
    assert all(one.before == one.now for one in found.times)


def test_what_has_not_changed_is_never_called_changed_and_five_percent_mostly_are():
    """Processes are lucky or not by 0.6 %, and runs noisy by 2 %; of these seeds, and so every time."""
    said: dict[float, list[str | None]] = {1.0: [], 1.05: []}
    for seed in range(12):
        before, *now = (
            made_up({"cpu": 0.01, "openvino": 0.0076 * slower}, sweeps=5, runs=3, noise=0.02, luck=0.006, seed=of)
            for slower, of in ((1.0, 3 * seed), (1.0, 3 * seed + 1), (1.05, 3 * seed + 2))
        )
        for slower, other in zip(said, now, strict=True):
            said[slower].append(changes(before, other).changes[0].verdict)
    assert {*said[1.0]} <= {"same", "undecided"}
    assert said[1.05].count("slower") >= 9


def test_the_order_of_the_candidates_is_no_change():
    turned_round = made_up({"openvino": 0.0076, "cpu": 0.01}, seed=2)
    (one,) = changes(BEFORE, turned_round).changes
    assert (one.a, one.b, one.verdict) == ("openvino", "cpu", "same")
    assert one.before.ratio == pytest.approx(1 / BEFORE.findings.comparisons[0].time.ratio)


def test_only_what_became_slower_beside_the_first_is_a_regression():
    """openvino became faster: beside it cuda is slower than it was, and has not changed."""
    before = made_up({"cpu": 0.01, "openvino": 0.0076, "cuda": 0.002}, seed=1)
    found = changes(before, made_up({"cpu": 0.01, "openvino": 0.005, "cuda": 0.002}, seed=2))
    verdicts = {(one.a, one.b): one.verdict for one in found.changes}
    assert verdicts == {("cpu", "openvino"): "faster", ("cpu", "cuda"): "same", ("openvino", "cuda"): "slower"}
    assert (found.regressions, found.exit_code) == ([], 0)


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"model_sha256": "cd" * 32}, "the model"),
        ({"bound": True}, "whether a binding is timed"),
        ({"callers": 2}, "callers at the same time"),
        ({"tolerance": "exact"}, "how far outputs may be apart"),
    ],
)
def test_of_two_things_nothing_is_compared(facts, what):
    found = changes(BEFORE, on(BEFORE, **facts))
    assert (found.changes, found.times, found.exit_code) == ((), (), 2)
    assert [one.what for one in found.differs] == [what]
    assert "nothing is compared" in next(iter(summarize(found)))


@pytest.mark.parametrize(
    "facts",
    [
        {"cpu": "another processor"},
        {"cores": 4},
        {"limit": "cgroup: 1 of 2"},
        {"gpus_before": ({"name": "A", "memory.total": "16"},)},
    ],
)
def test_on_another_machine_nothing_is_judged(facts):
    found = changes(BEFORE, on(made_up({"cpu": 0.01, "openvino": 0.0095}), **facts))
    assert [(one.verdict, one.change.ratio > 1.2) for one in found.changes] == [(None, True)]
    assert (found.times, found.exit_code) == ((), 0)
    obstacle, told = summarize(found)
    assert obstacle.endswith("times are not compared and no change is judged")
    assert "now: not judged, between" in told


@pytest.mark.parametrize(
    "facts",
    [
        {"governor": "performance"},
        {"system": "Linux 7"},
        {"versions": {"epkit": "9"}},
        {"load_before": (4.0, 1.0, 1.0)},
    ],
)
def test_what_may_have_caused_a_change_is_listed(facts):
    found = changes(BEFORE, on(BEFORE, **facts))
    assert found.differs
    assert {one.forbids for one in found.differs} == {"nothing"}
    assert [one.verdict for one in found.changes] == ["same"]


@pytest.mark.parametrize("facts", [{"others_cores": 1.5}, {"stolen_cores": 0.1}])
def test_where_others_kept_the_machine_busy_no_change_is_judged(facts):
    """With 1.5 of 2 cores taken, openvino was really seen at 2.7 and at 4.4 times the time of cpu, unchanged."""
    now = made_up({"cpu": 0.01, "openvino": 0.0095})
    for found in (changes(BEFORE, on(now, **facts)), changes(on(BEFORE, **facts), now)):
        assert [one.verdict for one in found.changes] == [None]
        assert found.times
        assert found.exit_code == 0
        assert "so no change is judged" in next(iter(summarize(found)))
    quiet = {"others_cores": 0.1, "stolen_cores": 0.01}
    assert changes(on(BEFORE, **quiet), on(now, **quiet)).exit_code == 1


def test_the_same_gpu_with_another_driver_is_the_same_machine():
    gpu = {"name": "A", "memory.total": "16", "driver_version": "580", "temperature.gpu": "40"}
    before = on(BEFORE, gpus_before=(gpu,))
    found = changes(before, on(BEFORE, gpus_before=({**gpu, "driver_version": "590", "temperature.gpu": "70"},)))
    assert [(one.what, one.before, one.now, one.forbids) for one in found.differs] == [
        ("GPU 0: driver_version", "580", "590", "nothing")
    ]


def test_the_larger_of_two_smallest_effects_holds():
    now = made_up({"cpu": 0.01, "openvino": 0.0083}, seed=2)
    assert changes(on(BEFORE, smallest_effect=0.2), now).changes[0].verdict == "same"
    assert changes(BEFORE, on(now, smallest_effect=0.2)).changes[0].verdict == "same"


def test_cases_and_candidates_that_are_in_one_only_are_said():
    now = made_up({"cpu": 0.01, "cuda": 0.002, "openvino": 0.0076}, batches=(1, 16))
    before = made_up({"cpu": 0.01, "openvino": 0.0076}, batches=(1, 4))
    found = changes(before, now)
    assert {one.case for one in found.changes} == {"batch=1"}
    assert found.missing == (
        "cuda was not there before and is ok now",
        "batch=4 was measured before only",
        "batch=16 was measured now only",
    )


def test_a_case_with_other_inputs_is_not_compared():
    before = made_up({"cpu": 0.01, "openvino": 0.0076}, batches=(1, 4))
    cases = (before.measured.cases[0], replace(before.measured.cases[1], inputs_sha256="7" * 64))
    found = changes(before, replace(before, measured=replace(before.measured, cases=cases)))
    assert {one.case for one in (*found.changes, *found.times)} == {"batch=1"}
    assert "this case is not compared" in " ".join(summarize(found))


def test_a_candidate_that_fails_now_is_lost():
    measured = BEFORE.measured
    failed = replace(measured.candidates[1], status="failed", reason="it crashed")
    now = replace(BEFORE, measured=replace(measured, candidates=(measured.candidates[0], failed)))
    found = changes(BEFORE, now)
    assert found.lost == ("openvino was measured before; now it failed: it crashed",)
    assert found.exit_code == 1


def test_the_same_target_twice_has_two_names():
    row = BEFORE.candidates[0]
    assert labels([row, BEFORE.candidates[1], row]) == ["cpu", "openvino", "cpu (2)"]


def test_a_damaged_document_is_a_wrong_request():
    damaged = read(changed(DOCUMENT, ("measured", "blocks", 0, "process"), 99))
    with says(ConfigError):
        changes(SMALL, damaged)


@given(st.floats(-1, 1), st.floats(1e-4, 0.1), st.floats(1e-4, 0.1), st.floats(2, 14), st.floats(2, 14))
def test_what_is_known_of_two_is_known_less_of_their_difference(apart, first, second, freedom, other):
    found = subtract(Difference(0.3, first, freedom, 8, 90), Difference(0.3 + apart, second, other, 6, 80))
    assert found.log_ratio == pytest.approx(apart, abs=1e-12)
    assert found.error >= max(first, second)
    assert min(freedom, other) * (1 - 1e-9) <= found.freedom <= (freedom + other) * (1 + 1e-9)


def test_diff_exits_with_what_it_found(tmp_path):
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file, benchmark in zip(files, (BEFORE, made_up({"cpu": 0.01, "openvino": 0.0083}, seed=2)), strict=True):
        storage.write(benchmark, file)
    names = list(map(str, files))
    result = CliRunner().invoke(diff_command, names)
    assert result.exit_code == 1
    assert "openvino relative to cpu: " in result.output
    assert "times are not judged" in result.output
    assert CliRunner().invoke(diff_command, names[::-1]).exit_code == 0
    found = json.loads(CliRunner().invoke(diff_command, [*names, "--json"]).output)
    assert found["schema"] == "epkit.bench.diff/1"
    assert (found["regression"], found["changes"][0]["verdict"]) == (True, "slower")


def test_a_document_cannot_command_the_terminal(tmp_path):
    evil = changed(DOCUMENT, ("measured", "candidates", 1, "target"), "\x1b[2Jopenvino")
    evil = changed(evil, ("measured", "candidates", 1, "agreements", 0, "reference"), "\x1b]0;cpu\x07")
    (tmp_path / "a.json").write_text(json.dumps(evil))
    for command, files in ((verify_command, ["a.json"]), (diff_command, ["a.json", "a.json"])):
        told = CliRunner().invoke(command, [str(tmp_path / file) for file in files], color=True).output
        assert "openvino" in told or "cpu" in told
        assert "\x1b" not in told
        assert "\x07" not in told
