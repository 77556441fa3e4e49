"""Stage 4: what changed, on prompts that no training saw.

Every system answers the same held-out prompts with the same keys; judges compare the
replies. With `evaluate.regression` they also read closed questions and human texts, for
what alignment cost. Leaves `evaluate/samples.jsonl`, `evaluate/verdicts.jsonl` and
`evaluate/table.md` with `table.json`; of the regression suite `regression.jsonl`, and
`regression.md` with `regression.json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import (
    checkpoint,
    done_mark,
    leaving,
    phases,
    processes,
    record_files,
    records,
    schema,
    seeds,
    stages,
    trackers,
)
from rlcd_jax.datasets import human_texts
from rlcd_jax.decode import engine
from rlcd_jax.job import (
    generation,
    lengths,
    prompt_parts,
    roles,
    setup,
    trained_form,
    workspace,
)
from rlcd_jax.judging import (
    asking,
    evaluation_table,
    judges,
    regression_table,
    verdicts,
)
from rlcd_jax.pairs import cut_counts, length_counts, reply_cleanup
from rlcd_jax.ppo import choosing
from rlcd_jax.preference import best_of, data, rewards
from rlcd_jax.scoring import divergence, letters, regression
from rlcd_jax.statistics import tables
from rlcd_jax.text import encoding

Params = Any
# Where a system's policy lies; None: the base model.
System = pathlib.Path | best_of.BestOf | None
CACHED_TOKENS = 1024  # of a slot; a longer prompt makes slots fewer


@dataclasses.dataclass(frozen=True)
class Answer:
    """A system's reply to a held-out prompt; one line of `samples.jsonl`."""

    prompt_id: str
    system: str
    prompt: str
    reply: str
    finish: str
    num_tokens: int = schema.between(0)
    divergence: float  # KL(system || base) along the reply, nats; best of n: a bound
    draw: int | None = schema.between(0, default=None)  # of the prompt; None: one
    # Of so many replies of the base model it scores highest; None: no other was drawn.
    best_of: int | None = schema.between(2, default=None)
    tokens_drawn: int | None = schema.between(0, default=None)  # of all of them

    def __post_init__(self):
        schema.validate(self)


def evaluate_policy(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Sample from all systems of a run, have them judged, and write the table.

    Args:
      config: of the run; section `evaluate`.
      workdir: folder of the run, with the checkpoints of its systems.

    Returns:
      The summary: the table as JSON.
    """
    if workspace.finished(config, workdir, "evaluate"):
        return workspace.summary(workdir, "evaluate")
    started = time.monotonic()
    job = setup.load_job(config)
    chosen, missing = usable_judges(job)
    cleanup(config.evaluate)  # a wrong one is refused before anything is loaded
    systems = find_systems(config, workdir)
    part = prompt_parts.load_part(config, job.task, "test")
    prompts = list(part.prompts)[: config.evaluate.prompts or None]
    check_lengths(job, prompts)
    suite = make_suite(job)
    folder = workspace.begin(config, workdir, "evaluate")
    phases.begin()
    with phases.phase("load"):
        base = job.load_base()
    lost = _read_suite(job, suite, systems, base, folder)
    answers = answer_all(job, systems, base, prompts)
    if processes.is_writer():
        record_files.write_jsonl(folder / "samples.jsonl", answers)
    samples = as_samples(answers)
    own = base if job.is_model_of(roles.JUDGE) else None
    del base  # another judge comes in its place
    api = asking.Asking(config, job.task, workdir, processes.by_writer)
    given = (job, samples, chosen, own, api)
    scores, judged = phases.within("judge", _judge, *given)
    if processes.is_writer():
        record_files.write_jsonl(folder / "verdicts.jsonl", judged)
    model = roles.told(config.model)
    table = evaluation_table.comparison_table(
        answers,
        scores,
        judged,
        caption=f"{config.task}: {model}, {config.name}, {config.size}",
        preference=_preference_note(workdir),
        seed=config.seed,
        level=config.evaluate.interval,
        resamples=config.evaluate.resamples,
        both_orders=config.evaluate.both_orders,
    )
    table = dataclasses.replace(table, notes=(*table.notes, *missing))
    if processes.is_writer():
        tables.write_table(table, folder)
        _track(config, workdir, table, lost)
    cut = {
        f"replies of {name}": cut_counts.by_finish(
            [one.finish for one in answers if one.system == name]
        )
        for name in systems
    }
    cut_counts.note("evaluate", cut)
    summary = {
        "table": tables.as_json(table),
        **({regression_table.STEM: tables.as_json(lost)} if lost else {}),
        "prompts_in_other_parts": part.shared,
        # A prompt over the model's context is refused above, never left out.
        length_counts.SUMMARY: {
            "prompts": length_counts.counts(len(prompts), dropped=0)
        },
        cut_counts.SUMMARY: cut,
        "empty_replies": verdicts.count_empty(samples),
        **({judges.API: api.cost} if judges.API in chosen else {}),
        **phases.take(),
        "seconds": time.monotonic() - started,
    }
    return workspace.finish(config, workdir, "evaluate", summary)


def _track(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    table: tables.Table,
    lost: tables.Table | None,
) -> None:
    """Show the tables to the trackers: numbers, themselves, and where the report is."""
    place = pathlib.Path(workdir)
    report = str((place / trackers.REPORT).absolute())
    texts = {"evaluate/table": tables.markdown(table), "evaluate/report": report}
    with contextlib.closing(
        trackers.Curves(config.trackers, place, "evaluate", None)
    ) as curves:
        own = evaluation_table.figures(table, config.name)
        if lost:
            name = regression_table.STEM
            own |= evaluation_table.figures(lost, config.name, name)
            texts[name] = tables.markdown(lost)
        curves.write(0, own, time.time())
        curves.tell(texts)


def make_suite(job: setup.Job) -> regression.Suite | None:
    """Return what `evaluate.regression` asks all systems to read; None: nothing.

    The human texts are the replies of hh-rlhf that people preferred, in the part
    "test", where the run has them; else those that every installation has.
    """
    config, most = job.config, job.config.evaluate.regression
    if not most:
        return None
    if config.prompts.hh_dir and job.task.hh_config:
        pairs = data.human_pairs(config, job, most, "test")
        texts = [(pair.prompt, f" {pair.chosen.strip()}") for pair in pairs]
        source = f"replies that people preferred, of {job.task.hh_config}"
        return regression.make_suite(job, most, texts, source)
    return regression.make_suite(job, most, human_texts.load(most), human_texts.SOURCE)


def _read_suite(
    job: setup.Job,
    suite: regression.Suite | None,
    systems: Mapping[str, System],
    base: Params,
    folder: pathlib.Path,
) -> tables.Table | None:
    """Return, and leave, the table of what alignment cost; None: it is not asked for.

    The best of several replies is the base model, and is left out.
    """
    if suite is None:
        return None
    policies = {
        name: system
        for name, system in systems.items()
        if not isinstance(system, best_of.BestOf)
    }
    given = (job, suite, policies, base)
    readings = phases.within("regression", regression.read_all, *given)
    table = regression.table(job, suite, readings)
    if processes.is_writer():
        record_files.write_jsonl(folder / f"{regression_table.STEM}.jsonl", readings)
        tables.write_table(table, folder, regression_table.STEM)
    return table


def as_samples(answers: Iterable[Answer]) -> list[verdicts.JudgedReply]:
    """Return replies as judges read them."""
    return [
        verdicts.JudgedReply(a.prompt_id, a.system, a.prompt, a.reply, a.draw)
        for a in answers
    ]


def usable_judges(job: setup.Job) -> tuple[list[str], list[str]]:
    """Return the config's judges that fit the task, and a line on each thing missing.

    Raises:
      ValueError: a judge is unknown, or the one of another run's preference model is
        asked for without naming the run.
    """
    section = job.config.evaluate
    chosen, missing = judges.choose(section.judges, job.task)
    reads = {judges.JUDGES[name].reads for name in chosen}
    if judges.REPLIES in reads and not section.preference_judge:
        raise ValueError(
            "evaluate.judges has 'preference' but evaluate.preference_judge is empty; "
            "name the workdir of a preference model trained on other data"
        )
    for note in missing:
        logging.info("evaluate: %s", note)
    return chosen, missing


def cleanup(section: ConfigDict) -> Callable[[str], str]:
    """Return what `evaluate.cleanup` does to the text of a reply.

    Raises:
      ValueError: it has no such value.
    """
    if section.cleanup not in reply_cleanup.FINAL:
        raise ValueError(
            f"evaluate.cleanup={section.cleanup!r}; accepted: "
            f"{', '.join(reply_cleanup.FINAL)}"
        )
    return reply_cleanup.FINAL[section.cleanup]


def find_systems(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, System]:
    """Return the checkpoint folder of each system by name; None for the base model.

    The best of several replies has no weights of its own.
    """
    systems: dict[str, System] = {evaluation_table.BASE: None}
    for name in config.evaluate.systems:
        if name == evaluation_table.BASE:
            continue
        if name == best_of.NAME:
            one = best_of.BestOf(config.evaluate.best_of, pathlib.Path(workdir))
            systems[one.shown] = one
            continue
        if name not in stages.POLICIES:
            raise ValueError(
                f"evaluate.systems has {name!r}; accepted: base, "
                f"{', '.join((*stages.POLICIES, best_of.NAME))}; "
                "systems of other runs go to evaluate.checkpoints as 'name=folder'"
            )
        shown = config.name if name == "policy" else name
        systems[shown] = choosing.find_policy(workspace.stage_folder(workdir, name))
    for entry in config.evaluate.checkpoints:
        name, equals, folder = entry.partition("=")
        if not (name and equals and folder) or name in systems:
            raise ValueError(
                f"evaluate.checkpoints has {entry!r}; accepted: 'name=folder' with a "
                f"name that is not one of {', '.join(systems)}"
            )
        systems[name] = choosing.find_policy(folder)
    for name, folder in systems.items():
        if isinstance(folder, best_of.BestOf):
            folder = workspace.stage_folder(workdir, "preference") / "checkpoints"
        if folder is not None and checkpoint.latest_step(folder) is None:
            raise ValueError(
                f"system {name!r}: {folder} holds no checkpoint; run its stage first"
            )
    return systems


def check_lengths(job: setup.Job, prompts: list[records.Prompt]) -> None:
    """Refuse prompts that with a reply, or a judge's question, are over the context."""
    _, ids = encoding.encode_prompts(job.text_tokenizer, job.task, prompts)
    lengths.check(job, "evaluate", max(map(len, ids), default=0))


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What all systems are asked, and who answers: the engine, with some weights.

    Attributes:
      job: of the stage.
      sampler: the engine.
      base: parameters of the base model.
      texts: the prompts.
      requests: one a prompt; request n has the same key for every system.
    """

    job: setup.Job
    sampler: engine.Engine
    base: Params
    texts: Sequence[str]
    requests: Sequence[engine.Request]


def answer_all(
    job: setup.Job,
    systems: Mapping[str, System],
    base: Params,
    prompts: list[records.Prompt],
) -> list[Answer]:
    """Return the answers of all systems; request n has the same key in each.

    But for the best of several replies, which have keys of their own.
    """
    section = job.config.evaluate
    clean = cleanup(section)
    prompts = prompt_parts.repeat_prompts(prompts, section.samples_per_prompt)
    asked = _ask(job, base, prompts)
    measure = divergence.divergence_scorer(job, base)
    answers = []
    for name, system in systems.items():
        leaving.leave_if_asked("evaluate keeps nothing before its end")
        if isinstance(system, best_of.BestOf):
            drawn = _best_of(asked, system, clean)
        else:
            drawn = _own_replies(asked, name, system, measure)
        answers += [
            Answer(
                prompt_id=prompt.id,
                draw=prompt.draw,
                system=name,
                prompt=text,
                reply=clean(reply.text),
                finish=reply.finish,
                num_tokens=len(reply.tokens),
                **own,
            )
            for prompt, text, (reply, own) in zip(
                prompts, asked.texts, drawn, strict=True
            )
        ]
    return answers


def most_requests(section: ConfigDict, replies: int) -> int:
    """Return how many replies the engine is asked for at once, at most.

    Args:
      section: of the config, `evaluate`.
      replies: that each system gives.
    """
    return replies * (section.best_of if best_of.NAME in section.systems else 1)


def _ask(job: setup.Job, base: Params, prompts: list[records.Prompt]) -> _Asked:
    """Return the requests of held-out prompts, and an engine for them."""
    section = job.config.evaluate
    texts, ids = encoding.encode_prompts(job.text_tokenizer, job.task, prompts)
    sampler = generation.make_engine(
        job,
        max(map(len, ids)),
        section.reply_tokens,
        cache_tokens=job.config.engine.slots_per_device * CACHED_TOKENS,
        most=most_requests(section, len(prompts)),
    )
    requests = [
        engine.Request(
            id=prompt.key,
            tokens=tuple(tokens),
            seed=seeds.seed_words(job.config.seed, "evaluate", prompt.key),
            max_new_tokens=section.reply_tokens,
            temperature=float(section.temperature),
            top_p=float(section.top_p),
            stop_strings=job.task.stop_strings,
        )
        for prompt, tokens in zip(prompts, ids, strict=True)
    ]
    return _Asked(job, sampler, base, texts, requests)


# A reply, and the fields of its `Answer` that are not read off it.
_Drawn = Iterable[tuple[engine.Reply, dict[str, Any]]]


def _own_replies(
    asked: _Asked, name: str, folder: pathlib.Path | None, measure: Callable
) -> _Drawn:
    """Yield the replies of a policy, or of the base model, with their divergence."""
    job, params = asked.job, asked.base
    if folder is not None:
        with phases.phase("load"):
            params = trained_form.restore(job, folder, choosing.ITEM)
    generation.load(asked.sampler, params, job.mesh)
    replies = generation.generate(asked.sampler, asked.requests, f"evaluate {name}")
    away = np.zeros(len(replies))
    if folder is not None:
        prompts = [one.tokens for one in asked.requests]
        rows = [[*i, *r.tokens] for i, r in zip(prompts, replies, strict=True)]
        with phases.phase("read"):
            away = measure(params, rows, [len(i) for i in prompts])
    for reply, nats in zip(replies, away, strict=True):
        yield reply, {"divergence": float(nats)}


def _best_of(
    asked: _Asked, system: best_of.BestOf, clean: Callable[[str], str]
) -> _Drawn:
    """Yield the best of several replies of the base model, with what it cost."""
    given = (asked.sampler, asked.base, system, asked.texts, asked.requests)
    for one in best_of.draw(asked.job, *given, clean):
        yield (
            one.reply,
            {
                "divergence": best_of.kl_bound(system.num),
                "best_of": system.num,
                "tokens_drawn": one.tokens_drawn,
            },
        )


def _judge(
    job: setup.Job,
    samples: Sequence[verdicts.JudgedReply],
    chosen: Iterable[str],
    base: Params | None,
    api: asking.Asking,
) -> tuple[list[verdicts.Score], list[verdicts.Verdict]]:
    """Return single scores and pairwise verdicts of all judges.

    Args:
      job: of the stage.
      samples: the replies.
      chosen: names of the judges.
      base: of the model that judges by letters; None: it is read when it is asked.
      api: the judge behind an interface.
    """
    scores: list[verdicts.Score] = []
    judged: list[verdicts.Verdict] = []

    @functools.cache
    def by_letters() -> Callable:
        judge = job.of(roles.JUDGE)
        return letters.letter_scorer(judge, judge.load_base() if base is None else base)

    means = judges.Means(
        questions=judges.questions(job.task, job.config.evaluate.questions),
        score_letters=lambda texts: by_letters()(texts),
        score_replies=lambda pairs: rewards.preference_judge(
            job.of(roles.PREFERENCE), job.config.evaluate.preference_judge
        )(pairs),
        ask=api.ask,
        both_orders=job.config.evaluate.both_orders,
    )
    for name in chosen:
        new, compared = judges.JUDGES[name].judge(samples, means)
        scores += new
        judged += compared
    return scores, judged


def _preference_note(workdir: str | pathlib.Path) -> dict[str, Any] | None:
    """Return the summary of the run's preference model, if it has one."""
    if not (workspace.stage_folder(workdir, "preference") / done_mark.DONE).exists():
        return None
    return workspace.summary(workdir, "preference")
