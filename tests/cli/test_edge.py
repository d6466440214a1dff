"""Where the program meets the system: streams, locales, homes, folders. A command never ends in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import identity, mlp, model, value
from onnx import helper

from epkit._system.text import printable
from epkit.cli._edge import translate
from epkit.errors import EpkitError

SNOWMAN = "mod\xe8l \u2603.onnx"
HOSTILE = "\x1b[31mred\x1b[0m\nforged: line \u202egnp.exe"
posix = pytest.mark.skipif(os.name != "posix", reason="file descriptors as POSIX has them")
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


def shell(words: str, *, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run `epkit` in a shell, redirections included."""
    line = f"exec '{sys.executable}' -m epkit {words}"
    return subprocess.run(["bash", "-c", line], capture_output=True, env=os.environ | environ, cwd=cwd, timeout=120)


def assert_said(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """Assert that a command ended with this code and one sentence of epkit's, and return it."""
    told = done.stderr.decode(errors="replace")
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert done.returncode == code, told
    assert told.startswith("epkit: ") or not code
    return told


@pytest.fixture
def named(empty: Path) -> Path:
    """Return a model whose file name, and the names inside it, are hostile."""
    file = empty / SNOWMAN
    nodes = [helper.make_node("Identity", [HOSTILE], [HOSTILE + "2"])]
    file.write_bytes(model(nodes, [value(HOSTILE, [1])], [value(HOSTILE + "2", [1])]))
    return file


@posix
@full
@pytest.mark.parametrize("words", ["--help", "--version", "inspect m.onnx", "inspect m.onnx --json", "providers -h"])
def test_an_answer_that_finds_no_room_is_a_sentence_and_exit_2(empty, words):
    (empty / "m.onnx").write_bytes(mlp())
    assert_said(shell(f"{words} > /dev/full", cwd=empty), 2)


@posix
@pytest.mark.parametrize("words", ["--help", "inspect m.onnx"])
def test_a_stdout_that_is_closed_is_a_sentence_and_exit_2(empty, words):
    (empty / "m.onnx").write_bytes(mlp())
    assert "closed" in assert_said(shell(f"{words} >&-", cwd=empty), 2)


@posix
@full
def test_an_error_keeps_its_exit_code_where_stderr_cannot_be_written(empty):
    for where in ("2> /dev/full", "2>&-", "> /dev/full 2>&1", ">&- 2>&-", "<&- >&- 2>&-"):
        assert shell(f"inspect missing.onnx {where}", cwd=empty).returncode == 4, where


@posix
def test_a_file_is_not_taken_for_a_standard_stream_that_is_closed(empty):
    (empty / "m.onnx").write_bytes(mlp())
    before = (empty / "m.onnx").read_bytes()
    done = shell("run m.onnx -t cpu --output-dir out --json <&- 2>&-", cwd=empty)
    assert done.returncode == 0
    assert set(json.loads(done.stdout)["outputs"]) == {"y"}
    assert np.load(empty / "out" / "y.npy").shape == (1, 16)
    assert (empty / "m.onnx").read_bytes() == before


@posix
def test_a_reader_that_is_gone_is_no_answer_of_no(empty):
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m epkit inspect m.onnx | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        cwd=empty,
        timeout=120,
    )
    assert done.returncode in (4, 141)  # there is no such model, but that may be said after `true` has ended
    (empty / "m.onnx").write_bytes(mlp())
    line = f"'{sys.executable}' -m epkit inspect m.onnx | (exec <&-; sleep 3); exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, cwd=empty, timeout=120)
    assert (done.returncode, done.stderr) == (141, b"")


@posix
def test_help_for_a_reader_that_is_gone_is_no_answer_of_no_in_ascii_either(empty):
    line = f"'{sys.executable}' -m epkit --help | (exec <&-; sleep 2); exit ${{PIPESTATUS[0]}}"
    environ = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environ, timeout=120)
    assert (done.returncode, done.stderr) == (141, b"")


@posix
@pytest.mark.parametrize(
    "environ",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
    ],
    ids=["C", "latin-1", "ascii"],
)
def test_a_terminal_that_lacks_a_character_shows_which_it_was(named, environ):
    done = shell(f"inspect '{SNOWMAN}'", cwd=named.parent, **environ)
    assert_said(done, 0)
    assert done.stdout.count(b"Identity") == 1
    assert b"\\u2603" in done.stdout or b"\\udce2" in done.stdout
    assert_said(shell(f"inspect 'no {SNOWMAN}'", cwd=named.parent, **environ), 4)


@posix
def test_a_file_name_that_is_not_utf_8_is_opened_and_shown(empty):
    file = os.fsencode(empty) + b"/m\xe8l.onnx"
    Path(os.fsdecode(file)).write_bytes(mlp())
    done = shell("run $'m\\xe8l.onnx' -t cpu", cwd=empty)
    assert_said(done, 0)
    done = shell("inspect $'m\\xe8l.onnx'", cwd=empty)
    assert_said(done, 0)
    assert b"\\udce8" in done.stdout


@pytest.mark.parametrize("words", [("inspect",), ("run", "-t", "cpu"), ("explain", "-t", "cpu"), ("compare",)])
def test_names_from_a_model_reach_a_terminal_as_text(command, named, words):
    words = (*words, "-t", "cpu", "-t", "cpu") if words == ("compare",) else words
    code, out, err = command(words[0], named, *words[1:])
    assert code == 0
    for text in (out, err):
        assert all(line.isprintable() for line in text.splitlines())
        assert not any(line.startswith("forged") for line in text.splitlines())
    assert words[0] == "explain" or "\\x1b[31mred" in out


def test_names_in_errors_reach_a_terminal_as_text(command, named):
    for words in (("run", named, "--input", f"{HOSTILE}=no.npy"), ("run", named, "-t", HOSTILE), (HOSTILE,)):
        code, out, err = command(*words)
        assert code == 2
        assert all(line.isprintable() for line in (out + err).splitlines())
        assert not any(line.startswith("forged") for line in err.splitlines())


@pytest.mark.parametrize("part", [b"inQput", b"outQput", b"dimQension"])
def test_names_that_are_not_utf_8_are_an_error_of_the_model(command, empty, part):
    nodes = [helper.make_node("Identity", ["inQput"], ["outQput"], name="noQde")]
    contents = model(nodes, [value("inQput", ["dimQension"])], [value("outQput", ["dimQension"])])
    (empty / "m.onnx").write_bytes(contents.replace(part, part.replace(b"Q", b"\xe8")))
    for words in (("run", "m.onnx", "-t", "cpu"), ("compare", "m.onnx", "-t", "cpu", "-t", "cpu")):
        code, _, err = command(*words)
        assert (code, err.isascii(), "Traceback" in err) == (4, True, False)
        assert "hint" in err
    assert command("inspect", "m.onnx")[0] == 0


def test_a_text_is_one_line_without_commands_for_a_terminal():
    assert printable("plain text, \xe8 and \u2603") == "plain text, \xe8 and \u2603"
    shown = printable("a\x1b[2J\r\nb\u2028c\u202ed\udce8\x00\ufeff")
    assert shown.isprintable()
    assert shown == "a\\x1b[2J  b c\\u202ed\\udce8\\x00\\ufeff"


@posix
@full
def test_events_that_find_no_room_are_one_line_and_change_nothing_else(empty):
    (empty / "m.onnx").write_bytes(identity())
    done = shell("run m.onnx -t cpu --json", cwd=empty, EPKIT_EVENTS="/dev/full")
    assert_said(done, 0)
    assert set(json.loads(done.stdout)["outputs"]) == {"y"}
    assert len(done.stderr.splitlines()) == 1


def test_what_the_system_refuses_is_an_error_of_epkits_with_a_hint():
    unknown = UnicodeEncodeError("utf-8", "\udce8", 0, 1, "surrogates not allowed")
    for error in (OSError(28, "No space left on device", "/a/b"), OSError("odd"), MemoryError(), unknown):
        found = translate(error)
        assert isinstance(found, EpkitError)
        assert found.exit_code in (2, 4)
        assert found.hint
