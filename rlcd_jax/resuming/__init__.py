"""Whether a run that is killed ends as one that is not, tried many times.

What lives here: when a child process dies, the child itself, and the comparison of two
workdirs. What may not: anything of how a run saves or goes on, which is what is tried.
"""
