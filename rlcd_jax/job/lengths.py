"""How many positions the texts of each stage need, against those of the model.

Beyond its positions a model of this family writes and reads nonsense without a word,
so every length that a config allows is looked at before anything is made. So is which
prompts leave no room for a reply in the lengths of a training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rlcd_jax import stages
from rlcd_jax.job import roles, setup
from rlcd_jax.judging import judges
from rlcd_jax.pairs import (
    few_shots,
    grid,
    scoring_prompt,
    shortening,
    training_texts,
)
from rlcd_jax.text import encoding

# (whose model reads it; what, in the names of fields; tokens)
Needs = list[tuple[setup.Job, str, int]]
SHORTEST = "."  # a reply: there is none with fewer tokens


def check(
    job: setup.Job, stage: str, longest_prompt: int = 0, shots: str | None = None
) -> None:
    """Refuse a stage whose longest texts have more tokens than the model reads.

    Args:
      job: of the stage, with its first role's model.
      stage: its name.
      longest_prompt: of the prompts to evaluate, in tokens; other stages leave out
        prompts over a field of the config.
      shots: text of the solved examples that pairs are scored with; None: what is
        known of it without human pairs.

    Raises:
      ValueError: with the fields that add up to too much.
    """
    if stages.STAGES[stage].supervised:
        rule = job.config[stage].too_long
        shortening.check_rule(f"{stage}.too_long", rule)
    for reader, what, tokens in _needs(job, stage, longest_prompt, shots):
        refuse_over(reader, tokens, what, "lower one of them")


def refuse_over(job: setup.Job, tokens: int, what: str, advice: str) -> None:
    """Refuse a text with more tokens than the model has positions.

    Args:
      job: of the stage, with the model's numbers.
      tokens: of the text.
      what: the text, in words or in names of fields.
      advice: what to change.
    """
    most = job.cfg.max_positions
    if tokens > most:
        raise ValueError(
            f"{what}: {tokens} tokens, and the model reads {most} at most "
            f"(max_position_embeddings); {advice}, or take a model that reads more"
        )


def mark_tokens(job: setup.Job) -> int:
    """Return the tokens that stand around the words of a reply, at most."""
    turn = job.chat_turn
    mark = turn.opening + turn.end if turn else job.task.human_marker
    return len(job.text_tokenizer.encode(mark, bos=False))


def text_tokens(job: setup.Job, stage: str) -> int:
    """Return the most tokens of prompt, reply and mark in a supervised stage's rows."""
    return job.config[stage].lengths[-1] - len(closing_ids(job, stage))


def closing_ids(job: setup.Job, stage: str) -> list[int]:
    """Return what a stage's rows have after the mark of a reply.

    The chat format's mark ends the turn; after that of a dialogue a policy learns to
    end the text.
    """
    ends = stages.STAGES[stage].policy and job.task.format == "dialogue"
    return [job.text_tokenizer.eos_id] if ends else []


def prompts_with_room(
    job: setup.Job, stage: str, prompts: Sequence[str], reply_tokens: int = 1
) -> Mapping[str, int]:
    """Return what becomes of prompts in a supervised stage, whatever is replied.

    Args:
      job: of the run.
      stage: one that is trained on texts.
      prompts: texts without affix, up to where the reply begins.
      reply_tokens: of each reply, its mark not among them; at least those of the
        shortest reply that there is.

    Returns:
      `length_counts.counts`: prompts that leave no room for such a reply are dropped,
      or they lose turns, by the stage's `too_long`.
    """
    reply = training_texts.reply_text(SHORTEST, job.task, job.chat_turn)
    bare = training_texts.bare_reply(SHORTEST, job.task, job.chat_turn)
    more = reply_tokens - len(job.text_tokenizer.encode(bare, bos=False))
    fitted = shortening.fit(
        job.text_tokenizer,
        [[(prompt, reply)] for prompt in prompts],
        max_tokens=text_tokens(job, stage) - max(more, 0),
        rule=job.config[stage].too_long,
        task=job.task,
    )
    return shortening.count(fitted)


def _needs(
    job: setup.Job, stage: str, longest_prompt: int, shots: str | None = None
) -> Needs:
    """Return the longest texts of a stage; [] for one that reads no texts of tokens."""
    config, task = job.config, job.task
    if stages.STAGES[stage].supervised:
        longest = config[stage].lengths[-1]
        return [(job, f"{stage}.lengths[-1]={longest}", longest)]
    # Who is asked, and who reads replies with their mark.
    asks, marks = roles.JUDGE, roles.PREFERENCE
    if stage == "simulate":
        name, section, asks = "pairs", config.pairs, roles.SCORER
        asked = _instructions(job) if grid.asks(section) else ()
        marked = False
        if shots is None and asked:
            shots = few_shots.known_of(section, task)
    elif stage == "policy":
        name, section = "policy", config.policy
        asked, marked = (), True
    elif stage == "evaluate":
        name, section = "evaluate", config.evaluate
        chosen, _ = judges.choose(section.judges, task)
        reads = {judges.JUDGES[judge].reads for judge in chosen}
        questions = judges.questions(task, section.questions)
        asked = tuple(questions.values()) if judges.LETTERS in reads else ()
        marked = marks in roles.asked(config, stage)
    else:
        return []
    prompt, what = longest_prompt, f"the longest prompt of {longest_prompt}"
    if stage != "evaluate":
        prompt = section.prompt_tokens
        what = f"{name}.prompt_tokens={prompt}"
    reply = section.reply_tokens
    both = f"{what} + {name}.reply_tokens={reply}"
    needs = [(job, both, prompt + reply)]
    if marked:
        reader = job.of(marks)
        needs *= not job.is_model_of(marks)  # else the same with a mark
        mark, share = mark_tokens(reader), tokens_for_one(job, reader)
        texts = math.ceil(share * (prompt + reply))
        said = f"{both} + a mark of {mark}{_about(share, marks)}"
        needs.append((reader, said, texts + mark))
    if asked:
        reader, votes = job.of(asks), stage == "simulate" and section.votes > 0
        share = tokens_for_one(job, reader)
        frame = _frame_tokens(reader, asked, shots or "", words=votes)
        size = frame + math.ceil(share * (prompt + 2 * reply))
        what = f"a question of {frame} + {what} + 2 * {name}.reply_tokens={reply}"
        what += _about(share, asks)
        if votes:
            what += f" + pairs.vote_tokens={section.vote_tokens}"
            size += section.vote_tokens
        needs.append((reader, what, size))
    return needs


def tokens_for_one(job: setup.Job, reader: setup.Job) -> float:
    """Return into how many tokens of a reader one of a job's is encoded, about.

    It is measured on the task's own words; 1 where both have one tokenizer.
    """
    if reader.text_tokenizer.is_like(job.text_tokenizer):
        return 1.0
    task = job.task
    asked = [*task.scoring_instructions, *task.judge_questions.values()]
    words = scoring_prompt.scoring_prompt("", "", "", " ".join(asked), "")
    theirs, own = (len(one.text_tokenizer.encode(words)) for one in (reader, job))
    return theirs / own


def _about(share: float, role: str) -> str:
    """Return what a length in other tokens is, in words; "" where they are the same."""
    return "" if share == 1 else f", of which each is about {share:.2g} of the {role}'s"


def question_tokens(reader: setup.Job, shots: str) -> int:
    """Return the tokens of the longest question about a pair of a run.

    Args:
      reader: the job with the scorer.
      shots: text of its solved examples.
    """
    section = reader.config.pairs
    words = section.votes > 0
    frame = _frame_tokens(reader, _instructions(reader), shots, words=words)
    share = tokens_for_one(reader.of(roles.GENERATOR), reader)
    return frame + math.ceil(share * (section.prompt_tokens + 2 * section.reply_tokens))


def _instructions(job: setup.Job) -> Sequence[str]:
    """Return the questions of which some are asked about a pair."""
    several = job.config.pairs.instructions > 1
    return job.task.all_instructions if several else job.task.scoring_instructions


def _frame_tokens(
    job: setup.Job, asked: Sequence[str], shots: str, *, words: bool
) -> int:
    """Return the tokens of a question about two replies, without them, at most.

    A lead-in is shown with each reply: once more than in the prompt.
    """
    led = job.task.lead_in.strip()
    opening, before = job.task.scoring_opening, shots and shots + scoring_prompt.BLOCK
    last = scoring_prompt.REASON if words else scoring_prompt.ANSWER
    texts = [
        before + scoring_prompt.scoring_prompt("", "", led, one, opening, last)
        for one in asked
    ]
    return max(map(len, encoding.encode_texts(job.text_tokenizer, texts)))
