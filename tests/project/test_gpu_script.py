"""Does the script for GPU machines write its document, on any machine and whatever becomes of a section?"""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import warm

import epkit

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def written(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    out = folder / "gpu.json"
    command = [warm.PYTHON, str(SCRIPT), "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert out.is_file(), done.stderr
    assert [one.name for one in folder.iterdir()] == ["gpu.json"]
    return done.returncode, json.loads(out.read_text())


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu_writes_samples_of_every_section(tmp_path: Path):
    code, document = written(tmp_path, "--provider", "cpu", "--budget", "25")
    assert code == 0, [row for row in document["sections"] if row["status"] not in ("ok", "left out")]
    assert (document["schema"], document["finished"]) == ("epkit.gpu/1", True)
    assert document["machine"]["versions"]["epkit"]
    done = {row["section"]: row for row in document["sections"] if row["status"] == "ok"}
    assert {"correct", "run_ratio"} <= set(done)
    assert done["correct"]["result"]["report"]["provider"] == "cpu"
    assert done["correct"]["result"]["difference_exact"] < 1e-3
    samples = done["run_ratio"]["result"]["samples_s"]
    assert len(samples["plain"]) == len(samples["epkit"]) > 1
    left_out = {row["section"]: row["reason"] for row in document["sections"] if row["status"] == "left out"}
    assert left_out["graph"] in ("cpu captures no graphs", "the budget was spent")


def test_without_the_provider_the_document_says_why(tmp_path: Path):
    rows = {row.name: row for row in epkit.providers().rows}
    if rows["cuda"].status == "usable":
        pytest.skip("this machine has CUDA")
    code, document = written(tmp_path)
    assert code == 3
    assert (document["wanted"], document["sections"]) == (["cuda", "tensorrt"], [])
    (row,) = [row for row in document["providers"] if row["name"] == "cuda"]
    assert row["reason"] == rows["cuda"].reason


def test_a_section_that_crashes_hangs_or_fails_is_a_row_with_its_reason():
    child = runpy.run_path(str(SCRIPT))["child"]
    assert "timed out" in child("correct", "cpu", "sample", 0.2)["status"]
    failed = child("correct", "acme", "sample", 60.0)
    assert failed["status"] == "failed"
    assert "acme" in failed["reason"]
    assert child("no_such_section", "cpu", "sample", 60.0)["status"] in ("failed", "crashed")
