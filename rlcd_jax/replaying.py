"""Draws one pair, or one reply of PPO, again from its provenance, and compares it.

A draw depends on its request alone: the seed, the prompt, the side and the try for a
pair; the seed, the prompt and its place for a reply to a dev prompt, and the weights of
that step. So what a run has written can be made again by itself, and a difference says
that files, weights or programs are not those of the run.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import checkpoint, record_files, records, schema
from rlcd_jax.diagnosis import run_diagnostics
from rlcd_jax.job import roles, setup, trained_form, workspace
from rlcd_jax.ppo import acting, choosing
from rlcd_jax.stages import simulate_pairs

NAMED = 5  # ids that a message shows
# Of a line of samples; the score is of the preference model, which reads all replies of
# a step together.
DRAWN = ("prompt_id", "prompt", "reply", "finish")


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What was drawn again.

    Attributes:
      what: a name for people.
      place: file and line of what the run has written.
      written: that line, as JSON.
      drawn: the same, drawn again.
    """

    what: str
    place: str
    written: str
    drawn: str

    @property
    def is_same(self) -> bool:
        """Whether all bytes agree."""
        return self.written == self.drawn

    def report(self) -> str:
        """Return what came of it, for people: the fields that differ, if any do."""
        if self.is_same:
            size = len(self.drawn.encode())
            return f"{self.what}: drawn again, all {size} bytes as in {self.place}"
        before, now = json.loads(self.written), json.loads(self.drawn)
        names = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        lines = [f"{self.what}: drawn again, and not as in {self.place}"]
        for name in names or ["the order of fields"]:
            lines.append(f"  {name}: was {before.get(name)!r}, now {now.get(name)!r}")
        return "\n".join(lines)


def replay_pair(workdir: pathlib.Path, pair_id: str) -> Replayed:
    """Draw and label one pair of a run again.

    Args:
      workdir: of the run.
      pair_id: the field `id` of a line of `pairs/pairs.jsonl`.

    Raises:
      ValueError: there is no such pair, or its prompt is not in the run's data now.
    """
    config, _ = run_diagnostics.read_config(workdir)
    path = workspace.stage_folder(workdir, "simulate") / "pairs.jsonl"
    rows = _rows(path, records.Pair)
    number, written = _find([row.id for row in rows], pair_id, "pair", path)
    row = rows[written]
    job = setup.load_job(config, role=roles.GENERATOR)
    asked = [
        prompt
        for prompt in simulate_pairs.run_prompts(config)[0]
        if (prompt.id, prompt.draw) == (row.prompt_id, row.draw)
    ]
    if not asked:
        raise ValueError(
            f"{path}:{number}: prompt {row.prompt_id!r} is not among the run's prompts "
            "now; restore the task's prompts, or the source that config.json names"
        )
    drawn = simulate_pairs.drawer(job)(asked)
    same = [pair for pair in drawn.pairs if pair.id == pair_id]
    again = schema.to_dict(same[0]) if same else {"dropped": _shown(drawn.dropped)}
    return Replayed(
        f"pair {pair_id}", f"{path}:{number}", _line(schema.to_dict(row)), _line(again)
    )


def replay_sample(workdir: pathlib.Path, name: str) -> Replayed:
    """Draw one reply of a checkpoint of PPO again.

    Args:
      workdir: of the run.
      name: "STEP/LINE": the step, and the line of `policy/samples/STEP.jsonl` from 1.

    Raises:
      ValueError: there is no such line, or the weights of that step are not kept.
    """
    step, line = _step_and_line(name)
    config, _ = run_diagnostics.read_config(workdir)
    folder = workspace.stage_folder(workdir, "policy")
    path = folder / "samples" / f"{step:06d}.jsonl"
    rows = _rows(path, dict)
    if not 1 <= line <= len(rows):
        raise ValueError(f"{path} has {len(rows)} lines, and no line {line}")
    job = setup.load_job(config)
    policy = _policy(job, folder, step)
    actor = acting.Actor(job)
    asked = actor.dev_prompts[line - 1]
    (sampled,) = actor.generate(policy, [asked], step=0, first=line - 1)
    again = {
        "prompt_id": asked.id,
        "prompt": asked.text,
        "reply": actor.shown(sampled.reply),
        "finish": sampled.reply.finish,
    }
    written = {name: rows[line - 1].get(name) for name in DRAWN}
    what = f"reply {line} of step {step}"
    return Replayed(what, f"{path}:{line}", _line(written), _line(again))


def _policy(job: setup.Job, folder: pathlib.Path, step: int) -> Any:
    """Return the policy of a step, from the checkpoints or the chosen weights."""
    places = (folder / choosing.CHECKPOINTS, folder / choosing.CHOSEN)
    kept: list[int] = []
    for place in places:
        steps = checkpoint.whole_steps(place)
        if step in steps:
            return trained_form.restore(job, place, choosing.ITEM, step)
        kept += steps
    raise ValueError(
        f"the weights of step {step} are not kept any more; those of "
        f"{', '.join(map(str, sorted(set(kept)))) or 'no step'} are. More stay with "
        "--config.keep_checkpoints when the run is made"
    )


def _rows(path: pathlib.Path, cls: type) -> list[Any]:
    if not path.is_file():
        raise ValueError(
            f"{path} is not there; give the --workdir of a run that has it"
        )
    return record_files.read_jsonl(path, cls)


def _find(
    ids: Sequence[str], wanted: str, what: str, path: pathlib.Path
) -> tuple[int, int]:
    """Return line and index of an id."""
    if wanted not in ids:
        shown = ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
        raise ValueError(f"{path} has no {what} {wanted!r}; it has {shown or 'none'}")
    index = ids.index(wanted)
    return index + 1, index


def _step_and_line(name: str) -> tuple[int, int]:
    step, slash, line = name.partition("/")
    if not (slash and step.isdecimal() and line.isdecimal()):
        raise ValueError(
            f"sample {name!r}; accepted: STEP/LINE, such as 40/1 for the first line of "
            "policy/samples/000040.jsonl"
        )
    return int(step), int(line)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _shown(dropped: Sequence[records.Dropped]) -> list[str]:
    return [f"side {one.side}: {one.reason}" for one in dropped]
