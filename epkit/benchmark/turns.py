"""Who runs when?

All candidates are alive at once, each in a process of its own and blocked on its pipe, and exactly one runs. Drift of
the machine then hits all of them alike: short blocks of runs alternate, in rounds in which each candidate has one turn.
Rounds come in pairs, the second in the opposite order of the first, so that nobody is favoured by a place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from epkit.benchmark.contender import Contender
from epkit.candidates import Feed

Progress = Callable[[str, float], None]

STEADY_SHARE = 0.5
STEADY_MOST_S = 10.0
GETTING_READY = 0.4
"""The share of the progress bar that stands for getting ready."""


@dataclass(frozen=True, slots=True)
class Budget:
    """When what has to be over, on the monotonic clock."""

    started: float
    seconds: float

    @property
    def steady_s(self) -> float:
        """How long is measured, all candidates together: half of the budget, and 10 s at most."""
        return min(self.seconds * STEADY_SHARE, STEADY_MOST_S)

    @property
    def ready_by(self) -> float:
        """When all candidates have to be ready."""
        return self.started + self.seconds - self.steady_s

    @property
    def over(self) -> float:
        """When the benchmark has to be over."""
        return self.started + self.seconds


def get_ready(
    contenders: Sequence[Contender],
    model: Mapping[str, object],
    config: object,
    feed: Feed,
    folder: Path,
    budget: Budget,
    random: Random,
    progress: Progress,
) -> None:
    """Open, run for the first time, and warm up one candidate after the other, in random order.

    Each may take half of the time that is left, the last one all of it: a slow one gets what the quick ones did not
    need, and one that hangs does not take it all.
    """
    waiting = [one for one in contenders if one.fault is None]
    random.shuffle(waiting)
    for position, one in enumerate(waiting):
        now = time.monotonic()
        last = position == len(waiting) - 1
        until = now + (budget.ready_by - now) * (1.0 if last else 0.5)
        told = GETTING_READY * position / len(waiting)
        progress(f"opening {one.candidate.name}", told)
        one.open(model, config, feed, until - time.monotonic())
        progress(f"warming up {one.candidate.name}", told + GETTING_READY * 0.7 / len(waiting))
        one.warm(until - time.monotonic())
        one.give_outputs(str(outputs_file(folder, contenders.index(one))), until - time.monotonic())


def outputs_file(folder: Path, position: int) -> Path:
    """Return where the candidate at a position leaves its outputs."""
    return folder / f"outputs-{position}.npz"


def take_turns(
    contenders: Sequence[Contender], budget: Budget, random: Random, progress: Progress
) -> tuple[tuple[int, ...], ...]:
    """Measure, and return the order of each round; the first one lets things settle.

    Rounds go on in pairs until the time for measuring is spent; none is begun that would not be over within the budget,
    but the first two.
    """
    began = time.monotonic()
    rounds: list[tuple[int, ...]] = []
    took = 0.0
    for order in _rounds(len(contenders), random):
        now = time.monotonic()
        turns = tuple(position for position in order if contenders[position].fault is None)
        spent = now - began >= budget.steady_s and len(rounds) % 2 == 1
        if not turns or (len(rounds) > 1 and (spent or now + took > budget.over)):
            break
        progress("measuring", GETTING_READY + (1 - GETTING_READY) * min(1.0, (now - began) / budget.steady_s))
        for position in turns:
            one = contenders[position]
            # A run may take long once in a while; one that takes twenty times the longest so far is hanging.
            one.block(min(max(5.0, 20 * one.longest_s), budget.over - time.monotonic()))
        took = time.monotonic() - now
        rounds.append(turns)
    for one in contenders:
        one.finish(budget.over - time.monotonic())
    return tuple(rounds)


def orders(count: int, random: Random) -> Iterator[tuple[int, ...]]:
    """Yield orders for ever, in pairs: a random one, and the same backwards."""
    positions = list(range(count))
    while True:
        random.shuffle(positions)
        yield tuple(positions)
        yield tuple(reversed(positions))


def _rounds(count: int, random: Random) -> Iterator[tuple[int, ...]]:
    yield tuple(range(count))
    yield from orders(count, random)
