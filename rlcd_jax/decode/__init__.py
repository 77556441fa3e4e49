"""The decode package of rlcd_jax."""
