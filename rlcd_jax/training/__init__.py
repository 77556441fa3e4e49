"""How parameters change: losses, optimizers, and one update of a state.

Pure functions of arrays; no model, no config, no file. What is compiled and sharded is
made of them in `job`.
"""
