"""The stages package of rlcd_jax."""
