"""How fast this machine does the work of a run: measured here, in one process.

What lives here: one module for each kind of work, which measures it in turns with what
it is compared to, the settings they share, and `measuring`, from flags to figures. What
may not: argument parsing, print, and imports of other frameworks. A peer is a function
from the size of a batch to seconds.
"""
