"""What did ONNX Runtime do with the model, and how is it run?"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from epkit import _platform, _runtime, probe
from epkit._foreign import asked
from epkit.capture import capture
from epkit.compiled import Compiled
from epkit.config import ConfigSource, load
from epkit.context import check_context
from epkit.effective import effective
from epkit.errors import (
    ConfigError,
    InputError,
    ProviderUnavailable,
    RunError,
    RuntimeMissing,
    nearest,
)
from epkit.model import Model, TensorInfo, parse_ort_type
from epkit.model import read as read_model
from epkit.opening import Opening, drop, is_cpu, leave_out, on_cpu, open_next
from epkit.provider import Concurrency
from epkit.registry import Registry, discover
from epkit.report import Report, WarmedUp, tried
from epkit.resolve import Plan, resolve
from epkit.run.background import Background
from epkit.run.binding import Bindable, Binding
from epkit.run.caller import Caller
from epkit.run.graph import Graphs
from epkit.run.inputs import Inputs
from epkit.run.memory import Shrink
from epkit.run.narrow import Narrowed
from epkit.run.outputs import targets_of
from epkit.run.settled import unbindable
from epkit.target import Candidate, Target, arenas
from epkit.target import read as read_target
from epkit.warmup import WarmupFault, check_warmup, course, suspicious, warm_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Output = NDArray[Any] | list[Any] | dict[Any, Any] | None

EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


def open(
    model: str | os.PathLike[str] | bytes,
    target: str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    session_options: Mapping[str, object] | None = None,
    config: ConfigSource = None,
) -> Session:
    """Open a model on the best provider of a target that this machine really has.

    `model` is a path, or a model's bytes. `target` names a target of the config or a provider (then strictly that
    one); without it, the config's default or the automatic chain. `options` (of the first provider) and
    `session_options` are laid over what the target says; `config` is a file, or a mapping of the same shape.

    Raises ConfigError before anything is probed, ModelError when the model cannot be read or opened, ProviderError
    when a provider that was required cannot be had, RuntimeMissing without an ONNX Runtime.
    """
    written = load(config)
    registry = discover()
    wanted = read_target(target, written, registry, options=options, session_options=session_options)
    contents = read_model(model, folder=wanted.session_options.entries().get(EXTERNAL_FOLDER))
    check_fit(contents, wanted)
    plan, answers = plan_for(wanted, registry)
    return open_plan(contents, plan, answers)


def check_fit(model: Model, target: Target) -> None:
    """Check what a target says of inputs and dimensions against those of the model; raises ConfigError."""
    if model.format != "onnx":
        return
    dynamic = {size for one in model.inputs for size in one.shape or () if isinstance(size, str)}
    for name in target.session_options.free_dimension_overrides:
        if name not in dynamic:
            told = f"free_dimension_overrides names {name!r}, which is not a dimension of the model"
            raise ConfigError(f"target {target.name!r}: {told}", hint=nearest(name, dynamic, "dynamic dimensions"))
    check_warmup(model.inputs, target.warmup, target.session_options.free_dimension_overrides)
    shapes = {one.name: one.shape for one in model.inputs}
    for candidate in target.chain:
        fault = asked(candidate.provider.check_inputs, candidate.options, shapes)
        if fault:
            raise ConfigError(f"target {target.name!r}, options of {candidate.name}: {fault}")


def plan_for(target: Target, registry: Registry, *, refresh: bool = False) -> tuple[Plan, dict[str, probe.Answer]]:
    """Probe the providers of a target, and resolve what to try. Raises RuntimeMissing without an ONNX Runtime."""
    if not _runtime.installed():
        raise RuntimeMissing(_runtime.MISSING, hint=_runtime.MISSING_HINT)
    answers = probe.ask([(one.provider, one.device) for one in target.chain], registry, refresh=refresh)
    return resolve(target, {name: answer.availability for name, answer in answers.items()}), answers


def open_plan(model: Model, plan: Plan, answers: Mapping[str, probe.Answer]) -> Session:
    """Open what was planned, strictly, and warm it up; `answers` are what the plan was made from."""
    target = plan.target
    if plan.refusal is not None:
        step = plan.refusal
        message = f"{step.candidate.name} is not usable on this machine: {step.reason}"
        if not target.required:
            others = [one for one in plan.steps if one is not step]
            message += "".join(f"; nor is {one.candidate.name}: {one.reason}" for one in others)
        raise ProviderUnavailable(message, hint=step.hint)
    source = model.source if isinstance(model.source, bytes) else str(model.source)
    cores = _platform.core_limit()
    with contextlib.closing(Compiled(model, target)) as compiled:
        under_way = Opening(
            plan,
            source,
            effective(plan, cores).settings,
            list(plan.chain),
            compiled,
            capture=capture(model, plan),
            capturing=effective(plan, cores, captures=True).settings,
        )
        return _opened(model, under_way, answers)


def _opened(model: Model, under_way: Opening, answers: Mapping[str, probe.Answer]) -> Session:
    plan, source, target = under_way.plan, under_way.model, under_way.plan.target
    said = check_context(model, plan)
    leave_out(under_way, model)
    warmup_seconds = 0.0
    while True:
        open_next(under_way)
        session = Session(under_way, model)
        started = time.perf_counter()
        warmed, why, notes, failed = _warmed_up(session, under_way)
        warmup_seconds += time.perf_counter() - started
        if failed is None:
            break
        if under_way.compiled.doubt(failed[1]):
            continue
        drop(under_way, *failed, "failed to warm up")
    under_way.compiled.keep(list(under_way.placed))
    if not under_way.placed:
        notes = ("the model has no node to run: it folds to constants, or passes its inputs through", *notes)
    session.report = Report(
        target=target.name,
        why=target.why,
        model=source if isinstance(source, str) else f"{len(source)} bytes",
        provider=under_way.provider,
        placement=under_way.placed,
        tried=tried(plan, under_way.dropped, under_way.placed),
        warmup=warmed,
        warmup_why=why,
        graph=under_way.capture if under_way.capture is not None and under_way.capture.asked else None,
        cache=under_way.compiled.rows,
        notes=(
            *(*target.notes, *meddling(target.chain), *_probe_notes(answers), *said),
            *(*_narrowing(session, under_way), *notes),
        ),
        seconds={
            # The providers are probed side by side.
            "probe": max((one.seconds for one in answers.values()), default=0.0),
            "open": under_way.seconds,
            "warmup": warmup_seconds,
        },
    )
    return session


def meddling(chain: Sequence[Candidate]) -> tuple[str, ...]:
    """Name the environment variables that are set and change sessions of these providers behind one's back."""
    return tuple(
        f"{variable}={os.environ[variable]} is set in the environment and changes sessions of {candidate.name}"
        for candidate in chain
        for pattern in candidate.provider.environment
        for variable in sorted(os.environ)
        if fnmatch.fnmatchcase(variable, pattern)
    )


def _narrowing(session: Session, opening: Opening) -> list[str]:
    """Say which types of the model's inputs and outputs are computed in a narrower one."""
    present = {one.dtype for one in (*session.inputs, *session.outputs)}
    return [
        f"{provider} computes {wide} in {narrow}: larger numbers are refused as inputs, and rounded or wrong in between"
        for wide, (narrow, provider) in _narrows(opening).items()
        if wide in present
    ]


def _probe_notes(answers: Mapping[str, probe.Answer]) -> list[str]:
    return list(dict.fromkeys(answer.note for answer in answers.values() if answer.note))


class Session:
    """An opened model. Immutable; may be called from many threads."""

    report: Report
    """What was tried, what was chosen, where the nodes run, and what warm-up cost."""

    def __init__(self, opening: Opening, model: Model) -> None:
        declared = {one.name: one for one in (*model.inputs, *model.outputs)}
        self.inputs = tuple(_info(one, declared) for one in opening.session.get_inputs())
        """Name, dtype and shape of each input."""
        self.outputs = tuple(_info(one, declared) for one in opening.session.get_outputs())
        """Name, dtype and shape of each output."""
        self._names = tuple(one.name for one in self.outputs)
        overridable = [_info(one, declared) for one in opening.session.get_overridable_initializers()]
        self._inputs = Inputs(self.inputs, cast=opening.plan.target.cast, overridable=overridable)
        self._narrowed = Narrowed(self.inputs, _narrows(opening))
        active = next((one for one in opening.plan.chain if one.name == opening.provider), None)
        self._place = asked(active.provider.buffers, active.device) if active else "cpu"
        runtime = _runtime.load()
        self._caller = Caller(
            opening.session,
            runtime,
            self.inputs,
            self.outputs,
            exotic=self._inputs.exotic,
            concurrency=_strictest(opening.remaining, captures=opening.captures),
            checks_outputs=all(one.provider.checks_outputs for one in opening.remaining),
            lends=not self._narrowed,
            graphs=Graphs(opening.session, runtime) if opening.captures else None,
            shrink=_shrink(opening),
        )
        self._background = Background(self._caller)

    def run(
        self,
        inputs: Mapping[str, object] | object,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, Output]:
        """Run the model once and return its outputs by name: arrays, or lists and dicts for sequences and maps.

        `inputs` maps names to arrays, numbers, lists, or anything with DLPack; for a model with one input it may be
        the value itself. `outputs` names the outputs wanted, all unless given.

        `timeout` is in seconds. A run that takes longer is told to stop, and RunTimeout is raised: ONNX Runtime stops
        between two nodes. Where the provider made one node of the model (OpenVINO, TensorRT), the run goes on in the
        background, and closing the session waits for it.

        Raises InputError when an input does not fit the model, RunError when the run fails, SessionClosed.
        """
        if outputs is None and timeout is None:
            results = self._caller.lent(inputs)
            if results is not None:
                return results
        feed, names = self._fed(inputs, outputs)
        if timeout is None:
            return self._caller.run(feed, names)
        return self._background.run(feed, names, timeout)

    async def run_async(
        self,
        inputs: Mapping[str, object] | object,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, Output]:
        """Run the model once, as `run` does, while the event loop goes on.

        The arrays are read while the run is under way: leave them alone until then. A task that is cancelled tells its
        run to stop, as a `timeout` does.
        """
        feed, names = self._fed(inputs, outputs)
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
        if place not in ("cpu", self._place):
            also = "" if self._place == "cpu" else f", or {self._place!r}, where the provider runs"
            raise InputError(f"device is {device!r}", hint=f'device="cpu"{also}')
        known = {one.name: one for one in self.outputs}
        wanted = [known[name] for name in dict.fromkeys(names)]
        why_not = unbindable((*self.inputs, *wanted))
        if why_not:
            place = "cpu"  # where a run without a binding takes and leaves its tensors
        given = outputs if isinstance(outputs, Mapping) else {}
        targets = targets_of(given, wanted, place, self._caller.runtime, self._caller.session)
        model = Bindable(self._inputs, self._narrowed, self.inputs, wanted, targets, place, self._place, why_not)
        return Binding(self._caller, model, inputs)

    def close(self) -> None:
        """Wait for the runs in flight, then give the memory back; later calls raise SessionClosed."""
        self._background.close()
        self._caller.close()
        _platform.trim()

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
        wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if not wanted:
            raise InputError("no output is asked for", hint=f"outputs: {', '.join(self._names)}")
        for name in wanted:
            if name not in self._names:
                raise InputError(
                    f"the model has no output {name!r}", hint=nearest(str(name), self._names, what="outputs")
                )
        return wanted


def _narrows(opening: Opening) -> dict[str, tuple[str, str]]:
    """Return the tensor types that a provider with nodes computes in a narrower one: that one, and the provider."""
    active = [one for one in opening.remaining if one.name in opening.placed]
    return {wide: (narrow, one.name) for one in reversed(active) for wide, narrow in one.provider.narrows.items()}


def _shrink(opening: Opening) -> Shrink | None:
    target = opening.plan.target
    if target.shrink_above is None:
        return None
    held = arenas(opening.remaining, target.session_options)
    # A captured graph goes on using device memory that the arena counts as free.
    return Shrink(target.shrink_above, [one for one in held if not opening.captures or one.startswith("cpu")])


def _strictest(chain: Sequence[Candidate], *, captures: bool) -> Concurrency:
    declared = {one.provider.concurrency for one in chain}
    if captures:
        declared.add("per-session")  # ONNX Runtime bears no run beside one that captures or replays
    order: tuple[Concurrency, ...] = ("per-process", "per-session")
    return next((one for one in order if one in declared), "free")


def _info(node: Any, declared: Mapping[str, TensorInfo]) -> TensorInfo:
    """Describe an input or output as ONNX Runtime sees it.

    ONNX Runtime gives a scalar and an unknown rank the same empty shape; the model file tells them apart.
    """
    dtype = parse_ort_type(node.type)
    known = node.name in declared and declared[node.name].shape is not None
    shape = tuple(one if isinstance(one, int | str) else None for one in node.shape) if node.shape or known else None
    return TensorInfo(node.name, dtype, shape)


Failure = tuple[Candidate, str]


def _warmed_up(session: Session, opening: Opening) -> tuple[tuple[WarmedUp, ...], str, tuple[str, ...], Failure | None]:
    """Warm up; a failure is the first provider's that took a node, unless the CPU alone fails in the same way."""
    target = opening.plan.target
    active = [one for one in opening.remaining if one.name in opening.placed]
    shrinks = target.shrink_above is not None
    planned = course(session.inputs, target.warmup, [one.provider for one in active], shrinks=shrinks)
    try:
        return warm_up(session.run, planned, session.inputs, session.outputs), planned.why, planned.notes, None
    except WarmupFault as fault:
        culprit = next((one for one in active if not is_cpu(one)), None)
        if culprit is not None and _sane_on_cpu(opening, session, fault):
            return (), planned.why, (), (culprit, fault.cause)
        note = f"warm-up said {fault.cause!r}, and so does the CPU: the inputs made up for it do not suit the model"
        return (), planned.why, (*planned.notes, note), None


def _sane_on_cpu(opening: Opening, session: Session, fault: WarmupFault) -> bool:
    try:
        reference = Caller(
            on_cpu(opening), _runtime.load(), session.inputs, session.outputs, exotic=session._inputs.exotic
        )
        results = reference.run(fault.feed)
    except (_runtime.OpenFault, RunError):
        return False
    return not suspicious(results, session.outputs)
