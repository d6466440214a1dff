"""What does a fault stand over: which provider really computes, and under which name?"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from pydantic import create_model, model_validator

from epkit.errors import PluginError
from epkit.provider import Device, Devices, Limits, Options, Provider, SelfTest, WarmupNeed
from epkit_faulty.disguise import CPU, HEIR, OWNER, allow_cpu, entry, rename
from epkit_faulty.faults import FAULTS, Fault
from epkit_faulty.limits import LIMITS

Group = TypeVar("Group", Limits, SelfTest)


class OverCpuOptions(Options):
    """The options of a fault over the CPU: ONNX Runtime gets none."""

    @model_validator(mode="after")
    def _refuse_what_is_ignored(self) -> OverCpuOptions:
        if self.extra:
            raise ValueError("extra goes nowhere: ONNX Runtime's CPU has no options")
        return self


class OverCpu(Provider):
    """ONNX Runtime's CPU, at another place of the chain and under another name, as if it were an accelerator."""

    warmup = WarmupNeed(runs=1, why="the first run allocates the arena and starts the threads")
    devices = Devices(arena="cpu")
    limits = Limits(concurrency="free", validates_output_shape=True)

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:  # noqa: ARG002
        """Add the CPU here already, so that it takes nodes before the providers that follow; it can be had once."""
        if not entry(session_options, OWNER):
            allow_cpu(session_options)
            session_options.add_provider(CPU, {})
            session_options.add_session_config_entry(OWNER, self.name)
        elif not entry(session_options, HEIR):
            session_options.add_session_config_entry(HEIR, self.ort_name)

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:  # noqa: ARG002
        """Put this provider's name for the CPU's into the record of who took which node."""
        session = create()
        if entry(session.get_session_options(), OWNER) == self.name:
            rename(session, self.ort_name)
        return session


class OverInstalled(Provider):
    """Keeps the options of the fault from the provider below it."""

    own: ClassVar[tuple[str, ...]] = ()

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Send what the provider below has options for."""
        return super().to_ort_options(options.model_copy(update=dict.fromkeys(self.own)), device)


def over_cpu() -> list[Provider]:
    """Return a provider for each fault and each limit, with ONNX Runtime's CPU below it."""
    return [
        _made(
            fault,
            (OverCpu,),
            name=f"faulty-{fault.kind}",
            ort_name=f"Faulty{_camel(fault)}ExecutionProvider",
            options=_combined(fault, OverCpuOptions),
        )
        for fault in (*FAULTS, *LIMITS)
    ]


def over_installed(name: str) -> list[Provider]:
    """Return a provider for each of them, with an installed provider below it; raises PluginError without that."""
    points = importlib.metadata.entry_points(group="epkit", name=name)
    offered = [one for point in points for one in point.load().epkit_providers() if one.name == name]
    if not offered:
        told = f"no installed plugin offers {name!r}, which these faults stand over"
        raise PluginError(told, hint=f'pip install "epkit[{name}]"')
    below = type(offered[0])
    return [
        _made(
            fault,
            (OverInstalled, below),
            name=f"faulty-{name}-{fault.kind}",
            ort_name=below.ort_name,
            options=_combined(fault, below.options),
            own=tuple(fault.options.model_fields.keys() - Options.model_fields.keys()),
        )
        for fault in (*FAULTS, *LIMITS)
    ]


def _made(fault: type[Fault], bases: tuple[type[Provider], ...], **attributes: object) -> Provider:
    # What the fault declares, and all else as the provider below it declares it.
    attributes["limits"] = _declared(fault.limits, bases, "limits")
    attributes["self_test"] = _declared(fault.self_test, bases, "self_test")
    made = type(_camel(fault), (fault, *bases), attributes | {"__doc__": fault.__doc__, "__module__": __name__})
    provider: Provider = made()
    return provider


def _declared(of_fault: Group, bases: tuple[type[Provider], ...], name: str) -> Group:
    below: Group = getattr(type("Below", bases, {}), name)
    plain = type(of_fault)()
    own = {one.name: getattr(of_fault, one.name) for one in fields(of_fault)}
    return replace(below, **{key: value for key, value in own.items() if value != getattr(plain, key)})


def _combined(fault: type[Fault], below: type[Options]) -> type[Options]:
    return below if fault.options is Options else create_model(fault.options.__name__, __base__=(fault.options, below))


def _camel(fault: type[Fault]) -> str:
    return fault.kind.title().replace("-", "")
