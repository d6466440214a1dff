"""Measure several targets on one model, side by side.

The steps of `bench.bench`: `session.request` and `cases` choose the targets and the inputs; each candidate
(`candidate_run`) runs alone first (`pilot`), then all of them in `rounds` of fresh processes, planned by `schedule`.
`process` controls a worker process, `worker` is its entry point. `run` collects the measurements and writes the
`document`; `statistics.verdicts` computes the findings from it alone.

Everything else reads documents: `report` renders them, `audit` recomputes, compares and warns.
"""
