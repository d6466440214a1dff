"""Define the parts of the contract: what a provider declares in groups, each only by the plugins that need it.

Plugins import all of it from `epkit.provider`. What is data is given when a part is made; what is done is overridden in
a subclass:

    class AcmeDevices(Devices):
        def choose(self, found: Sequence[FoundDevice], device: Device | None) -> Sequence[FoundDevice]:
            return found[-1:]

    class Acme(Provider):
        devices = AcmeDevices(kinds=("GPU", "NPU"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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


class Options(BaseModel):
    """The options of one provider, spelt as ONNX Runtime spells them, each with a sentence under it.

    What is left unset is not sent, so ONNX Runtime's default stays ONNX Runtime's.

        class AcmeOptions(Options):
            native_options = ("plugin_path",)

            plugin_path: str | None = None
            \"\"\"A library with more operators (none).\"\"\"
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    native_options: ClassVar[tuple[str, ...]] = ()
    """Options that load native code; refused in a config file that epkit found by itself and the user did not name."""
    writing_options: ClassVar[tuple[str, ...]] = ()
    """Options that name files to be written; refused in a config file that the user did not name."""

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


@dataclass(frozen=True)
class Devices:
    """Which device a target's `device` means, and whose memory a session uses.

    Built into ONNX Runtime, with GPUs by ordinal: `Devices(option="device_id", memory="cuda", arena="gpu")`. From a
    plugin library, by kind: `Devices(kinds=("CPU", "GPU"))`.
    """

    option: str | None = None
    """The option that a target's `device` sets, for a provider built into ONNX Runtime: `device_id`."""
    kinds: tuple[str, ...] = ()
    """The names that a target's `device` may hold, for a plugin library: `CPU`, `GPU`, `NPU`."""
    memory: str = "cpu"
    """Where the buffers of a binding are: `cpu`, or the kind of device as PyTorch spells it: `cuda`, `webgpu`."""
    arena: Literal["cpu", "gpu"] | None = None
    """Which memory arena of ONNX Runtime it allocates from; the arena keeps what the largest run needed. None: neither.

    With an arena, the largest shape is warmed up first, and `shrink_above` gives back what the arena holds. The number
    of the arena is the value of `option`, as in `gpu:0`.
    """

    def check(self, device: Device) -> str:
        """Return in a few words why `device` is invalid for this provider, or "".

        By default it must be one of `kinds`; without kinds, a number from 0 on if `option` is set; else there is none.
        """
        if self.kinds:
            return "" if device in self.kinds else f"must be one of {', '.join(self.kinds)}"
        if self.option is None:
            return "must be left out: this provider has one device"
        return "" if isinstance(device, int) and not isinstance(device, bool) and device >= 0 else "must be 0 or above"

    def choose(self, found: Sequence[FoundDevice], device: Device | None) -> Sequence[FoundDevice]:
        """Choose among the devices that the plugin library lists for the provider: the first of the kind.

        An empty answer means that the one asked for is not there.
        """
        return [candidate for candidate in found if device in (None, candidate.kind)][:1]

    def memory_device(self, device: Device | None) -> str:
        """Return where the buffers of a binding are, as PyTorch would: `cpu`, `cuda:0`, `webgpu:0`."""
        return self.memory if self.memory == "cpu" else f"{self.memory}:{device or 0}"


@dataclass(frozen=True)
class PluginLibrary:
    """The plugin library that ONNX Runtime loads a provider from. It is registered once, and never unregistered.

    A subclass says where it is:

        class AcmeLibrary(PluginLibrary):
            def path(self) -> Path:
                return Path("/opt/acme/libonnxruntime_providers_acme.so")

        class Acme(Provider):
            library = AcmeLibrary()
    """

    def path(self) -> Path:
        """Return the library to register with ONNX Runtime; raises ProviderUnavailable where it is not installed."""
        raise NotImplementedError("a PluginLibrary says by path() which library to register")

    def preload(self) -> Sequence[Path]:
        """List the libraries that the process must have loaded before, in order."""
        return ()


@dataclass(frozen=True, slots=True)
class WarmupNeed:
    """The runs that a provider needs before a request takes its normal time: how many, on which shapes, and why.

    `shapes="each"` says that each new shape pays again; `steady`, that the runs go on, within bounds, until their times
    no longer fall. `WarmupNeed(runs=2, shapes="each", why="kernels are compiled for each shape")`.
    """

    runs: int = 1
    shapes: Literal["each", "first"] = "first"
    why: str = "the first run allocates memory"
    steady: bool = False


@dataclass(frozen=True)
class Caching:
    """How a provider that compiles keeps its work, so that a later session starts from it.

    By default it never compiles. A subclass says where the files go:

        class AcmeCaching(Caching):
            def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:
                return options.model_copy(update={"cache_path": folder and str(folder)})

        class Acme(Provider):
            caching = AcmeCaching(compiles="opening")
    """

    compiles: Compiles = "never"
    """When it compiles: `opening`, or `shapes` where runs compile too, anew for shapes not seen before."""

    def with_dir(self, options: Options, device: Device | None, folder: Path | None) -> Options:
        """Return the options under which it keeps what it compiles in `folder`, and starts from what is there.

        epkit gives each model, with all that its compiled form depends on, a folder of its own. If `folder`
        is None, return options that keep nothing, even where the user turned the provider's own cache on: it may not
        notice what makes its files stale.
        """
        return options

    def requested_dir(self, options: Options) -> str | None:
        """Return the folder in which the options themselves ask to keep what is compiled; None when they do not.

        Return "" when they turn caching on without a folder: epkit then chooses one.
        """
        return None

    def check(self, options: Options) -> str:
        """Return in a sentence why epkit cannot cache what is compiled with these options, or ""."""
        return ""

    def fingerprint(self, device: Device | None) -> Sequence[str]:
        """List what makes compiled files stale beside model, options and ONNX Runtime: libraries, driver, processor.

        Where this is empty, the provider's own `fingerprint` counts.
        """
        return ()


@dataclass(frozen=True, slots=True)
class GraphCapture:
    """How a provider captures the kernels of a run as a graph and replays it: `GraphCapture("enable_cuda_graph")`.

    `option` is the switch among its options; `gpu_graph_id` in each run's options chooses the graph.
    """

    option: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider cannot do, as found by trying: `Limits(unsupported_types=("string",), concurrency="free")`.

    For a plugin library the worst is assumed until it is declared otherwise.
    """

    unsupported_types: tuple[str, ...] = ()
    """Tensor types that it takes and then crashes on: a model that has one is not opened on it."""
    narrowed_types: Mapping[str, str] = field(default_factory=dict)
    """Tensor types that it computes in a narrower one: `{"int64": "int32"}`; larger numbers are refused, and the report
    says so."""
    concurrency: Concurrency | None = None
    """How many runs may be under way at once; None: `free`, and for a plugin library `per-process`."""
    validates_output_shape: bool | None = None
    """Whether it refuses an output buffer of another shape than the result's; None: yes, and for a plugin library no.

    Where it does, a binding allocates its output buffers once and reuses them; else ONNX Runtime allocates in each run.
    """


@dataclass(frozen=True, slots=True)
class Proof:
    """A tiny model, one input and the output it must give. The numbers are exact in fp16 and TF32."""

    model: bytes
    input: tuple[float, ...]
    output: tuple[float, ...]
    input_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How epkit proves in a child process that a provider computes: `SelfTest(networks=("mlp",), timeout_s=120)`."""

    networks: tuple[Network, ...] = ("convolutions", "mlp")
    """The kinds of network that it is for: the self-test runs a tiny one of the first, `epkit.testing` one of each."""
    proof: Proof | None = None
    """A better tiny model than epkit's own of its kind of network, where a provider needs one."""
    timeout_s: float = 60.0
    """How long the proof may take before it counts as hanging."""
