"""What others make of what we write: transformers 4 and 5, TRL, AlpacaFarm.

Each test runs where the other package is (see tests/others), and is skipped elsewhere.
"""

import family_models
import jax
import numpy as np
import others
import pytest
import transformers

from rlcd_jax import records
from rlcd_jax.datasets import comparisons
from rlcd_jax.models import heads
from rlcd_jax.weights import exchange, read_again, resolve, scalar

NAMES = ("llama2", "llama3_chat", "smollm2_gguf")


def source_of(name, folder, role="policy"):
    """Return a family's tiny model as what is to be written."""
    model = resolve.resolve_model(family_models.write(name, folder), folder)
    params = model.load_params()
    if role != "policy":
        params = heads.scalar_from_trunk(model.cfg, params, jax.random.key(1))
        params = jax.tree.map(np.asarray, params)
    return read_again.Source(params, model.cfg, model.load_tokenizer(), role, name)


def export(source, folder):
    exchange.write(source, exchange.Target(folder, "float32", 1e9, drop_bias=True))
    return str(folder)


@pytest.mark.parametrize("name", NAMES)
def test_transformers_5_gives_the_ids_of_a_written_folder(name, tmp_path):
    source = source_of(name, tmp_path / "source")
    folder = export(source, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    own = source.text_tokenizer
    for text in read_again.TEXTS:
        assert theirs(text)["input_ids"] == own.encode(text)
    assert theirs.chat_template == own.chat_template
    assert theirs.eos_token_id == own.eos_id
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.pad_token_id == own.pad_id
    assert config.eos_token_id == list(own.eos_ids)


@pytest.mark.parametrize("name", NAMES)
def test_each_transformers_gives_the_logits_and_the_greedy_text(name, tmp_path):
    source = source_of(name, tmp_path / "source")
    question = {
        "folder": export(source, tmp_path / "out"),
        "texts": read_again.TEXTS,
        "loader": "AutoModelForCausalLM",
        "count": 8,
    }
    own = source.text_tokenizer
    for told in others.ask("torch", "transformers_reads.py", question):
        assert told["class"] == "LlamaForCausalLM"
        assert told["ids"] == [own.encode(text) for text in read_again.TEXTS]
        assert told["ends"] == list(own.eos_ids)
        turns = (records.Turn("human", "Hi"), records.Turn("assistant", "Yes"))
        if own.chat_template:
            assert told["chat"] == own.chat(turns)
        for ids, logits, greedy in zip(
            told["ids"], told["logits"], told["greedy"], strict=True
        ):
            count = len(ids)
            found = read_again.outputs(source.params, source, greedy)
            np.testing.assert_allclose(logits, found[:count], atol=1e-3)
            # Each token that it went on with is our most likely one there.
            assert found[count - 1 : -1].argmax(-1).tolist() == greedy[count:]


@pytest.mark.parametrize(
    ("name", "role", "bias"),
    [("llama2", scalar.PREFERENCE, 0.0), ("smollm2", scalar.VALUE, 0.25)],
)
def test_each_transformers_gives_the_scores_and_values(name, role, bias, tmp_path):
    source = source_of(name, tmp_path / "source", role)
    source.params["head"]["bias"] = np.float32(bias)
    own = source.text_tokenizer
    # Of many lengths, and one that ends with the token that ends a turn.
    texts = ["a", *read_again.TEXTS, f"Human: Hi {own.end_of_turn}"]
    question = {
        "folder": export(source, tmp_path / "out"),
        "texts": texts,
        "loader": "AutoModelForSequenceClassification",
    }
    wanted = [read_again.outputs(source.params, source, own.encode(t)) for t in texts]
    for told in others.ask("torch", "transformers_reads.py", question):
        assert told["class"] == "LlamaForSequenceClassification"
        # All at once, so each score is read before the padding; the bias is beside.
        scores = np.array(told["scores"]) + told["bias"]
        np.testing.assert_allclose(scores, [row[-1] for row in wanted], atol=1e-4)
        for values, row in zip(told["values"], wanted, strict=True):
            values = np.array(values) + told["bias"]
            np.testing.assert_allclose(values, row, atol=1e-4)


PROMPT = "Human: How are you?\n\nAssistant: Well.\n\nHuman: Why?\n\nAssistant:"


def pairs_of(count=6):
    return [
        records.HumanPair(
            f"f/{n}", f"p{n}", PROMPT, f"The sun {n}.", f"Dunno {n}.", float(n % 2)
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("conversational", [False, True])
def test_trl_trains_on_exported_pairs(conversational, ending, tmp_path):
    policy = source_of("smollm2", tmp_path / "source")
    scores = source_of("smollm2", tmp_path / "again", scalar.PREFERENCE)
    path, rows = tmp_path / f"pairs.{ending}", pairs_of()
    comparisons.write(f"trl:{path}", rows, conversational=conversational)
    question = {
        "path": str(path),
        "folder": str(tmp_path),
        "policy": export(policy, tmp_path / "policy"),
        "preference": export(scores, tmp_path / "preference"),
    }
    own = policy.text_tokenizer
    for told in others.ask("trl", "trl_reads.py", question):
        assert told["conversational"] is conversational and told["unpaired"] == 12
        assert len(told["rows"]) == len(told["reward"]) == len(told["dpo"]) == 6
        assert np.isfinite(told["losses"]).all()
        for pair, reward, dpo in zip(rows, told["reward"], told["dpo"], strict=True):
            better = pair.reply_2 if pair.prob_2 > 0.5 else pair.reply_1
            whole = own.decode(reward["chosen_ids"])
            assert whole.rstrip().endswith(
                f"Well.\n\nHuman: Why?\n\nAssistant: {better}"
                if not conversational
                else better
            )
            assert dpo["prompt_ids"] + dpo["chosen_ids"] == reward["chosen_ids"]
            assert better in own.decode(dpo["chosen_ids"])
        # What TRL was given comes back as the same pairs.
    found = comparisons.read(f"trl:{path}", seed=0)
    again = {(row.reply_1, row.reply_2)[row.prob_2 > 0.5] for row in found.rows}
    assert again == {f"The sun {n}." if n % 2 == 0 else f"Dunno {n}." for n in range(6)}


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_alpaca_farm_prepares_exported_pairs(ending, tmp_path):
    source = source_of("llama2", tmp_path / "source")
    path, rows = tmp_path / f"pairs.{ending}", pairs_of()
    comparisons.write(f"alpaca_farm:{path}", rows)
    question = {"path": str(path), "tokenizer": export(source, tmp_path / "out")}
    for told in others.ask("alpaca_farm", "alpaca_farm_reads.py", question):
        assert told["choice"] == [int(row.prob_2) for row in rows]
        for pair, ids in zip(rows, told["ids"], strict=True):
            for reply, one in zip((pair.reply_1, pair.reply_2), ids, strict=True):
                wanted = source.text_tokenizer.encode(f"{PROMPT} {reply}")
                assert one[: len(wanted)] == wanted and len({*one[len(wanted) :]}) == 1
    found = comparisons.read(f"alpaca_farm:{path}", seed=0)
    assert [row.prob_2 for row in found.rows] == [row.prob_2 for row in rows]
