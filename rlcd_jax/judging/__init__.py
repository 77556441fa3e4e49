"""What it takes to ask a judge behind an interface: money, secrets, what it answered.

Nothing here knows a task, a stage or a config, and nothing here imports JAX.
"""
