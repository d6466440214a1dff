"""Decide whether a trial ended as a command may."""

from __future__ import annotations

import json
import re

from process import Outcome, Trial

SAYS_NO = ("doctor", "compare", "compile", "cache", "verify", "diff")
"""Commands of which exit code 1 is an answer."""
ANSWERS = ("compare", "diff")
"""Commands that may have an answer to print and an exit code of 2 or more."""
_LIBRARY = re.compile(r"\[[VIWEF]:onnxruntime")


def wrong(trial: Trial, outcome: Outcome) -> str:
    """Return what is wrong with an outcome, empty when nothing is."""
    out, err = outcome.out.decode(errors="replace"), outcome.err.decode(errors="replace")
    code = outcome.code
    for sign in ("Traceback (most recent call last)", "Exception ignored", "Warning:"):
        if sign in err or ("--json" not in trial.words and sign in out):
            return f"it printed {sign!r}"
    if code == 141 and trial.stdout == "gone":
        return ""
    if not isinstance(code, int) or not 0 <= code <= 4:
        return f"it ended with {code}"
    if code not in trial.expected:
        return f"it ended with {code}, where {trial.expected} is expected"
    if code == 1 and not set(SAYS_NO) & set(trial.words):
        return "exit code 1 is not an answer of this command"
    if _LIBRARY.search(err) and not trial.logs:
        return "a library printed beside epkit's sentence"
    return _output(trial, code, out, err)


def _output(trial: Trial, code: int, out: str, err: str) -> str:
    words = set(trial.words)
    answered = bool(set(ANSWERS) & words) and (out or trial.stdout != "file")
    sentence = re.match(r"(epkit: .|Usage: |Error: .)", err)
    if code >= 2 and trial.stderr == "file" and not sentence and not answered:
        return "it failed without a sentence"
    text = out if words.isdisjoint({"--json", "html", "pytest-benchmark", "json"}) else ""
    for line in (*text.splitlines(), *err.splitlines()):
        if not line.isprintable():
            return f"it printed an unprintable character: {line!r:.300}"
    if "--json" in words and out and not words & {"--help", "-h", "--version"}:
        try:
            json.loads(out, parse_constant=_no_number)
        except ValueError as error:
            return f"stdout is no JSON: {error}"
    return ""


def _no_number(name: str) -> None:
    raise ValueError(name)
