"""The first thing that a report says: did it work, by how much, and what is unknown.

Each finding is a figure with its interval, or the reason why there is none yet. The
verdict reads the interval of the win rate over the base model and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlcd_jax import stages
from rlcd_jax.judging import evaluation_table, regression_table
from rlcd_jax.report import reading, sections
from rlcd_jax.statistics.estimates import Missing

YES, NO, OPEN, UNKNOWN = "yes", "no", "open", "unknown"
EVEN = 0.5
WINS, KL = " win rate", "KL, nats a reply"  # ends of columns of the evaluation's table
DEV_KL, ROLLOUT_KL = "dev/kl_sum_mean", "rollout/kl_sum_mean"  # metrics of PPO
DEV_REWARD, ROLLOUT_REWARD = "dev/reward_mean", "rollout/reward_mean"
SKIPPED = "optimizer/skipped"
LEARNERS = {  # stages that say how right they are
    "preference": "Preference accuracy",
    "direct": "Accuracy of the policy's own rewards",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One figure of the answer.

    Attributes:
      what: it is of.
      figure: as text; "": not known.
      interval: around it, as text; "": none.
      note: what it rests on, or why it is not known.
      value: the figure as a number, for comparisons; None: not known.
    """

    what: str
    figure: str
    interval: str
    note: str
    value: float | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """Whether a run worked.

    Attributes:
      verdict: YES, NO, OPEN (the interval includes an even chance) or UNKNOWN.
      line: the verdict in words.
      findings: win rates, KL, accuracy, reward.
      cautions: what speaks against trusting them.
      cost: what alignment cost, in a sentence; "" where it was not measured.
    """

    verdict: str
    line: str
    findings: tuple[Finding, ...]
    cautions: tuple[str, ...]
    cost: str = ""


def answer(run: reading.Run) -> Answer:
    """Return whether a run worked, as far as its files say."""
    row = _policy_row(run)
    wins = [] if isinstance(row, Missing) else _wins(row)
    verdict, line = _verdict(row, wins)
    findings = wins or [_unknown("Win rate over base", _reason(row))]
    findings += [_divergence(run, row), _accuracy(run)]
    if reward := _reward(run):
        findings.append(reward)
    cautions = tuple(_cautions(run))
    return Answer(verdict, line, tuple(findings), cautions, _cost(run, row))


def _cost(run: reading.Run, row: dict[str, Any] | Missing) -> str:
    """Return what alignment cost the run's own policy; "" where it is not known."""
    if isinstance(row, Missing) or isinstance(run.regression, Missing):
        return ""
    return regression_table.cost(run.regression[0], row["name"])


def win_rate(run: reading.Run) -> Mapping[str, Any] | None:
    """Return the estimate that the verdict reads, or None without one."""
    row = _policy_row(run)
    if isinstance(row, Missing):
        return None
    return next((cell for _, cell in _win_cells(row)), None)


def _policy_row(run: reading.Run) -> dict[str, Any] | Missing:
    """Return the row of the run's own policy in the evaluation's table."""
    if isinstance(run.tables, Missing):
        return Missing(why_not(run, "evaluate") or run.tables.reason)
    name = None if isinstance(run.config, Missing) else run.config.get("name")
    rows = [
        row
        for table in run.tables
        for row in table["rows"]
        if row["name"] != evaluation_table.BASE
    ]
    own = [row for row in rows if row["name"] == name]
    if not rows:
        return Missing("only the base model was evaluated")
    return (own or rows)[-1]


def why_not(run: reading.Run, name: str) -> str:
    """Say why a stage has left nothing to read; "": it is finished."""
    stage = run.stage(name)
    if stage.state == "finished":
        return ""
    if stage.state == "begun":
        return f"the stage {name} is begun and not finished{_progress(run, name)}"
    if stage.state == "planned":
        return f"the stage {name} has not begun"
    return f"this run has no stage {name}"


def _progress(run: reading.Run, name: str) -> str:
    """Return how far a stage has come, by its metrics."""
    rows = [] if isinstance(run.metrics, Missing) else run.metrics
    steps = [row["step"] for row in rows if row["stage"] == name]
    if not steps:
        return ""
    config = {} if isinstance(run.config, Missing) else run.config
    section = config.get(stages.STAGES[name].section)
    asked = section.get("steps") if isinstance(section, Mapping) else None
    of = f" of {asked}" if isinstance(asked, int) else ""
    return f": step {max(steps)}{of}"


def _wins(row: Mapping[str, Any]) -> list[Finding]:
    """Return the win rate over the base model by each judge."""
    return [
        Finding(
            f"Win rate over base, by {judge}",
            f"{100 * cell['value']:.1f} %",
            f"[{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]",
            _rests_on(cell, "prompts"),
            100 * cell["value"],
        )
        for judge, cell in _win_cells(row)
    ]


def _win_cells(row: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (name.removesuffix(WINS), cell)
        for name, cell in row["cells"].items()
        if name.endswith(WINS) and sections.is_estimate(cell)
    ]


def _verdict(row: Mapping[str, Any] | Missing, wins: list[Finding]) -> tuple[str, str]:
    """Return what the interval of the first judge's win rate says, in words."""
    if isinstance(row, Missing):
        return UNKNOWN, f"Not measured yet: {row.reason}."
    if not wins:
        return (
            UNKNOWN,
            f"Not measured: no judge compared {row['name']} with the base model.",
        )
    judge, cell = _win_cells(row)[0]
    name = row["name"]
    told = f"{wins[0].figure} {wins[0].interval} of its replies win, by {judge}"
    if cell["low"] > EVEN:
        return YES, f"Yes: {name} is better than the base model. {told}."
    if cell["high"] < EVEN:
        return NO, f"No: {name} is worse than the base model. {told}."
    if cell["low"] == cell["high"]:
        return OPEN, f"Not shown that {name} is better: on no prompt is it preferred."
    told = f"{told}, and the interval includes 50 %; more prompts narrow it"
    return OPEN, f"Not shown that {name} is better than the base model. {told}."


def _divergence(run: reading.Run, row: Mapping[str, Any] | Missing) -> Finding:
    """Return how far the policy is from the base model."""
    what = "KL from base, nats a reply"
    cell = None if isinstance(row, Missing) else row["cells"].get(KL)
    if sections.is_estimate(cell):
        interval = f"[{cell['low']:.2f}, {cell['high']:.2f}]"
        note = _rests_on(cell, "prompts")
        return Finding(what, f"{cell['value']:.2f}", interval, note, cell["value"])
    for name, of in ((DEV_KL, "dev replies"), (ROLLOUT_KL, "rollouts")):
        if found := _last(run, name):
            step, value = found
            note = f"{of} of step {step}; not evaluated"
            return Finding(what, f"{value:z.2f}", "", note, value)
    return _unknown(what, _reason(row))


def _accuracy(run: reading.Run) -> Finding:
    """Return how often the preference model, or the policy itself, is right."""
    asked = [n for n in LEARNERS if run.stage(n).state != "not part of this run"]
    if not asked:
        reason = "this run trains no preference model"
        return _unknown(LEARNERS["preference"], reason)
    name = asked[0]
    summary = run.stage(name).summary
    if isinstance(summary, Missing):
        return _unknown(LEARNERS[name], why_not(run, name) or summary.reason)
    value = summary.get("held_out_accuracy")
    if value is None:
        return _unknown(LEARNERS[name], "no held-out pair has a label that decides")
    if not sections.is_estimate(value):
        return Finding(
            LEARNERS[name], f"{100 * value:.1f} %", "", "held-out pairs", 100 * value
        )
    interval = f"[{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
    note = _rests_on(value, "held-out pairs")
    figure = f"{100 * value['value']:.1f} %"
    return Finding(LEARNERS[name], figure, interval, note, 100 * value["value"])


def _reward(run: reading.Run) -> Finding | None:
    """Return where PPO's reward came from and got to; None where no PPO ran."""
    for name, of in ((ROLLOUT_REWARD, "rollouts"), (DEV_REWARD, "dev replies")):
        rows = [] if isinstance(run.metrics, Missing) else run.metrics
        rows = [row for row in rows if row["stage"] == "policy" and name in row]
        if rows:
            first, last = rows[0], rows[-1]
            last_value = last[name]
            span = f"steps {first['step']} to {last['step']}, {of}"
            note = f"from {first[name]:z.2f}; {span}"
            what = "Reward of the policy"
            return Finding(what, f"{last_value:z.2f}", "", note, last_value)
    return None


def _last(run: reading.Run, name: str) -> tuple[int, float] | None:
    rows = [] if isinstance(run.metrics, Missing) else run.metrics
    found = [(row["step"], row[name]) for row in rows if name in row]
    return found[-1] if found else None


def _cautions(run: reading.Run) -> list[str]:
    """Return what is unfinished, and updates that came to nothing."""
    told = []
    for stage in run.stages:
        if stage.state == "begun":
            told.append(f"Not finished: {stage.name}{_progress(run, stage.name)}.")
        if skipped := _skipped(run, stage):
            told.append(
                f"{stage.name}: {skipped:g} updates were skipped, because their "
                "gradient was not finite; the training diverged there."
            )
    return told


def _skipped(run: reading.Run, stage: reading.StageState) -> float:
    """Return how many updates came to nothing: by the summary, else by the metrics."""
    if not isinstance(stage.summary, Missing):
        known = stage.summary.get("skipped_updates", 0)
        return known if isinstance(known, int | float) else 0
    rows = [] if isinstance(run.metrics, Missing) else run.metrics
    return sum(row.get(SKIPPED, 0) for row in rows if row["stage"] == stage.name)


def _rests_on(cell: Mapping[str, Any], what: str) -> str:
    return f"n = {sections.show(cell['num'])} {what}" if "num" in cell else ""


def _unknown(what: str, reason: str) -> Finding:
    return Finding(what, "", "", reason)


def _reason(row: Mapping[str, Any] | Missing) -> str:
    return row.reason if isinstance(row, Missing) else "the table has no such figure"
