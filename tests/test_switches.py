"""Each switch of configs.switches in both positions, by hand.

Those of clean-up, labels, rewards, advantages, losses and rates are in test_released.
"""

import dataclasses
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pair_world
import pytest
import runs
import tiny_tokenizers
from dialogues import human
from judged import QUESTION, samples
from made_pair import make_pair

from configs import quickstart
from rlcd_jax import checkpoint, metrics, records, tasks
from rlcd_jax.datasets import hh_rlhf
from rlcd_jax.decode import automaton
from rlcd_jax.job import (
    generation,
    prompt_parts,
    setup,
    stage_optimizer,
)
from rlcd_jax.judging import api_judge, judges, verdicts
from rlcd_jax.pairs import draws, shortening, training_texts
from rlcd_jax.ppo import acting, encoded_prompts, learning, reply_rows, rollout
from rlcd_jax.preference import pair_ids
from rlcd_jax.scoring import letters
from rlcd_jax.stages import distill_context, train_preference
from rlcd_jax.text import encoding

TASK = tasks.load_task("harmless")
PROMPT = "Human: hi\n\nAssistant:"
SENTENCE_PIECE = tiny_tokenizers.TOKENIZERS["space in front"]


def load(**fields) -> setup.Job:
    with runs.devices_by_mesh():
        return setup.load_job(runs.tiny_config(**fields))


# --- prompts: as_written, hh_agreement_apart -----------------------------------------


@pytest.fixture(scope="module")
def hh(tmp_path_factory):
    """Return a folder of hh-rlhf: ten training lines, of which one has a loose header."""
    folder = tmp_path_factory.mktemp("hh")
    for split, count in (("train", 10), ("test", 4)):
        rows = []
        for number in range(count):
            gap = "\n" if (split, number) == ("train", 3) else "\n\n"
            said = f"\n\nHuman: {split} {number}{gap}Assistant:"
            rows.append({"chosen": f"{said} Yes.", "rejected": f"{said} No."})
        runs.write_hh(folder / "harmless-base" / f"{split}.jsonl.gz", rows)
    return folder


def test_prompts_as_written_keep_a_header_without_its_blank_line(hh, tmp_path):
    kept, made = (
        hh_rlhf.load_prompts(
            "harmless-base", "train", manual_dir=hh, data_dir=tmp_path, as_written=one
        )
        for one in (True, False)
    )
    assert kept[3].as_written == "Human: train 3\nAssistant:" and not made[3].as_written
    assert kept[3].turns == made[3].turns == (human("train 3"),)
    job = mock.Mock(chat=None, encode=lambda text: [0])
    numbers = pair_world.SETTINGS
    first, second = (
        draws.make_draw(prompt, "contrast", TASK, job, numbers).sources[0].text
        for prompt in (kept[3], made[3])
    )
    assert first == "Human: train 3\nAssistant:PROMPT_END"
    assert second.startswith("Human: train 3\n\nAssistant (")


def test_training_prompts_overlap_those_of_agreement_as_released(hh, tmp_path):
    def train(apart):
        config = runs.tiny_config(
            task="harmless",
            prompts__source="hh_rlhf",
            prompts__hh_dir=str(hh),
            prompts__data_dir=str(tmp_path),
            prompts__hh_agreement_split="train[:4]",
            prompts__hh_agreement_apart=apart,
        )
        return prompt_parts.load_part(config, TASK, "train")

    assert len(train(True).prompts) == 6 and train(True).shared == 4
    assert len(train(False).prompts) == 10 and train(False).shared == 0


# --- pairs: forbidden, letters, csv_missing -------------------------------------------


def test_forbidden_tokens_and_forbidden_strings():
    """Vocabulary: "`" inside a word, "▁`" at its start, "``" and a letter."""
    spelled = [b"`", b" `", b"``", b"a"]

    def bars(strings, ids):
        table = automaton.TokenTable(spelled, [], len(spelled), 16)
        table.add([strings])
        state, code = table.roots[strings], 0
        for token in ids:
            code = int(table.table()[state, token])
            state = code & automaton.STATE_MASK
        return bool(code & automaton.FORBIDDEN)

    anywhere = automaton.StringSet((), ("`",))
    initial = automaton.StringSet((), (), ((1,),))
    assert [bars(anywhere, [x]) for x in range(4)] == [True, True, True, False]
    assert [bars(initial, [x]) for x in range(4)] == [False, True, False, False]
    assert bars(initial, [3, 0, 1]) and not bars(initial, [1, 3])
    three = automaton.StringSet(("a`",), (), ((3, 3, 0), (2,)))
    assert bars(three, [3, 3, 0]) and bars(three, [3, 3, 3, 0])
    assert not bars(three, [3, 2, 3, 0]) and bars(three, [2])


def test_word_initial_requests_are_barred_the_tokens_of_a_text_of_its_own():
    job = load(pairs__forbidden="word_initial", prompts__limit=1)
    sampler = generation.make_engine(job, 16, 4)
    source = draws.SideSource("p", "positive", "positive", "x", (1,), None)
    for forbidding in ("anywhere", "word_initial"):
        numbers = dataclasses.replace(pair_world.SETTINGS, forbidden=forbidding)
        request = draws.make_request(source, 0, TASK, numbers)
        got = sampler._strings_of(request)
        own = [tuple(job.text_tokenizer.encode(x, bos=False)) for x in ("`", "```")]
        if forbidding == "anywhere":
            assert got == (("\n\nHuman:",), ("\\", "\\\\", "`", "```"), ())
        else:
            assert got[1] == () and set(own) <= set(got.forbidden_ids)
    assert sampler.prepare([request]).forbid


def test_letters_as_a_continuation_and_as_words_of_their_own(monkeypatch):
    """As LLaMA has "A" and "▁A", this vocabulary has "hello" and "▁hello"."""
    one = SENTENCE_PIECE()
    monkeypatch.setattr(letters, "LETTERS", ("hello",))
    spelled = {
        kind: one.token_bytes(*letters.letter_ids(one, "The answer is: (", kind))
        for kind in ("continuation", "bare")
    }
    assert spelled == {"continuation": b"hello", "bare": b" hello"}


@pytest.mark.parametrize("reply", ["None", "NA", "nan", "null", "N/A"])
def test_replies_that_a_csv_reader_takes_for_missing(reply):
    pair = make_pair(reply_1=reply)
    kept = training_texts.preference_texts(pair, TASK)
    lost = training_texts.preference_texts(pair, TASK, csv_missing=True)
    assert kept[0][1] == f" {reply}\n\nHuman:" and lost[0][1] == " \n\nHuman:"
    assert kept[1] == lost[1]  # an ordinary text
    assert training_texts.distill_example(pair, TASK)[1] == kept[0][1]
    assert training_texts.distill_example(pair, TASK, csv_missing=True) == lost[0]
    people = records.HumanPair("h", "h", PROMPT, reply, "x", 0.0)
    own = training_texts.preference_texts(people, TASK, csv_missing=True)
    assert own[0][1] == kept[0][1]  # read from JSON lines


# --- training: too_long, border, first_step_idle --------------------------------------


def test_long_texts_are_dropped_or_cut_on_the_right():
    one = tiny_tokenizers.TOKENIZERS["byte level"]()
    texts = [[(PROMPT, " yes\n\nHuman:"), (PROMPT, " no\n\nHuman:")]]
    whole = [one.encode(a + b) for a, b in texts[0]]
    room = len(whole[0]) - 2
    (cut,), (dropped,) = (
        shortening.fit(one, texts, max_tokens=room, rule=rule, task=TASK)
        for rule in ("cut_right", "drop")
    )
    assert not dropped.joined and shortening.count([dropped])["dropped"] == 1
    assert [ids for ids, _ in cut.joined] == [ids[:room] for ids in whole]
    assert cut.whole == (False, len(whole[1]) <= room)
    assert shortening.count([cut])["shortened"] == 1
    closed = cut.closed([99])
    assert closed[0][0][-1] != 99  # what is cut has no end
    (none,) = shortening.fit(
        one, texts, max_tokens=len(one.encode(PROMPT)), rule="cut_right", task=TASK
    )
    assert not none.joined  # no reply is left


def test_pairs_cut_to_the_same_text_are_left_out_and_counted():
    job = load(preference__too_long="cut_right", preference__lengths=(60,))
    rows = [
        make_pair(id="long", reply_1="a" * 50 + "x", reply_2="a" * 50 + "y"),
        make_pair(id="cut", reply_1="a" * 80, reply_2="b"),
    ]
    tokens = pair_ids.to_tokens(job, rows)
    assert [row.id for row in tokens.rows] == ["cut"]
    assert len(tokens.pairs[0].ids_1) == 60 > len(tokens.pairs[0].ids_2)
    assert (tokens.too_long["identical"], tokens.too_long["shortened"]) == (1, 1)


def test_a_reply_begins_by_its_text_or_by_the_tokens_of_the_prompt():
    """In the release the space alone is a token, so the reply's first is skipped."""
    one = SENTENCE_PIECE()
    reply = " hello\n\nHuman:"
    (by_text,), (by_tokens,) = (
        encoding.join_replies(one, [(PROMPT, reply)], border)
        for border in encoding.BORDERS
    )
    assert by_text[0] == by_tokens[0]
    count = len(one.encode(PROMPT + " "))
    assert by_tokens[1].index(True) == count
    assert by_text[1].index(True) == len(one.encode(PROMPT)) == count - 1
    assert one.token_bytes(by_text[0][count - 1]) == b" hello"


def test_the_first_update_is_idle_as_released():
    made = []
    with mock.patch.object(
        stage_optimizer, "make", lambda *a, **k: made.append(k["idle"]) or 1 / 0
    ):
        for stage, make in (
            ("distill", distill_context.make_trainer),
            ("preference", train_preference.make_trainer),
        ):
            for idle in (False, True):
                with pytest.raises(ZeroDivisionError):
                    make(load(**{f"{stage}__first_step_idle": idle}), 10)
    assert made == [False, True] * 2


# --- policy: past_mark, finished, lone_rows, early_checkpoints -------------------------


def test_replies_stop_at_the_mark_or_go_on_past_it():
    stops = {}
    for past in (False, True):
        job = load(policy__past_mark=past, task_format="dialogue")
        actor = acting.Actor.__new__(acting.Actor)
        actor.job, actor.section, actor.sampler = job, job.config.policy, mock.Mock()
        asked = []
        with mock.patch.multiple(
            generation,
            load=mock.Mock(),
            generate=lambda _, requests, what, to=asked: (
                to.extend(requests) or requests
            ),
        ):
            actor.generate(
                None, [encoded_prompts.EncodedPrompt("p", "x", (1,))], step=1
            )
        stops[past] = asked[0].stop_strings
        reply = mock.Mock(text="good\n\nHuman: more")
        assert actor.shown(reply) == "good"
    assert stops == {False: ("\n\nHuman:",), True: ()}


@pytest.mark.parametrize(
    ("raw", "finish", "ended", "mark"),
    [
        ("yes\n\nHuman:", "stop", True, True),
        ("yes\n\nHuman: and on", "length", True, True),
        ("yes", "eos", True, False),
        ("yes", "length", False, False),
    ],
)
def test_which_replies_are_whole(raw, finish, ended, mark):
    assert acting.is_whole(raw, finish, TASK, rollout.ENDED) == ended
    assert acting.is_whole(raw, finish, TASK, rollout.BY_MARK) == mark
    chat = tasks.with_format(TASK, "chat")  # its mark is the end token
    assert acting.is_whole("yes", finish, chat, rollout.BY_MARK) == (finish == "eos")


def test_an_update_is_by_its_last_rows_and_divided_by_the_parts_as_released():
    """Of 4 replies the last 2: half of their mean gradient, not that of all."""
    advantages = jnp.array([[1.0], [2.0], [3.0], [5.0]])
    ones = jnp.ones((4, 1))
    batch = {
        "logprobs": 0 * ones,
        "advantages": advantages,
        "response_mask": ones > 0,
        "values": 0 * ones,
        "returns": 0 * ones,
    }

    def gradient(rows, share):
        loss = learning.total_loss(
            lambda params, part: (
                params["policy"] + 0 * part["values"],
                part["values"],
            ),
            learning.LossTerms(
                clip=0.2,
                statistics="padded",
                per_sequence=False,
                value_clip=0.2,
                value_coef=0.1,
                kl="",
                kl_coef=0.0,
                share=share,
            ),
        )
        part = {name: array[rows] for name, array in batch.items()}
        return jax.grad(lambda w: loss({"policy": w}, part)[0])(0.0)

    assert gradient(slice(None), 1.0) == pytest.approx(-(1 + 2 + 3 + 5) / 4)
    assert gradient(slice(2, None), 0.5) == pytest.approx(-(3 + 5) / 2 / 2)


def test_minibatches_hold_the_last_rows_of_each_update():
    rows = {}
    for lone in (0, 2):
        job = load(policy__lone_rows=lone)
        section = job.config.policy
        count, width = section.rollouts, section.reply_tokens
        texts = [reply_rows.text(job, [1], [3])] * count
        number = np.arange(count, dtype=np.float32)[:, None] * np.ones(width)
        mask = np.arange(width) < np.ones((count, 1))
        frozen = rollout.Rollout(mask, *[number] * 6, scores=np.zeros(count))
        batches = list(learning.minibatches(frozen, texts, job, 1))
        assert len(batches) == section.epochs * count // section.update_batch
        rows[lone] = [sorted(b["values"][:, 0].astype(int)) for b in batches]
    whole = learning.rollout.minibatch_order(
        jax.random.key(job.config.seed),
        step=1,
        epoch=0,
        num_rows=count,
        minibatch_size=section.update_batch,
    )
    assert rows[0][0] == sorted(whole[0].tolist())
    assert rows[2][0] == sorted(whole[0].tolist()[-2:])
    assert all(len(own) == 2 for own in rows[2])


def test_checkpoints_lack_their_own_step_as_released():
    section = runs.tiny_config(policy__steps=40, policy__checkpoint_every=20).policy

    def saved():
        last = learning.last_step(section)
        return [n for n in range(1, last + 1) if learning.is_saved(section, n)]

    assert saved() == [20, 40]
    section.early_checkpoints = True
    assert saved() == [19, 39]


# --- evaluate: both_orders --------------------------------------------------------------


def test_judges_see_both_orders_or_one_by_a_coin():
    both = api_judge.questions(samples(20), QUESTION)
    one = api_judge.questions(samples(20), QUESTION, both_orders=False)
    assert len(both) == 40 and len(one) == 20
    first = [text == both[2 * n] for n, text in enumerate(one)]
    assert 4 < sum(first) < 16  # the coin
    assert all(text in both[2 * n : 2 * n + 2] for n, text in enumerate(one))

    def likes_a(texts):
        return [(1.0, 0.0)] * len(texts)

    fair, single = (
        judges.log_odds(samples(20), likes_a, question=QUESTION, both_orders=kind)
        for kind in (True, False)
    )
    assert {v.winner for v in fair} == {"tie"} and all(v.flips for v in fair)
    assert {v.winner for v in single} == {"1", "2"}
    assert not any(v.flips for v in single)
    assert [v.winner == "1" for v in single] == first


def test_one_answer_decides_in_its_order():
    one, two = samples(1)
    for swapped, winner in ((False, "1"), (True, "2")):
        verdict = api_judge.read_answers("j", one, two, [(swapped, "(A)")])
        assert verdict.winner == winner and verdict.flips == 0
    unread = api_judge.read_answers("j", one, two, [(True, "Hm.")])
    assert (unread.winner, unread.unparsed) == ("none", 1)
    assert isinstance(unread, verdicts.Verdict)


# --- a whole run ------------------------------------------------------------------------


def test_the_released_preset_goes_through_all_stages(tmp_path):
    """Every switch at once; the last of three PPO steps is in no checkpoint."""
    stages = ("simulate", "preference", "distill", "policy", "evaluate")
    config = quickstart.get_config(
        "task=cheerful,size=smoke,model=random:tiny,preset=released"
    )
    with config.unlocked():
        config.update_from_flattened_dict(
            {
                "stages": stages,
                "task_format": "dialogue",
                "mesh.data": 1,
                "model.dtype": "float32",
                "pairs.cleanup": "corrected",  # a random model never writes "Human"
                "policy.terminal_mode": "replace",
                "policy.lone_rows": 1,
                "evaluate.judges": ("lexicon", "log_odds"),
            }
        )
    with runs.devices_by_mesh():
        runs.run_checked(config, tmp_path / "run", stages)
    policy = tmp_path / "run" / "policy"
    assert checkpoint.whole_steps(policy / "checkpoints")[-1] == 2
    rows = metrics.read_metrics(tmp_path / "run", "policy")
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["rollout/score_mean"] == -1.0  # no reply has the mark
    notes = json.loads((tmp_path / "run/evaluate/table.json").read_text())["notes"]
    assert any("in one order of each pair" in note for note in notes)
