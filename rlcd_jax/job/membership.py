"""While a command works it is one process of its job: the only one, or one of many."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rlcd_jax.job import facts, hosts, joining, signals, tpu_metadata


@contextlib.contextmanager
def one_of_its_job(
    config: Mapping[str, Any],
    workdir: str | os.PathLike[str],
    asked: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    start_seconds: float,
    lost_seconds: float,
    say: Callable[..., None],
    end: joining.End,
) -> Iterator[None]:
    """Be a process of a job inside the context, and hear signals that ask to leave.

    Must be entered before JAX has looked for devices.

    Args:
      config: of the command, as a nested dict.
      workdir: its folder.
      asked: further flags that say what the command does.
      environ: variables, and the flags that stand for some of them; see `hosts.find`.
      start_seconds: see `joining.joined`.
      lost_seconds: see `joining.joined`.
      say: is told, as a format and its values, what happens to the job.
      end: see `joining.joined`.

    Raises:
      ValueError: the processes of the job cannot be told, are missing, or differ.
    """
    members = hosts.find(tpu_metadata.beside(environ))
    together: contextlib.AbstractContextManager = contextlib.nullcontext()
    if members:
        say(
            "%s of %d, by %s",
            members.name(members.index),
            members.count,
            members.source,
        )
        together = joining.joined(
            members,
            facts.gather(config, workdir, asked),
            start_seconds=start_seconds,
            lost_seconds=lost_seconds,
            say=say,
            end=end,
        )
    with signals.heard(say), together:
        yield
