"""From a config to what a stage works with.

What lives here reads config fields and returns what the floors below take as plain
numbers. What may not: the method itself, and the order of a stage's work.
"""
