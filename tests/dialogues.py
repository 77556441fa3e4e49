"""Turns and a dialogue that several test files share."""

from rlcd_jax import records


def human(text):
    return records.Turn("human", text)


def assistant(text):
    return records.Turn("assistant", text)
