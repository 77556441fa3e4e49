"""From a config to mesh, model, tokenizer and data, and to the refusals of all stages.

What a stage starts from lives here. What only one stage does, and anything that knows
a loss or a judge, does not.
"""
