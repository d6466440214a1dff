"""Compare the outputs of several targets on one model, and find the first tensor that differs.

A call to `compare.compare`, followed: `process` runs each target in a process of its own (its inside is `worker`),
`agreement` measures the outputs (`metrics`) and judges them (`tolerance`). Where they differ, `divergence` finds the
first tensor that does, `conditioning` how far rounding alone would move it, and `result` is the document that comes
out. `saved` judges outputs that were written before.
"""
