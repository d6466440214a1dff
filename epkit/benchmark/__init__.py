"""Measure several targets on one model, side by side.

A call to `bench.bench`, followed: `session.request` and `cases` decide which targets take part and on which inputs; a
`candidate_run` runs alone first (`pilot`), then in `rounds` of fresh processes, in which `schedule` decides which
candidates run in a round and `budget` how long that may take. `process` starts a process, `worker` is its inside. What
happened goes into the `record`, which is a `document` in the making; `statistics.verdicts` follow from it alone.

Everything else reads documents: `report` renders them, `audit` recomputes, compares and warns.
"""
