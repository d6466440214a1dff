"""Read the time of each operator of a model, and the provider that runs it, from a profile.

From the profile that ONNX Runtime writes: a JSON list of events in microseconds. `model_run` is one run; a `Node`
event is one node of it, `Kernel` events are what a provider tells of the inside of a part that it compiled.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

COPIES = frozenset({"MemcpyFromHost", "MemcpyToHost"})
"""The nodes that ONNX Runtime puts between providers whose memory lies apart."""
COMPILED = "compiled part"
"""What stands for the operator of a node that a provider made of many."""

_SUFFIX = "_kernel_time"
_EXECUTE = "Executor::Execute"


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the graph as it ran, after ONNX Runtime has optimized it."""

    name: str
    """Its name in the graph."""
    operator: str
    """Its type, such as `Conv`; `compiled part` for one that a provider made of many."""
    provider: str
    """Who ran it."""
    seconds: float
    """Of a run, without the nodes inside of it (If, Loop and Scan have such): the median over the runs."""
    calls: float
    """How often it is called in a run, on average."""
    moved_bytes: int = 0
    """What a copy between two providers moves in a run."""

    @property
    def is_copy(self) -> bool:
        """Whether it is a copy between the memories of two providers."""
        return self.operator in COPIES


@dataclass(frozen=True, slots=True)
class Inside:
    """One type of operator inside of the parts that a provider compiled, by the provider's own account."""

    operator: str
    """Its type, as the provider calls it."""
    provider: str
    """Who compiled the part."""
    seconds: float
    """Of a run, of all threads: the median over the runs."""
    calls: float
    """How often it is called in a run, on average."""


@dataclass(frozen=True, slots=True)
class Operators:
    """What ONNX Runtime's profiler saw of some warm runs, one at a time."""

    runs: int
    """How many were read."""
    first: str
    """The provider that the candidate is about: nodes on another one fell back."""
    run_s: float
    """A run with the profiler: the median."""
    slowdown: float | None
    """How many times as long the quickest run took with the profiler as without it, in the same session."""
    nodes: tuple[Node, ...]
    """Every node that ran."""
    inside: tuple[Inside, ...] = ()
    """What providers tell of the parts that they compiled."""
    crossings: float = 0.0
    """How often a run goes on from a node of one provider to a node of another."""
    launched: tuple[str, ...] = ()
    """The providers that compute on a device with a memory of its own: the time of a node is that of its launch."""
    notes: tuple[str, ...] = ()
    """What there is to know."""


@dataclass(slots=True)
class _Run:
    """What is added up of one run."""

    start: int
    end: int
    seconds: defaultdict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))
    calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    moved: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    inside_seconds: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    inside_calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    order: list[tuple[int, str]] = field(default_factory=list)
    """The start and the provider of each node that is no copy."""

    @property
    def crossings(self) -> int:
        """How often the provider changes, in the order of the starts."""
        providers = [provider for _, provider in sorted(self.order)]
        return sum(a != b for a, b in pairwise(providers))


def read_profile(
    events: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    *,
    first: str,
    last: int,
    plain_s: float | None = None,
    launched: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Operators | None:
    """Read the `last` runs of a profile; those before them were cold. None when no run is complete.

    `names` maps ONNX Runtime's names of providers to epkit's; `plain_s` is the quickest run without the profiler. A
    profile ends in the middle of a run where the model
    has more nodes than ONNX Runtime keeps, a million events.
    """
    whole = sorted((each for each in events if each["name"] == "model_run"), key=lambda each: int(each["ts"]))[-last:]
    runs = [_Run(each["ts"], each["ts"] + each["dur"]) for each in whole]
    if not runs:
        return None
    for own_us, event in _with_own_time(events):
        at = next((run for run in runs if run.start <= event["ts"] <= run.end), None)
        if at is None:
            continue
        arguments = event["args"]
        ort_name = arguments.get("provider") or arguments.get("ep") or ""
        provider = names.get(ort_name, ort_name)
        if event["cat"] == "Kernel":
            kind = str(arguments.get("ov_node_type") or arguments.get("op_name") or event["name"]), provider
            at.inside_seconds[kind] += own_us / 1e6
            at.inside_calls[kind] += 1
            continue
        name, operator = _named(event["name"].removesuffix(_SUFFIX), arguments["op_name"], ort_name)
        key = name, operator, provider
        at.seconds[key] += own_us / 1e6
        at.calls[key] += 1
        if operator in COPIES:
            at.moved[key] += int(arguments.get("output_size") or 0)
        else:
            at.order.append((event["ts"], provider))
    keys = dict.fromkeys(key for run in runs for key in run.calls)
    kinds = dict.fromkeys(kind for run in runs for kind in run.inside_calls)
    return Operators(
        runs=len(runs),
        first=first,
        run_s=statistics.median(each["dur"] for each in whole) / 1e6,
        slowdown=min(each["dur"] for each in whole) / 1e6 / plain_s if plain_s else None,
        nodes=tuple(
            Node(
                *key,
                seconds=statistics.median(run.seconds.get(key, 0.0) for run in runs),
                calls=statistics.fmean(run.calls[key] for run in runs),
                moved_bytes=round(statistics.median(run.moved[key] for run in runs)),
            )
            for key in keys
        ),
        inside=tuple(
            Inside(
                *kind,
                seconds=statistics.median(run.inside_seconds.get(kind, 0.0) for run in runs),
                calls=statistics.fmean(run.inside_calls[kind] for run in runs),
            )
            for kind in kinds
        ),
        crossings=statistics.fmean(run.crossings for run in runs),
        launched=tuple(each for each in launched if any(each == provider for _, _, provider in keys)),
        notes=tuple(notes),
    )


def _with_own_time(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Give each node with its microseconds, less those of the nodes in its subgraphs, which are events of their own.

    Events come in the order of their ends, a subgraph's on the thread of the node that it belongs to, and closed by an
    event of its executor. So a node owns what its thread's executors have closed since it began.
    """
    open_nodes: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    closed: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        thread, start = event.get("tid", 0), event["ts"]
        if event["cat"] == "Kernel":
            yield event["dur"], event
        elif event["name"].endswith(_EXECUTE):
            own = [each for each in open_nodes[thread] if each["ts"] >= start]
            open_nodes[thread] = [each for each in open_nodes[thread] if each["ts"] < start]
            closed[thread].append((start, sum(each["dur"] for each in own)))
        elif event["cat"] == "Node" and event["name"].endswith(_SUFFIX):
            within = sum(taken for began, taken in closed[thread] if began >= start)
            closed[thread] = [each for each in closed[thread] if each[0] < start]
            open_nodes[thread].append(event)
            yield max(0, event["dur"] - within), event
        elif event["name"] == "model_run":
            open_nodes.clear()
            closed.clear()


def _named(name: str, operator: str, ort_name: str) -> tuple[str, str]:
    """Return the name and type of a node; ONNX Runtime names a compiled part after its provider and a checksum."""
    part = re.fullmatch(re.escape(f"{ort_name}_{operator}_") + r"(\d+)", name)
    return (f"part {part[1]}", COMPILED) if part else (name, operator)
