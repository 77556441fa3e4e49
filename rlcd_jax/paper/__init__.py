"""The paper's tables: its figures, Appendix N, the graph of runs, recipes and tables.

What lives here: the published figures, the closed forms of Appendix N, which runs each
method and table needs, the cached graph that makes each of them once, what they may
cost, and how their results become a table beside the paper's.

What may not live here: the logic of a stage (a node calls one), numbers of the grid,
seeds and scales (they are a config, `configs/paper.py`), and how a method's config is
made, which is passed in.
"""
