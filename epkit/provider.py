"""The contract: what one execution provider tells epkit about itself.

The smallest provider is one class with two names and a probe:

    class Acme(Provider):
        name = "acme"
        ort_name = "AcmeExecutionProvider"

        def probe(self) -> Usable | Unusable:
            return Usable() if Path("/dev/acme0").exists() else Unusable("no /dev/acme0", hint="modprobe acme")

Everything else has a default. What only some providers need is declared in groups: devices, a plugin library, warm-up,
caching, graph capture, limits, the self-test (`epkit/provider_parts.py`). Nothing here imports ONNX Runtime or NumPy,
and a plugin's module should not either: it is imported whenever epkit lists what is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, TypeAlias

from epkit.provider_parts import (
    Caching,
    Capability,
    Compiles,
    Concurrency,
    Device,
    Devices,
    FoundDevice,
    GraphCapture,
    Limits,
    Network,
    Options,
    PluginLibrary,
    Proof,
    SelfTest,
    WarmupNeed,
)

__all__ = [
    "Availability",
    "Caching",
    "Capability",
    "Compiles",
    "Concurrency",
    "Device",
    "Devices",
    "FoundDevice",
    "GraphCapture",
    "Limits",
    "Network",
    "Options",
    "PluginLibrary",
    "Proof",
    "Provider",
    "SelfTest",
    "Unusable",
    "Usable",
    "WarmupNeed",
]


@dataclass(frozen=True, slots=True)
class Usable:
    """This machine has the provider. `detail` says what was found ("NVIDIA H100, driver 580.65").

    `note` says in a sentence what is unusual on this machine; the report of every session with this provider has it.
    """

    detail: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unusable:
    """This machine does not have the provider: why, and the command that mends it.

    `transient` marks a cause that may be gone in a minute (a crash, a time-out, memory in use): the answer is kept for
    two minutes, not a week.
    """

    reason: str
    hint: str = ""
    transient: bool = False


Availability: TypeAlias = Usable | Unusable


class Provider:
    """One execution provider. Subclass it, and return an instance from the hook `epkit_providers`."""

    name: ClassVar[str]
    """The name users write: lower-case letters, digits and dashes."""
    ort_name: ClassVar[str]
    """What ONNX Runtime calls it: `CUDAExecutionProvider`."""
    options: ClassVar[type[Options]] = Options
    """The pydantic model of its options, a subclass of `Options`; the sentence under each field documents it."""
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    """What it supports beyond the model of its self-test; `epkit.testing` tests each, and lists those not named."""
    environment: ClassVar[tuple[str, ...]] = ()
    """Environment variables that change a session unseen; a trailing `*` matches a prefix.

    Those that are set are notes in the report.
    """
    rank: ClassVar[int] = 50
    """The place in the automatic chain, lowest first; the CPU stands last at 100."""
    automatic: ClassVar[bool] = False
    """Whether the automatic chain has it by default. Only for plugins in the distribution epkit: others, `openvino`
    too, are in the chain if a config lists them under `automatic`."""

    devices: ClassVar[Devices] = Devices()
    """Which device a target's `device` means, and whose memory a session uses."""
    library: ClassVar[PluginLibrary | None] = None
    """The plugin library that ONNX Runtime loads it from; None for a provider that is built in."""
    warmup: ClassVar[WarmupNeed] = WarmupNeed()
    """The runs it needs before a request takes its normal time."""
    caching: ClassVar[Caching] = Caching()
    """When it compiles, and how it keeps what it compiled."""
    capture: ClassVar[GraphCapture | None] = None
    """How it captures graphs; None: it does not."""
    limits: ClassVar[Limits] = Limits()
    """What it cannot do."""
    self_test: ClassVar[SelfTest] = SelfTest()
    """How epkit proves that it computes."""

    def probe(self) -> Availability:
        """Check what only the plugin knows: libraries, driver, devices. Cheap, never raises, imports no ONNX Runtime.

        epkit itself proves in a child process that the provider computes.
        """
        return Usable()

    def fingerprint(self) -> Sequence[str]:
        """List what the answer of `probe` depends on: library paths and times, driver, environment variables.

        When one of these texts changes, epkit probes again.
        """
        return ()

    def hint(self, cause: str) -> str:
        """Return the command that fixes a failure with ONNX Runtime's message `cause`, or ""."""
        return ""

    def check_options(self, options: Options, device: Device | None) -> str:
        """Return in a sentence why the options and the device exclude each other, or ""."""
        return ""

    def check_inputs(self, options: Options, inputs: Mapping[str, Sequence[int | str | None] | None]) -> str:
        """Return in a sentence why the options do not fit a model with these inputs (name to shape), or "".

        A fixed dimension is an int, a dynamic one its name or None; an unknown rank is None.
        """
        return ""

    def always_sent(self, device: Device | None) -> Mapping[str, str]:
        """Return the options whose defaults give wrong results, each with the text to send; what the user sets wins."""
        return {}

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Convert the options to ONNX Runtime's texts, each under its name; the device goes into `devices.option`."""
        sent = {name: _text(value) for name, value in options.written().items()}
        if self.devices.option is not None and device is not None:
            sent[self.devices.option] = str(device)
        return sent | options.extra

    def prepare(self, runtime: ModuleType) -> None:
        """Do what must happen before the provider can load, given the `onnxruntime` module. May be called twice."""

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:
        """Add this provider to ONNX Runtime's SessionOptions, with the options as `to_ort_options` wrote them.

        `devices` are ONNX Runtime's own, those that `Devices.choose` chose; a provider that is built in has none.
        Override it to do more.
        """
        if devices:
            session_options.add_provider_for_devices(list(devices), dict(sent))
        else:
            session_options.add_provider(self.ort_name, dict(sent))

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:
        """Wrap the creation of a session that has this provider: `create` returns it, with all providers of its chain.

        `model` is a path or the model's bytes. The return value is used in place of the session;
        `epkit.runtime.session_wrapper` helps.
        """
        return create()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list | tuple):
        return ",".join(_text(item) for item in value)
    return str(value)
