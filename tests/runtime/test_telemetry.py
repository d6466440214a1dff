"""Whom does ONNX Runtime tell? Its cache folder is watched: what it would send is written there first."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from models import mlp

from epkit._system import telemetry
from epkit.config.file import load
from epkit.errors import ConfigError

# Continuous integration switches it off too, and so would this process's own variable.
SILENT = ("CI", "TF_BUILD", "GITHUB_", "GITLAB_", "CIRCLECI", "TRAVIS", "JENKINS_", "CODEBUILD_", "BUILDKITE")
SILENT += ("TEAMCITY_", "APPVEYOR", "BITBUCKET_", "ORT_", "EPKIT_")

OPEN = """
import json, os, subprocess, sys, epkit
with epkit.open("m.onnx", "cpu", config=CONFIG) as session:
    said = [note for note in session.report.notes if "telemetry" in note]
    found = {"notes": said, "here": os.environ.get("ORT_DISABLE_TELEMETRY")}
asked = "import os; print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
found["child"] = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout.strip()
print(json.dumps(found))
"""
FAIL = """
try:
    onnxruntime.InferenceSession(b"abc")
except Exception:
    pass
"""


@dataclass
class Watched:
    """A program that has run, and what ONNX Runtime has kept of it."""

    out: str
    folder: Path

    @property
    def told(self) -> bool:
        return self.folder.exists()

    @property
    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.out)
        return found

    def events(self) -> bytes:
        with sqlite3.connect(self.folder / "onnxruntime.db") as base:
            return b"".join(row[0] for row in base.execute("select payload from events"))


def run(folder: Path, *words: str, **environ: str) -> Watched:
    """Run Python with these words in a home of its own, below `folder`."""
    home = folder / f"home-{len(list(folder.iterdir()))}"
    home.mkdir()
    mlp_file = home / "m.onnx"
    mlp_file.write_bytes(mlp())
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SILENT)}
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "EPKIT_CACHE_DIR": str(folder / "epkit")}
    path = os.pathsep.join(one for one in sys.path if one)
    done = subprocess.run(
        [sys.executable, *words],
        env=kept | own | {"PYTHONPATH": path} | environ,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    return Watched(done.stdout, home / "cache" / "Microsoft" / "DeveloperTools" / ".onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the homes of all programs here, and epkit's cache, which they share."""
    place = tmp_path_factory.mktemp("told")
    (place / "epkit").mkdir()
    return place


@pytest.fixture(scope="module")
def program(folder: Path) -> Callable[..., Watched]:
    """Run a program of a user's; skips where ONNX Runtime tells nobody, whatever one does."""
    alone = run(folder, "-c", f"import onnxruntime{FAIL}")
    if not alone.told:
        pytest.skip("this build of ONNX Runtime has no telemetry, or keeps nothing of it in the cache folder")
    assert b"ProcessInfo" in alone.events()
    assert b"RuntimeError" in alone.events()
    return lambda code, config=None, **environ: run(folder, "-c", f"CONFIG = {config}\n{code}", **environ)


def test_a_program_that_opens_a_model_with_epkit_tells_nobody_and_keeps_its_environment(program):
    done = program(OPEN)
    assert not done.told
    assert done.json == {"notes": [], "here": None, "child": "None"}


def test_a_program_may_ask_for_it_in_its_config_and_its_report_says_so(program):
    done = program(OPEN, {"telemetry": True})
    assert done.told
    assert done.json["notes"]
    assert done.json["child"] == "None"


@pytest.mark.parametrize(("value", "told"), [("0", True), ("1", False)])
def test_a_variable_that_the_user_has_set_holds_either_way_and_stays(program, value, told):
    done = program(OPEN, {"telemetry": not told}, ORT_DISABLE_TELEMETRY=value)
    assert done.told is told
    assert (done.json["here"], done.json["child"]) == (value, value)


def test_a_value_that_means_nothing_to_onnx_runtime_asks_for_nothing(program):
    done = program(OPEN, ORT_DISABLE_TELEMETRY="2")
    assert not done.told
    assert done.json["here"] == "2"


def test_after_an_import_that_came_first_the_report_and_doctor_say_what_cannot_be_stopped_and_the_rest_is(program):
    done = program(
        "import onnxruntime, json, epkit, epkit.session.doctor\n"
        "with epkit.open('m.onnx', 'cpu') as session: notes = session.report.notes\n"
        "rows = [(one.state, one.found, one.hint) for one in epkit.session.doctor._telemetry()]\n"
        f"print(json.dumps([notes, rows])){FAIL}"
    )
    notes, rows = json.loads(done.out)
    assert done.told
    assert "imported before" in notes[0]
    assert [row[0] for row in rows] == ["note", "note"]
    assert "imported before" in rows[0][1]
    assert str(done.folder) in rows[1][2]
    assert b"ProcessInfo" in done.events()
    assert b"RuntimeError" not in done.events()


@pytest.mark.slow
def test_events_that_a_program_has_switched_on_again_stay_on(program):
    opened = "epkit.open('m.onnx', 'cpu').close()\n"
    done = program(f"import onnxruntime, epkit\n{opened}onnxruntime.enable_telemetry_events()\n{opened}{FAIL}")
    assert b"RuntimeError" in done.events()


def test_sessions_that_want_different_things_are_told_what_the_first_one_settled(program):
    later = "with epkit.open('m.onnx', 'cpu', config={'telemetry': True}) as other: found = other.report.notes\n"
    done = program(f"{OPEN}{later}print(json.dumps(found))")
    assert not done.told
    assert "without" in json.loads(done.out.splitlines()[-1])[0]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "m.onnx", "-t", "cpu"),
        pytest.param(("providers", "--refresh"), marks=pytest.mark.slow),
        pytest.param(("doctor",), marks=pytest.mark.slow),
        pytest.param(("compare", "m.onnx", "-t", "cpu", "-t", "cpu"), marks=pytest.mark.slow),
        pytest.param(("bench", "m.onnx", "-t", "cpu", "--budget", "5"), marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_epkits_own_processes_tell_nobody_whatever_is_asked(program, folder, words, tmp_path):
    asking = tmp_path / "asking.toml"
    asking.write_text("telemetry = true\n")
    done = run(folder, "-m", "epkit", *words, EPKIT_CONFIG=str(asking), ORT_DISABLE_TELEMETRY="0")
    assert done.out
    assert not done.told


def test_the_script_that_explain_prints_tells_nobody_either(program, folder):
    script = json.loads(run(folder, "-m", "epkit", "explain", "m.onnx", "-t", "cpu", "--json").out)["script"]
    assert not program(script).told


def test_doctor_has_nothing_to_say_where_nothing_is_told_or_kept(program):
    code = "import json, epkit.session.doctor as doctor\nprint(json.dumps([one.state for one in doctor._telemetry()]))"
    assert program(code).json == ["fine"]
    assert program(code, ORT_DISABLE_TELEMETRY="0").json == ["note"]
    assert program(code, ORT_DISABLE_TELEMETRY="2").json == ["fine", "note"]


def test_the_key_of_a_config_is_true_or_false():
    assert load({"telemetry": True}).telemetry.value is True
    assert load({}).telemetry.value is False
    with pytest.raises(ConfigError):
        load({"telemetry": "yes"})


@pytest.mark.parametrize(("value", "means"), [("1", "off"), ("TRUE", "off"), ("no", "on"), ("", None), ("2", None)])
def test_the_variable_means_to_epkit_what_it_means_to_onnx_runtime(monkeypatch, value, means):
    monkeypatch.setenv(telemetry.VARIABLE, value)
    assert telemetry.read_variable() == means
