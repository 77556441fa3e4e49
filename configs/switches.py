"""The switches between the method as it should be, as the paper says, as released.

One row a switch: a field of a run's config with its values under the three presets,
why they differ, and where that can be read. `preset=` sets the fields; the page
`experiments/docs/released.md` shows the rows; `reproduce` with `table=quirks` turns
them one by one and measures what each does.

`paper` is there where the paper's text says something of its own; where it is silent,
it is as `corrected`. Every `corrected` value is the field's own in `configs.common`.

Sources: "RLCD" is github.com/facebookresearch/RLCD at fac0b8f, "patch" its
alpaca-farm-modifications.patch, "AlpacaFarm" github.com/tatsu-lab/alpaca_farm at
b68d7cf, which that patch is for, "HF" a default of transformers in the middle of 2023.
"""

from ml_collections import ConfigDict

PRESETS = ("corrected", "paper", "released")

SIMULATE = "RLCD scripts/simulate_preference_data.py"
PPO = "AlpacaFarm rl/ppo_trainer.py"

SWITCHES = {
    "prompts.hh_test_split": {
        "corrected": "test",
        "paper": "test[1000:2000]",
        "released": "test[1000:2000]",
        "why": "the second thousand lines are evaluated; all held out say more",
        "source": "Section 4; RLCD README",
    },
    "prompts.hh_agreement_split": {
        "corrected": "train[:5%]",
        "paper": "train[:2000]",
        "released": "train[:2000]",
        "why": "which human pairs the preference model is compared with",
        "source": "Table 5; patch, evaluate_reward_model_human_agreement.py",
    },
    "prompts.hh_agreement_apart": {
        "corrected": True,
        "released": False,
        "why": "pairs are simulated on the prompts of the human pairs too",
        "source": "patch, evaluate_reward_model_human_agreement.py",
    },
    "prompts.as_written": {
        "corrected": False,
        "released": True,
        "why": "affixes are put into headers by replacement: a last header without its "
        "blank line has none, and the mark of the search stays in the prompt",
        "source": f"{SIMULATE} create_prompts",
    },
    "pairs.top_k": {
        "corrected": 0,
        "released": 50,
        "why": "a default of the library that nobody set; rare words are never drawn",
        "source": f"{SIMULATE} generate_result; HF",
    },
    "pairs.prompt_tokens": {
        "corrected": 384,
        "released": 1280,
        "why": "there is no limit; 1,280 tokens and a question about two replies are "
        "what 2,048 positions hold",
        "source": f"{SIMULATE} generate_result",
    },
    "pairs.max_tries": {
        "corrected": 5,
        "paper": 6,
        "released": 5,
        "why": "five retries in the text are five attempts in the code",
        "source": f"Section 4; {SIMULATE} --max-retries",
    },
    "pairs.forbidden": {
        "corrected": "anywhere",
        "released": "word_initial",
        "why": "a string is forbidden only as the tokens that it has as a text of its "
        "own, so inside a word it can be drawn",
        "source": f"{SIMULATE} bad_words_ids",
    },
    "pairs.cleanup": {
        "corrected": "corrected",
        "released": "released",
        "why": "'Human' in prose ends a reply, one that ended by itself is rejected, "
        "of two assistant turns the second is kept, headers with an affix stay in it",
        "source": f"{SIMULATE} process_filter_result",
    },
    "pairs.letters": {
        "corrected": "continuation",
        "released": "bare",
        "why": "scores are read at the letters as words of their own, which do not "
        "follow a parenthesis",
        "source": f"{SIMULATE} A_token, B_token",
    },
    "pairs.both_orders": {
        "corrected": True,
        "paper": False,
        "released": False,
        "why": "a liking for one letter does not cancel; a hard tie goes to the first",
        "source": f"Section 4; {SIMULATE} analyze_results",
    },
    "pairs.csv_missing": {
        "corrected": False,
        "released": True,
        "why": "a reply such as 'None' or 'NA' is a missing value in a CSV, and empty",
        "source": "patch, data_preprocessor.py (fillna)",
    },
    "preference.first_step_idle": {
        "corrected": False,
        "released": True,
        "why": "the warm-up starts at zero: the first batch changes nothing",
        "source": "HF get_cosine_schedule_with_warmup",
    },
    "preference.too_long": {
        "corrected": "drop",
        "released": "cut_right",
        "why": "long texts lose their end, the mark and all or part of the reply",
        "source": "AlpacaFarm data_preprocessor.py (truncation at 512)",
    },
    "distill.first_step_idle": {
        "corrected": False,
        "released": True,
        "why": "as preference.first_step_idle",
        "source": "HF get_cosine_schedule_with_warmup",
    },
    "distill.too_long": {
        "corrected": "drop",
        "released": "cut_right",
        "why": "as preference.too_long",
        "source": "AlpacaFarm data_preprocessor.py (truncation at 512)",
    },
    "distill.border": {
        "corrected": "text",
        "released": "tokens",
        "why": "prompt and space are counted as a text of their own, where the space "
        "is a token; so the first token of a reply is not trained",
        "source": "AlpacaFarm data_preprocessor.py preprocess_for_sft",
    },
    "distill.per_sequence": {
        "corrected": False,
        "released": True,
        "why": "one reply a device and step: every reply weighs alike, not every token",
        "source": "AlpacaFarm scripts/sft.sh",
    },
    "policy.past_mark": {
        "corrected": False,
        "released": True,
        "why": "a policy writes on after the mark; what it writes there is not scored, "
        "and is trained with the whole reward",
        "source": f"patch, {PPO} rollout",
    },
    "policy.finished": {
        "corrected": "ended",
        "released": "mark",
        "why": "a reply that ends by the end token without the mark is punished as cut",
        "source": f"patch, {PPO} rollout",
    },
    "policy.first_step_idle": {
        "corrected": False,
        "released": True,
        "why": "the warm-up starts at zero: the first PPO step changes nothing",
        "source": "HF get_linear_schedule_with_warmup",
    },
    "policy.early_checkpoints": {
        "corrected": False,
        "released": True,
        "why": "checkpoint n is saved before step n, which therefore nobody evaluates",
        "source": "AlpacaFarm rl/rl_trainer.py train",
    },
    "policy.lone_rows": {
        "corrected": 0,
        "released": 16,
        "why": "gradients are cleared at every micro-batch of 16 replies, so an update "
        "is by its last one, divided by their number; AlpacaFarm issue 57",
        "source": "AlpacaFarm rl/rl_trainer.py step",
    },
    "policy.joint_clip": {
        "corrected": False,
        "released": True,
        "why": "one norm over policy and value model: a large value gradient shrinks "
        "the policy's",
        "source": "AlpacaFarm rl/rl_trainer.py; HF max_grad_norm",
    },
    "policy.kl_estimator": {
        "corrected": "k1",
        "released": "k1_clamped",
        "why": "max(k1, 0) overstates, and pays for no token the reference likes",
        "source": f"{PPO} _shape_reward",
    },
    "policy.whiten_rewards": {
        "corrected": False,
        "released": True,
        "why": "the mean is put back on every token: returns drift over positions",
        "source": f"{PPO} _estimate_advantage",
    },
    "policy.statistics": {
        "corrected": "masked",
        "released": "padded",
        "why": "padding counts in means and deviations, and the critic is fitted to it",
        "source": f"{PPO} _estimate_advantage, compute_loss",
    },
    "policy.whiten_rows": {
        "corrected": 0,
        "released": 64,
        "why": "each of eight processes whitens the 64 replies that it has",
        "source": f"{PPO} rollout",
    },
    "policy.normalise_reward": {
        "corrected": True,
        "released": False,
        "why": "rewards have no zero: -1 for a cut reply may be a bonus",
        "source": f"patch, {PPO} rollout",
    },
    "evaluate.cleanup": {
        "corrected": "corrected",
        "released": "released",
        "why": "names of roles are cut anywhere in a reply, 'superuser:' too",
        "source": "RLCD scripts/postprocess.py",
    },
    "evaluate.both_orders": {
        "corrected": True,
        "paper": False,
        "released": False,
        "why": "each pair is judged once, in an order by a coin",
        "source": "Appendix F.2; RLCD scripts/gpt4_compare.py",
    },
}


def position(name: str, preset: str):
    """Return the value of a switch under a preset."""
    row = SWITCHES[name]
    return row.get(preset, row["corrected"])


def set_preset(config: ConfigDict, preset: str) -> None:
    """Set every switch of a config as a preset has it."""
    for name in SWITCHES:
        section, _, field = name.partition(".")
        config[section][field] = position(name, preset)
