"""Pairs of replies: from a prompt to two clean replies with a label, and their texts.

What lives here: contrast prompts, the draws of a prompt, clean-up, labels, the grid of
the paper, the texts that are trained on. Nothing here imports JAX, reads a config or
knows which model writes: it is passed in as a function.
"""
