"""Documents, configs and arrays that somebody made to do harm are refused in a sentence, whatever is done with them."""

from __future__ import annotations

import copy
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import made_up
from models import mlp

import epkit
from epkit._system.nesting import MAX_DEPTH, find_problem, is_deeper
from epkit.benchmark import storage
from epkit.benchmark.limits import MOST_COMPARISONS
from epkit.benchmark.statistics.differences import Difference
from epkit.config.file import load
from epkit.errors import ConfigError

DOCUMENT = made_up({"cpu": 0.01, "openvino": 0.0076}, processes=3, sweeps=3, runs=3).as_json()
WAYS = (
    ("verify",),
    ("show",),
    ("show", "--json"),
    ("show", "--format", "markdown"),
    ("show", "--format", "pytest-benchmark"),
    ("diff",),
)


def nested(depth: int, kind: str = "[]") -> str:
    return "[" * depth + "]" * depth if kind == "[]" else '{"a":' * depth + "1" + "}" * depth


def changed(path: tuple[str | int, ...], value: object) -> str:
    """Return the document with one value replaced, as JSON; a text that begins with RAW is put in as it is."""
    document = copy.deepcopy(DOCUMENT)
    part: Any = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    text = json.dumps(document)
    if isinstance(value, str) and value.startswith("RAW"):
        return text.replace(json.dumps(value), value[3:])
    return text


NOTES = ("measured", "notes")
EFFECTIVE = ("measured", "candidates", 0, "effective")
SAMPLE = ("measured", "blocks", 0, "samples_s", 0)
HOSTILE = {
    "arrays": nested(100_000),
    "objects": nested(100_000, "{}"),
    "nested effective": changed(EFFECTIVE, "RAW[" + nested(500, "{}") + "]"),
    "deep rules": changed(("measured", "rules"), "RAW" + nested(900, "{}")),
    "NaN": changed(("measured", "rules"), {"a": float("nan")}),
    "a NaN sample": changed(SAMPLE, float("nan")),
    "infinity": changed(("findings", "comparisons", 0, "floor"), float("inf")),
    "1e999": changed(("measured", "request", "budget_s"), "RAW1e999"),
    "a large integer": changed(("measured", "processes", 0, "peak_rss_bytes"), 10**400),
    "digits": changed(("measured", "processes", 0, "peak_rss_bytes"), "RAW" + "9" * 5000),
    "a surrogate": changed(("measured", "rules"), {"a": "\ud800"}),
    "candidates": changed(("measured", "candidates"), [DOCUMENT["measured"]["candidates"][0]] * 3000),
    "cases": changed(("measured", "cases"), [DOCUMENT["measured"]["cases"][0]] * 6000),
}


@pytest.fixture
def file(empty: Path) -> Path:
    return empty / "doc.json"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_whatever_is_done_with_it(command, file, name):
    file.write_text(HOSTILE[name], encoding="utf-8")
    began = time.process_time()
    for way in WAYS:
        code, out, err = command("bench", way[0], *([file, file] if way == ("diff",) else [file]), *way[1:])
        assert code == 2, (way, err)
        assert err.startswith("epkit: ")
        assert "Traceback" not in out + err
    assert time.process_time() - began < 60


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (SAMPLE, 1e-300),
        (SAMPLE, 1e300),
        (SAMPLE, -1.0),
        (("findings", "comparisons", 0, "time", "ratio"), 0.0),
        (("findings", "comparisons", 0, "time", "low"), -1.0),
        (("findings", "level"), 1.0),
        (("measured", "blocks", 0, "samples_s"), []),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_found_by_verify(command, file, path, value):
    file.write_text(changed(path, value), encoding="utf-8")
    for way in WAYS[1:]:
        code, _, err = command("bench", way[0], *([file, file] if way == ("diff",) else [file]), *way[1:])
        assert code == 2, (way, err)
    assert command("bench", "verify", file)[0] == 1


def test_a_name_in_a_document_or_of_one_cannot_command_a_terminal(command, empty):
    evil = copy.deepcopy(DOCUMENT)
    evil["measured"]["candidates"][1]["target"] = "\u202eonivnepo\x1b[2J\nforged"
    evil["measured"]["notes"] = ["\u2066note\x07"]
    file = empty / "\u202enosj.json"
    file.write_text(json.dumps(evil), encoding="utf-8")
    for way in WAYS:
        _, out, err = command("bench", way[0], *([file, file] if way == ("diff",) else [file]), *way[1:])
        assert all(line.isprintable() for line in (out + err).splitlines()), way


def test_a_document_without_an_end_is_not_read_to_its_end(command, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 1 << 20)
    assert command("bench", "show", "/dev/zero")[0] == 2
    assert command("run", "m.onnx", "--config", "/dev/zero")[0] == 2


def test_more_comparisons_than_a_document_may_hold_are_not_begun():
    with pytest.raises(ConfigError, match=f"{MOST_COMPARISONS:,}"):
        epkit.bench(mlp(), ["cpu"] * 102, budget=5)
    with pytest.raises(ConfigError):
        epkit.bench(mlp(), ["cpu", "cpu"], budget=5, seed=2**70)


def test_an_interval_of_two_processes_may_be_wider_than_numbers_go():
    found = Difference(0.0, 5.0, 1.0, 2, 2).estimate(1 - 1e-9)
    assert 0 < found.low < 1e-99 < 1e99 < found.high < float("inf")
    assert Difference(0.0, 5.0, 1.0, 2, 2).floor(1 - 1e-9) > 1e99


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000 + "]" * 5000,
        "targets." + ".".join("a" * 3000) + " = 1",
        "[" + ".".join("a" * 3000) + "]",
        "default = " + "{a = " * 3000 + "1" + "}" * 3000,
        'default = "\\ud800"',
        "default = 1" + "0" * 5000,
    ],
)
def test_a_hostile_config_is_refused(empty, text):
    (empty / "epkit.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        load(environ={})


def test_a_hostile_value_in_the_environment_is_refused_or_text(empty):
    (empty / "epkit.toml").write_text('[targets.a]\nprovider = "cpu"\n')
    for value in ("[" * 5000, "[" * 5000 + "]" * 5000, "{a=" * 3000, "\udce8", "1" + "0" * 5000):
        found = load(environ={"EPKIT_TARGETS__a__provider": value})
        assert found.target("a")["provider"].value == value


def test_hostile_outputs_that_were_saved_are_refused(command, empty):
    good, bad = empty / "good", empty / "bad"
    good.mkdir()
    np.save(good / "y.npy", np.ones(3))
    packed = io.BytesIO()
    np.savez(packed, np.ones(3))
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    hostile = {
        "y.json": nested(100_000).encode(),
        "z.json": nested(900).encode(),
        "y.npz": b"PK\x03\x04 this is no archive",
        "z.npz": packed.getvalue()[:-40],
        "w.npz": packed.getvalue().replace(b"NUMPY", b"MUMPY"),
        "y.npy": b"PK\x03\x04 this is no archive",
        "z.npy": header + b"(" * 118,
        "w.npy": header + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,2",
        "v.npy": b"",
    }
    for name, contents in hostile.items():
        bad.mkdir(exist_ok=True)
        (bad / name).write_bytes(contents)
        code, _, err = command("compare", good, bad)
        assert (code, "Traceback" in err) == (2, False), name
        (bad / name).unlink()


def test_data_is_looked_through_however_deep_it_is():
    deep: object = 1
    for _ in range(200_000):
        deep = [deep]
    assert is_deeper(deep)
    assert find_problem(deep)
    assert not is_deeper([[1], {"a": [2]}])
    assert is_deeper([[]], 1)
    assert not is_deeper([[]], 2)
    assert find_problem({"a": [1, "b", None, True, 2.5]}) == ""
    assert MAX_DEPTH >= 32
    while isinstance(deep, list):  # taken apart by hand: freeing it all at once recurses
        deep = deep[0]
