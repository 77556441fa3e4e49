"""Data sets: human pairs of hh-rlhf, and a run's simulated pairs, as TFDS builders."""
