"""Judges: which of two replies is better, and the table that says so for a system.

`judges` is the one table of judges; those behind an interface are asked through
`chat_api`, with budget, secrets and answers in rooms of their own. Nothing here loads a
model: a judge that needs one gets its scores as a function.
"""
