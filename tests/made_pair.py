"""A pair that is right in every field, for tests that break one."""

from rlcd_jax import records


def make_pair(**changes) -> records.Pair:
    fields = dict(
        id="p0",
        task="t",
        prompt_id="p0",
        prompt="Human: hi\n\nAssistant:",
        reply_1="Hello.",
        reply_2="Go away.",
        prob_2=0.0,
        side_1="positive",
        side_2="negative",
        source_prompt_1="Human: hi\n\nAssistant (kind):",
        source_prompt_2="Human: hi\n\nAssistant (unkind):",
        raw_1=" Hello.\n\nHuman:",
        raw_2=" Go away.\n\nHuman:",
        tries_1=1,
        tries_2=2,
        finish_1="stop",
        finish_2="eos",
        num_tokens_1=4,
        num_tokens_2=5,
        affix_index=0,
        sampling="contrast",
        labels="construction",
        scoring=None,
        generator="tiny",
        seed=0,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        alpha=1.0,
    )
    return records.Pair(**{**fields, **changes})
