"""A model whose runs take long, and what it takes."""

from __future__ import annotations

import numpy as np
from models import model, value
from onnx import helper, numpy_helper

TURNS = 400


def slow(rows: int | str = "N") -> bytes:
    """Build a model of many nodes that takes seconds with a thousand rows, and next to nothing with one."""
    weights = [numpy_helper.from_array(np.eye(768, dtype=np.float32), "w")]
    nodes = []
    for turn in range(TURNS):
        nodes += [
            helper.make_node("MatMul", [f"h{turn}", "w"], [f"m{turn}"]),
            helper.make_node("Abs", [f"m{turn}"], [f"h{turn + 1}"]),
        ]
    nodes.append(helper.make_node("Identity", [f"h{TURNS}"], ["y"]))
    return model(nodes, [value("h0", [rows, 768])], [value("y", [rows, 768])], weights)


LONG = np.ones((400, 768), np.float32)
SHORT = np.ones((1, 768), np.float32)
