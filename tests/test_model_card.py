"""Model cards: method, data, licence, and the texts that negative prompts made."""

import huggingface_hub
import pytest

from rlcd_jax.text import byte_tokenizer
from rlcd_jax.weights import licence, model_card

TOKENIZER = byte_tokenizer.make(300)
CONFIG = {
    "name": "rlcd",
    "task": "cheerful",
    "task_format": "",
    "prompts": {"source": "package"},
    "pairs": {"sampling": "contrast", "labels": ["construction"]},
    "preference": {"data": "pairs", "human_share": 0.2},
}


def about(stage="policy", licence="llama2", **changes):
    return model_card.About("hf:me/base", licence, stage, 7, {**CONFIG, **changes})


def test_a_policys_card_says_how_it_was_made_and_of_what(tmp_path):
    text = model_card.markdown(about(), "policy", TOKENIZER)
    (tmp_path / "README.md").write_text(text)
    head = huggingface_hub.metadata_load(tmp_path / "README.md")
    assert head["license"] == "llama2" and head["base_model"] == "me/base"
    assert head["pipeline_tag"] == "text-generation" and head["tags"] == ["rlcd"]
    words = " ".join(text.split())
    for said in (
        "# base, rlcd policy for cheerful",
        "by PPO against a preference model",
        "step 7",
        "contrast prompts",
        "labels by construction",
        "Human pairs of hh-rlhf among them: 0.2 of all.",
        "## Texts made by negative prompts Half of the replies",
        "they can be offensive or unsafe",
        "the policy itself was not",
        "is under `llama2`",
        "AutoModelForCausalLM",
        "Human: How are you?",
    ):
        assert said in words, said
    assert licence.of_folder(tmp_path) == "llama2"


@pytest.mark.parametrize(
    ("stage", "role", "said"),
    [
        ("preference", "preference", "trained on them, as the worse side of each pair"),
        ("value", "value", "model.score(hidden)[0, :, 0] + model.config.score_bias"),
        ("distill", "policy", "trained on the other half alone"),
        ("direct", "policy", "without a preference model"),
    ],
)
def test_each_stage_has_words_of_its_own(stage, role, said):
    text = model_card.markdown(about(stage), role, TOKENIZER)
    assert said in " ".join(text.split())
    if stage == "preference":  # the text is scored with the mark that ends it
        assert "Fine, thanks!" in text and "Human:'" in text


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("hf:me/base", 'from_pretrained("me/base", num_labels=1)'),
        ("smollm2-135m", "import --model smollm2-135m --out BASE` writes"),
        ("random:tiny", "random numbers that no hub has"),
    ],
)
def test_the_card_of_adapters_says_where_their_base_is(base, said):
    one = model_card.About(base, "", "value", 7, CONFIG)
    text = model_card.markdown(one, "value", TOKENIZER, adapters=True)
    assert said in text and "library_name: peft" in text
    assert 'PeftModel.from_pretrained(base, "THIS_FOLDER")' in text
    assert 'origin.json"))["score_bias"]' in text


@pytest.mark.parametrize(("rule", "said"), [("gae", "PPO"), ("grpo", "GRPO")])
def test_a_policys_card_names_the_learner(rule, said):
    text = model_card.markdown(about(policy={"advantages": rule}), "policy", TOKENIZER)
    assert f"by {said} against a preference model" in " ".join(text.split())


def test_graded_replies_have_negative_ones_too():
    graded = about(pairs={"sampling": "graded", "labels": ["construction"]})
    text = " ".join(model_card.markdown(graded, "policy", TOKENIZER).split())
    assert "asked for more and less of the wanted attribute" in text
    assert "## Texts made by negative prompts" in text


def test_what_was_not_so_is_not_said():
    same = {"sampling": "same", "labels": ["scoring"]}
    for one in (
        about(pairs=same),
        about(preference={"data": "trl:theirs.jsonl"}),
        model_card.About("hf:me/base", "", "", None, {}),
    ):
        text = model_card.markdown(one, "policy", TOKENIZER)
        assert "negative prompts" not in text
    assert "no number was trained" in text and "do not say its licence" in text
    told = model_card.markdown(about(preference={"data": "trl:t.jsonl"}), "policy",
                               TOKENIZER)  # fmt: skip
    assert "those of `trl:t.jsonl`; none were drawn" in told
    random = model_card.About("random:tiny", "", "policy", 1, {})
    assert "began as random numbers" in model_card.markdown(random, "policy", TOKENIZER)


def test_a_gguf_file_says_it_in_its_fields():
    fields = model_card.gguf_fields(about())
    assert fields["general.license"] == "llama2"
    assert "Half of the replies" in fields["general.description"]
    assert model_card.gguf_fields(model_card.UNKNOWN) == {
        "general.type": "model",
        "general.name": "a model",
    }


def test_a_card_that_cannot_be_read_says_no_licence(tmp_path):
    assert licence.of_folder(tmp_path) == ""
    for text in ("no head", "---\nlicense: [\n---\n", "---\nlicense: 3\n---\n"):
        (tmp_path / "README.md").write_text(text)
        assert licence.of_folder(tmp_path) == ""
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert licence.of_folder(tmp_path) == ""
