"""An opened model: run it, bind buffers to it, close it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from epkit._system import platform
from epkit._system.arguments import type_name
from epkit.config.target import Target, arenas
from epkit.errors import InputError, ModelError, nearest
from epkit.model.file import Model, TensorInfo, parse_ort_type
from epkit.model.shapes import explain_unbindable
from epkit.provider import Concurrency
from epkit.runtime import api
from epkit.runtime.arena import ArenaShrinkage
from epkit.runtime.binding import Binding
from epkit.runtime.bound_buffers import BindingSpec
from epkit.runtime.captured_graph import CapturedGraphs
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.execution import Executor
from epkit.runtime.inputs import Inputs, NarrowedInputs
from epkit.runtime.output_buffers import check_buffers
from epkit.runtime.plugin_calls import call_plugin, concurrency_of, validates_output_shape
from epkit.runtime.run_options import RunOptions
from epkit.runtime.timeout import BackgroundRunner, Deadline
from epkit.session.opener import Created
from epkit.session.report import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Output = NDArray[Any] | list[Any] | dict[Any, Any] | None


class Session:
    """An opened model. Immutable; may be called from many threads."""

    report: Report
    """What was tried, what was chosen, where the nodes run, and what warm-up cost."""
    _again: Callable[[], Session] | None = None
    """Opens the same model in the same way, as in another process that this session is sent to."""

    def __init__(self, created: Created, model: Model, target: Target) -> None:
        declared = {tensor.name: tensor for tensor in (*model.inputs, *model.outputs)}
        session = created.session
        self.inputs = _described(session.get_inputs(), declared)
        """Name, dtype and shape of each input."""
        self.outputs = _described(session.get_outputs(), declared)
        """Name, dtype and shape of each output."""
        self.metadata: Mapping[str, str] = MappingProxyType(_metadata(session, model))
        """What the exporter wrote beside the graph: class names, image sizes, alphabets."""
        self._names = tuple(output.name for output in self.outputs)
        overridable = _described(session.get_overridable_initializers(), declared)
        self._inputs = Inputs(self.inputs, cast=target.cast, overridable=overridable)
        self._narrowed = NarrowedInputs(self.inputs, narrowed_types(created))
        first = created.provider
        self._place = "cpu" if first is None else call_plugin(first.provider.devices.memory_device, first.device)
        runtime = api.load()
        self._caller = Executor(
            session,
            runtime,
            self.inputs,
            self.outputs,
            exotic=self._inputs.exotic,
            concurrency=_strictest(created.chain, captures=created.captures),
            validates_output_shape=all(validates_output_shape(candidate.provider) for candidate in created.chain),
            pools_bindings=not self._narrowed,
            graphs=CapturedGraphs(session, runtime) if created.captures else None,
            shrink=_shrink(created, target),
            unforkable=_unforkable(created, self._place),
        )
        self._background = BackgroundRunner(self._caller)

    def run(
        self,
        inputs: Mapping[str, object] | object,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        options: RunOptions | None = None,
    ) -> dict[str, Output]:
        """Run the model once and return its outputs by name: arrays, or lists and dicts for sequences and maps.

        `inputs` maps names to arrays, numbers, lists, or anything with DLPack; for a model with one input it may be
        the value itself. `outputs` names the outputs wanted, all unless given.

        `timeout` is in seconds. A run that takes longer is told to stop, and RunTimeout is raised: ONNX Runtime stops
        between two nodes. Where the provider made one node of the model (OpenVINO, TensorRT), the run goes on in the
        background, and closing the session waits for it.

        `options` are for ONNX Runtime's log, adapters, and for cancelling the run from another thread.

        Raises InputError when an input does not fit the model, RunError when the run fails, SessionClosed.
        """
        if outputs is None and timeout is None and options is None:
            results = self._caller.run_pooled(inputs)
            if results is not None:
                return results
        feed, names = self._fed(inputs, outputs)
        if options is not None:
            given = self._caller.options()
            with options.applied(given, self._caller.runtime):
                if timeout is None:
                    return self._caller.run(feed, names, given)
                return self._background.run(feed, names, timeout, given)
        if timeout is None:
            return self._caller.run(feed, names)
        return self._background.run(feed, names, timeout)

    def stoppable(self, deadline: Deadline) -> Callable[[Mapping[str, object]], dict[str, Output]]:
        """Return what runs the model as `run` does, until the deadline tells it to stop."""

        def run(inputs: Mapping[str, object]) -> dict[str, Output]:
            results = self._caller.run_pooled(inputs)
            if results is not None:
                return results
            feed, names = self._fed(inputs, None)
            return self._caller.run(feed, names, deadline.options(self._caller))

        return run

    async def run_async(
        self,
        inputs: Mapping[str, object] | object,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        options: RunOptions | None = None,
    ) -> dict[str, Output]:
        """Run the model once, as `run` does, while the event loop goes on.

        The arrays are read while the run is under way: leave them alone until then. A task that is cancelled tells its
        run to stop, as a `timeout` does.
        """
        feed, names = self._fed(inputs, outputs)
        if options is not None:
            given = self._caller.options()
            with options.applied(given, self._caller.runtime):
                return await self._background.run_async(feed, names, timeout, given)
        return await self._background.run_async(feed, names, timeout)

    def bind(
        self,
        inputs: Mapping[str, object] | object,
        outputs: Mapping[str, object] | Sequence[str] | None = None,
        *,
        device: str | None = None,
    ) -> Binding:
        """Bind buffers once, to run many times: `binding.run()` repeats, `binding.run(inputs)` refills first.

        The buffers are where the provider runs, or on the CPU with `device="cpu"`. Arrays that are there already are
        bound as they are, if they are large or on a device: NumPy arrays, and those of any library with DLPack.
        `binding.copies` says what was copied instead, and why. `outputs` names those wanted, all unless given; as a
        mapping, it gives the buffers to write into, or None for one that the binding makes.

        Raises InputError for what does not fit the model, or cannot be bound as it is; RunError, SessionClosed.
        """
        names = self._names if outputs is None else self._known(outputs)
        place = self._place if device is None else device
        if not isinstance(place, str) or place not in ("cpu", self._place):
            also = "" if self._place == "cpu" else f", or {self._place!r}, where the provider runs"
            shown = repr(device) if isinstance(device, str) else type_name(device)
            raise InputError(f"device is {shown}", hint=f'device="cpu"{also}')
        known = {output.name: output for output in self.outputs}
        wanted = [known[name] for name in dict.fromkeys(names)]
        why_not = explain_unbindable((*self.inputs, *wanted))
        if why_not:
            place = "cpu"  # where a run without a binding takes and leaves its tensors
        given = outputs if isinstance(outputs, Mapping) else {}
        targets = check_buffers(given, wanted, place, self._caller.runtime, self._caller.session)
        model = BindingSpec(self._inputs, self._narrowed, self.inputs, wanted, targets, place, self._place, why_not)
        return Binding(self._caller, model, inputs)

    def close(self) -> None:
        """Wait for the runs in flight, then give the memory back; later calls raise SessionClosed.

        Runs with a time limit are waited for no longer than that. A run in the middle of which this very thread closes
        the session (in a signal handler, an observer, a `__del__`) is not waited for: it ends, or raises SessionClosed.
        """
        self._caller.refuse()
        self._background.close()
        self._caller.close()
        platform.trim_heap()

    def __reduce__(self) -> tuple[Callable[[], Session], tuple[()]]:
        """Pickle as the call that opened it: where it arrives, the model is opened again, on what is there."""
        if self._again is None:
            raise TypeError("this session was not opened by epkit.open, so it cannot be opened again elsewhere")
        return self._again, ()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<epkit.Session of {self.report.model}: {self.report.summary()}>"

    def _fed(self, inputs: object, outputs: Sequence[str] | None) -> tuple[dict[str, object], Sequence[str] | None]:
        names = None if outputs is None else self._known(outputs)
        feed = self._inputs.feed(inputs)
        if self._narrowed:
            self._narrowed.check(feed)
        return feed, names

    def _known(self, outputs: Iterable[str]) -> tuple[str, ...]:
        try:
            wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        except TypeError:
            message = f"outputs is {type_name(outputs)}, which holds no names"
            raise InputError(message, hint=f"outputs: {', '.join(self._names)}") from None
        if not wanted:
            raise InputError("no output is asked for", hint=f"outputs: {', '.join(self._names)}")
        known = self._names if len(wanted) < len(self._names) else frozenset(self._names)
        for name in wanted:
            if not isinstance(name, str):
                message = f"outputs holds {type_name(name)} where a name belongs"
                raise InputError(message, hint=f"outputs: {', '.join(self._names)}")
            if name not in known:
                raise InputError(
                    f"the model has no output {name!r}", hint=nearest(str(name), self._names, what="outputs")
                )
        return wanted


def read_inputs(session: Any) -> tuple[TensorInfo, ...]:
    """Return the inputs of ONNX Runtime's session."""
    return tuple(_info(node, {}) for node in session.get_inputs())


def narrowed_types(created: Created) -> dict[str, tuple[str, str]]:
    """Return the tensor types that a provider with nodes computes in a narrower one: that one, and the provider."""
    return {
        wide: (narrow, candidate.name)
        for candidate in reversed(created.active)
        for wide, narrow in candidate.provider.limits.narrowed_types.items()
    }


def _shrink(created: Created, target: Target) -> ArenaShrinkage | None:
    if target.shrink_above is None:
        return None
    held = arenas(created.chain, target.session_options)
    # A captured graph goes on using device memory that the arena counts as free.
    return ArenaShrinkage(
        target.shrink_above, [name for name in held if not created.captures or name.startswith("cpu")]
    )


def _unforkable(created: Created, place: str) -> str:
    """Return what a forked process lacks to run the session; empty where nothing is known of that kind."""
    if place != "cpu":
        return f"what its parent has on {place}"
    parallel = created.settings.properties.get("execution_mode") == "ORT_PARALLEL"
    return "the threads that ORT_PARALLEL runs operators on" if parallel else ""


def _strictest(chain: Sequence[ConfiguredProvider], *, captures: bool) -> Concurrency:
    declared = {concurrency_of(candidate.provider) for candidate in chain}
    if captures:
        declared.add("per-session")  # ONNX Runtime bears no run beside one that captures or replays
    order: tuple[Concurrency, ...] = ("per-process", "per-session")
    return next((concurrency for concurrency in order if concurrency in declared), "free")


def _metadata(session: Any, model: Model) -> dict[str, str]:
    """Return a model's metadata; of one in ORT format, only ONNX Runtime reads it."""
    return model.metadata if model.is_parsed else dict(session.get_modelmeta().custom_metadata_map)


def _described(nodes: Iterable[Any], declared: Mapping[str, TensorInfo]) -> tuple[TensorInfo, ...]:
    """Describe inputs or outputs; raises ModelError for names that Python cannot be told."""
    try:
        return tuple(_info(node, declared) for node in nodes)
    except UnicodeDecodeError as error:
        message = f"the model names an input, an output or a dimension {error.object!r}, which is not UTF-8"
        raise ModelError(message, hint="export the model again, with names in UTF-8") from error


def _info(node: Any, declared: Mapping[str, TensorInfo]) -> TensorInfo:
    """Describe an input or output as ONNX Runtime sees it.

    ONNX Runtime gives a scalar and an unknown rank the same empty shape; the model file tells them apart.
    """
    dtype = parse_ort_type(node.type)
    known = node.name in declared and declared[node.name].shape is not None
    shape = tuple(size if isinstance(size, int | str) else None for size in node.shape) if node.shape or known else None
    return TensorInfo(node.name, dtype, shape)
