"""Leave PyTorch alone where only the first tier runs: importing it takes seconds in each worker."""

from __future__ import annotations

from pathlib import Path

import pytest

SLOW = ("test_export.py",)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name in SLOW and config.option.markexpr == "not slow" else None
