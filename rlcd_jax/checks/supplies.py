"""Whether what a run reads is there and suffices: prompts, pairs, other runs.

Nothing is generated and no weights are read; counts are of what can come at most.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import checkpoint, done_mark, jsonl, record_files, records, tasks
from rlcd_jax.checks import long_texts, rules
from rlcd_jax.datasets import hh_rlhf_files
from rlcd_jax.job import (
    lengths,
    prompt_parts,
    roles,
    setup,
    trained_form,
    trainer,
    workspace,
)
from rlcd_jax.judging import judges
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.models import llama, table
from rlcd_jax.pairs import draws, few_shots, grid, scored_labels
from rlcd_jax.ppo import choosing, weighted_rewards
from rlcd_jax.preference import best_of, model
from rlcd_jax.stages import POLICIES, STAGES


@dataclasses.dataclass(frozen=True)
class Look:
    """What the checks of the data look at.

    Attributes:
      config: of the run.
      jobs: by role, with its model; none: not on this machine.
      workdir: folder of the run, or None.
      stages: whose data must suffice.
      left: those that are about to run.
    """

    config: ConfigDict
    jobs: Mapping[str, setup.Job]
    workdir: str | pathlib.Path | None
    stages: Sequence[str]
    left: Sequence[str]

    @property
    def job(self) -> setup.Job | None:
        """The job with any of the models, for what has none; None: there is none."""
        return next(iter(self.jobs.values()), None)

    def job_of(self, stage: str) -> setup.Job:
        """Return the job of a stage that is about to run, with its own model."""
        return self.jobs[STAGES[stage].roles[0]]

    def folder(self, stage: str) -> pathlib.Path | None:
        """Return the folder of a stage, where there is a workdir."""
        if self.workdir is None:
            return None
        return workspace.stage_folder(self.workdir, stage)

    @property
    def task(self) -> tasks.Task:
        """The task of the run."""
        return self.job.task if self.job else setup.load_task(self.config)

    @functools.cached_property
    def test_prompts(self) -> list[records.Prompt]:
        """The prompts to evaluate, read once."""
        return prompt_parts.load_prompts(self.config, self.task, "test")


def sources(look: Look) -> Iterator[str]:
    """Yield what the stages about to run would miss of other stages and runs."""
    config, left = look.config, look.left
    if _readers(config, left) and "simulate" not in left and look.workdir is not None:
        path = look.folder("simulate") / "pairs.jsonl"
        if not path.exists():
            yield f"{path} does not exist; {_again(look, 'simulate')}"
    read = [name for name in POLICIES if name in config.evaluate.systems]
    ranks = "evaluate" in left and best_of.NAME in config.evaluate.systems
    needs = ["preference"] * ("policy" in left or ranks) + read * ("evaluate" in left)
    for stage in needs if look.workdir is not None else ():
        where = look.folder(stage) / "checkpoints"
        if stage not in left and checkpoint.latest_step(where) is None:
            yield f"{where} holds no checkpoint; {_again(look, stage)}"
    for stage in left if look.workdir is not None else ():
        if not trainer.has_moments(look.folder(stage) / "checkpoints"):
            yield (
                f"{look.folder(stage)} cannot go on: it has no DONE mark now, and the "
                "moments of its last checkpoint went when it was done "
                "(keep_moments=False); delete that folder to train anew"
            )
    if "policy" in left:
        yield from _rewards_of_others(look)
    if "evaluate" in left:
        yield from _other_runs(look)
        yield from _judge_key(look)
    compare = [name for name in left if STAGES[name].texts == 2]
    if compare:
        yield from _others(look, compare)


def _again(look: Look, stage: str) -> str:
    """Return how what a stage leaves comes to be there."""
    if (look.folder(stage) / done_mark.DONE).exists():
        return (
            f"the stage is marked as done, so delete {look.folder(stage)} and run "
            f"--stage={stage} again"
        )
    return f"run --stage={stage} first"


def chat_formats(look: Look) -> Iterator[str]:
    """Yield that a model would read texts in the chat format of another.

    What scores pairs is shown dialogues without it.
    """
    if look.task.format != "chat":
        return
    known = dict.fromkeys(role for one in look.left for role in STAGES[one].all_roles)
    known.pop(roles.SCORER, None)
    first, *others = (
        look.jobs.get(role) or look.job.of(role)
        for role in known
        if role != roles.JUDGE or role in look.jobs
    )
    for other in others:
        if _written(other) != _written(first):
            fields, specs = (
                [of(look.config.model, job.role) for job in (first, other)]
                for of in (roles.field_of, roles.spec_of)
            )
            yield (
                f"{fields[0]}={specs[0]!r} and {fields[1]}={specs[1]!r} have other "
                "chat templates, so that in the chat format one would read the marks "
                "of the other as words; set task_format='dialogue', or name models of "
                "one template"
            )
            return


def _written(job: setup.Job) -> tuple[str, Any]:
    """Return a dialogue in the chat format of a job's model, and how a reply ends."""
    turns = [records.Turn("human", "a"), records.Turn("assistant", "b")]
    text = job.text_tokenizer.chat([*turns, records.Turn("human", "c")])
    return text, job.chat_turn


def _other_runs(look: Look) -> Iterator[str]:
    """Yield what an evaluation would miss of other runs, or could not take of them."""
    config, cfg = look.config, look.job_of("evaluate").cfg
    for entry in config.evaluate.checkpoints:
        folder = pathlib.Path(entry.partition("=")[2])
        said = f"evaluate.checkpoints has {entry!r}"
        try:
            where = choosing.find_policy(folder)
        except ValueError as error:
            yield f"{said}: {error}"
            continue
        if checkpoint.latest_step(where) is None:
            yield (
                f"{said}: {folder} holds no checkpoint; accepted: 'name=folder' with "
                "the folder RUN/policy/checkpoints of a finished run"
            )
        else:
            yield from _of_this_model(said, where, choosing.ITEM, cfg)
    if "preference" in config.evaluate.judges:
        run = config.evaluate.preference_judge
        said = f"evaluate.preference_judge={run!r}"
        where = workspace.stage_folder(run, "preference") / "checkpoints"
        if checkpoint.latest_step(where) is None:
            yield (
                f"{said}: {where} holds no checkpoint; accepted: the workdir of a run "
                "with a trained preference model"
            )
        else:
            cfg = look.jobs[roles.PREFERENCE].cfg
            yield from _of_this_model(said, where, model.ITEM, cfg)


def _judge_key(look: Look) -> Iterator[str]:
    """Yield that a judge behind an interface lacks its key, where the run is to be."""
    config = look.config
    if judges.API not in config.evaluate.judges or look.workdir is None:
        return
    _, missing = api_settings.read(config.judge, "", api_settings.key())
    if missing:
        yield (
            f"evaluate.judges has {judges.API!r}: {missing}; set it, or "
            "judge.offline=True where all was asked before"
        )


def _rewards_of_others(look: Look) -> Iterator[str]:
    """Yield which preference models of other runs are no part of a reward here."""
    for one in weighted_rewards.read(look.config.policy.rewards):
        said = f"policy.rewards has {one.name!r}={one.run!r}"
        folder = workspace.stage_folder(one.run, "preference")
        where = folder / "checkpoints"
        if not (folder / done_mark.DONE).exists():
            yield (
                f"{said}: {folder} holds no finished preference model; accepted: the "
                "workdir of a run whose stage preference is done"
            )
        elif checkpoint.latest_step(where) is None:
            yield f"{said}: {where} holds no checkpoint; restore it"
        else:
            cfg = look.jobs[roles.PREFERENCE].cfg
            yield from _of_this_model(said, where, model.ITEM, cfg)
            yield from _of_these_texts(said, one.run, look)


def _of_these_texts(said: str, run: str | pathlib.Path, look: Look) -> Iterator[str]:
    """Yield that a run wrote dialogues, or made tokens of them, in another way."""
    path, own = pathlib.Path(run, "config.json"), look.task
    if not path.is_file():
        yield f"{said}: {path} does not exist, which says what its model reads"
        return
    config = jsonl.read_object(path)
    other = tasks.load_task(config["task"])
    if config.get("task_format"):
        other = tasks.with_format(other, config["task_format"])
    for name in ("format", "human_marker", "assistant_marker"):
        if getattr(other, name) != getattr(own, name):
            yield (
                f"{said}: its dialogues have {name} {getattr(other, name)!r}, and "
                f"those of this run {getattr(own, name)!r}; name a run that has the "
                "same"
            )
    own_spec, spec = (
        roles.spec_of(one, roles.PREFERENCE)
        for one in (look.config.model, config["model"])
    )
    if spec == own_spec:
        return
    theirs = ConfigDict(look.config.to_dict())
    theirs.model.preference = spec
    read = setup.load_job(theirs, role=roles.PREFERENCE).text_tokenizer
    if not read.is_like(look.jobs[roles.PREFERENCE].text_tokenizer):
        yield (
            f"{said}: its model {spec!r} has another tokenizer than that of this run, "
            f"{own_spec!r}; name a run of a model with the same one"
        )


def _of_this_model(
    said: str, where: pathlib.Path, item: str, cfg: llama.LlamaConfig
) -> Iterator[str]:
    """Yield that the latest checkpoint of a folder is of another model."""
    step = checkpoint.latest_step(where)
    try:
        adapters = trained_form.saved(where, step).adapters
        specs = trained_form.table_of(cfg, adapters, item)
        checkpoint.check(where, step, {item: table.abstract_params(specs)})
    except ValueError as error:
        yield f"{said}: {error}"


def _others(look: Look, compare: Sequence[str]) -> Iterator[str]:
    """Yield what is missing of pairs that are not the run's own."""
    section, task = look.config.preference, look.job.task
    agree = section.human_pairs * ("preference" in compare)
    people = agree or section.human_share or section.data == "hh_rlhf"
    if people and not task.hh_config:
        yield (
            f"human pairs are asked for, and task {task.name!r} has no hh-rlhf subset; "
            "set preference.human_pairs=0, preference.human_share=0 and "
            "preference.data='pairs'"
        )
        return
    if people:
        hh_rlhf_files.local_files(task.hh_config, look.config.prompts.hh_dir)
    if people or section.data != "pairs":
        for stage in compare:
            yield from long_texts.others(look.job_of(stage), stage)


def counts(look: Look) -> Iterator[str]:
    """Yield where prompts and pairs are too few for what is asked of them."""
    config, job = look.config, look.job
    about = look.left if job else look.stages
    if "simulate" in about:
        task, cells = look.task, grid.cells_of(config.pairs)
        for sampling in dict.fromkeys(cell.sampling for cell in cells):
            if told := draws.too_many(task, sampling, config.pairs.samples):
                yield told
                return
        if grid.asks(config.pairs):
            yield from _questions(config, task)
    # A plan does not fetch what only a run needs.
    readable = job is not None or config.prompts.source != "hh_rlhf"
    train: list[records.Prompt] = []
    if readable and {"simulate", "policy"} & {*about}:
        train = prompt_parts.load_prompts(config, look.task, "train")
        if not train:
            yield "no prompt belongs to the part train; give more in prompts.source"
            return
    if train and "simulate" in about:
        yield from _from_prompts(look, train)
    else:
        yield from _from_pairs(look)
    if train and "policy" in about and job:
        room = config.policy.prompt_tokens
        own = look.job_of("policy")
        tokens = long_texts.sizes(own, train[: long_texts.LOOKED])
        yield from long_texts.limit(tokens, len(train), "policy.prompt_tokens", room)
        yield from _dev_prompts(look)
    if readable and "evaluate" in about:
        if not look.test_prompts:
            yield (
                "no prompt belongs to the part test, so nothing could be evaluated; "
                "give more prompts in prompts.source, or a larger share of test in the "
                "task"
            )


def _questions(config: ConfigDict, task: tasks.Task) -> Iterator[str]:
    """Yield what is missing of the questions about pairs and their solved examples."""
    section = config.pairs
    if told := scored_labels.too_many(task, section.instructions):
        yield told
    if few_shots.human_count(section.shots):
        if not task.hh_config:
            yield (
                f"pairs.shots={section.shots!r}: task {task.name!r} has no hh-rlhf "
                "subset; set pairs.shots='task' or name a file of solved examples"
            )
        else:
            hh_rlhf_files.local_files(task.hh_config, config.prompts.hh_dir)
        return
    few_shots.known_of(section, task)


def _from_prompts(look: Look, train: Sequence[records.Prompt]) -> Iterator[str]:
    """Yield which stages can get too little of the pairs of these prompts."""
    config = look.config
    num, left = config.pairs.samples_per_prompt * len(train), {}
    if look.job is not None:
        drawn, told = long_texts.simulated(look.job_of("simulate"), train)
        yield from told
        if not (num := drawn.num):
            return
        for stage in _learners(config, look.left):
            texts, told = long_texts.trained_on(look.job_of(stage), stage, drawn)
            yield from told
            if not told:
                left[stage] = texts * _rows_a_draw(config, stage)
    yield from _rows(look, num * rules.pairs_a_draw(config), num, left)


def _from_pairs(look: Look) -> Iterator[str]:
    """Yield which stages have too little of the pairs that there are."""
    about = look.left if look.job else look.stages
    reading, folder = _learners(look.config, about), look.folder("simulate")
    if not reading or folder is None or not (folder / "pairs.jsonl").exists():
        return
    rows = record_files.read_jsonl(folder / "pairs.jsonl", records.Pair)
    left = {}
    if look.job is not None:
        left = {
            name: long_texts.pairs_left(look.job_of(name), name, rows)
            for name in reading
        }
    yield from _rows(look, len(rows), len({*map(records.key_of, rows)}), left)


def _readers(config: ConfigDict, names: Collection[str]) -> list[str]:
    """Return which of the stages read the run's own pairs."""
    human = config.preference.data != "pairs"
    return [
        stage.name
        for stage in STAGES.values()
        if stage.name in names
        and "simulate" in stage.reads
        and not (human and stage.texts == 2)
    ]


def _rows_a_draw(config: ConfigDict, name: str) -> int:
    """Return the rows that a stage has of a draw: pairs or rankings, or one reply."""
    if STAGES[name].texts == 1:
        return 1
    return rules.pairs_a_draw(config) // rules.pairs_a_row(config, name)


def _learners(config: ConfigDict, names: Collection[str]) -> list[str]:
    """Return which of the stages are trained on the run's own pairs."""
    return [name for name in _readers(config, names) if STAGES[name].supervised]


def _rows(look: Look, pairs: int, rows: int, left: Mapping[str, int]) -> Iterator[str]:
    """Yield which stages have too few rows for a batch.

    Args:
      look: at what is there.
      pairs: of the run, at most.
      rows: draws that they are of.
      left: rows of a stage that are not over its lengths, at most; without a stage:
        not known.
    """
    config = look.config
    group = config.pairs.samples_per_prompt * rules.pairs_a_draw(config)
    short = {name for name, rows in left.items() if rows < config[name].batch_size}
    for stage in (STAGES[name] for name in look.stages):
        if stage.texts == 2 and config.preference.data == "pairs":
            most = pairs
            if rules.pairs_a_row(config, stage.name) > 1:  # of a ranking that lost some
                most = rows * rules.pairs_a_draw(config)
            told = list(rules.too_few_pairs(config, stage.name, most, group))
            yield from told
            short -= {stage.name} if told else set()
    for stage in (STAGES[name] for name in look.stages):
        field = f"{stage.section}.{stage.batch}"
        if stage.texts == 1 and rows < (size := config[stage.section][stage.batch]):
            short -= {stage.name}
            yield (
                f"{stage.name}: {rows} training rows are fewer than one batch of "
                f"{field}={size}; lower it, or take more pairs"
            )
    for name in sorted(short):
        yield (
            f"{name}: {left[name]} of at most {pairs} pairs are not over "
            f"{name}.lengths[-1]={config[name].lengths[-1]}, fewer than one batch of "
            f"{name}.batch_size={config[name].batch_size}; "
            f"{long_texts.advice(config, name)}, take more pairs, or lower the batch"
        )


def positions(look: Look) -> Iterator[str]:
    """Yield which texts of a stage have more tokens than the model reads."""
    for stage in (name for name in look.left if STAGES[name].roles):
        longest, job = 0, look.job_of(stage)
        if stage == "evaluate":
            longest = max(long_texts.sizes(job, look.test_prompts), default=0)
        try:
            lengths.check(job, stage, longest)
        except ValueError as error:
            yield str(error)


def _dev_prompts(look: Look) -> Iterator[str]:
    """Yield that PPO has no prompts to choose a checkpoint by."""
    section, job = look.config.policy, look.job_of("policy")
    if not section.dev_prompts:
        return
    dev = prompt_parts.load_prompts(look.config, look.task, "dev", limit=0)
    room = section.prompt_tokens
    fits = sum(size <= room for size in long_texts.sizes(job, dev))
    if section.choose == choosing.DEV_SCORE and not fits:
        yield (
            "policy.choose='dev_score' but no prompt of the part dev fits in "
            f"policy.prompt_tokens={room}; raise it, give prompts with such a part, or "
            "set policy.choose='last'"
        )
    elif fits < min(len(dev), section.dev_prompts):
        told = "policy.prompt_tokens=%d leaves %d of %d dev prompts, of %d asked for"
        logging.info(told, room, fits, len(dev), section.dev_prompts)
