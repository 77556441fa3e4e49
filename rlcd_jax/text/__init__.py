"""Texts before they are tokens: where the turns of a dialogue begin and end.

No jax, no model, no task: what is here needs a text alone.
"""
