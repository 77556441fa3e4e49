"""What a run is like: readings of its pairs, wording, label noise, over-optimisation.

What lives here: measurements of what a run has left, and their tables.

What may not live here: anything that a stage's result depends on. What is measured
here changes no pair, no model and no score.
"""

FOLDER = "diagnostics"  # of a run, beside those of its stages
AFFIXES = "affixes"  # stem of the file with what the contrast did, affix by affix
