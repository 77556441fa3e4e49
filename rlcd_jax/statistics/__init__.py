"""Figures with intervals, and the tables that show them.

Nothing here draws without a seed, imports JAX, or knows what the figures are of.
"""
