"""What goes wrong, and when? A class for each fault, on top of whatever provider really computes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NoReturn

from pydantic import Field

from epkit.discovery.proof import proof_of
from epkit.provider import Availability, Options, PluginLibrary, Provider, SelfTest, Usable, WarmupNeed
from epkit_faulty.disguise import CPU, OWNER, allow_cpu, entry, rename, takers, took_node, was_forbidden
from epkit_faulty.sessions import Changed, Failing, Leaking, Slowed, any_nan, off

SOON = 3.0
"""The time limit of a proof that hangs, in seconds."""


class Fault(Provider):
    """One fault: what it does before the proof, before a model is opened, and to the session of one."""

    kind: ClassVar[str]
    """The end of its name."""
    _runtime: ModuleType

    def probe(self) -> Availability:
        """Say what will go wrong."""
        below = super().probe()
        return Usable((self.__doc__ or "").strip()) if isinstance(below, Usable) else below

    def before_proof(self) -> None:
        """Do this before the tiny model is opened."""

    def before_model(self) -> None:
        """Do this before any other model is opened."""

    def around(self, session: Any, options: Options) -> Any:  # noqa: ARG002
        """Return what to use in place of the session of a model of which this provider took a node."""
        return session

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:
        """Add what this fault stands over."""
        self._runtime = runtime
        super().add(runtime, session_options, sent, devices)

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:
        """Let the fault happen, where it is one of opening or of runs."""
        proves = self.proves(model)
        if proves:
            self.before_proof()
        else:
            self.before_model()
        session = super().open(model, options, create)
        taken = not proves and took_node(session, self.ort_name, model)
        return self.around(session, options) if taken else session

    def proves(self, model: str | bytes) -> bool:
        """Whether it is the tiny model of the proof that is opened."""
        return model == proof_of(self).model

    def hint(self, cause: str) -> str:  # noqa: ARG002
        """Say that nothing is broken."""
        return f"{self.name} fails on purpose: name another provider"

    def error(self, told: str) -> Exception:
        """Return an error of ONNX Runtime's class, in its form."""
        fail: type[Exception] = self._runtime.capi.onnxruntime_pybind11_state.Fail
        return fail(f"[ONNXRuntimeError] : 1 : FAIL : {told}")

    def out_of_memory(self) -> Exception:
        """Return what ONNX Runtime raises when an operator gets no memory."""
        return self.error(
            "Non-zero status code returned while running MatMul node. Name:'' Status Message: "
            "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::"
            "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
            "Failed to allocate memory for requested buffer of size 281474976710656\n"
        )


class Nothing(Fault):
    """Nothing goes wrong: for comparison."""

    kind = "none"


# -- before a session exists


class ProbeSlow(Fault):
    """Its probe takes two seconds."""

    kind = "probe-slow"

    def probe(self) -> Availability:
        """Take two seconds."""
        time.sleep(2)
        return super().probe()


class ProbeHangs(Fault):
    """Its probe never answers."""

    kind = "probe-hangs"
    self_test = SelfTest(timeout_s=SOON)

    def probe(self) -> Availability:
        """Never answer."""
        hang()


class ProbeCrashes(Fault):
    """Its probe ends the process with a segmentation fault."""

    kind = "probe-crashes"

    def probe(self) -> Availability:
        """Crash."""
        crash()


class MissingLibrary(PluginLibrary):
    """A plugin library that is not there."""

    def path(self) -> Path:
        """Name a file that is not there."""
        return Path("/no/such/folder/libfaulty.so.1")


class LibraryMissing(Fault):
    """Its plugin library is not there."""

    kind = "library-missing"
    library = MissingLibrary()


class ProofCrashes(Fault):
    """Opening the tiny model of the proof is a segmentation fault."""

    kind = "proof-crashes"

    def before_proof(self) -> None:
        """Crash."""
        crash()


class ProofHangs(Fault):
    """Opening the tiny model of the proof never ends."""

    kind = "proof-hangs"
    self_test = SelfTest(timeout_s=SOON)

    def before_proof(self) -> None:
        """Never return."""
        hang()


class CreationFails(Fault):
    """Opening a model fails; its proof was fine."""

    kind = "creation-fails"

    def before_model(self) -> None:
        """Fail."""
        raise self.error(f"{self.name} opens no model but that of its proof")


class CreationCrashes(Fault):
    """Opening a model is a segmentation fault: with `isolate_open` not in this process."""

    kind = "creation-crashes"

    def before_model(self) -> None:
        """Crash."""
        crash()


class CreationHangs(Fault):
    """Opening a model never ends: with `isolate_open` it is ended."""

    kind = "creation-hangs"

    def before_model(self) -> None:
        """Never return."""
        hang()


class NoNode(Fault):
    """It takes no node of any model."""

    kind = "no-node"

    def add(self, runtime: ModuleType, session_options: Any, sent: Mapping[str, str], devices: Sequence[Any]) -> None:  # noqa: ARG002
        """Add nothing."""
        allow_cpu(session_options)  # which takes the nodes of the proof

    def open(self, model: str | bytes, options: Options, create: Callable[[], Any]) -> Any:  # noqa: ARG002
        """Say that the CPU's nodes are its own, in the proof; else hold to what was said of the CPU."""
        session = create()
        said = session.get_session_options()
        if self.proves(model):
            rename(session, self.ort_name)
        elif was_forbidden(said) and not entry(said, OWNER) and CPU in takers(session):
            raise RuntimeError("nodes are left over, but fallback to CPU EP has been explicitly disabled by the user.")
        return session


# -- in warm-up


class NotANumber(Fault):
    """Every run gives NaN, which warm-up finds."""

    kind = "nan"

    def around(self, session: Any, options: Options) -> Any:  # noqa: ARG002
        """Make every float NaN."""
        return Changed(session, any_nan)


class WarmupMemory(Fault):
    """Every run is out of memory, which warm-up finds."""

    kind = "warmup-memory"

    def around(self, session: Any, options: Options) -> Any:  # noqa: ARG002
        """Fail in every run."""
        return Failing(session, self.out_of_memory)


# -- in runs


class Wrong(Fault):
    """Every number comes out a tenth and one too large, which only a comparison finds."""

    kind = "wrong"

    def around(self, session: Any, options: Options) -> Any:  # noqa: ARG002
        """Change every number."""
        return Changed(session, off)


class SlowOptions(Options):
    """How slow."""

    percent: float = Field(5.0, gt=0, le=100_000)
    """By how many percent a run takes longer (5)."""


class Slow(Fault):
    """Every run takes longer by a few percent, which only a benchmark finds."""

    kind = "slow"
    options = SlowOptions

    def around(self, session: Any, options: Options) -> Any:
        """Wait after each run."""
        assert isinstance(options, SlowOptions)
        return Slowed(session, options.percent / 100)


class MemoryOptions(Options):
    """When."""

    at: int = Field(3, ge=1)
    """Which run of a session is out of memory, from 1 on (3); those of warm-up count."""


class Memory(Fault):
    """One run is out of memory; those before and after it are fine."""

    kind = "memory"
    options = MemoryOptions
    warmup = WarmupNeed(runs=0, why="none, so that the runs are the caller's")

    def around(self, session: Any, options: Options) -> Any:
        """Fail in one run."""
        assert isinstance(options, MemoryOptions)
        return Failing(session, self.out_of_memory, options.at)


class LeakOptions(Options):
    """How much."""

    megabytes: float = Field(1.0, gt=0, le=65_536)
    """Megabytes that each run leaves behind (1)."""


class Leak(Fault):
    """Every run leaves memory behind, until the session is closed."""

    kind = "leak"
    options = LeakOptions

    def around(self, session: Any, options: Options) -> Any:
        """Keep memory after each run."""
        assert isinstance(options, LeakOptions)
        return Leaking(session, int(options.megabytes * 1e6))


FAULTS: Sequence[type[Fault]] = (
    *(Nothing, ProbeSlow, ProbeHangs, ProbeCrashes, LibraryMissing, ProofCrashes, ProofHangs),
    *(CreationFails, CreationCrashes, CreationHangs, NoNode, NotANumber, WarmupMemory),
    *(Wrong, Slow, Memory, Leak),
)


def hang() -> NoReturn:
    """Never return, and keep the interpreter's lock, as a library may that waits for its device."""
    wait: Callable[[], object] = (lambda: time.sleep(3600)) if sys.platform == "win32" else ctypes.PyDLL(None).pause
    while True:
        wait()


def crash() -> NoReturn:
    """End this process as a library does that writes where it must not."""
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # nobody wants to debug this one
        os.kill(os.getpid(), signal.SIGSEGV)
    os.abort()
