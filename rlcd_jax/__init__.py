"""RLCD (reinforcement learning from contrastive distillation) in functional JAX."""

__version__ = "0.1.0"
