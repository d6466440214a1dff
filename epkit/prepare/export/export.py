"""Export a PyTorch module: prove that it can be exported, trace it, finish the graph, prove the file, keep it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epkit._system import files
from epkit._version import __version__
from epkit.errors import ConfigError, ExportRefused, ModelError, nearest
from epkit.model.file import read_model
from epkit.parity.tolerance import Tolerance, tolerance_of
from epkit.prepare.export import graph
from epkit.prepare.export.example_inputs import DynamicAxes, find_batch_axes, resize
from epkit.prepare.export.leaves import find_leaves, find_tensors
from epkit.prepare.export.proof import SEEDS, Trial, check_repeats, plan_sizes, prove, summarize
from epkit.prepare.export.result import Exported, fast_path_note
from epkit.prepare.export.source import read_program
from epkit.prepare.export.subject import (
    Subject,
    digest_state,
    evaluating,
    make_program_subject,
    make_subject,
)
from epkit.prepare.export.toolchain import require
from epkit.prepare.export.trace import trace

if TYPE_CHECKING:
    import onnx_ir as ir

_LOCK = threading.Lock()
LARGEST_FILE = 2**31 - 2**20
"""Protobuf ends at 2 GiB: what is larger has its weights in a second file beside it."""


def export(
    module: Any,
    example: object = None,
    *,
    output: str | os.PathLike[str],
    opset: int | None = None,
    dynamic: str | Mapping[str, Mapping[int, str]] | None = "auto",
    tolerance: str | float = "auto",
    legacy: bool = False,
    force: bool = False,
) -> Exported:
    """Export a PyTorch module to one ONNX file, and prove that the file computes what the module does.

    `module` is a torch.nn.Module, or the path of a .pt2 file that torch.export.save wrote. `example` is what it is
    called with: a tensor, a tuple of arguments, or a dict of arguments by name; NumPy arrays are taken as tensors. A
    .pt2 file brings an example. The module is exported as it will be served, in eval mode, and left as it was.

    `dynamic="auto"` leaves axis 0 of the inputs open as `batch`; None fixes every size; a mapping names open axes by
    input: {"ids": {0: "batch", 1: "tokens"}}. Batch sizes of 1, 2, 3 and 5 are run in PyTorch and in ONNX Runtime and
    compared, in value and in shape. `tolerance` is a preset's name or the share of an output's largest magnitude by
    which it may be off. `opset=None` is the exporter's default. `legacy` uses PyTorch's older exporter, with the same
    proofs. `force` replaces the output.

    Raises ExportRefused where the outputs differ, or where two runs of the module do; ModelError, with the line of the
    module's code, where it cannot be exported; ConfigError for a wrong request. Then nothing is written.
    """
    started = time.perf_counter()
    place = _check_output(output, force=force)
    within = tolerance_of(tolerance)
    require()
    # PyTorch's tracers, and what is done to stdout while they run, are the whole process's.
    with _LOCK, _beside(place) as folder:
        subject = _read_subject(module, example)
        exported = _export(subject, place, folder, within, opset, dynamic, legacy=legacy, started=started)
    return replace(exported, file=Path(output))


def _export(
    subject: Subject,
    place: Path,
    folder: Path,
    within: Tolerance,
    opset: int | None,
    dynamic: str | Mapping[str, Mapping[int, str]] | None,
    *,
    legacy: bool,
    started: float,
) -> Exported:
    with evaluating(subject.module) as trained:
        axes = _choose_axes(subject, dynamic)
        digest = digest_state(subject.module)
        inputs = _widen(subject, axes)
        _check_repeats(subject, inputs)
        returned = subject.call(inputs)
        _check_outputs(returned)
        _register_dataclasses(returned)
        for sizes in plan_sizes(subject.tensors, axes):
            subject.call(resize(subject.tensors, axes, sizes, seed=0))
        model = trace(subject, inputs, axes, opset, legacy=legacy)
        outputs = subject.name_outputs([path for path, _ in find_tensors(returned)])
        graph.finish(model, list(subject.tensors), outputs, axes)
        exporter = "legacy" if legacy else "dynamo"
        model.metadata_props.update(_metadata(digest, exporter, opset, graph.opset_of(model)))
        file = folder / place.name
        _save(model, file)
        trials = prove(file, subject, axes, within)
        _check_state(subject, digest)
        contents = read_model(file)
        agree = summarize(trials).agree
        notes = (*_notes(subject, trained, axes, opset, graph.opset_of(model)), *_untried(subject, axes, trials))
        exported = Exported(
            file=place if agree else None,
            bytes=sum(part.stat().st_size for part in folder.iterdir()),
            inputs=contents.inputs,
            outputs=contents.outputs,
            opset=graph.opset_of(model),
            asked_opset=opset,
            exporter=exporter,
            dynamic=_proven(subject, axes),
            trials=trials,
            source_sha256=digest,
            notes=(*notes, *fast_path_note(trials)),
            seconds=time.perf_counter() - started,
        )
        if not agree:
            raise _refusal(exported)
        _keep(folder, place)
    return exported


def _read_subject(module: Any, example: object) -> Subject:
    import torch

    if isinstance(module, str | os.PathLike):
        return make_program_subject(read_program(Path(module)), example)
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(
            f"a {type(module).__name__} cannot be exported", hint="give a torch.nn.Module, or the path of a .pt2 file"
        )
    if example is None:
        raise ConfigError(
            "an example of the module's inputs is needed",
            hint="--example net.py:example, or example=torch.randn(2, 3, 224, 224)",
        )
    return make_subject(module, example)


def _check_output(output: str | os.PathLike[str], *, force: bool) -> Path:
    place = Path(output)
    if place.suffix != ".onnx":
        raise ConfigError(
            f"the output is {str(output)!r}, and ONNX Runtime goes by the suffix", hint="name it model.onnx"
        )
    if not place.absolute().parent.is_dir():
        raise ConfigError(f"{place} cannot be written: its folder is not there", hint=f"mkdir -p {place.parent}")
    place = Path(os.path.realpath(place))  # what a link names is replaced, not the link
    if place.is_dir():
        raise ConfigError(f"{place} is a folder", hint="name a file: model.onnx")
    for part in (place, _weights_of(place)):
        if part.exists() and not force:
            raise ConfigError(f"{part} is there already", hint="--force, or force=True, replaces it")
    return place


def _weights_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.data")


def _choose_axes(subject: Subject, dynamic: str | Mapping[str, Mapping[int, str]] | None) -> DynamicAxes:
    if dynamic is None or dynamic == "none":
        return {}
    if dynamic == "auto":
        return find_batch_axes(subject.tensors)
    if isinstance(dynamic, str):
        raise ConfigError(f"dynamic is {dynamic!r}", hint='dynamic="auto", None, or {"input": {0: "batch"}}')
    for name, axes in dynamic.items():
        if name not in subject.tensors:
            raise ConfigError(
                f"dynamic names {name!r}, which is no input", hint=nearest(name, subject.tensors, "inputs")
            )
        for axis in axes:
            if not isinstance(axis, int) or not 0 <= axis < subject.tensors[name].ndim:
                raise ConfigError(
                    f"input {name!r} has no axis {axis!r}", hint=f"its shape is {list(subject.tensors[name].shape)}"
                )
    return dynamic


def _widen(subject: Subject, axes: DynamicAxes) -> dict[str, Any]:
    """Return inputs to trace with: two different rows or more, since a batch of 1 is taken for a constant."""
    names = {name: axis for open_axes in axes.values() for axis, name in open_axes.items()}
    given = {
        name: subject.tensors[tensor].shape[axis] for tensor, found in axes.items() for axis, name in found.items()
    }
    others = {size for name, size in given.items() if names[name] != 0}
    batch = next(size for size in (2, 3, 4) if size not in others)
    sizes = {name: batch if names[name] == 0 else max(size, 2) for name, size in given.items()}
    return resize(subject.tensors, axes, sizes, seed=0)


def _check_repeats(subject: Subject, inputs: Mapping[str, Any]) -> None:
    found = check_repeats(subject, inputs)
    if not found.agree:
        raise ExportRefused(
            f"two runs of the module on one input differ, so it is not a function of its inputs: {found.told}",
            hint="take dropout, random numbers and counters out of forward; F.dropout needs training=self.training",
        )


def _check_outputs(returned: object) -> None:
    """Refuse what a graph cannot return: it returns tensors."""
    for path, leaf in find_leaves(returned):
        if leaf is not None and type(leaf).__module__ == "builtins":
            named = ".".join(path) or "what forward returns"
            raise ModelError(
                f"{named} is of type {type(leaf).__name__}, and a graph returns tensors",
                hint="return torch.tensor(value), or leave it out",
            )


def _check_state(subject: Subject, digest: str) -> None:
    if digest_state(subject.module) != digest:
        raise ExportRefused(
            "the module changes its own parameters or buffers when it runs, which a file cannot",
            hint="take counters and running statistics out of forward in eval mode",
        )


def _register_dataclasses(returned: object) -> None:
    """Tell PyTorch how to take apart the dataclasses that the module returns."""
    import torch
    from torch.utils import _pytree as pytree

    pending = [returned]
    while pending:
        value = pending.pop()
        if is_dataclass(value) and not isinstance(value, type):
            if type(value) not in pytree.SUPPORTED_NODES:
                torch.export.register_dataclass(type(value))
            pending.extend(getattr(value, field.name) for field in fields(value))
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)


def _metadata(digest: str, exporter: str, asked: int | None, written: int) -> dict[str, str]:
    import torch

    return {
        "epkit.version": __version__,
        "epkit.source_sha256": digest,
        "epkit.exporter": f"torch {torch.__version__}, {exporter}",
        "epkit.opset_asked": "default" if asked is None else str(asked),
        "epkit.opset_written": str(written),
    }


def _save(model: ir.Model, file: Path) -> None:
    import onnx
    import onnx_ir as ir

    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    try:
        ir.save(model, file, external_data=f"{file.name}.data" if weights > LARGEST_FILE else None)
    except OSError as error:
        raise ConfigError(f"{file.name} cannot be written: {error.strerror or error}", hint="df -h") from error
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the exported file is not valid ONNX: {reason}", hint="try another --opset, or --legacy"
        ) from error


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """Return a folder on the disk of the output, gone after the block."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".epkit-", dir=place.absolute().parent)
    except OSError as error:
        raise ConfigError(f"{place} cannot be written: {error.strerror}", hint=f"ls -ld {place.parent}") from error
    with folder as name:
        yield Path(name)


def _keep(folder: Path, place: Path) -> None:
    """Move what was written into its place, the weights first: a model without its weights would be half a file."""
    parts = sorted(folder.iterdir(), key=lambda part: part.name == place.name)
    for part in parts:
        target = place.with_name(part.name)
        files.copy_owner_and_mode(part, target)
        part.replace(target)
    if len(parts) == 1:
        _weights_of(place).unlink(missing_ok=True)  # of the file that was replaced


def _proven(subject: Subject, axes: DynamicAxes) -> dict[str, list[int]]:
    sizes: dict[str, list[int]] = {}
    for row in plan_sizes(subject.tensors, axes):
        for name, size in row.items():
            sizes[name] = sorted({*sizes.get(name, []), size})
    return sizes


def _notes(subject: Subject, trained: list[str], axes: DynamicAxes, asked: int | None, written: int) -> Iterator[str]:
    if trained:
        yield f"the module was in train mode ({trained[0]}); it was exported in eval mode, and put back"
    for name, value in subject.constants.items():
        yield f"argument {name} is no tensor: the file holds its value {value!r}"
    if asked is not None and asked != written:
        yield f"opset {asked} was asked for, and the exporter wrote {written}"
    fixed = [name for name, tensor in subject.tensors.items() if axes and name not in axes and tensor.ndim]
    if fixed:
        yield f"every size of {', '.join(fixed)} is fixed"


def _untried(subject: Subject, axes: DynamicAxes, trials: tuple[Trial, ...]) -> Iterator[str]:
    missing = len(plan_sizes(subject.tensors, axes)) * len(SEEDS) - len(trials)
    if missing:
        yield f"{missing} of the sets of inputs were left out: the module fails on them, or returns NaN"


def _refusal(exported: Exported) -> ExportRefused:
    worst = max(exported.trials, key=lambda trial: (not trial.agreement.agree, trial.agreement.share or 0.0))
    at = ", ".join(f"{name} {size}" for name, size in worst.sizes.items())
    return ExportRefused(
        f"the exported file is wrong{f' at {at}' if at else ''}: {worst.agreement.told}",
        hint="look for branches on sizes or values in forward; a larger --tolerance accepts the difference",
        exported=exported,
    )
