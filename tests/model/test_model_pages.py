"""A model file is read by pages: a large one costs no memory, and one that becomes shorter is an error, no crash."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from models import mlp, model, value
from onnx import helper, numpy_helper

from epkit.errors import ModelError
from epkit.model.file import SMALL_BYTES, read_model
from epkit.model.onnx import ModelContents, read_into
from epkit.model.pages import PAGE, ChangedError, Pages
from epkit.model.protobuf import Message, WireError


def large(nodes: int = 2000) -> bytes:
    """Build a model with many nodes, and weights before and after each other that nobody looks at."""
    weights = [numpy_helper.from_array(np.zeros(SMALL_BYTES // 8, np.float32), f"w{at}") for at in range(3)]
    chain = [helper.make_node("Add", [f"h{at}", f"w{at % 3}"], [f"h{at + 1}"], f"n{at}") for at in range(nodes)]
    return model(chain, [value("h0", [1])], [value(f"h{nodes}", None)], weights)


@pytest.fixture(scope="module")
def contents() -> bytes:
    return large()


@pytest.fixture
def file(tmp_path: Path, contents: bytes) -> Path:
    (tmp_path / "large.onnx").write_bytes(contents)
    return tmp_path / "large.onnx"


def test_pages_are_the_bytes_of_the_file(tmp_path):
    data = np.random.default_rng(1).integers(0, 256, 3 * PAGE + 17, dtype=np.uint8).tobytes()
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb", buffering=0) as opened:
        pages = Pages(opened)
        assert len(pages) == len(data)
        for start in (0, 5, PAGE - 3, PAGE, 2 * PAGE + 1, len(data) - 2, len(data)):
            for stop in (start, start + 7, start + PAGE, start + 2 * PAGE, len(data)):
                assert pages[start:stop] == data[start:stop]
            if start < len(data):
                assert pages[start] == data[start]
        with pytest.raises(IndexError):
            pages[len(data)]


def test_a_large_file_says_what_its_bytes_say(file, contents):
    by_pages, whole = read_model(file), read_model(contents)
    for name in (
        "inputs",
        "outputs",
        "operators",
        "parameters",
        "weight_bytes",
        "intermediates",
        "opsets",
        "lifetimes",
    ):
        assert getattr(by_pages, name) == getattr(whole, name)


@pytest.mark.parametrize("cut", [1, 1000, 5_000_000])
def test_a_large_file_that_is_cut_off_is_told_as_its_bytes_are(file, contents, cut):
    file.write_bytes(contents[:-cut])
    with pytest.raises(ModelError, match="truncated") as by_pages:
        read_model(file)
    with pytest.raises(ModelError, match="truncated") as whole:
        read_model(contents[:-cut])
    assert by_pages.value.message.partition("is truncated")[2] == whole.value.message.partition("is truncated")[2]


@pytest.mark.slow
def test_damage_within_a_large_file_is_told_as_its_bytes_are(file, contents):
    random = np.random.default_rng(3)
    for _ in range(20):
        damaged = bytearray(contents)
        damaged[int(random.integers(0, 60_000))] = int(random.integers(0, 256))
        file.write_bytes(damaged)
        said = []
        with file.open("rb", buffering=0) as opened:
            for buffer in (Pages(opened), bytes(damaged)):
                try:
                    found = ModelContents()
                    read_into(found, Message(buffer))
                    said.append(str((found.operators, found.opsets, found.foreign)))
                except WireError as error:
                    said.append(f"{type(error)} {error}")
        assert said[0] == said[1]


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error_of_the_model(file):
    with file.open("rb", buffering=0) as opened:
        pages = Pages(opened)
        os.truncate(file, 10)
        with pytest.raises(ChangedError):
            pages[len(pages) // 2]


def _copy_over(file: str, contents: bytes, stop: threading.Event) -> None:
    while not stop.is_set():
        with Path(file).open("wb") as opened:  # as cp does: first it is empty, then it grows
            opened.write(contents)
        stop.wait(0.02)


@pytest.mark.slow
def test_a_model_that_is_copied_over_while_it_is_read_ends_in_an_error_or_an_answer(file, contents):
    script = (
        "import sys, epkit\n"
        "from epkit.errors import ModelError\n"
        "for _ in range(20):\n"
        "    try:\n"
        "        assert epkit.inspect(sys.argv[1]).model.outputs\n"
        "    except ModelError:\n"
        "        pass\n"
    )
    stop = threading.Event()
    writer = threading.Thread(target=_copy_over, args=(str(file), contents, stop))
    writer.start()
    try:
        done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, timeout=120)
    finally:
        stop.set()
        writer.join()
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_reading_a_large_file_does_not_take_its_size(tmp_path):
    with (tmp_path / "huge.onnx").open("wb") as opened:
        small = mlp()
        opened.write(small)
        graph_after = 200 << 20
        # A field that ModelProto has and nobody reads: its documentation, 200 MB of holes in the file.
        size = graph_after
        header = bytes([(6 << 3) | 2])
        while True:
            header += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
            size >>= 7
            if not size:
                break
        opened.write(header)
        opened.truncate(len(small) + len(header) + graph_after)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(_growth, (str(tmp_path / "huge.onnx"),)) < 100 << 20


def _growth(file: str) -> int:
    import resource

    read_model(mlp())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_model(file).size > 200 << 20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
