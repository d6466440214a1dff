"""Identify a file that is not ONNX by its first bytes."""

from __future__ import annotations

from codecs import getincrementaldecoder

HEAD_BYTES = 512
"""How many bytes `identify` needs."""

_EXPORT = "export the model to ONNX, from PyTorch with torch.onnx.export"
_KERAS = "convert it with tf2onnx"

_SIGNATURES = (
    (0, b"PK\x03\x04", "a zip archive, as PyTorch and NumPy write them", f"unpack it, or {_EXPORT}"),
    (0, b"\x80\x02", "a Python pickle, as PyTorch wrote them", _EXPORT),
    (0, b"\x80\x04", "a Python pickle", _EXPORT),
    (0, b"\x93NUMPY", "a NumPy array", "give the model first, and this file with --input NAME=FILE"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes them", _KERAS),
    (0, b"\x1f\x8b", "a gzip file", "gunzip it"),
    (0, b"GGUF", "a GGUF model of llama.cpp", "get the ONNX file of this model"),
    (0, b"ftrt", "an engine of TensorRT", "give the ONNX file that it was built from"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "git lfs pull"),
    (0, b"<?xml", "an XML file, as OpenVINO writes them", "give the ONNX file that it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model", _KERAS),
    (8, b'{"', "a safetensors file: weights without a graph", _EXPORT),
)


def identify(head: bytes) -> tuple[str, str]:
    """Return what a file that begins with `head` is, and what to do with it; two empty strings if unknown."""
    for offset, signature, kind, hint in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind, hint
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page", "download the file itself, not the page that shows it"
    return ("a text file", "give the binary .onnx file") if _is_text(head) else ("", "")


def _is_text(head: bytes) -> bool:
    try:
        # incremental, since the last character may be cut off
        text = getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return "".join(text.split()).isprintable()
