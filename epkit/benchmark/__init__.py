"""How do several targets compare on one model, side by side?

A call to `measure.bench`, followed: `epkit.candidates` decides who takes part, `contender` gives each a process of its
own (its inside is `worker`), `turns` lets exactly one of them run at a time, `figures` and `epkit.parity` say what the
samples and the outputs show, and `result` is the document that comes out.
"""
