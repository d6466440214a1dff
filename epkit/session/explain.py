"""Explain what `epkit.open` would do with a model and a target, and write the same without epkit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from epkit._system import platform, telemetry
from epkit.config.file import ConfigSource
from epkit.model.assumed_sizes import read_image_hints
from epkit.model.file import ORT_UNKNOWN, Model
from epkit.provider import Provider
from epkit.runtime import api, create
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.create import Settings
from epkit.runtime.plugin_calls import call_plugin, chosen_devices, library_path, preload_paths
from epkit.session.cache.session_cache import Compiled
from epkit.session.capture import Capture, capture, capturing
from epkit.session.context import check_context
from epkit.session.opening import environment_notes, probe_notes
from epkit.session.plan import Plan
from epkit.session.report import CacheRow
from epkit.session.request import OpenRequest
from epkit.session.settings import Setting, build_settings, list_settings, with_capture
from epkit.session.traffic import Traffic, traffic
from epkit.session.warmup import PlannedRun, WarmupPlan, plan_warmup

SCHEMA = "epkit.explain/1"


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One provider of the chain: opened, or passed over and why."""

    provider: str
    decision: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The plan for one model and target. `refusal` says why it would be an error; empty when it would not."""

    target: str
    why: str
    refusal: str
    plan: tuple[PlanRow, ...]
    effective: tuple[Setting, ...]
    device: str
    """Where the buffers of a binding would be, if the first provider of the plan takes the nodes."""
    copies: tuple[Traffic, ...]
    graph: Capture
    warmup: tuple[PlannedRun, ...]
    """What warm-up would run if every provider that is opened took nodes."""
    warmup_why: str
    """The same in one line, with the reasons."""
    cache: tuple[CacheRow, ...]
    notes: tuple[str, ...]
    script: str

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit explain --json`."""
        return {"schema": SCHEMA, **asdict(self)}


def explain(
    model: str | os.PathLike[str] | bytes,
    target: str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    session_options: Mapping[str, object] | None = None,
    config: ConfigSource = None,
    refresh: bool = False,
) -> Explanation:
    """Say what `epkit.open` would do with the same arguments, without opening the model. Raises as it does."""
    contents, planned_target = OpenRequest(model, target, options, session_options, config, refresh).resolve()
    plan, answers = planned_target.plan, planned_target.answers
    wanted = plan.target
    refused = plan.refusal
    graph = (
        Capture(wanted.cuda_graph, wanted.first.name, ("nothing is opened",)) if refused else capture(contents, plan)
    )
    captures = graph.asked and graph.possible
    cores = platform.core_limit()
    settings = build_settings(wanted, cores)
    settings = with_capture(settings) if captures else settings
    first = (plan.chain or wanted.chain)[0]
    device = call_plugin(first.provider.devices.memory_device, first.device)
    planned = WarmupPlan(why=ORT_UNKNOWN)
    if contents.is_parsed:
        sizes = wanted.session_options.free_dimension_overrides
        shrinks = wanted.shrink_above is not None
        providers = [candidate.provider for candidate in plan.chain]
        known = read_image_hints(contents)
        planned = plan_warmup(contents.inputs, wanted.warmup, providers, sizes, shrinks=shrinks, known=known)
    said = [] if refused else check_context(contents, plan)
    if not contents.is_parsed:
        said.append(ORT_UNKNOWN)
    return Explanation(
        target=wanted.name,
        why=wanted.why,
        refusal=f"{refused.candidate.name} is not usable on this machine: {refused.reason}" if refused else "",
        plan=tuple(PlanRow(s.candidate.name, s.decision, s.reason, s.hint) for s in plan.steps),
        effective=list_settings(plan, cores, create.default_properties(), captures=captures),
        device=device,
        copies=traffic(contents, device, plain=first.provider.ort_name == api.CPU_ORT_NAME),
        graph=graph,
        warmup=planned.runs,
        warmup_why=planned.summary() if contents.is_parsed else f"not known before: {ORT_UNKNOWN}",
        notes=(*wanted.notes, *environment_notes(wanted.chain), *probe_notes(answers), *planned.notes, *said),
        cache=_look_up_cache(contents, plan, settings, captures=captures),
        script=script(contents, plan, settings, captures=captures),
    )


def script(model: Model, plan: Plan, settings: Settings, *, captures: bool = False) -> str:
    """Write the same session in plain ONNX Runtime."""
    source = repr(str(model.source)) if not isinstance(model.source, bytes) else "MODEL_BYTES"
    enums = create.ENUMS
    preloaded = any(preload_paths(candidate.provider) for candidate in plan.chain)
    lines = [*(["import ctypes"] if preloaded else ()), *_quiet(plan), "import onnxruntime as ort", ""]
    lines.append("options = ort.SessionOptions()")
    for name, value in settings.properties.items():
        lines.append(f"options.{name} = {f'ort.{enums[name]}.{value}' if name in enums else repr(value)}")
    for key, text in settings.entries.items():
        lines.append(f"options.add_session_config_entry({key!r}, {text!r})")
    for name, size in settings.free_dimensions.items():
        lines.append(f"options.add_free_dimension_override_by_name({name!r}, {size})")
    for name, size in settings.free_dimensions_by_denotation.items():
        lines.append(f"options.add_free_dimension_override_by_denotation({name!r}, {size})")
    lines += [f"options.register_custom_ops_library({library!r})" for library in settings.custom_ops]
    for candidate in plan.chain:
        lines += ["", *_added(capturing(candidate) if captures and candidate is plan.chain[0] else candidate)]
    lines += [
        "",
        "# no providers= here: with it, what cannot be loaded is replaced by the CPU without an error",
        f"session = ort.InferenceSession({source}, sess_options=options, enable_fallback=0)",
        "for part in session.get_provider_graph_assignment_info():",
        "    print(part.ep_name, [node.op_type for node in part.get_nodes()])",
    ]
    return "\n".join(lines) + "\n"


def _quiet(plan: Plan) -> list[str]:
    """Keep ONNX Runtime's telemetry off as epkit does; only before the import can it be."""
    if telemetry.decide(plan.target.telemetry)[0] == "on":
        return []
    return ["import os", "", f'os.environ["{telemetry.VARIABLE}"] = "1"  # its telemetry', ""]


def _look_up_cache(model: Model, plan: Plan, settings: Settings, *, captures: bool) -> tuple[CacheRow, ...]:
    """Return what each provider that compiles would start from, without building anything."""
    if not plan.chain:
        return ()
    chain = [capturing(plan.chain[0]), *plan.chain[1:]] if captures else plan.chain
    with contextlib.closing(Compiled(model, plan.target)) as compiled:
        compiled.look(chain, settings, build=False)
        return compiled.rows


def _added(candidate: ConfiguredProvider) -> list[str]:
    provider, sent = candidate.provider, candidate.sent
    lines = [f"# {candidate.name}"]
    if type(provider).prepare is not Provider.prepare:
        lines.append(f"# epkit first does this: {first_line(provider.prepare.__doc__)}")
    library = library_path(provider)
    if library is None:
        lines.append(f"options.add_provider({provider.ort_name!r}, {sent!r})")
        return [*lines, *_changed(provider)]
    api.prepare(provider)
    found = api.list_devices(provider)
    chosen = next(iter(chosen_devices(provider, found, candidate.device)), None)
    kind = f" and one.device.type.name == {chosen.kind!r}" if chosen else ""
    alike = [one for one in found if chosen and (one.ort_name, one.kind) == (chosen.ort_name, chosen.kind)]
    at = alike.index(chosen) if chosen else 0
    return [
        *lines,
        *(f"ctypes.CDLL({str(needed)!r})" for needed in preload_paths(provider)),
        f"ort.register_execution_provider_library({provider.ort_name!r}, {str(library)!r})",
        f"devices = [one for one in ort.get_ep_devices() if one.ep_name == {provider.ort_name!r}{kind}]",
        f"options.add_provider_for_devices(devices[{at}:{at + 1}], {sent!r})",
        *_changed(provider),
    ]


def _changed(provider: Provider) -> list[str]:
    """Point out what a provider does in its own way, which a plain script cannot show."""
    message = []
    if type(provider).add is not Provider.add:
        message.append(f"# epkit adds it in its own way: {first_line(provider.add.__doc__)}")
    if type(provider).open is not Provider.open:
        message.append(f"# epkit opens it in its own way: {first_line(provider.open.__doc__)}")
    return message


def first_line(text: str | None) -> str:
    """Return the first line of a docstring; a plugin's methods may have none."""
    return next(iter((text or "").splitlines()), "something that its author did not describe")
