"""What does epkit do on this machine's NVIDIA GPU: is it right, where does it run, and what does it cost?

    python benchmarks/gpu.py --out gpu.json               cuda, and tensorrt where it is usable (exit 3 without cuda)
    python benchmarks/gpu.py --provider webgpu            the same sections on another provider: a rehearsal

One JSON document is written: the machine, what epkit says of each provider, and a row for each section. A section runs
in a process of its own with a time limit, so that a crash or a hang is a row with its reason, and the others go on; the
document is written anew after each. Times are in seconds; every sample is kept, block by block in the order in which
they were taken. It draws no conclusion.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import onnx
from models import LIGHT, identity, model, value
from onnx import helper, numpy_helper

import epkit
from epkit._system import files
from epkit.benchmark.environment import environment
from epkit.discovery import nvidia
from epkit.discovery.registry import discover
from epkit.model import sample
from epkit.runtime import api
from epkit.runtime.plugin_calls import chosen_devices

SCHEMA = "epkit.gpu/1"
LIMIT_S = 120.0
BLOCK_S = 0.004
BLOCKS = 40
EXACT = {"cuda": {"use_tf32": False}}
"""Options under which a provider computes as the CPU does, for comparing numbers; timings have its own defaults."""


class LeftOut(Exception):
    """A section does not apply here, and why."""


Feed = dict[str, Any]
Row = dict[str, Any]


def mlp() -> bytes:
    """Build three matrix products, 256-512-512-64, with Relu between them."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    last = "x"
    for layer, shape in enumerate([(256, 512), (512, 512), (512, 64)]):
        weights.append(numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) / 20, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"h{layer}"]))
        last = f"h{layer}"
    return model(nodes, [value("x", ["N", 256])], [value(last, ["N", 64])], weights)


def convolutions() -> bytes:
    """Build four convolutions of 64 channels, pooled: input [N, 64, 32, 32], output [N, 64]."""
    rng = np.random.default_rng(1)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    last = "x"
    for layer in range(4):
        kernel = rng.standard_normal((64, 64, 3, 3), dtype=np.float32) / 24
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last = f"r{layer}"
    nodes += [helper.make_node("GlobalAveragePool", [last], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    return model(nodes, [value("x", ["N", 64, 32, 32])], [value("y", ["N", 64])], weights)


MODELS: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "identity": (identity, (8,)),
    "mlp": (mlp, (1, 256)),
    "convolutions": (convolutions, (1, 64, 32, 32)),
    "sample": (lambda: sample.path().read_bytes(), (1, 3, 128, 128)),
    **{
        file.stem: ((lambda file=file: file.read_bytes()), (1, 3, 224, 224))
        for file in sorted(LIGHT.glob("light_*.onnx"))
    },
}
TIMED = ("identity", "mlp", "convolutions", "sample", "light_resnet50")


def array(shape: Sequence[int], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def opened(name: str, provider: str, **keys: object) -> tuple[epkit.Session, Feed]:
    """Open one of the models strictly, without warm-up, and return inputs for it."""
    build, shape = MODELS[name]
    target = {"provider": provider, "strict": True, "warmup": {"runs": 0}, **keys}
    session = epkit.open(build(), "t", config={"targets": {"t": target}})
    return session, {session.inputs[0].name: array(shape)}


def plain(name: str, provider: str) -> Any:
    """Open a model as one would without epkit, but strictly."""
    runtime = api.load()
    found = discover().providers[provider]
    api.prepare(found)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if found.library is None:
        options.add_provider(found.ort_name, {})
    else:
        devices = runtime.get_ep_devices()
        chosen = [devices[one.index] for one in chosen_devices(found, api.list_devices(found), None)]
        options.add_provider_for_devices(chosen, {})
    return runtime.InferenceSession(MODELS[name][0](), sess_options=options, enable_fallback=0)


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def alternated(calls: Mapping[str, Callable[[], object]]) -> Row:
    """Time short blocks of each call by turns, in random order; a sample is the mean of a block's calls."""
    for call in calls.values():
        began = time.monotonic()
        while call() is not None and time.monotonic() - began < BLOCK_S * 10:
            pass
    runs = {name: max(1, int(BLOCK_S / max(timed(call), 1e-7))) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    ends = time.monotonic() + LIMIT_S / 10
    for _ in range(BLOCKS):
        for name in order.sample(list(calls), len(calls)):
            call, repeats = calls[name], runs[name]
            started = time.perf_counter()
            for _ in range(repeats):
                call()
            samples[name].append((time.perf_counter() - started) / repeats)
        if time.monotonic() > ends:
            break
    first, *others = calls
    ratios = {
        f"{name} / {first}": statistics.median(a / b for a, b in zip(samples[name], samples[first], strict=True))
        for name in others
    }
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {"calls_per_block": runs, "median_s": medians, "ratio": ratios, "samples_s": samples}


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """Return the largest difference of any output, as a share of that output's largest magnitude."""
    largest = 0.0
    for name, right in wanted.items():
        got = np.asarray(found[name])
        if got.shape != right.shape or got.dtype != right.dtype:
            raise AssertionError(f"{name} is {got.dtype} {got.shape}, on the CPU {right.dtype} {right.shape}")
        scale = float(np.max(np.abs(right), initial=0.0)) or 1.0
        largest = max(largest, float(np.max(np.abs(got - right), initial=0.0)) / scale)
    return largest


def read_back(results: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
    """Copy results to the CPU: not every provider waits for its device at the end of a run, but this does."""
    return [np.asarray(one) for one in results.values()]


# The sections. Each is run in a child, with a provider and perhaps the name of a model, and returns plain data.


def correct(provider: str, name: str) -> Row:
    """Open, place, run cold, run a new shape, and compare with the CPU, with exact options and with its own."""
    before = nvidia.used_memory()
    session, feed = opened(name, provider)
    row: Row = {"report": session.report.as_json(), "summary": session.report.summary()}
    row["first_run_s"], row["second_run_s"] = timed(lambda: session.run(feed)), timed(lambda: session.run(feed))
    memory = {"before": before, "after_runs": nvidia.used_memory()}
    reference = epkit.open(MODELS[name][0](), "cpu")
    wanted = reference.run(feed)
    row["difference_by_default"] = difference(session.run(feed), wanted)
    session.close()
    memory["after_close"] = nvidia.used_memory()
    exact, _ = opened(name, provider, options=EXACT.get(provider, {}))
    row["difference_exact"] = difference(exact.run(feed), wanted)
    row["device_bytes"] = memory
    return row


def run_ratio(provider: str, name: str) -> Row:
    """Time session.run beside InferenceSession.run."""
    session, feed = opened(name, provider)
    other = plain(name, provider)
    return alternated({"plain": lambda: other.run(None, feed), "epkit": lambda: session.run(feed)})


def binding(provider: str, name: str) -> Row:
    """Time bindings on the host and where the provider runs, refilled and not, beside session.run."""
    session, feed = opened(name, provider)
    wanted = session.run(feed)
    on_host, there = session.bind(feed, device="cpu"), session.bind(feed)
    calls: dict[str, Callable[[], object]] = {
        "session.run": lambda: session.run(feed),
        "host": lambda: on_host.run(feed),
        "device": lambda: there.run(feed),
        "device, nothing copied in": there.run,
        "device, read back": lambda: read_back(there.run(feed)),
    }
    row: Row = {
        "device": there.device,
        "difference": {
            "host": difference(on_host.run(feed), wanted),
            "device": difference(there.run(feed), wanted),
        },
        "copies": {"host": [str(one) for one in on_host.copies], "device": [str(one) for one in there.copies]},
    }
    return row | alternated(calls)


def graph(provider: str, name: str) -> Row:
    """Time a binding that replays a captured graph beside one that does not."""
    if discover().providers[provider].capture is None:
        raise LeftOut(f"{provider} captures no graphs")
    usual, feed = opened(name, provider)
    captured, _ = opened(name, provider, cuda_graph=True)
    told = captured.report.graph.summary() if captured.report.graph else ""
    one, other = usual.bind(feed), captured.bind(feed)
    changed = {key: array(given.shape, 7) for key, given in feed.items()}
    row: Row = {"told": told, "difference": {}}
    for key, given in (("as captured", feed), ("other data", changed)):
        wanted = {name: np.array(np.asarray(found)) for name, found in one.run(given).items()}
        row["difference"][key] = difference(other.run(given), wanted)
    calls: dict[str, Callable[[], object]] = {
        "uncaptured": one.run,
        "captured": other.run,
        "uncaptured, read back": lambda: read_back(one.run()),
        "captured, read back": lambda: read_back(other.run()),
    }
    return row | alternated(calls)


def new_shapes(provider: str, name: str) -> Row:
    """Time the first, second and third run of each of several batch sizes."""
    session, feed = opened(name, provider)
    ((key, given),) = feed.items()
    session.run(feed)
    rows = []
    for batch in (2, 3, 5, 8, 13, 21):
        one = {key: array((batch, *given.shape[1:]))}
        rows.append({"batch": batch, "runs_s": [timed(lambda one=one: session.run(one)) for _ in range(3)]})
    return {"shapes": rows, "device_bytes": nvidia.used_memory()}


def memory(provider: str, name: str) -> Row:
    """Read the device's memory while sessions are opened, run and closed, five times over."""
    readings: list[Row] = [{"when": "before", "bytes": nvidia.used_memory()}]
    for turn in range(5):
        session, feed = opened(name, provider)
        ((key, given),) = feed.items()
        session.run({key: array((32, *given.shape[1:]))})
        readings.append({"when": f"{turn}: after a run of 32", "bytes": nvidia.used_memory()})
        session.close()
        del session
        readings.append({"when": f"{turn}: after close", "bytes": nvidia.used_memory()})
    return {"readings": readings}


def tensors(provider: str, name: str) -> Row:
    """Time a binding that reads PyTorch's memory on the device beside one that is given NumPy arrays."""
    import torch

    session, feed = opened(name, provider)
    there = session.bind(feed)
    ((key, given),) = feed.items()
    tensor = torch.from_numpy(given).to(there.device)
    wanted = session.run(feed)
    found = {name: torch.from_dlpack(one).cpu().numpy() for name, one in there.run({key: tensor}).items()}
    row: Row = {"torch": torch.__version__, "difference": difference(found, wanted)}
    row["copies"] = [str(one) for one in there.copies]
    return row | alternated({"NumPy": lambda: there.run(feed), "PyTorch": lambda: there.run({key: tensor})})


SECTIONS: dict[str, tuple[Callable[[str, str], Row], tuple[str, ...]]] = {
    "correct": (correct, tuple(MODELS)),
    "run_ratio": (run_ratio, TIMED),
    "binding": (binding, TIMED),
    "graph": (graph, ("mlp", "convolutions", "sample")),
    "new_shapes": (new_shapes, ("convolutions", "sample")),
    "memory": (memory, ("convolutions",)),
    "tensors": (tensors, ("mlp", "sample")),
}


def child(section: str, provider: str, name: str, seconds: float) -> Row:
    """Run a section in a process of its own and return its row, whatever becomes of it."""
    command = [sys.executable, "-P", __file__, "--child", section, provider, name]
    began = time.monotonic()
    row: Row = {"section": section, "provider": provider, "model": name}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        row |= {"status": "timed out", "reason": f"not done after {seconds:.0f} s", "log": err[-2000:]}
    else:
        answer = out.rpartition("\n{")[2] if "\n{" in out else out.removeprefix("{")
        try:
            row |= json.loads("{" + answer)
        except ValueError:
            code = process.returncode
            how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
            row |= {"status": "crashed", "reason": how}
        if row["status"] != "ok":
            row["log"] = err[-2000:]
    row["seconds"] = time.monotonic() - began
    return row


def answer(section: str, provider: str, name: str) -> None:
    """Be the child: run one section, and print its row as one line."""
    try:
        row = {"status": "ok", "result": SECTIONS[section][0](provider, name)}
    except (ImportError, LeftOut) as error:
        row = {"status": "left out", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the section's row
        hint = getattr(error, "hint", "")
        row = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "hint": hint}
    text = json.dumps(row, default=str)
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()
    os._exit(0)  # a library that crashes while the interpreter shuts down has already answered


def machine() -> Row:
    """Describe the machine and what is installed."""
    found = environment.environment(environment.look(), discover())
    libraries = {}
    for one in importlib.metadata.distributions():
        name = str(one.metadata["Name"]).lower()
        if name.startswith(("nvidia-", "torch", "tensorrt", "onnx")):
            libraries[name] = one.version
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,mig.mode.current"]
    try:
        told = subprocess.run([*command, "--format=csv"], capture_output=True, text=True, timeout=30, check=False)
        gpu = told.stdout.strip() or told.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        gpu = str(error)
    return asdict(found) | {"gpu": gpu, "distributions": libraries, "python": platform.python_version()}


def write(document: Row, out: Path) -> None:
    files.write_atomic(out, json.dumps(document, indent=1, default=str) + "\n")


def jobs(providers: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """List what to run: first one model of each section, so that a short budget has seen everything once."""
    for rest in (False, True):
        for provider in providers:
            for section, (_, names) in SECTIONS.items():
                head = [name for name in names if name == "mlp"] or list(names[:1])
                for name in [one for one in names if one not in head] if rest else head:
                    yield section, provider, name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", action="append", help="cuda and tensorrt, unless given")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for all sections together")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        answer(*given.child)
    began = time.monotonic()
    rows = {row.name: row for row in epkit.providers().rows}
    wanted = given.provider or ["cuda", "tensorrt"]
    document: Row = {
        "schema": SCHEMA,
        "wanted": wanted,
        "machine": machine(),
        "providers": epkit.providers().as_json()["providers"],
        "finished": False,
        "sections": [],
    }
    usable = [name for name in wanted if name in rows and rows[name].status == "usable"]
    for name in wanted:
        row = rows.get(name)
        print(f"{name}: {(row.detail or row.status) if name in usable else row.reason if row else 'is not installed'}")
    write(document, given.out)
    for section, provider, name in jobs(usable):
        left = given.budget - (time.monotonic() - began)
        if left < 1:
            row = {"section": section, "provider": provider, "model": name, "status": "left out"}
            row["reason"] = "the budget was spent"
        else:
            share = min(LIMIT_S, left, max(left / 3, 10.0))
            row = child(section, provider, name, share)
            if row["status"] == "timed out" and share < LIMIT_S:
                row |= {"status": "left out", "reason": f"{row['reason']}, its share of the budget"}
        document["sections"].append(row)
        print(f"{provider} {section} {name}: {row['status']} {row.get('reason', '')}"[:200], flush=True)
        write(document, given.out)
    document["finished"] = True
    document["seconds"] = time.monotonic() - began
    write(document, given.out)
    if wanted[0] not in usable:
        return 3
    return int(any(row["status"] not in ("ok", "left out") for row in document["sections"]))


if __name__ == "__main__":
    sys.exit(main())
