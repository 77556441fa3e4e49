"""The preference model as a library: its pairs, their ids, its loss and its rewards.

Training it is a stage; PPO, evaluation and the tables read it from here, so that equal
texts get equal rewards wherever they are scored.
"""
