"""What do the operators of each candidate take, once it has been measured?"""

from __future__ import annotations

from epkit.benchmark.contest import Contest
from epkit.benchmark.operators.profiler import Task, profile
from epkit.benchmark.process import LEAST_LIMIT_S
from epkit.session.fault import Fault

RUNNING_S = 5.0
"""What the runs with the profiler and without take, beside starting."""
LEAST_RUNS = 6
"""How often it runs at least."""


def profiling_s(contest: Contest) -> float:
    """Return about how long it takes to profile all that take part."""
    return sum(one.starting_s + max(RUNNING_S, LEAST_RUNS * one.run_s) for one in contest.taking_part)


def look_inside(contest: Contest, task: Task) -> None:
    """Profile one candidate after the other, on the first case; one that cannot be profiled keeps its figures."""
    for one in contest.taking_part:
        if one.planned is not None:
            contest.tell(f"profiling {one.name}")
            found = profile(one.planned, task, limit_s=max(LEAST_LIMIT_S, contest.budget.left))
            if isinstance(found, Fault):
                one.notes = (*one.notes, f"its operators could not be profiled: {found.reason}")
            else:
                one.operators = found
