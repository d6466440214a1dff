"""Do `bench verify` and `bench diff` find what is wrong with documents, and what changed between two?"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from documents import made_up
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from epkit.benchmark import stored
from epkit.benchmark.document import Benchmark, Findings, Measured
from epkit.benchmark.findings import findings
from epkit.benchmark.verification import verify
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
    if block.sweep >= 1
    for number in range(len(block.samples_s))
]


@pytest.mark.parametrize("times", [{"cpu": 0.01, "openvino": 0.0076}, {"cpu": 0.0001}])
@pytest.mark.parametrize("batches", [(), (1, 4)])
def test_a_document_as_it_was_written_holds(times, batches, tmp_path):
    written = made_up(times, batches=batches, runs=25)
    stored.write(written, tmp_path / "a.json")
    found = verify(stored.read(tmp_path / "a.json"))
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
        (("blocks", 2, "sweep"), 2, "of the same meeting"),
        (("blocks", 2, "core"), 1, "of the same meeting"),
        (("blocks", 20, "meeting"), 0, "it was over: others have run since"),
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
    assert any("meets itself" in str(one.found) for one in found.faults)


@pytest.mark.parametrize("said", ["auto", "images", "exact", "0.0001"])
def test_every_agreement_that_epkit_makes_is_judged_the_same_again(said):
    import numpy as np

    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10)
    names = {"y": "float32", "n": "int64"}
    first = Outputs({"y": x, "n": np.arange(3)}, names, {})
    left_out = Outputs({"y": x * (1 + 5e-4)}, {"y": "float32"}, {"n": "a str cannot be compared"})
    wrong = Outputs({"y": x[::-1], "n": np.arange(3) + 1}, names, {})
    moved = {"y": 2e-4}
    for other in (first, left_out, wrong):
        judged = agreement("cpu", first, other, tolerance_of(said), moved)
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


def test_verify_names_what_does_not_hold(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(DOCUMENT))
    result = CliRunner().invoke(verify_command, [str(file)])
    assert (result.exit_code, "all are what it says" in result.output) == (0, True)
    file.write_text(json.dumps(changed(DOCUMENT, ("findings", "comparisons", 0, "time", "ratio"), 0.5)))
    result = CliRunner().invoke(verify_command, [str(file)])
    assert result.exit_code == 1
    assert "findings.comparisons[0].time.ratio" in result.output
    assert " 0.5 " in result.output
    found = json.loads(CliRunner().invoke(verify_command, [str(file), "--json"]).output)
    assert (found["holds"], found["faults"][0]["said"]) == (False, 0.5)
