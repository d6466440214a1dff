"""The contract: what one execution provider tells epkit about itself.

A plugin's smallest provider is one class with three names and a probe:

    class Acme(Provider):
        name = "acme"
        ort_name = "AcmeExecutionProvider"

        def probe(self) -> Usable | Unusable:
            return Usable() if Path("/dev/acme0").exists() else Unusable("no /dev/acme0", hint="modprobe acme")

Everything else has a default. Nothing here imports ONNX Runtime or NumPy, and a plugin's module should not either: it
is imported whenever epkit lists what is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Device: TypeAlias = int | str
"""What a target's `device` key holds: an ordinal (`0`) or a kind (`"GPU"`)."""

Concurrency: TypeAlias = Literal["free", "per-session", "per-process"]
"""How many runs may be under way at once: any number, one in each session, or one in the whole process."""

Compiles: TypeAlias = Literal["never", "opening", "shapes"]
"""When a provider compiles: never, when a model is opened, or also in runs, anew for shapes that it has not seen."""

Capability: TypeAlias = Literal[
    "float32", "float16", "float64", "int64", "int8", "strings", "dynamic-shapes", "data-shapes"
]
"""What a provider may claim to carry: types, quantized models (`int8`), dimensions that differ from run to run, and
outputs whose shape depends on the data."""

Network: TypeAlias = Literal["convolutions", "mlp", "attention"]
"""A kind of network: images through convolutions, matrix products one after the other, or a transformer's attention."""


@dataclass(frozen=True, slots=True)
class Usable:
    """This machine has the provider. `detail` says what was found ("NVIDIA H100, driver 580.65").

    `note` is for every report of a session that may use it: a sentence on what is unusual here.
    """

    detail: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unusable:
    """This machine does not have the provider: why, and the command that mends it.

    `transient` marks a cause that may be gone in a minute (a crash, a time-out, memory in use); it is soon asked anew.
    """

    reason: str
    hint: str = ""
    transient: bool = False


Availability: TypeAlias = Usable | Unusable


class Options(BaseModel):
    """The options of one provider, spelt as ONNX Runtime spells them, each with a sentence under it.

    What is left unset is not sent, so ONNX Runtime's default stays ONNX Runtime's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    extra: dict[str, str] = {}
    """Options newer than epkit, passed on unchecked as name and text."""

    def written(self) -> dict[str, Any]:
        """The options that were set, `extra` apart, by ONNX Runtime's names."""
        return {
            (field.alias or name): getattr(self, name)
            for name, field in type(self).model_fields.items()
            if name in self.model_fields_set and name != "extra" and getattr(self, name) is not None
        }


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """One device that a plugin library offers, as ONNX Runtime lists it; `kind` is `CPU`, `GPU` or `NPU`."""

    index: int
    ort_name: str
    kind: str
    vendor: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WarmupNeed:
    """What the first requests would otherwise pay for: how many runs, on which shapes, and why.

    `shapes="each"` says that each new shape pays again; `steady`, that the runs go on, within bounds, until their times
    no longer fall.
    """

    runs: int = 1
    shapes: Literal["each", "first"] = "first"
    why: str = "the first run allocates memory"
    steady: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """A tiny model, one input and the output it must give. The numbers are exact in fp16 and TF32."""

    model: bytes
    input: tuple[float, ...]
    output: tuple[float, ...]
    input_shape: tuple[int, ...]


class Provider:
    """One execution provider. Subclass it, and return an instance from the hook `epkit_providers`."""

    name: ClassVar[str]
    """The name users write: lower-case letters, digits and dashes."""
    ort_name: ClassVar[str]
    """What ONNX Runtime calls it: `CUDAExecutionProvider`."""
    rank: ClassVar[int] = 50
    """The place in the automatic chain, lowest first; the CPU stands last at 100."""
    automatic: ClassVar[bool] = False
    """Whether the automatic chain takes it unasked. Only honoured for the providers that epkit brings."""
    options: ClassVar[type[Options]] = Options
    """The pydantic model of its options, a subclass of `Options`; the sentence under each field documents it."""
    device_option: ClassVar[str | None] = None
    """The option that a target's `device` sets, for a provider built into ONNX Runtime: `device_id`."""
    device_kinds: ClassVar[tuple[str, ...]] = ()
    """The names that a target's `device` may hold, for a plugin library: `CPU`, `GPU`, `NPU`."""
    environment: ClassVar[tuple[str, ...]] = ()
    """Environment variables that change a session behind one's back; a trailing `*` matches a prefix.

    Those that are set are notes in the report.
    """
    graph_option: ClassVar[str | None] = None
    """The switch among its options that lets it capture graphs, chosen by `gpu_graph_id` in each run's options."""
    native_options: ClassVar[tuple[str, ...]] = ()
    """Options that load native code; a config file that was found, not named, may not hold them."""
    writing_options: ClassVar[tuple[str, ...]] = ()
    """Options that name files to be written; a config file that was found, not named, may not hold them."""
    unsupported_types: ClassVar[tuple[str, ...]] = ()
    """Tensor types that it takes and then crashes on: a model that has one is not opened on it."""
    narrowed_types: ClassVar[Mapping[str, str]] = {}
    """Tensor types that it computes in a narrower one: `{"int64": "int32"}`; larger numbers are refused, and the report
    says so."""
    compiles: ClassVar[Compiles] = "never"
    """When it compiles models into files from which a later session can start: `opening`, or `shapes` where runs
    compile too, anew for shapes not seen before. `with_cache_dir` tells it where to put them."""
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    """What it claims to carry beside its proof; `epkit.testing` holds it to each, and says what is not claimed."""
    warmup: ClassVar[WarmupNeed] = WarmupNeed()
    """What the first requests would otherwise pay."""
    arena: ClassVar[Literal["cpu", "gpu"] | None] = None
    """Where it takes memory through ONNX Runtime's arena, which keeps what the largest run needed; None: it does not.

    The largest shape is then warmed up first, and `shrink_above` gives back what the arena holds. `device_option`
    numbers the device.
    """
    networks: ClassVar[tuple[Network, ...]] = ("convolutions", "mlp")
    """The kinds of network that it is for: it is proven by a tiny one of the first kind, and held to one of each."""
    proof: ClassVar[Proof | None] = None
    """A better tiny model than epkit's own of its kind of network, where a provider needs one."""
    self_test_timeout_s: ClassVar[float] = 60.0
    """How long the proof may take before it counts as hanging."""

    @property
    def concurrency(self) -> Concurrency:
        """How many runs may be under way at once: `free`; for a plugin library `per-process` until proven otherwise."""
        return "free" if type(self).library is Provider.library else "per-process"

    @property
    def validates_output_shape(self) -> bool:
        """Whether it refuses an output buffer of another shape than the result's: yes; a plugin library may not.

        Where it does not, bindings make such buffers once.
        """
        return type(self).library is Provider.library

    def probe(self) -> Availability:
        """Say what only the plugin knows: libraries, driver, devices. Cheap, never raises, imports no ONNX Runtime.

        That it computes is proven by epkit, in a child process.
        """
        return Usable()

    def fingerprint(self) -> Sequence[str]:
        """List what the answer of `probe` depends on: library paths and times, driver, environment variables.

        When one of these texts changes, epkit asks anew.
        """
        return ()

    def prepare(self, runtime: ModuleType) -> None:
        """Do what must happen before the provider can load, given the `onnxruntime` module. May be called twice."""

    def preload(self) -> Sequence[Path]:
        """List the libraries that the process must have loaded before `library` is registered, in order."""
        return ()

    def library(self) -> Path | None:
        """Return the plugin library to register with ONNX Runtime, or None for a provider that is built in."""
        return None

    def devices(self, found: Sequence[FoundDevice], device: Device | None) -> Sequence[FoundDevice]:
        """Choose among the devices of the library: the first of the kind, unless overridden.

        An empty answer means that the one asked for is not there.
        """
        return [one for one in found if one.ort_name == self.ort_name and device in (None, one.kind)][:1]

    def memory_device(self, device: Device | None) -> str:
        """Say where the buffers of a binding are, as PyTorch would: `cpu`, `cuda:0`, `webgpu:0`."""
        return "cpu"

    def check_device(self, device: Device) -> str:
        """Say in a few words why `device` makes no sense for this provider; empty when it does.

        Unless overridden, by `device_kinds`, else by `device_option`.
        """
        if self.device_kinds:
            return "" if device in self.device_kinds else f"must be one of {', '.join(self.device_kinds)}"
        if self.device_option is None:
            return "must be left out: this provider has one device"
        return "" if isinstance(device, int) and not isinstance(device, bool) and device >= 0 else "must be 0 or above"

    def check_options(self, options: Options, device: Device | None) -> str:
        """Say in a sentence why the options do not go with the device; empty when they do."""
        return ""

    def check_inputs(self, options: Options, inputs: Mapping[str, Sequence[int | str | None] | None]) -> str:
        """Say in a sentence why the options do not fit a model with these inputs (name to shape); empty when they do.

        A fixed dimension is an int, a dynamic one its name or None; an unknown rank is None.
        """
        return ""

    def always_sent(self, device: Device | None) -> Mapping[str, str]:
        """Return the options that right results need, with the texts that are sent unless the user sets them."""
        return {}

    def to_ort_options(self, options: Options, device: Device | None) -> dict[str, str]:
        """Turn validated options into the texts that ONNX Runtime wants: each under its name, unless overridden."""
        sent = {name: _text(value) for name, value in options.written().items()}
        if self.device_option is not None and device is not None:
            sent[self.device_option] = str(device)
        return sent | options.extra

    def with_cache_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:
        """Return the options under which it keeps what it compiles in `folder`, and starts from what is there.

        epkit gives each model, with all that its compiled form depends on, a folder of its own. None is for keeping
        nothing, whatever the options ask for: a provider's own cache may know less of what makes it stale.
        """
        return options

    def check_cache(self, options: Options) -> str:
        """Say in a sentence why what these options compile cannot be kept in another folder; empty when it can."""
        return ""

    def requested_cache_dir(self, options: Options) -> str | None:
        """Return the folder in which the options themselves ask to keep what is compiled; None when they do not.

        Empty when they ask for it and name no folder: then it is epkit's.
        """
        return None

    def cache_fingerprint(self, device: Device | None) -> Sequence[str]:
        """List what makes compiled files stale beside model, options and ONNX Runtime: libraries, driver, processor."""
        return self.fingerprint()

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:
        """Add this provider to ONNX Runtime's SessionOptions, with the options as `to_ort_options` wrote them.

        `devices` are ONNX Runtime's own, those that `devices` chose; there are none for a provider that is built in.
        Override it to do more.
        """
        if devices:
            session_options.add_provider_for_devices(list(devices), dict(sent))
        else:
            session_options.add_provider(self.ort_name, dict(sent))

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:
        """Open the session of a chain that has this provider: `create` makes it, with all providers of the chain.

        `model` is a path or the model's bytes. What is returned is used in place of the session;
        `epkit.runtime.session_wrapper` helps.
        """
        return create()

    def hint(self, cause: str) -> str:
        """Return the command that mends a failure whose cause ONNX Runtime gave as `cause`; empty when unknown."""
        return ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list | tuple):
        return ",".join(_text(item) for item in value)
    return str(value)
