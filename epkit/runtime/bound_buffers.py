"""Run an IO binding with the buffers of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from epkit._system.text import describe_error
from epkit.errors import RunError
from epkit.model.dtypes import Array
from epkit.model.file import TensorInfo
from epkit.model.shapes import SHAPE_MISMATCH, can_preallocate
from epkit.runtime.bound_inputs import BoundInputs, DeviceInput
from epkit.runtime.bound_outputs import BoundOutputs, Result
from epkit.runtime.captured_graph import CapturedGraph
from epkit.runtime.device_array import CPU
from epkit.runtime.execution import Executor
from epkit.runtime.inputs import Inputs, NarrowedInputs
from epkit.runtime.output_buffers import OutputBuffer


@dataclass(frozen=True, slots=True)
class BindingSpec:
    """The model, output buffers and devices that a binding is made for."""

    inputs: Inputs
    narrowed: NarrowedInputs
    wanted: Sequence[TensorInfo]
    """The inputs that have to be given."""
    outputs: Sequence[TensorInfo]
    """The outputs that are wanted."""
    targets: Mapping[str, OutputBuffer]
    """Buffers to write outputs into."""
    place: str
    """Where the buffers are: `cpu`, `cuda:0`."""
    runs_at: str
    """Where the provider runs."""

    why_not: str = ""
    """Why the tensors cannot be bound; empty when they can."""


class RefillRun(NamedTuple):
    """The calls of a run in which only the contents of small inputs change."""

    copy: Callable[[object], bool]
    run_bound: Callable[[Any], None]
    binding: Any
    fixed: dict[str, Result]


class BoundBuffers:
    """The buffers of a binding; with a captured graph, for one combination of shapes."""

    def __init__(self, executor: Executor, model: BindingSpec, *, captures: bool) -> None:
        session = executor.session
        self.binding = session.io_binding()
        self.run_bound = session.run_with_iobinding
        self.graph: CapturedGraph | None = executor.graphs.new(self.binding) if captures and executor.graphs else None
        self._uncaptured = executor.graphs.uncaptured if executor.graphs else None
        trusts = executor.writes_in_place(model.place) and model.place in (CPU, model.runs_at)
        # Buffers for the outputs, once their shapes are known; until then, ONNX Runtime makes new ones in each run.
        self._fixes = captures or (trusts and can_preallocate(model.wanted, model.outputs))
        self.results = BoundOutputs(
            session,
            self.binding,
            model.place,
            model.runs_at,
            model.outputs,
            model.targets,
            trusts=trusts,
            turn=executor.turn,
        )
        self.inputs = BoundInputs(
            session,
            self.binding,
            model.place,
            model.runs_at,
            self.results.is_output,
            in_place=executor.in_place(model.place) and not model.narrowed,
            pinned=captures,
        )

    def refill_run(self) -> RefillRun | None:
        """Return the calls of further runs, if those only refill input buffers; else None."""
        if self.graph is None and self.results.fixed is not None and self.results.verified:
            return RefillRun(self.inputs.copy, self.run_bound, self.binding, self.results.fixed)
        return None

    def bind(self, values: dict[str, tuple[Array | DeviceInput, str]]) -> None:
        """Bind inputs; where their shapes change, those of the outputs do too."""
        before = self.inputs.shapes
        self.inputs.bind(values)
        if self.inputs.shapes != before:
            self.results.fixed = None

    def run(self) -> dict[str, Result]:
        """Run once with what is bound."""
        if self.results.fixed is None:
            return self._run_with_new_buffers()
        if self.graph is not None:
            self.graph.run()
            return dict(self.results.fixed)
        try:
            self.run_bound(self.binding)
        except RuntimeError as error:
            if SHAPE_MISMATCH not in str(error):
                raise self._error(error) from error
            # The model declares a shape that follows from the inputs', and it does not.
        else:
            if self.results.verify_written():
                return dict(self.results.fixed)
        self._fixes = False
        return self._run_with_new_buffers()

    def _run_with_new_buffers(self) -> dict[str, Result]:
        """Run with new buffers for the outputs, and keep such buffers where that can be."""
        self.results.bind_new()
        try:
            self.run_bound(self.binding, self._uncaptured)
        except RuntimeError as error:
            raise self._error(error) from error
        results = self.results.collect(self.inputs.contains)
        if not self._fixes or not self.results.as_declared(results):
            return results
        fixed = self.results.fix(results)
        if self.graph is not None:
            try:
                self.graph.verify(self.inputs, self.results)
            except BaseException:
                self.graph.release()
                self.results.fixed = None
                raise
        return dict(fixed)

    def _error(self, error: RuntimeError) -> RunError:
        if self.results.given and SHAPE_MISMATCH in str(error):
            message = f"an output has not the shape of the buffer that was given for it: {describe_error(error)}"
            return RunError(message, hint="give a buffer of that shape, or none")
        return RunError(f"the run failed: {describe_error(error)}")
