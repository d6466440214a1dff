"""Do the outputs of several targets agree on one model, and if not, where do they part?

A call to `comparison.compare`, followed: `side` runs each target in a process of its own (its inside is `worker`),
`agreement` measures the outputs (`metrics`) and judges them (`tolerance`). Where they differ, `tracing` finds the first
tensor that does, `conditioning` how far rounding alone would move it, and `result` is the document that comes out.
`saved` judges outputs that were written before.
"""
