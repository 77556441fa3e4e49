"""One LLaMA in several roles: parameters by a table, one forward, heads, the cache.

Pure functions of parameters and arrays. No file, no config, no sampling.
"""
