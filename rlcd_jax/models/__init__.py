"""The models package of rlcd_jax."""
