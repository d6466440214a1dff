"""What is compared with what, and on which models?

Each pair is an advice: a model opened and called without it, and with it. Where the advice is not about threads both
have only one, since the threads of a pool go on spinning after a run and disturb what comes next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from epkit._system.platform import usable_cores
from epkit.model import sample

CORES = usable_cores()


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to open a model and to call it."""

    properties: Mapping[str, object] = field(default_factory=dict)
    """Properties of SessionOptions; `batch` overrides the model's free dimension of that name."""
    entries: Mapping[str, str] = field(default_factory=dict)
    """Config entries."""
    call: str = "run"
    """What is timed, by its name in the worker."""
    saved: bool = False
    """Whether it opens the file that `optimized_model_filepath` wrote."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An advice: the arm without it, the arm with it, and the models it is tried on."""

    plain: Arm
    advised: Arm
    models: tuple[str, ...]
    threaded: bool = False
    """Whether an arm has threads of its own, which spin after its runs."""
    alone: bool = False
    """Whether it needs processes of its own, in which the advised arm is opened first."""
    words: tuple[str, str] = ("faster", "slower")
    """What a ratio below and above 1 is called."""


def _one(call: str = "run", *, saved: bool = False, **properties: object) -> Arm:
    return Arm({"intra_op_num_threads": 1, **properties}, call=call, saved=saved)


_DEFAULT, _ONE = Arm(), _one()
_NO_OPTIMIZATION = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
_PARALLEL = {"execution_mode": ort.ExecutionMode.ORT_PARALLEL}
_NO_SPINNING = {"session.intra_op.allow_spinning": "0"}
_FLUSH = Arm(_ONE.properties, {"session.set_denormal_as_zero": "1"})

NETS = ("mlp", "sample", "shufflenet")
PAIRS: Mapping[str, Pair] = {
    "control": Pair(_ONE, _ONE, ("mlp", "sample")),
    "control-threads": Pair(_DEFAULT, _DEFAULT, ("sample",), threaded=True),
    "threads-physical": Pair(_DEFAULT, Arm({"intra_op_num_threads": CORES}), ("mlp", "sample"), threaded=True),
    "threads-one": Pair(_DEFAULT, _ONE, NETS, threaded=True),
    "threads-double": Pair(_DEFAULT, Arm({"intra_op_num_threads": 2 * CORES}), ("sample",), threaded=True),
    "parallel": Pair(_DEFAULT, Arm(_PARALLEL), ("sample", "shufflenet", "branches"), threaded=True),
    "parallel-one": Pair(_DEFAULT, _one(**_PARALLEL), ("branches",), threaded=True),
    "spinning": Pair(_DEFAULT, Arm(entries=_NO_SPINNING), ("mlp", "sample"), threaded=True),
    "spinning-cpu": Pair(
        Arm(call="idle"), Arm(entries=_NO_SPINNING, call="idle"), ("mlp",), threaded=True, words=("less", "more")
    ),
    "optimization-none": Pair(_ONE, _one(graph_optimization_level=_NO_OPTIMIZATION), NETS),
    "arena": Pair(_ONE, _one(enable_cpu_mem_arena=False), ("mlp", "sample")),
    "pattern": Pair(_ONE, _one(enable_mem_pattern=False), ("mlp", "sample")),
    "named": Pair(_ONE, _one("named"), ("identity", "mlp")),
    "bound": Pair(_ONE, _one("bound"), ("identity", "mlp", "sample")),
    "bound-anew": Pair(_ONE, _one("bound-anew"), ("identity", "mlp")),
    "ort-values": Pair(_ONE, _one("ort-values"), ("identity", "mlp", "sample")),
    "astype-needed": Pair(_ONE, _one("from-float64"), ("mlp", "sample")),
    "astype-needless": Pair(_ONE, _one("from-float32"), ("mlp",)),
    "fixed-batch": Pair(_ONE, _one(batch=1), ("sample",)),
    "saved-open": Pair(
        _one("open"), _one("open", saved=True, graph_optimization_level=_NO_OPTIMIZATION), ("sample", "shufflenet")
    ),
    "saved-open-again": Pair(_one("open"), _one("open", saved=True), ("shufflenet",)),
    "saved-run": Pair(_ONE, _one(saved=True, graph_optimization_level=_NO_OPTIMIZATION), ("sample",)),
    "denormals-none": Pair(_ONE, _FLUSH, ("sample",), alone=True),
    "denormals-many": Pair(_ONE, _FLUSH, ("denormals",), alone=True),
}

WARMUPS: Mapping[str, int] = {f"warmup-{run}": run for run in (1, 2, 3, 10)}
"""Which runs of a session that was just opened are compared with its steady ones."""

MEMORY: Mapping[str, Arm] = {
    "memory-default": _ONE,
    "memory-arena": _one(enable_cpu_mem_arena=False),
    "memory-pattern": _one(enable_mem_pattern=False),
    "memory-both": _one(enable_cpu_mem_arena=False, enable_mem_pattern=False),
    "memory-shrink": _one("shrink"),
    "memory-shrink-large-first": _one("shrink, large first"),
}
"""Sessions on the sample whose memory is looked at."""


def models() -> dict[str, bytes]:
    """Build or read the models, by name."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    layers = {"w0": (256, 512), "w1": (512, 512), "w2": (512, 64)}
    mlp = _built(_chain("x", list(layers), "y"), layers, 256, 64)
    branches = {branch: [f"{branch}{depth}" for depth in range(4)] for branch in "abcd"}
    nodes = [node for branch, weights in branches.items() for node in _chain("x", weights, branch)]
    nodes.append(helper.make_node("Concat", list(branches), ["y"], axis=1))
    squares = {weight: (256, 256) for weights in branches.values() for weight in weights}
    return {
        "identity": _built([helper.make_node("Identity", ["x"], ["y"])], {}, 8, 8),
        "mlp": mlp,
        "denormals": mlp,
        "branches": _built(nodes, squares, 256, 1024),
        "sample": sample.path().read_bytes(),
        "shufflenet": (light / "light_shufflenet.onnx").read_bytes(),
        "resnet50": (light / "light_resnet50.onnx").read_bytes(),
    }


def _chain(x: str, weights: Sequence[str], y: str) -> list[onnx.NodeProto]:
    """Multiply by each weight in turn, with a Relu after each."""
    nodes = []
    for weight in weights:
        nodes.append(helper.make_node("MatMul", [x, weight], [f"product-{weight}"]))
        x = y if weight == weights[-1] else f"positive-{weight}"
        nodes.append(helper.make_node("Relu", [f"product-{weight}"], [x]))
    return nodes


def _built(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, tuple[int, int]], into: int, out: int) -> bytes:
    seeded = np.random.default_rng(1)
    tensors = [
        numpy_helper.from_array(seeded.standard_normal(shape, np.float32) / np.float32(16), name)
        for name, shape in weights.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", into])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", out])
    graph = helper.make_graph(list(nodes), "advice", [x], [y], tensors)
    built = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(built.SerializeToString())
