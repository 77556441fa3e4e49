"""Memory, time and cost of every stage, beforehand: no weights, devices or results.

What lives here: chips, the programs that each stage will run, what they hold, how long
they take, what to change where they do not fit, and the compiler's own figures.

What may not live here: a copy of a size that other code decides. A plan calls the code
that allocates (the parameter tables, the trainers, the makers of batches, the shape of
the decode engine), so that neither can change without the other.
"""
