"""Name the reason why a case failed, in two or three words.

ONNX Runtime has no codes that would tell, so its words are matched. What matches nothing is "other".
"""

from __future__ import annotations

import re

from epkit.testing.onnx_suite.runners import Outcome

OTHER = "other"

_WORDS = (
    ("IR too new", r"Unsupported model IR version"),
    ("opset in development", r"is under development"),
    ("operator unknown", r"is not a registered function/op|No Op registered for"),
    (
        "kernel missing",
        r"Could not find an implementation for|Failed to find kernel for|Provider type for \S+ node .*is not set",
    ),
    (
        "type not carried",
        r"No corresponding Numpy type|can't be converted to MLDataType|knows no tensor type|Unexpected input data type",
    ),
    ("numbers beyond the provider's type", r"holds .+, which \S+ would compute in"),
    ("locale not installed", r"Failed to construct locale"),
    ("not taken by OpenVINO", r"\[OpenVINO-EP\]|FrontEnd API failed|Exception from src/|Check '.+' failed at src/"),
    (
        "operator not supported in this form",
        r"(is|are) (not|NOT) (supported|implemented)|inconsistent total|cannot be null or empty",
    ),
)
_DIFFERENCES = (
    ("another shape", r"has incorrect shape|outputs are \["),
    ("another dtype", r"Items are not equal"),
    ("numbers beyond the tolerance", r"Not equal to tolerance|Arrays are not equal"),
)


def cause_of(failed: Outcome) -> str:
    """Return the class of a failure."""
    if failed.stage == "crashed":
        return "crash"
    if failed.stage == "hung":
        return "hang"
    known = _DIFFERENCES if failed.stage == "outputs" else _WORDS
    return next((cause for cause, words in known if re.search(words, failed.words)), OTHER)
