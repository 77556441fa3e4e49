"""Texts side by side in rows, read without padding, and what is read off each text.

Rows have one width in all calls whose longest texts are alike, and so few programs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from rlcd_jax import progress_bar
from rlcd_jax.job import batching, in_flight, packed_batches, setup
from rlcd_jax.scoring import reading
from rlcd_jax.training import packing, row_arrays

Ids = Sequence[int]


def made_for(longest: int) -> int:
    """Return the tokens that a text may have in rows for texts of up to `longest`."""
    return batching.rising_lengths(longest)[-1]


def read_ends(
    job: setup.Job,
    program: Callable[..., jax.Array],
    texts: Sequence[Ids],
    *,
    longest: int = 0,
    what: str = "",
) -> np.ndarray:
    """Return what a program gives at the last token of each text.

    Args:
      job: of the stage, whose mesh is set.
      program: (tokens, segments [N, W], on the devices) -> [N, W, …].
      texts: one at least, as ids.
      longest: text that rows are made for, in tokens; 0: as `made_for` says
        of these.
      what: what is done, for a progress bar; "": none is shown.

    Returns:
      [len(texts), …].
    """
    rows, out = _read(
        job,
        program,
        [packing.Text(ids) for ids in texts],
        ("tokens", "segments"),
        longest=longest,
        what=what,
    )
    return out.reshape(-1, *out.shape[2:])[rows["ends"][:, 0]]


def read_states(
    job: setup.Job,
    program: Callable[..., jax.Array],
    texts: Sequence[packing.Text],
    *,
    what: str = "",
) -> np.ndarray:
    """Return the sum of what a program gives at the states of each text.

    Args:
      job: of the stage, whose mesh is set.
      program: (tokens, segments [N, W], states [N, C], on the devices) -> [N, C].
      texts: any number.
      what: what is done, for a progress bar; "": none is shown.

    Returns:
      [len(texts)] float32; 0 of a text without a state.
    """
    if not texts:
        return np.zeros((0,), np.float32)
    rows, out = _read(
        job, program, texts, ("tokens", "segments", "states"), longest=0, what=what
    )
    return np.sum(out.reshape(-1)[rows["at"]], axis=1, where=rows["counted"])


def _read(
    job: setup.Job,
    program: Callable[..., jax.Array],
    texts: Sequence[packing.Text],
    names: Sequence[str],
    *,
    longest: int,
    what: str,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the rows of texts, `reading.rows_at` at once, and a program's results."""
    longest = longest or made_for(max(text.length for text in texts))
    width, rows_at = packing.row_width(longest), reading.rows_at(job)
    most = max(len(text.wanted) for text in texts)
    wanted = max(1, most) if "states" in names else 0
    packer = packed_batches.make_packer(
        job, longest=longest, parts=1, width=width, wanted=wanted
    )
    examples = [[text] for text in texts]
    places, ends = packer.place(examples), [0]
    while (left := places.size.rows - ends[-1]) > 0:
        ends.append(ends[-1] + rows_at(width, left))
    states = packing.stepped_states(places.size.states, width)
    rows = row_arrays.fill(
        packer, examples, places, packing.Size(ends[-1], width, states)
    )
    parts = [np.split(rows[name], ends[1:-1]) for name in names]
    read, out = np.searchsorted(np.sort(places.rows[:, 0]), ends), []
    with contextlib.ExitStack() as stack:
        bar = progress_bar.Progress(what, len(texts), unit="texts") if what else None
        if bar:
            stack.enter_context(bar)
        said = (
            program(*reading.placed(job, *part)) for part in zip(*parts, strict=True)
        )
        for index, one in enumerate(in_flight.fetched(job.mesh, said)):
            out.append(one)
            if bar:
                bar.advance(int(read[index + 1] - read[index]))
    return rows, np.concatenate(out)
