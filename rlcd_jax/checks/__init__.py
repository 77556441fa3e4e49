"""Whether a run can go through, told before its first stage makes anything.

`fields` is the one table of what each field of a config accepts, `rules` are of fields
that go together, `supplies` of what is read; `refusals` asks them all and says what to
change. Nothing here makes, draws or trains anything, and no stage asks it.
"""
