"""Hold the buffers of a binding, and run with them."""

from __future__ import annotations

from epkit._system.text import describe_error
from epkit.errors import RunError
from epkit.model.dtypes import Array
from epkit.model.shapes import SHAPE_MISMATCH, can_preallocate
from epkit.runtime.bindable import Bindable, Steady
from epkit.runtime.bound_inputs import Feeds, OnDevice
from epkit.runtime.bound_outputs import Result, Results
from epkit.runtime.captured_graph import Graph
from epkit.runtime.device_array import CPU
from epkit.runtime.execution import Caller


class Bound:
    """The buffers of a binding; with a captured graph, for one combination of shapes."""

    def __init__(self, caller: Caller, model: Bindable, *, captures: bool) -> None:
        session = caller.session
        self.binding = session.io_binding()
        self.run_bound = session.run_with_iobinding
        self.graph: Graph | None = caller.graphs.new(self.binding) if captures and caller.graphs else None
        self._uncaptured = caller.graphs.uncaptured if caller.graphs else None
        trusts = caller.writes_in_place(model.place) and model.place in (CPU, model.runs_at)
        # Buffers for the outputs, once their shapes are known; until then, ONNX Runtime makes new ones in each run.
        self._fixes = captures or (trusts and can_preallocate(model.wanted, model.outputs))
        self.results = Results(
            session,
            self.binding,
            model.place,
            model.runs_at,
            model.outputs,
            model.targets,
            trusts=trusts,
            turn=caller.turn,
        )
        self.feeds = Feeds(
            session,
            self.binding,
            model.place,
            model.runs_at,
            self.results.is_output,
            in_place=caller.in_place(model.place) and not model.narrowed,
            pinned=captures,
        )

    def steady(self) -> Steady | None:
        """Return what further runs need, where that is nothing but new contents of the inputs' buffers."""
        if self.graph is None and self.results.fixed is not None and self.results.seen_there:
            return Steady(self.feeds.copy, self.run_bound, self.binding, self.results.fixed)
        return None

    def put(self, values: dict[str, tuple[Array | OnDevice, str]]) -> None:
        """Bind inputs; where their shapes change, those of the outputs do too."""
        before = self.feeds.shapes
        self.feeds.put(values)
        if self.feeds.shapes != before:
            self.results.fixed = None

    def run(self) -> dict[str, Result]:
        """Run once with what is bound."""
        if self.results.fixed is None:
            return self._first()
        if self.graph is not None:
            self.graph.run()
            return dict(self.results.fixed)
        try:
            self.run_bound(self.binding)
        except RuntimeError as error:
            if SHAPE_MISMATCH not in str(error):
                raise self._misfit(error) from error
            # The model declares a shape that follows from the inputs', and it does not.
        else:
            if self.results.proven():
                return dict(self.results.fixed)
        self._fixes = False
        return self._first()

    def _first(self) -> dict[str, Result]:
        """Run with new buffers for the outputs, and keep such buffers where that can be."""
        self.results.bind_new()
        try:
            self.run_bound(self.binding, self._uncaptured)
        except RuntimeError as error:
            raise self._misfit(error) from error
        results = self.results.taken(self.feeds.holds)
        if not self._fixes or not self.results.as_declared(results):
            return results
        fixed = self.results.fix(results)
        if self.graph is not None:
            try:
                self.graph.prove(self.feeds, self.results)
            except BaseException:
                self.graph.release()
                self.results.fixed = None
                raise
        return dict(fixed)

    def _misfit(self, error: RuntimeError) -> RunError:
        if self.results.given and SHAPE_MISMATCH in str(error):
            told = f"an output has not the shape of the buffer that was given for it: {describe_error(error)}"
            return RunError(told, hint="give a buffer of that shape, or none")
        return RunError(f"the run failed: {describe_error(error)}")
