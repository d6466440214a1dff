"""What would a benchmark measure on a machine whose noise is known?

Makes up the blocks that epkit's engine would record: by its own passes, with fresh processes in every round, on a
machine that drifts, has neighbours, and gives each process its own luck. Time passes as on a real one: a run that meets
a busy neighbour ends later, and so do all that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from epkit.benchmark.document import Block
from epkit.benchmark.schedule import BLOCK_S, PASSES, PROCESSES, STEADY_S, draw_pass

STEP_S = 0.001
"""How finely the speed of the machine is drawn."""
SWITCH_S = 0.0003
"""From the end of a block to the beginning of the next."""
STARTING_S = 10.0
"""From the end of a round to the first pair of the next."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's noise, and what is measured on it. Amplitudes are shares: 0.01 is 1 %."""

    words: str
    run_s: float = 0.004
    """A typical run of candidate 0."""
    candidates: int = 2
    processes: int = PROCESSES
    """Fresh processes of each candidate in a round."""
    lost: int = 0
    """Processes of the last candidate that are missing in each round."""
    noise: float = 0.01
    """Spread of single runs, independent of each other."""
    tail: float = 0.01
    """The share of runs that something interrupts, for half of their time on average."""
    drift: float = 0.05
    """By how much the speed wanders within a second (a random walk)."""
    sine: float = 0.03
    """And how far it swings, every few seconds."""
    ripple: float = 0.02
    """Noise that neighbouring runs share, over a tenth of a second."""
    bursts_per_s: float = 0.2
    """How often a neighbour wakes up, for 10 to 500 ms."""
    burst: float = 2.0
    """How much longer runs take meanwhile."""
    luck: float = 0.006
    """How far processes are apart for as long as they live."""
    unlucky: float = 0.0
    """The share of processes that are slower by `unlucky_by` for as long as they live."""
    unlucky_by: float = 0.03
    second: float = 0.0045
    """How much quicker a block is that is not the first of its pair."""
    cold_s: tuple[float, ...] = (2e-4, 7e-5, 1e-5)
    """What the first runs of a block take longer, after another process had the caches."""
    clock_s: float = 1e-9
    """To what the clock rounds."""


MACHINES = {
    "quiet": Machine("little drift, no neighbours", drift=0.01, sine=0.01, ripple=0.005, bursts_per_s=0),
    "usual": Machine("drift, ripples, now and then a neighbour"),
    "busy": Machine("15 % of drift a second, many neighbours", drift=0.15, sine=0.08, ripple=0.05, bursts_per_s=1.5),
    "bursty": Machine("neighbours a third of the time", bursts_per_s=3.0, burst=2.5),
    "bimodal": Machine("a quarter of processes 3 % slower", unlucky=0.25),
    "halved": Machine("half of the processes 3 % slower", unlucky=0.5),
    "microseconds": Machine("runs of 130 us, a clock of 0.1 us", run_s=1.3e-4, clock_s=1e-7),
    "long runs": Machine("runs of 200 ms, one a block", run_s=0.2),
    "three candidates": Machine("three candidates", candidates=3),
    "four processes": Machine("four processes a round", processes=4),
    "two processes": Machine("two processes a round", processes=2),
    "unequal": Machine("eight processes beside three", lost=5),
}


class Noise:
    """One machine from one seed: its speed as time goes by, and the luck of the processes that are started."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.chance = np.random.default_rng(seed)
        self.now = 0.0
        self._clock = np.zeros(1)
        self._work = np.zeros(1)
        self._walk = 0.0
        self._phase = self.chance.uniform(0, 2 * np.pi)

    def luck(self, count: int) -> np.ndarray:
        """Return how much longer than usual each of so many new processes takes."""
        machine, chance = self.machine, self.chance
        unlucky = np.where(chance.random(count) < machine.unlucky, np.log1p(machine.unlucky_by), 0.0)
        return np.exp(chance.normal(0, machine.luck, count) + unlucky)

    def block(self, run_s: float, seconds: float) -> tuple[float, ...]:
        """Run for so long, once at least, and return the seconds of each run."""
        machine, chance = self.machine, self.chance
        expected = int(seconds / run_s) + 2
        cold = np.zeros(expected)
        first = machine.cold_s[:expected]
        cold[: len(first)] = first
        work = run_s * np.exp(chance.normal(0, machine.noise, expected)) + cold
        interrupted = np.flatnonzero(chance.random(expected) < machine.tail)
        work[interrupted] += run_s * chance.exponential(0.5, len(interrupted))
        self._draw(self.now + 20 * float(work.sum()))
        done = np.interp(self.now, self._clock, self._work) + np.concatenate([[0.0], np.cumsum(work)])
        ends = np.interp(done, self._work, self._clock)
        runs = max(1, min(expected, int(np.searchsorted(ends[1:], self.now + seconds)) + 1))
        times = np.diff(ends[: runs + 1])
        self.now = float(ends[runs]) + SWITCH_S
        ticks = np.maximum(np.round(times / machine.clock_s), 1)
        return tuple((ticks * machine.clock_s).tolist())

    def _draw(self, until: float) -> None:
        """Draw the speed of the machine as far as that: how much work is done by each moment."""
        if self._clock[-1] >= until:
            return
        machine, chance = self.machine, self.chance
        steps = int(max(until - self._clock[-1], 12.0) / STEP_S) + 1
        clock = self._clock[-1] + STEP_S * np.arange(1, steps + 1)
        walk = self._walk + np.cumsum(chance.normal(0, machine.drift * STEP_S**0.5, steps))
        self._walk = float(walk[-1])
        wide = 100
        sums = np.concatenate([[0.0], np.cumsum(chance.normal(0, machine.ripple, steps + wide))])
        slow = walk + machine.sine * np.sin(clock + self._phase) + (sums[wide:-1] - sums[: -wide - 1]) / wide**0.5
        for _ in range(chance.poisson(machine.bursts_per_s * steps * STEP_S)):
            start, length = chance.integers(steps), np.exp(chance.uniform(np.log(10), np.log(500)))
            slow[start : start + int(length)] += np.log(machine.burst)
        work = self._work[-1] + np.cumsum(STEP_S * np.exp(-slow))
        self._clock, self._work = np.append(self._clock, clock), np.append(self._work, work)


def round_of_blocks(noise: Noise, round_number: int, effects: Sequence[float], first_process: int) -> list[Block]:
    """Start fresh processes and let them meet, pass by pass, for the seconds of a round.

    `effects` tells how many times as long as candidate 0 each candidate takes. The processes of candidate 0 come first,
    from `first_process` on, then those of candidate 1, and so on.
    """
    machine = noise.machine
    candidates, processes = range(machine.candidates), machine.processes
    typical = [machine.run_s * effects[one] * noise.luck(processes) for one in candidates]
    random = Random(int(noise.chance.integers(1 << 32)))
    blocks: list[Block] = []
    end = noise.now + STEADY_S * machine.candidates
    number = pairs = 0
    while noise.now < end or number < PASSES:
        for pair in draw_pass(candidates, processes, 1, random):
            for position, (candidate, its) in enumerate(pair.turns):
                if candidate == machine.candidates - 1 and its < machine.lost:
                    continue
                run_s = float(typical[candidate][its]) * (1 - machine.second * (position > 0))
                samples = noise.block(run_s, BLOCK_S)
                process = first_process + candidate * processes + its
                blocks.append(Block(round_number, number, pairs, 0, process, None, 0, sum(samples), samples))
            pairs += 1
        number += 1
    noise.now += STARTING_S
    return blocks
