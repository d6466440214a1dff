"""Locate the sample network that comes with epkit."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def path() -> Path:
    """Return the path of a small image classifier: `image` [batch, 3, 128, 128] to `scores` [batch, 100]."""
    return Path(str(files(__name__) / "sample.onnx"))
