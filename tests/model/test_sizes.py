"""Sizes come out of files that others wrote: no memory is asked for before they are held to what there is."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from models import identity, model, value
from onnx import TensorProto, helper

import epkit
from epkit._system.platform import peak_rss, reset_peak_rss
from epkit.errors import ConfigError, InputError
from epkit.model import array_files
from epkit.model.file import TensorInfo
from epkit.model.sample_inputs import make_sample_inputs
from epkit.parity.saved import read_folder

HUGE = [2**36, 2**40, 2**62, 2**63 - 1]
MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
def _bounded():
    """Hold every test to little memory."""
    reset_peak_rss()
    before = peak_rss()
    yield
    after = peak_rss()
    assert before is None or after is None or after - before < 300 * MEBIBYTE


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.STRING])
@pytest.mark.parametrize("size", HUGE)
def test_inputs_that_would_not_fit_are_not_generated(size, dtype):
    with epkit.open(identity(dtype, [size]), "cpu", config={}) as session:
        assert any("not warmed up" in note for note in session.report.notes)
        with pytest.raises(InputError, match="'x'") as error:
            make_sample_inputs(session.inputs)
        assert error.value.hint


@pytest.mark.parametrize("shape", [[2**40, 2**40, 2**40], [2**40, 0]])
def test_the_bytes_are_counted_and_not_the_dimensions(shape):
    inputs = [TensorInfo("x", "float32", tuple(shape))]
    if 0 in shape:
        assert make_sample_inputs(inputs).feed["x"].size == 0
    else:
        with pytest.raises(InputError):
            make_sample_inputs(inputs)


WISHES = {
    "batches": {"batches": [2**40]},
    "dimensions": {"dimensions": {"N": 2**62}},
    "shapes": {"shapes": [{"x": [2**62]}]},
}


@pytest.mark.parametrize("name", WISHES)
def test_a_warm_up_that_would_not_fit_is_refused(name):
    with pytest.raises(ConfigError) as error:
        epkit.open(identity(), "t", config={"targets": {"t": {"provider": "cpu", "warmup": WISHES[name]}}})
    assert error.value.hint


def test_the_command_says_it_in_a_sentence(tmp_path, command, empty):
    file = tmp_path / "model.onnx"
    file.write_bytes(model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2**33, 2**20])], [value("y", None)]))
    code, _, err = command("run", file, "-t", "cpu")
    assert code == 2
    assert "hint" in err


SHAPES = [
    "(4294967296,)",
    "(4611686018427387904,)",
    "(2, 9223372036854775807)",
    "(-1,)",
    "(5,)",
    "(1e9,)",
    "5",
    "(True,)",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_that_is_shorter_than_its_header_says_is_refused(shape, tmp_path):
    file = tmp_path / "x.npy"
    file.write_bytes(header(shape) + b"\x00" * 3)
    with pytest.raises(InputError) as error:
        array_files.read_input(file)
    assert error.value.hint
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as stored:
        stored.write(file, "arr_0.npy")
    file.unlink()
    with pytest.raises(InputError):
        read_folder(tmp_path)


def test_a_file_of_more_than_the_memory_is_refused(tmp_path):
    file = tmp_path / "x.npy"
    with file.open("wb") as stored:
        stored.write(header("(4398046511104,)", "|i1"))
        try:
            stored.truncate(2**42 + 128)
        except OSError:
            pytest.skip("no file can be that large here")
    with pytest.raises(InputError, match="memory"):
        array_files.read_input(file)


def test_files_that_say_the_truth_are_read(tmp_path):
    for number, array in enumerate(
        [np.zeros((2, 0)), np.float32(3), np.arange(6).reshape(2, 3).T, np.array(["a", "b"])]
    ):
        file = tmp_path / f"{number}.npy"
        np.save(file, array)
        np.testing.assert_array_equal(array_files.read_input(file), array)
    stream = io.BytesIO()
    np.savez(stream, np.arange(3), np.ones((2, 2)))
    Path(tmp_path / "s.npz").write_bytes(stream.getvalue())
    assert {"s[0]", "s[1]"} <= set(read_folder(tmp_path).arrays)
