"""Which calls does `test_run_path.py` measure side by side?

Each function here is called in fresh processes, and returns what is timed: one run of a model by plain ONNX Runtime, by
a session of epkit or by a binding, all on one thread. Two equal feeds take turns, so that no call finds the array that
it was given last; taking the next one, some 50 ns, is inside the timer in all of them alike.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import onnx
import onnxruntime
from models import identity, light, model, value
from onnx import helper, numpy_helper

import epkit

Call = Callable[[], object]
Factory = Callable[[], Call]
ONE_THREAD = {"intra_op_num_threads": 1}


def mlp() -> bytes:
    """Build three matrix products, 256-512-512-64, with Relu between them."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    last = "x"
    for layer, shape in enumerate([(256, 512), (512, 512), (512, 64)]):
        weights.append(numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) / 20, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu" if layer < 2 else "Identity", [f"m{layer}"], [f"h{layer}"]))
        last = f"h{layer}"
    return model(nodes, [value("x", ["N", 256])], [value(last, ["N", 64])], weights)


MODELS: Mapping[str, tuple[str, Callable[[], bytes], tuple[int, ...]]] = {
    "identity": ("Identity on 8 floats", identity, (8,)),
    "mlp": ("MLP 256-512-512-64", mlp, (1, 256)),
    "resnet50": ("light_resnet50", lambda: light("resnet50").read_bytes(), (1, 3, 224, 224)),
}


def feeds(name: str, shape: tuple[int, ...]) -> Callable[[], dict[str, np.ndarray]]:
    """Return what gives two equal feeds in turn."""
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    return itertools.cycle([{name: array}, {name: array.copy()}]).__next__


def plain_session(contents: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(contents, options)


def arms(key: str) -> tuple[Factory, ...]:
    """Return plain ONNX Runtime, and with its buffers bound; `session.run`, also while observed, and `binding.run`."""
    _, build, shape = MODELS[key]

    def plain() -> Call:
        session = plain_session(build())
        run, feed = session.run, feeds(session.get_inputs()[0].name, shape)
        return lambda: run(None, feed())

    def bare() -> Call:
        session = plain_session(build())
        source, sink = session.get_inputs()[0].name, session.get_outputs()[0].name
        feed = feeds(source, shape)
        first = feed()
        taken = onnxruntime.OrtValue.ortvalue_from_numpy(first[source].copy())
        (given,) = session.run(None, first)
        binding = session.io_binding()
        binding.bind_ortvalue_input(source, taken)
        binding.bind_output(sink, "cpu", 0, given.dtype, given.shape, given.ctypes.data)
        refill, run = taken.update_inplace, session.run_with_iobinding

        def call() -> list[np.ndarray]:
            refill(feed()[source])
            run(binding)
            return [given]

        return call

    def through_epkit() -> Call:
        session = epkit.open(build(), "cpu", session_options=ONE_THREAD)
        run, feed = session.run, feeds(session.inputs[0].name, shape)
        return lambda: run(feed())

    def through_a_binding() -> Call:
        session = epkit.open(build(), "cpu", session_options=ONE_THREAD)
        feed = feeds(session.inputs[0].name, shape)
        run = session.bind(feed()).run
        return lambda: run(feed())

    def watched() -> Call:
        events: deque[object] = deque(maxlen=1000)  # not all of them, or collecting garbage would cost more and more
        epkit.observe(events.append).__enter__()  # for as long as the process lives
        return through_epkit()

    return plain, bare, through_epkit, watched, through_a_binding


identity_plain, identity_bare, identity_run, identity_watched, identity_binding = arms("identity")
mlp_plain, mlp_bare, mlp_run, mlp_watched, mlp_binding = arms("mlp")
resnet50_plain, resnet50_bare, resnet50_run, resnet50_watched, resnet50_binding = arms("resnet50")
