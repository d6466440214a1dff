"""Export from PyTorch: each promise is one that other exporters break without a word."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

import epkit
from epkit.errors import ConfigError, ExportRefused, ModelError
from epkit.model.file import read_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

import exported_modules as modules  # noqa: E402 - it imports PyTorch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FOLDER = Path(__file__).parent
VECTOR = torch.linspace(-1, 2, 8).reshape(2, 4)
SEQUENCE = torch.linspace(-1, 1, 24).reshape(2, 3, 4)
PADDING = torch.tensor([[False, False, True], [False, False, False]])
LAYER_INPUT = torch.linspace(-1, 1, 48).reshape(2, 3, 8)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def cli(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "epkit", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


# What is exported right, at every batch size

RIGHT = {
    "a convolution and a BatchNorm in train mode": (modules.Normed, torch.randn(2, 3, 8, 8)),
    "an LSTM": (modules.Recurrent, SEQUENCE),
    "a GRU": (lambda: modules.Recurrent(torch.nn.GRU), SEQUENCE),
    "a GRU with a state made from the batch size": (modules.StatedGru, SEQUENCE),
    "an EmbeddingBag": (modules.Bag, torch.arange(10).reshape(2, 5)),
    "torch.cond": (modules.Conditional, VECTOR),
    "a Fourier transform": (modules.Spectrum, torch.randn(2, 16)),
    "a function through NumPy": (lambda: modules.Custom(modules.ThroughNumpy), VECTOR),
    "a function with a wrong symbol": (lambda: modules.Custom(modules.WrongSymbol), VECTOR),
    "an example of batch 1": (modules.Normed, torch.randn(1, 3, 8, 8)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_module_is_exported_with_an_open_batch_that_was_proven(name: str, file: Path):
    make, example = RIGHT[name]
    exported = epkit.export(make(), example, output=file)
    assert exported.dynamic == {"batch": [1, 2, 3, 5]}
    assert exported.parity.agree
    assert {trial.sizes["batch"] for trial in exported.trials} == {1, 2, 3, 5}
    assert [tensor.shape[0] for tensor in read_model(file).inputs] == ["batch"]
    onnx.checker.check_model(str(file), full_check=True)


def test_the_file_computes_what_the_module_does_for_a_user(file: Path):
    module = modules.Normed()
    epkit.export(module, torch.randn(2, 3, 8, 8), output=file)
    images = torch.randn(7, 3, 8, 8)
    with torch.no_grad(), epkit.open(file, "cpu") as session:
        expected = module.eval()(images).numpy()
        np.testing.assert_allclose(session.run({"x": images.numpy()})["output_0"], expected, rtol=1e-4, atol=1e-5)


def test_train_mode_is_exported_in_eval_mode_and_put_back(file: Path):
    module = modules.Normed()
    module.conv.eval()
    exported = epkit.export(module, torch.randn(2, 3, 8, 8), output=file)
    assert [part.training for part in (module, module.conv, module.norm)] == [True, False, True]
    assert any("train mode" in note for note in exported.notes)


@pytest.mark.parametrize("module", [modules.Dropped, modules.Noisy, modules.Counting])
def test_a_module_that_is_no_function_of_its_inputs_is_refused(module, file: Path):
    with pytest.raises(ExportRefused) as error:
        epkit.export(module(), VECTOR, output=file)
    assert error.value.exit_code == 1
    assert not file.exists()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_branch_on_the_batch_size_is_refused(rows: int, legacy: bool, file: Path):
    with pytest.raises(ExportRefused) as error:
        epkit.export(modules.BranchOnBatch(), VECTOR[:rows], output=file, legacy=legacy)
    exported = error.value.exported
    assert {trial.sizes["batch"] for trial in exported.trials if not trial.agreement.agree} == {1}
    assert exported.file is None
    assert list(file.parent.iterdir()) == []


def test_a_branch_on_values_names_the_line_and_the_mend(file: Path):
    with pytest.raises(ModelError) as error:
        epkit.export(modules.BranchOnValues(), VECTOR, output=file)
    assert "exported_modules.py" in error.value.message
    assert "if x.sum() > 0" in error.value.message
    assert "torch.cond" in error.value.hint
    with pytest.raises(ExportRefused):
        epkit.export(modules.BranchOnValues(), VECTOR, output=file, legacy=True)


def test_a_loop_over_rows_is_an_error_and_not_a_fixed_batch(file: Path):
    with pytest.raises(ModelError) as error:
        epkit.export(modules.LoopOverRows(), VECTOR, output=file)
    assert "axis 0 of input 'x'" in error.value.message
    with pytest.raises(ExportRefused):
        epkit.export(modules.LoopOverRows(), VECTOR, output=file, legacy=True)
    assert epkit.export(modules.LoopOverRows(), VECTOR, output=file, dynamic=None).dynamic == {}
    assert read_model(file).inputs[0].shape == (2, 4)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_masked_encoder_agrees_without_the_fast_path_which_is_named(rows: int, file: Path):
    exported = epkit.export(modules.Masked(), (LAYER_INPUT[:rows], PADDING[:rows]), output=file)
    assert "fast path" in exported.parity.reference
    assert any("set_fastpath_enabled(False)" in note for note in exported.notes)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("dict", ["boxes", "scores"]),
        ("namedtuple", ["boxes", "scores"]),
        ("dataclass", ["boxes", "scores"]),
        ("tuple", ["output_0", "output_1"]),
        ("nested", ["first_0", "first_1", "output_x"]),
        ("tensor", ["output_0"]),
    ],
)
def test_outputs_have_the_names_that_the_module_gives_them(kind: str, names: list[str], file: Path):
    assert [output.name for output in epkit.export(modules.Returns(kind), VECTOR, output=file).outputs] == names
    assert list(epkit.open(file, "cpu").run({"x": VECTOR.numpy()})) == names


def test_arguments_that_are_no_tensors_are_named_as_constants(file: Path):
    exported = epkit.export(modules.Scaled(), (VECTOR, 3), output=file)
    assert [tensor.name for tensor in exported.inputs] == ["x"]
    assert any("factor" in note and "3" in note for note in exported.notes)


def test_an_input_that_the_older_exporter_loses_is_an_error(file: Path):
    with pytest.raises(ModelError) as error:
        epkit.export(modules.Custom(modules.ThroughNumpy), VECTOR, output=file, legacy=True)
    assert "x went missing" in error.value.message


def test_the_older_exporter_has_the_same_gates(file: Path):
    with pytest.raises(ExportRefused):
        epkit.export(modules.Custom(modules.WrongSymbol), VECTOR, output=file, legacy=True)
    assert epkit.export(modules.Recurrent(), SEQUENCE, output=file, legacy=True).exporter == "legacy"


def test_a_script_module_is_refused_by_one_exporter_and_taken_by_the_other(file: Path):
    scripted = torch.jit.script(modules.Doubled())
    with pytest.raises(ModelError) as error:
        epkit.export(scripted, VECTOR, output=file)
    assert "--legacy" in error.value.hint
    assert epkit.export(scripted, VECTOR, output=file, legacy=True).parity.agree


def test_a_module_that_fails_names_the_line_and_the_shape(file: Path):
    with pytest.raises(ModelError) as error:
        epkit.export(modules.Failing(), torch.randn(2, 7), output=file)
    assert "x [1, 7]" in error.value.message
    assert "return x.reshape(2, 7)" in error.value.message


# The file


def test_the_opset_written_is_read_back_and_told(file: Path):
    exported = epkit.export(modules.Normed(), torch.randn(2, 3, 8, 8), output=file, opset=17)
    written = next(entry.version for entry in onnx.load(file).opset_import if entry.domain == "")
    assert exported.opset == written
    assert exported.asked_opset == 17
    assert (written != 17) == any("17" in note for note in exported.notes)


@pytest.mark.parametrize("opset", [8, 27])
def test_an_opset_that_cannot_be_written_is_a_wrong_request(opset: int, file: Path):
    with pytest.raises(ConfigError):
        epkit.export(modules.Doubled(), VECTOR, output=file, opset=opset)


def test_the_file_is_one_and_tells_nothing_of_the_machine(file: Path):
    epkit.export(modules.Masked(), (LAYER_INPUT, PADDING), output=file)
    assert list(file.parent.iterdir()) == [file]
    contents = file.read_bytes()
    for told in (str(FOLDER), str(Path.home()), "exported_modules", "Traceback", 'File "'):
        assert told.encode() not in contents
    model = onnx.load(file)
    assert model.ir_version <= 13
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_the_file_says_where_it_comes_from(file: Path):
    exported = epkit.export(modules.Doubled(), VECTOR, output=file)
    told = read_model(file).metadata
    assert told["epkit.source_sha256"] == exported.source_sha256
    assert told["epkit.opset_asked"] == "default"
    assert int(told["epkit.opset_written"]) == exported.opset
    assert torch.__version__ in told["epkit.exporter"]


def test_other_weights_have_another_digest(file: Path):
    first, second = (
        epkit.export(modules.Normed(), torch.randn(2, 3, 8, 8), output=file, force=True).source_sha256 for _ in range(2)
    )
    assert first != second


def test_a_large_model_and_its_weights_can_be_moved(file: Path, tmp_path: Path, monkeypatch):
    from epkit.prepare.export import export as room

    monkeypatch.setattr(room, "LARGEST_FILE", 100)
    epkit.export(modules.Normed(), torch.randn(2, 3, 8, 8), output=file)
    assert {part.name for part in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    (tmp_path / "other").mkdir()
    for part in list(tmp_path.glob("model.onnx*")):
        part.rename(tmp_path / "other" / part.name)
    with epkit.open(tmp_path / "other" / "model.onnx", "cpu") as session:
        assert session.run({"x": np.ones((3, 3, 8, 8), np.float32)})["output_0"].shape == (3, 4, 6, 6)


# Dimensions


def test_a_second_dimension_is_left_open_and_proven(file: Path):
    dynamic = {"x": {0: "batch", 1: "frames"}, "padding": {0: "batch", 1: "frames"}}
    exported = epkit.export(modules.Masked(), (LAYER_INPUT, PADDING), output=file, dynamic=dynamic)
    assert exported.dynamic == {"batch": [1, 2, 3, 5], "frames": [1, 2, 3]}
    assert [tensor.shape[:2] for tensor in read_model(file).inputs] == [("batch", "frames")] * 2


def test_a_dimension_that_pytorch_fixes_is_an_error_that_names_it(file: Path):
    dynamic = {"x": {0: "batch", 1: "frames"}}
    with pytest.raises(ModelError) as error:
        epkit.export(modules.Recurrent(), SEQUENCE, output=file, dynamic=dynamic)
    assert "axis 1 of input 'x'" in error.value.message
    assert epkit.export(modules.Recurrent(), SEQUENCE, output=file, dynamic=dynamic, legacy=True).parity.agree


def test_axes_that_are_not_there_are_a_wrong_request(file: Path):
    for dynamic in ({"y": {0: "batch"}}, {"x": {4: "batch"}}, "all"):
        with pytest.raises(ConfigError):
            epkit.export(modules.Doubled(), VECTOR, output=file, dynamic=dynamic)


# .pt2 files and pickles


def test_a_pt2_file_needs_no_source_and_its_batch_has_its_name(file: Path, tmp_path: Path):
    shapes = {"x": {0: torch.export.Dim("rows")}}
    program = torch.export.export(modules.Recurrent().eval(), (SEQUENCE,), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "model.pt2")
    exported = epkit.export(tmp_path / "model.pt2", output=file)
    assert exported.dynamic == {"batch": [1, 2, 3, 5]}
    assert read_model(file).inputs[0].shape == ("batch", 3, 4)


def test_a_pt2_file_of_a_fixed_batch_is_an_error_until_that_is_asked_for(file: Path, tmp_path: Path):
    torch.export.save(torch.export.export(modules.Doubled(), (VECTOR,)), tmp_path / "model.pt2")
    with pytest.raises(ModelError):
        epkit.export(tmp_path / "model.pt2", output=file)
    assert epkit.export(tmp_path / "model.pt2", output=file, dynamic=None).dynamic == {}


def test_a_pickle_is_never_loaded(file: Path, tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    for name in ("model.pt", "model.pth"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ConfigError) as error:
            epkit.export(tmp_path / name, VECTOR, output=file)
        assert ".pt2" in error.value.hint
    (tmp_path / "model.pt2").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError):
        epkit.export(tmp_path / "model.pt2", VECTOR, output=file)
    assert not (tmp_path / "exploded").exists()


# What a reviewer found


@pytest.mark.parametrize("example", [torch.ones(1, 4), torch.tensor([[20000.0, 3.0, 1.0, 2.0]])])
def test_a_branch_is_found_though_the_example_looks_like_a_mask(example, file: Path):
    with pytest.raises(ExportRefused):
        epkit.export(modules.BranchOnValues(), example, output=file, legacy=True)


@pytest.mark.parametrize("example", [torch.tensor([[1.0, float("nan")]]), torch.zeros(0, 4)])
def test_an_example_that_proves_nothing_is_a_wrong_request(example, file: Path):
    with pytest.raises(ConfigError):
        epkit.export(modules.Doubled(), example, output=file)


def test_a_dict_of_arguments_may_have_any_order(file: Path):
    epkit.export(modules.Subtracting(), {"b": VECTOR, "a": 3 * VECTOR}, output=file)
    with epkit.open(file, "cpu") as session:
        found = session.run({"a": 3 * VECTOR.numpy(), "b": VECTOR.numpy()})["output_0"]
    np.testing.assert_allclose(found, 2 * VECTOR.numpy(), rtol=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_dict_may_be_an_argument_itself(legacy: bool, file: Path):
    example = ({"x": VECTOR, "y": 3 * VECTOR},)
    exported = epkit.export(modules.FromDict(), example, output=file, legacy=legacy)
    assert [tensor.name for tensor in exported.inputs] == ["batch_x", "batch_y"]


def test_a_pt2_file_brings_arguments_of_both_kinds(file: Path, tmp_path: Path):
    program = torch.export.export(modules.NamedOnly(), (VECTOR,), {"y": 3 * VECTOR})
    torch.export.save(program, tmp_path / "model.pt2")
    exported = epkit.export(tmp_path / "model.pt2", output=file, dynamic=None)
    assert [tensor.name for tensor in exported.inputs] == ["x", "y"]


def test_a_module_that_changes_its_own_state_is_refused(file: Path):
    with pytest.raises(ExportRefused) as error:
        epkit.export(modules.Tallying(), VECTOR, output=file)
    assert "buffers" in error.value.message


def test_a_part_named_like_the_module_does_not_hide_its_train_mode(file: Path):
    module = modules.SameName()
    assert epkit.export(module, VECTOR, output=file).parity.agree
    assert module.training
    assert module.SameName.training


def test_a_number_among_the_outputs_is_named(file: Path):
    with pytest.raises(ModelError) as error:
        epkit.export(modules.WithNumber(), VECTOR, output=file)
    assert "1 is of type int" in error.value.message


def test_two_names_of_one_size_are_an_error(file: Path):
    dynamic = {"a": {0: "n"}, "b": {0: "m"}}
    with pytest.raises(ModelError) as error:
        epkit.export(modules.Subtracting(), (VECTOR, 3 * VECTOR), output=file, dynamic=dynamic)
    assert "'m'" in error.value.message


def test_what_a_link_names_is_replaced_and_old_weights_go(file: Path, tmp_path: Path):
    (tmp_path / "real.onnx").write_bytes(b"old")
    (tmp_path / "real.onnx.data").write_bytes(b"old weights")
    file.symlink_to(tmp_path / "real.onnx")
    with pytest.raises(ConfigError):
        epkit.export(modules.Doubled(), VECTOR, output=file)
    assert epkit.export(modules.Doubled(), VECTOR, output=file, force=True).file == file
    assert file.is_symlink()
    assert {part.name for part in tmp_path.iterdir()} == {"model.onnx", "real.onnx"}
    assert epkit.open(file, "cpu").run({"x": VECTOR.numpy()})["output_0"].shape == (2, 4)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConfigError):
        epkit.export(modules.Doubled(), VECTOR, output=tmp_path / "folder.onnx", force=True)


def test_threads_may_export_at_once(tmp_path: Path):
    def work(at: int) -> bool:
        return epkit.export(modules.Doubled(), VECTOR, output=tmp_path / f"{at}.onnx").parity.agree

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [True] * 3


# The command

NET = """
import torch
from exported_modules import BranchOnBatch, BranchOnValues, Returns

print("printed at import")
def make(): return Returns("dict")
def wrong(): return BranchOnBatch()
def branch(): return BranchOnValues()
def broken(): return undefined
def example(): return torch.randn(1, 4)
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def test_the_command_exports_and_keeps_stdout_clean(net: Path):
    done = cli("export", "net.py:make", "--example", "net.py:example", "--output", "m.onnx", "--json", folder=net)
    document = json.loads(done.stdout)
    assert (done.returncode, document["schema"]) == (0, "epkit.export/1")
    assert {"inputs", "outputs", "opset", "parity"} <= set(document)
    assert document["parity"]["agree"]
    again = cli("export", "net.py:make", "--example", "net.py:example", "--output", "m.onnx", folder=net)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_the_command_exits_with_the_code_of_what_is_wrong(net: Path):
    def code(source: str, *more: str) -> int:
        return cli("export", source, "--example", "net.py:example", "--output", "m.onnx", *more, folder=net).returncode

    assert code("net.py:wrong") == 1
    assert code("net.py:nothing") == 2
    assert code("net.py:branch") == 4
    assert code("net.py:broken") == 4
    assert list(net.glob("*.onnx*")) == []


def test_a_refused_export_prints_its_document_too(net: Path):
    done = cli("export", "net.py:wrong", "--example", "net.py:example", "--output", "m.onnx", "--json", folder=net)
    document = json.loads(done.stdout)
    assert (done.returncode, document["file"], document["parity"]["agree"]) == (1, None, False)


def test_without_pytorch_the_command_names_what_to_install(net: Path):
    blocked = (
        "import importlib.util, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more);"
        "from epkit.prepare.export.toolchain import require; require()"
    )
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, timeout=120)
    assert "ConfigError: PyTorch is not installed" in done.stderr
    assert "pip install torch" in done.stderr
