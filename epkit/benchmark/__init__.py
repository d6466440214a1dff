"""How do several targets compare on one model, side by side?

A call to `measure.bench`, followed: `epkit.candidates` and `cases` say who takes part, and on which inputs; a
`contender` runs alone first (`pilots`), then in `rounds` of fresh processes, in which `sweeps` say who meets whom and
`budget` how long that may take. A process is a `runner`, its inside `worker`. What happened goes into the `record`,
which is a `document` in the making; `findings` follow from it alone, by way of `quantiles` and `scores`.

Everything else reads documents: `wording` and `sections` put them into words and tables for the terminal, `markdown`
and `page`; `verification` works them out again, `change` compares two, `doubts` says what speaks against one.
"""
