"""The configs package of rlcd_jax."""
