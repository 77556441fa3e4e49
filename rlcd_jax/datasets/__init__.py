"""Data sets: human pairs of hh-rlhf, and a run's simulated pairs, as TFDS builders.

`preparing` makes a prepared copy once, keyed by the content of its source; `parts`
keeps a text out of two parts of a run. Nothing here knows a config or a task.
"""
