"""What must hold on a device: each function is one promise, and `test_gpu` keeps each in a process of its own.

A native crash ends its process: so it ends one promise, not the tests. The same bodies run on `cpu` and on `webgpu`
where they can, which is how they are tested on machines without an NVIDIA GPU.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from models import light, mlp, model, value
from onnx import TensorProto, helper, numpy_helper
from together import together

import epkit
from epkit.discovery import nvidia
from epkit.errors import EpkitError, InputError, ProviderDropped, ProviderUnavailable, RunError, RunTimeout
from epkit.runtime.device_array import DeviceArray

NVIDIA = ("cuda", "tensorrt")
# Its buffers are on the CPU, and it captures graphs by itself: held to what all providers promise, and more.
RTX = "tensorrt-rtx"
SKIPPED = 77
# float32 products use TF32 by default, three decimal digits; TensorRT has no switch for it.
EXACT: Mapping[str, Mapping[str, object]] = {"cuda": {"use_tf32": False}}
TOLERANCE = {"tensorrt": 1e-2, RTX: 1e-2}
MIB = 2**20


class Skip(Exception):
    """The promise cannot be tried here, and why."""


@dataclass(frozen=True)
class Promise:
    """One promise, and the providers that are held to it."""

    name: str
    keep: Callable[[str], None]
    on: tuple[str, ...]


PROMISES: dict[str, Promise] = {}


def promise(*on: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """Register a promise, by default for every provider."""

    def _register(function: Callable[[str], None]) -> Callable[[str], None]:
        PROMISES[function.__name__] = Promise(function.__name__, function, on or (*NVIDIA, RTX, "cpu", "webgpu"))
        return function

    return _register


def opened(contents: bytes | Path, on: str, **keys: object) -> epkit.Session:
    """Open a model strictly on a provider, so that it computes as the CPU does."""
    options = {**EXACT.get(on, {}), **keys.pop("options", {})}  # type: ignore[dict-item]
    target = {"provider": on, "strict": True, "options": options, **keys}
    given = contents if isinstance(contents, bytes) else str(contents)
    return epkit.open(given, "t", config={"targets": {"t": target}})


def array(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def agree(found: object, wanted: np.ndarray[Any, Any], on: str) -> None:
    found = np.asarray(found)
    tolerance = TOLERANCE.get(on, 1e-4)
    largest = float(np.max(np.abs(wanted), initial=0.0))
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * max(largest, 1e-6))


def refused(call: Callable[[], object], kind: type[Exception], *words: str) -> None:
    """Expect an error that names what is wrong."""
    try:
        call()
    except kind as error:
        said = str(error)
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
    assert all(word in said for word in words), f"{said!r} does not say {words}"


def cuda_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Skip(f"PyTorch is not installed: {error}") from error
    if not torch.cuda.is_available():
        raise Skip("this PyTorch sees no CUDA")
    return torch


def convolutions() -> bytes:
    rng = np.random.default_rng(2)
    weights = [numpy_helper.from_array(rng.standard_normal((8, 8, 3, 3), dtype=np.float32) / 9, name) for name in "ab"]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["d"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return model(nodes, [value("x", ["N", 8, 8, 8])], [value("y", ["N", 8])], weights)


def doubled(dtype: int = TensorProto.FLOAT) -> bytes:
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", ["N"], dtype)], [value("y", ["N"], dtype)])


def summed() -> bytes:
    inputs = [value("a", ["N", 16]), value("b", ["N", 16])]
    return model([helper.make_node("Sub", ["a", "b"], ["y"])], inputs, [value("y", ["N", 16])])


def reshaped() -> bytes:
    """Build y = relu(reshape(x, shape)): ONNX Runtime reads `shape` on the CPU, whatever runs the rest."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    inputs = [value("x", ["N"]), value("shape", [2], TensorProto.INT64)]
    return model(nodes, inputs, [value("y", ["rows", "columns"])])


def positive() -> bytes:
    """Build y = the positions of what is not 0 in relu(x): its shape depends on the data."""
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("NonZero", ["h"], ["y"])]
    return model(nodes, [value("x", ["N"])], [value("y", [1, "found"], TensorProto.INT64)])


def deep(layers: int = 400, width: int = 1024) -> bytes:
    """Build many matrix products, one after the other."""
    weight = numpy_helper.from_array(np.eye(width, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"h{at}", "w"], [f"h{at + 1}"]) for at in range(layers)]
    shape = ["N", width]
    return model(nodes, [value("h0", shape)], [value(f"h{layers}", shape)], [weight])


# Where it runs, and what it computes


@promise()
def the_report_says_where_the_nodes_run(on: str) -> None:
    with opened(mlp(), on) as session:
        assert session.report.provider == on
        assert session.report.placement[on].share == 1, session.report.summary()
        assert next(row for row in session.report.tried if row.provider == on).outcome == "active"


@promise(*NVIDIA, "cpu")
def every_plain_type_comes_back_as_it_is(on: str) -> None:
    for dtype in ("float16", "float32", "float64", "int32", "int64"):
        if on == "tensorrt" and dtype == "float64":
            continue  # TensorRT has none
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        with epkit.open(doubled(kind), on) as session:
            given = np.arange(5).astype(dtype)
            for found in (session.run(given)["y"], np.asarray(session.bind(given).run()["y"])):
                assert isinstance(found, np.ndarray)
                assert found.dtype == given.dtype
                np.testing.assert_array_equal(found, given + given)


@promise(*NVIDIA)
def real_architectures_agree_with_the_cpu(on: str) -> None:
    for name in ("squeezenet", "resnet50", "shufflenet", "inception_v2"):
        contents = light(name).read_bytes()
        given = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
        with opened(contents, on) as session, epkit.open(contents, "cpu") as reference:
            assert session.report.provider == on
            feed = {session.inputs[0].name: given}
            wanted = next(iter(reference.run(feed).values()))
            assert isinstance(wanted, np.ndarray)
            found = np.asarray(next(iter(session.run(feed).values())))
            largest = float(np.max(np.abs(wanted)))
            assert float(np.max(np.abs(found - wanted))) <= 10 * TOLERANCE.get(on, 1e-4) * largest, name


@promise()
def tf32_is_the_only_difference_by_default(on: str) -> None:
    contents = mlp(width=256)
    with epkit.open(contents, on) as session, epkit.open(contents, "cpu") as reference:
        found, wanted = (np.asarray(one.run(array(4, 256))["y"]) for one in (session, reference))
        assert float(np.max(np.abs(found - wanted))) <= 1e-2 * float(np.max(np.abs(wanted)))


# The same bodies through run, bind on the host and bind where the provider runs

WAYS: tuple[str, ...] = ("run", "host", "device")


def way_to_run(session: epkit.Session, way: str, feed: Mapping[str, object]) -> Callable[[object], dict[str, Any]]:
    if way == "run":
        return session.run  # type: ignore[return-value]
    return session.bind(feed, device="cpu" if way == "host" else None).run


def each_way(work: Callable[[str], None]) -> None:
    for way in WAYS:
        try:
            work(way)
        except Exception as error:
            raise AssertionError(f"through {way}: {error!r}") from error


@promise(*NVIDIA, "cpu")
def outputs_whose_shape_depends_on_the_data_come_back_whole(on: str) -> None:
    with epkit.open(positive(), "t", config={"targets": {"t": {"provider": on}}}) as session:

        def through(way: str) -> None:
            run = way_to_run(session, way, {"x": array(8)})
            for seed in range(5):
                given = array(50, seed=seed)
                assert np.asarray(run({"x": given})["y"]).tolist() == [np.flatnonzero(given > 0).tolist()]

        each_way(through)


@promise()
def one_of_several_inputs_may_be_refilled_alone(on: str) -> None:
    with opened(summed(), on) as session:

        def through(way: str) -> None:
            if way == "run":
                return
            run = way_to_run(session, way, {"a": array(4, 16), "b": array(4, 16, seed=1)})
            for seed in range(3):
                agree(run({"b": array(4, 16, seed=seed)})["y"], array(4, 16) - array(4, 16, seed=seed), on)

        each_way(through)


@promise(*NVIDIA, "cpu")
def inputs_that_are_read_on_the_cpu_are_read_anew_in_each_run(on: str) -> None:
    with epkit.open(reshaped(), on) as session:
        given = array(16)

        def through(way: str) -> None:
            run = way_to_run(session, way, {"x": given, "shape": np.array([2, 8])})
            for shape in ([2, 8], [4, 4], [8, 2], [2, 8]):
                feed: dict[str, object] = {"shape": np.array(shape)} if way != "run" else {}
                found = run(feed or {"x": given, "shape": np.array(shape)})["y"]
                np.testing.assert_array_equal(np.asarray(found), np.maximum(given, 0).reshape(shape))

        each_way(through)


@promise()
def a_large_array_that_is_edited_in_place_is_read_anew(on: str) -> None:
    given = array(MIB // 4)
    with opened(doubled(), on) as session:
        bound = session.bind({"x": given}, device="cpu")
        bound.run()
        given[:] = 3
        assert set(np.asarray(bound.run()["y"]).tolist()) == {6.0}


@promise()
def what_is_copied_is_told(on: str) -> None:
    with opened(doubled(), on) as session:
        bound = session.bind(array(MIB // 4))
        bound.run({"x": array(MIB // 4, seed=1)})
        first = [one for one in bound.copies if one.direction == "in"]
        assert [one.bytes for one in first] == ([] if bound.device == "cpu" else [MIB]), bound.copies
        bound.run()
        assert not bound.copies, bound.copies


@promise()
def the_output_of_one_session_is_the_input_of_another(on: str) -> None:
    with opened(doubled(), on) as one, opened(doubled(), on) as other:
        first, second = one.bind(array(MIB)), other.bind(array(MIB, seed=1))
        for _ in range(3):
            found = second.run({"x": first.run()["y"]})["y"]
            agree(found, array(MIB) * 4, on)
        if on in NVIDIA:
            assert not [copy for copy in second.copies if copy.direction == "in"], second.copies


@promise()
def a_run_may_read_what_the_same_binding_wrote(on: str) -> None:
    with opened(doubled(), on) as session:
        bound = session.bind(np.ones(MIB, np.float32))
        for turn in range(1, 6):
            result = bound.run({"x": bound.run()["y"]} if turn > 1 else None)["y"]
        found = np.asarray(result)
        assert len(set(found.tolist())) == 1, "parts of the array were read before they were written"


@promise()
def a_run_can_be_awaited(on: str) -> None:
    with opened(mlp(), on) as session:

        async def both() -> list[dict[str, Any]]:
            return await asyncio.gather(*(session.run_async(array(2, 16)) for _ in range(8)))

        found = asyncio.run(both())
        for one in found[1:]:
            agree(one["y"], found[0]["y"], on)


@promise(*NVIDIA, "cpu")
def a_run_that_takes_too_long_is_an_error_and_the_next_one_is_right(on: str) -> None:
    with opened(deep(400 if on in NVIDIA else 40), on, warmup={"runs": 1}) as session:
        given = array(512, 1024)
        wanted = session.run(given)
        refused(lambda: session.run(given, timeout=1e-4), RunTimeout, "longer than")
        found = session.run(given)
        agree(next(iter(found.values())), np.asarray(next(iter(wanted.values()))), on)


# What is never silent


@promise(*NVIDIA)
def without_a_visible_gpu_it_is_unusable_and_never_reported(on: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    refused(lambda: epkit.open(mlp(), on), ProviderUnavailable, "not usable")
    with epkit.open(mlp(), "t", config={"targets": {"t": {"provider": on}}}) as session:
        assert session.report.provider == "cpu"
        assert set(session.report.placement) == {"cpu"}


@promise(*NVIDIA)
def a_device_that_is_not_there_is_an_error(on: str) -> None:
    target = {"targets": {"t": {"provider": on, "device": 63, "strict": True}}}
    refused(lambda: epkit.open(mlp(), "t", config=target), EpkitError)


@promise(*NVIDIA)
def a_model_without_a_node_for_it_is_an_error(on: str) -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"])
    contents = model([node], [value("x", [2], TensorProto.STRING)], [value("y", [None], TensorProto.STRING)])
    refused(lambda: epkit.open(contents, on), ProviderDropped)


# Memory


def used() -> int:
    found = nvidia.used_memory()
    if found is None:
        raise Skip("NVIDIA's library does not tell how much memory is taken")
    return found


@promise(*NVIDIA)
def closing_a_session_gives_its_memory_back(on: str) -> None:
    def once() -> tuple[int, int]:
        session = opened(convolutions(), on, warmup={"runs": 1})
        session.run(array(16384, 8, 8, 8))
        session.bind(array(16384, 8, 8, 8)).run()
        busy = used()
        session.close()
        return busy, used()

    once()  # what the first session loads (CUDA's context, kernels) stays
    readings = [once() for _ in range(5)]
    busy, idle = readings[0][0], [after for _, after in readings]
    assert min(idle) < busy, f"nothing was given back: {readings}"
    assert max(idle) - idle[0] < 64 * MIB, f"memory grows with each session: {readings}"


@promise("cuda")
def a_memory_limit_is_an_error_that_says_so(on: str) -> None:
    with opened(doubled(), on, options={"gpu_mem_limit": 64 * MIB}, warmup={"runs": 0}) as session:
        session.run(array(MIB))
        refused(lambda: session.run(np.zeros(64 * MIB, np.float32)), RunError, "memory")
        agree(session.run(array(MIB))["y"], array(MIB) * 2, on)


@promise(*NVIDIA, "cpu")
def many_small_runs_take_no_more_memory(on: str) -> None:
    with opened(mlp(), on) as session:
        bound, given = session.bind(array(4, 16)), array(4, 16)

        def repeat() -> None:
            for _ in range(2000):
                session.run(given)
                bound.run({"x": given})

        repeat()
        before = nvidia.used_memory() or 0
        for _ in range(4):
            repeat()
        assert (nvidia.used_memory() or 0) - before < 16 * MIB


@promise()
def warm_up_tells_the_first_and_the_steady_run_of_each_shape(on: str) -> None:
    shapes = [{"x": [1, 8, 8, 8]}, {"x": [4, 8, 8, 8]}]
    with opened(convolutions(), on, warmup={"shapes": shapes}) as session:
        done = sorted(one.shapes["x"] for one in session.report.warmup)  # the order is the provider's to choose
        assert done == [tuple(one["x"]) for one in shapes]
        assert all(one.first_s > 0 and one.steady_s for one in session.report.warmup)


# Captured graphs


def captured(contents: bytes, on: str) -> epkit.Session:
    return opened(contents, on, cuda_graph=True)


@promise(*NVIDIA, "webgpu")
def a_replay_of_a_captured_graph_gives_the_numbers_of_a_run(on: str) -> None:
    with captured(mlp(), on) as session, epkit.open(mlp(), "cpu") as reference:
        assert session.report.graph is not None
        assert session.report.graph.possible, session.report.graph.summary()
        bound = session.bind(array(2, 16))
        for turn in range(6):
            for batch in (2, 5, 2):
                given = array(batch, 16, seed=turn)
                agree(bound.run({"x": given})["y"], np.asarray(reference.run(given)["y"]), on)
                agree(session.run(given)["y"], np.asarray(reference.run(given)["y"]), on)


@promise(*NVIDIA)
def graphs_are_captured_and_replayed_by_several_threads(on: str) -> None:
    with captured(mlp(), on) as session, epkit.open(mlp(), "cpu") as reference:

        def work(number: int) -> None:
            bound = session.bind(array(1 + number, 16))
            for turn in range(10):
                given = array(1 + number, 16, seed=turn)
                agree(bound.run({"x": given})["y"], np.asarray(reference.run(given)["y"]), on)

        together(work)
        # One binding that goes from thread to thread.
        bound = session.bind(array(3, 16))
        for seed in range(4):
            given = array(3, 16, seed=seed)
            together(
                lambda _, given=given: agree(  # type: ignore[misc]
                    bound.run({"x": given})["y"], np.asarray(reference.run(given)["y"]), on
                ),
                threads=1,
            )


@promise(*NVIDIA)
def what_cannot_be_captured_is_an_error_that_names_the_rule(on: str) -> None:
    refused(lambda: captured(positive(), on), ProviderDropped, "shape")
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "b", [], [value("b", ["N"])])
    node = helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch)
    contents = model([node], [value("which", [1], TensorProto.BOOL), value("x", ["N"])], [value("y", ["N"])])
    refused(lambda: captured(contents, on), ProviderDropped, "If, Loop or Scan")


@promise(*NVIDIA)
def a_captured_graph_with_an_input_that_the_cpu_reads_is_refused_or_right(on: str) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    inputs = [value("x", [16]), value("shape", [2], TensorProto.INT64)]
    contents = model(nodes, inputs, [value("y", [4, 4])])
    try:
        session = captured(contents, on)
    except ProviderDropped:
        return
    with session:
        try:
            bound = session.bind({"x": array(16), "shape": np.array([4, 4])})
        except EpkitError:
            return
        agree(bound.run()["y"], np.maximum(array(16), 0).reshape(4, 4), on)


# PyTorch's memory


@promise(*NVIDIA)
def a_tensor_on_the_gpu_is_read_where_it_is(on: str) -> None:
    torch = cuda_torch()
    with opened(doubled(), on) as session:
        tensor = torch.ones(MIB, device="cuda")
        bound = session.bind({"x": tensor})
        result = bound.run()["y"]
        assert not bound.copies, bound.copies
        assert set(np.asarray(result).tolist()) == {2.0}
        tensor.fill_(5)  # in place, and nobody waits for it here
        assert set(np.asarray(bound.run()["y"]).tolist()) == {10.0}


@promise(*NVIDIA)
def a_tensor_that_is_still_being_written_is_waited_for(on: str) -> None:
    torch = cuda_torch()
    with opened(doubled(), on) as session:
        bound = session.bind({"x": torch.zeros(16 * MIB, device="cuda")})
        bound.run()
        stream = torch.cuda.Stream()
        for turn in range(1, 6):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(200_000_000)  # about a tenth of a second on the GPU
                tensor = torch.full((16 * MIB,), float(turn), device="cuda")
                found = bound.run({"x": tensor})["y"]
            told = np.asarray(found)
            wrong = int(np.sum(told != 2 * turn))
            assert not wrong, f"{wrong} of {told.size} numbers were read before PyTorch had written them"
            # Its memory may be reused only once it is no longer read.
            torch.cuda.synchronize()


@promise(*NVIDIA)
def a_result_is_pytorch_s_without_a_copy(on: str) -> None:
    torch = cuda_torch()
    with opened(doubled(), on) as session:
        bound = session.bind(np.ones(MIB, np.float32))
        result: Any = bound.run()["y"]
        assert isinstance(result, DeviceArray)
        tensor = torch.from_dlpack(result)
        assert str(tensor.device) == bound.device
        assert tensor.data_ptr() == result._value.data_ptr()
        assert bool((tensor == 2).all())
        bound.run({"x": np.full(MIB, 3, np.float32)})
        assert bool((tensor == 6).all()), "the next run of a binding writes over its results"
        kept = torch.from_dlpack(bound.run()["y"])
        bound.close()
        session.close()
        assert bool((kept == 6).all())


@promise(*NVIDIA)
def outputs_are_written_into_tensors_that_are_given(on: str) -> None:
    torch = cuda_torch()
    with opened(doubled(), on) as session:
        given, into = torch.ones(MIB, device="cuda"), torch.zeros(MIB, device="cuda")
        bound = session.bind({"x": given}, {"y": into})
        assert bound.run()["y"] is into
        assert bool((into == 2).all())
        assert not bound.copies, bound.copies
        for wrong in (torch.zeros(MIB, dtype=torch.float64, device="cuda"), np.zeros(MIB, np.float32)):
            refused(lambda wrong=wrong: session.bind({"x": given}, {"y": wrong}), InputError)  # type: ignore[misc]
        refused(lambda: session.bind({"x": given}, {"y": torch.zeros(5, device="cuda")}).run(), RunError, "shape")


@promise(*NVIDIA)
def a_tensor_that_cannot_be_bound_as_it_is_is_an_error(on: str) -> None:
    torch = cuda_torch()
    with opened(summed(), on) as session, epkit.open(summed(), "cpu") as on_cpu:
        right = torch.ones(16, 16, device="cuda")
        for wrong in (right.double(), right.half(), torch.ones(16, 8, device="cuda")):
            refused(lambda wrong=wrong: session.bind({"a": wrong, "b": right}), InputError, "'a'")  # type: ignore[misc]
        refused(lambda: session.bind({"a": torch.rand(16, 16, device="cuda").t(), "b": right}), EpkitError, "a")
        refused(lambda: session.run({"a": right, "b": right}), InputError, "cuda")
        refused(lambda: on_cpu.bind({"a": right, "b": right}), InputError, "cuda")
        agree(session.bind({"a": right.cpu(), "b": right}).run()["y"], np.zeros((16, 16)), on)


@promise("cuda")
def bool_tensors_are_bool_or_an_error(on: str) -> None:
    torch = cuda_torch()
    kind = TensorProto.BOOL
    contents = model([helper.make_node("Not", ["x"], ["y"])], [value("x", ["N"], kind)], [value("y", ["N"], kind)])
    with epkit.open(contents, on) as session:
        given = torch.tensor([True, False, True], device="cuda")
        try:
            result: Any = session.bind({"x": given}).run()["y"]
        except EpkitError:
            result = session.bind({"x": np.array([True, False, True])}).run()["y"]
        assert np.asarray(result).tolist() == [False, True, False]
        refused(lambda: torch.from_dlpack(result), BufferError, "bool")


@promise("cuda")
def integers_on_the_gpu_that_the_cpu_reads_are_right(on: str) -> None:
    torch = cuda_torch()
    with epkit.open(reshaped(), on) as session:
        shape = torch.tensor([2, 8], device="cuda")
        bound = session.bind({"x": array(16), "shape": shape})
        assert np.asarray(bound.run()["y"]).shape == (2, 8)
        shape.copy_(torch.tensor([4, 4]))
        torch.cuda.synchronize()
        assert np.asarray(bound.run()["y"]).shape == (4, 4)


# TensorRT


def trained(weight: float) -> bytes:
    given = numpy_helper.from_array(np.full((16, 16), weight, np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return model(nodes, [value("x", [1, 16])], [value("y", [1, 16])], [given])


@promise("tensorrt")
def new_weights_under_an_old_file_name_never_get_the_old_engine(on: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        options = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(Path(folder) / "engines")}
        for weight in (1.0, 2.0):
            file.write_bytes(trained(weight))
            with opened(file, on, options=options) as session:
                assert np.asarray(session.run(np.ones((1, 16), np.float32))["y"]).tolist() == [[16 * weight] * 16]


@promise("tensorrt")
def what_tensorrt_leaves_is_taken_by_cuda(on: str) -> None:
    target = {"provider": on, "fallback": ["cuda"], "options": {"trt_op_types_to_exclude": "Relu"}}
    with epkit.open(mlp(), "t", config={"targets": {"t": target}}) as session:
        assert set(session.report.placement) == {"tensorrt", "cuda"}, session.report.summary()


# TensorRT-RTX


@promise(RTX)
def what_is_compiled_to_a_file_opens_from_there(on: str) -> None:
    with tempfile.TemporaryDirectory() as folder, epkit.open(mlp(), "cpu") as reference:
        file = Path(folder) / "compiled.onnx"
        epkit.compile(mlp(), on, output=file)
        given = array(3, 16)
        with opened(file, on) as session:
            agree(session.run(given)["y"], np.asarray(reference.run(given)["y"]), on)


@promise(RTX)
def kernels_are_kept_when_a_session_is_closed(on: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            with opened(mlp(), on, options={"nv_runtime_cache_path": folder}) as session:
                session.run(array(3, 16))
            assert any(Path(folder).iterdir())


def keep(names: Iterable[str], on: str) -> int:
    """Keep these promises on a provider, here; print what came of each, and return an exit code."""
    kept: list[str] = []
    broken = skipped = 0
    for name in names:
        began = time.monotonic()
        try:
            PROMISES[name].keep(on)
        except Skip as reason:
            skipped += 1
            sys.stdout.write(f"{name}: skipped: {reason}\n")
        except Exception:  # noqa: BLE001 - whatever it is, the promise is broken
            broken += 1
            sys.stdout.write(f"{name}: broken\n{traceback.format_exc()}\n")
        else:
            kept.append(name)
            sys.stdout.write(f"{name}: kept, {time.monotonic() - began:.1f} s\n")
        sys.stdout.flush()
    return 1 if broken else SKIPPED if skipped and not kept else 0


def main(arguments: Sequence[str]) -> None:
    """Keep promises: a provider, then names, all of its promises unless given."""
    on, *names = arguments
    # What a library does while the interpreter shuts down is no promise.
    os._exit(keep(names or [one.name for one in PROMISES.values() if on in one.on], on))


if __name__ == "__main__":
    main(sys.argv[1:])
