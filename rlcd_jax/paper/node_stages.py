"""What is done in each node: the library's stages, and the choice of a policy."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from rlcd_jax import (
    checkpoint,
    done_mark,
    processes,
    record_files,
    records,
    stages,
    tasks,
)
from rlcd_jax.job import workspace
from rlcd_jax.judging import api_judge, chat_api, verdicts
from rlcd_jax.pairs import counting, work_parts
from rlcd_jax.paper import graph, held_out_replies, label_accuracy, relabel_pairs
from rlcd_jax.ppo import choosing
from rlcd_jax.preference import best_of, model
from rlcd_jax.stages import (
    distill_context,
    evaluate_policy,
    simulate_pairs,
    train_directly,
)

CHOSEN = "chosen"  # link to the policy that a select node chose
# What later nodes read of a finished stage's checkpoints. The rest, moments and value
# model, is four fifths of the disk that a grid of policies would take.
KEPT = {
    "preference": model.ITEM,
    "distill": distill_context.ITEM,
    "direct": train_directly.ITEM,
    "policy": choosing.ITEM,
}


def _stage(name: str) -> Callable[[graph.Node, pathlib.Path], Mapping[str, Any]]:
    """Return a stage of the library as the function of a node."""

    def run(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
        summary = stages.STAGES[name].run(node.config, place)
        if name in KEPT:
            folder = workspace.stage_folder(place, name) / "checkpoints"
            checkpoint.keep_items(folder, (KEPT[name],))
        return summary

    return run


def relabel(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Label the pairs of the parent anew."""
    source = place / "source" / "pairs.jsonl"
    shots = node.settings["shots"]
    return relabel_pairs.relabel_pairs(node.config, place, source, shots=shots)


def join(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Put the pairs of all parents together."""
    rows = [
        row
        for name, _, _ in node.links
        for row in record_files.read_jsonl(place / name / "pairs.jsonl", records.Pair)
    ]
    folder = workspace.stage_folder(place, "simulate")
    if processes.is_writer():
        record_files.write_jsonl(folder / "pairs.jsonl", rows)
    return counting.summarise(rows, [])


def tune(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Score one policy's replies to dev prompts by its own preference model."""
    summary = _answer(node, place, node.config.name, node.settings["part"])
    answers = held_out_replies.read_answers(place)
    scored = held_out_replies.reward(node.config, place, place, answers)
    return {**summary, "reward": scored["mean"]}


def select(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Choose the policy with the highest mean reward; of equal ones the first."""
    grid = node.settings["grid"]
    rewards = [
        done_mark.read_summary(place / f"tune_{number}")["reward"]
        for number in range(len(grid) if len(grid) > 1 else 0)
    ]
    best = max(range(len(rewards)), key=lambda n: rewards[n]) if rewards else 0
    graph.link(place / CHOSEN, place / f"policy_{best}")
    kl, steps = grid[best]
    summary = {"kl_coef": kl, "steps": steps, "grid": grid, "rewards": rewards}
    if processes.is_writer():
        record_files.write_json(place / "chosen.json", summary)
    return summary


def sample(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Sample one system's replies to the test prompts."""
    return _answer(node, place, node.settings["system"], node.settings["part"])


def judge(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Compare two systems by the letters of a local model."""
    answers = _both(place)
    flips = {}
    for name, question in node.settings["questions"].items():
        path = place / f"verdicts-{name}.jsonl"
        if not processes.agreed(f"{name} is judged", path.exists()):
            judged = held_out_replies.judge_locally(
                node.config, answers, question, node.settings["judge"]
            )
            if processes.is_writer():
                record_files.write_jsonl(path, judged)
            processes.barrier(f"{place.name}: {name} is judged")
        judged = record_files.read_jsonl(path, verdicts.Verdict)
        flips[name] = sum(verdict.flips for verdict in judged)
    return {"prompts": len(answers) // 2, "flips": flips}


def judge_api(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Compare two systems by a model behind an HTTP interface; one process asks it."""
    return processes.by_writer(lambda: _ask_api(node, place))


def _ask_api(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    api: chat_api.ChatApi = node.free["api"]  # of all nodes; what is its own is told
    calls, spent, cut = api.calls, api.spent, api.cut
    samples = evaluate_policy.as_samples(_both(place))
    asked = node.settings["questions"]
    unparsed = {}
    for name, question in asked.items():
        judged = api_judge.compare(
            samples,
            api,
            question=question,
            judge=node.settings["judge"],
            both_orders=node.settings["both_orders"],
            wording=tasks.JudgeWording(**node.settings["wording"]),
        )
        record_files.write_jsonl(place / f"verdicts-{name}.jsonl", judged)
        unparsed[name] = sum(verdict.unparsed for verdict in judged)
    return {
        "calls": api.calls - calls,
        "spent": api.spent - spent,
        "cut": api.cut - cut,
        "unparsed": unparsed,
    }


def pair_rewards(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Reward pairs by the linked preference model."""
    human = node.settings["human"]
    return label_accuracy.reward_pairs(node.config, place, human=human)


def reply_rewards(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Reward final replies by the held-out preference model."""
    answers = held_out_replies.read_answers(place / "samples")
    return held_out_replies.reward(node.config, place, place, answers)


def perplexity(node: graph.Node, place: pathlib.Path) -> Mapping[str, Any]:
    """Measure how a language model is surprised by final replies."""
    answers = held_out_replies.read_answers(place / "samples")
    return held_out_replies.perplexity(node.config, place, answers)


NODES: dict[str, Callable[[graph.Node, pathlib.Path], Mapping[str, Any]]] = {
    **{name: _stage(name) for name in stages.STAGES},
    "relabel": relabel,
    "join": join,
    "tune": tune,
    "select": select,
    "sample": sample,
    "judge": judge,
    "judge_api": judge_api,
    "pair_rewards": pair_rewards,
    "reply_rewards": reply_rewards,
    "perplexity": perplexity,
}


def make_part(
    root: str | pathlib.Path, node: graph.Node, part: work_parts.WorkPart
) -> bool:
    """Draw one part of a node of pairs, and make the node if all parts are there now.

    Args:
      root: folder of the graph.
      node: of the stage simulate.
      part: which blocks of prompts are drawn.

    Returns:
      Whether the node is made.

    Raises:
      ValueError: the node is of another stage.
    """
    if node.stage != "simulate":
        raise ValueError(
            f"node {graph.name_of(node)} is of stage {node.stage}, which has no parts; "
            "accepted with --part: a node of the stage simulate"
        )
    if not graph.is_done(root, node):
        place = graph.prepare(root, node)
        if simulate_pairs.simulate_part(node.config, place, part) is None:
            return False
        graph.make_one(root, node, NODES)
    return True


def _answer(
    node: graph.Node, place: pathlib.Path, system: str, part: str
) -> Mapping[str, Any]:
    """Sample replies of the linked system, or of the base model without a link.

    The best of several has a link to the preference model that ranks them.
    """
    linked = place / "system"
    checkpoints: evaluate_policy.System = None
    if linked.is_symlink():
        checkpoints = choosing.find_policy(linked)
    elif system == best_of.NAME:
        checkpoints = best_of.BestOf(node.config.evaluate.best_of, place)
    return held_out_replies.answer(
        node.config, place, system=system, checkpoints=checkpoints, part=part
    )


def _both(place: pathlib.Path) -> list[Any]:
    """Return the replies of the two linked systems; write them for people too."""
    answers = [
        answer
        for name in ("first", "second")
        for answer in held_out_replies.read_answers(place / name)
    ]
    if processes.is_writer():
        record_files.write_jsonl(place / held_out_replies.SAMPLES, answers)
    return answers
