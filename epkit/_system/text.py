"""Write figures, lists and errors of libraries as text for people, safe to print."""

from __future__ import annotations

import re
from collections.abc import Sequence

from epkit.errors import EpkitError

# "/onnxruntime_src/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, int) " before a sentence.
_SOURCE = re.compile(
    r"/\S+\.(?:cc|cpp|cu|h|hpp):\d+ (?:[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? (?:\[with [^\]]*\] )?)?"
)
# " ; GPU=0 ; hostname=vm ; file=... ; line=355 ; expr=cudaSetDevice(0); " after an error of CUDA.
_CUDA = re.compile(r" ; GPU=-?\d+ ; hostname=\S* ; file=.*? ; line=\d+ ; expr=(.*?);? *$", re.DOTALL)


def format_seconds(value: float | None) -> str:
    """Format a time with three digits and its unit: "12.7 ms"; "" for None."""
    if value is None:
        return ""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * factor:.3g} {unit}" if value * factor < 999.5 else f"{value * factor:.0f} {unit}"
    return f"{value:.3g} s" if value < 999.5 else f"{value:.0f} s"


def format_bytes(value: float | None) -> str:
    """Format a number of bytes with its unit: "1.5 MiB"; "" for None."""
    if value is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def format_percent(share: float) -> str:
    """Format a share: 0.022 is "2.2 %"."""
    value = share * 100
    return f"{value:.2g} %" if abs(value) < 99.5 else f"{value:.0f} %"


def format_count(count: int, noun: str) -> str:
    """Format a number with its noun, in the plural with an "s": "1 node", "3 nodes"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_list(words: Sequence[str]) -> str:
    """Join words as a sentence does: "a, b and c"; "" for none."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def describe_error(error: BaseException) -> str:
    """Return the text of an exception on one line, without the codes and source locations of ONNX Runtime.

    ONNX Runtime's exception classes do not separate a model's fault from a provider's: only the text does.
    """
    text = re.sub(
        r"^\[ONNXRuntimeError\] : \d+ : \w+ : ",
        "",
        (error.message if isinstance(error, EpkitError) else str(error)).strip(),
    )
    text = _CUDA.sub(r", in \1", _SOURCE.sub(" ", text))
    return " ".join(text.split()) or type(error).__name__


def printable(text: object) -> str:
    r"""Return text on one line, with any space as " " and other unprintable characters escaped, such as `\x1b`.

    Text from a model, document, config, path or library could hold a terminal's control codes: it is passed through
    this function before it is printed.
    """
    found = str(text)
    return found if found.isprintable() else "".join(map(_escape, found))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    # Half of a surrogate pair represents a byte of a name that is not UTF-8.
    return " " if character.isspace() else character.encode("unicode_escape").decode()
