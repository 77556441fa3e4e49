"""What of a job's log is shown: what this project says, and everybody's warnings."""

from __future__ import annotations

import logging

CHATTY = ("orbax", "jax")  # packages that say much at the level of information


def is_shown(record: logging.LogRecord) -> bool:
    """Say whether a line of the log is shown; a filter of a handler."""
    others = any(f"/{name}/" in record.pathname for name in CHATTY)
    return record.levelno >= logging.WARNING or not others
