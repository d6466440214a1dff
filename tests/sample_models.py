"""The generator of the models that epkit brings, and a plain session for them."""

from __future__ import annotations

import runpy
from pathlib import Path

import onnxruntime

MAKE = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "make_sample.py"))


def session(
    model: bytes, optimize: onnxruntime.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = optimize
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
