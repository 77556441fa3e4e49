"""What a model card says: how a model was made, of what, and under whose licence.

A card is a README.md with the head that the hub reads, or the fields about a model's
origin in a GGUF file. It says what the run's config says, and names what nothing says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import huggingface_hub

from rlcd_jax import records, tasks
from rlcd_jax.pairs import training_texts
from rlcd_jax.text import dialogue_format, tokenizer
from rlcd_jax.weights import scalar

PAPER = "https://arxiv.org/abs/2307.12950"
FILE = "README.md"
SAMPLING = {
    "contrast": "two replies to each prompt, one asked for the wanted attribute and "
    "one for its opposite (contrast prompts)",
    "graded": "replies to each prompt, asked for more and less of the wanted attribute "
    "by a scale",
    "same": "two replies to each prompt, drawn in the same way",
}
LABELS = {
    "construction": "by construction: the reply that was asked for the attribute wins",
    "scoring": "by a language model's score of the two",
}
MADE = {
    "policy": "{by} against a preference model that learned from pairs of replies",
    "distill": "fine-tuning on the replies to the prompts that ask for the attribute "
    "(context distillation)",
    "direct": "learning from pairs of replies themselves, without a preference model "
    "(DPO, IPO or KTO)",
    "preference": "training on pairs of replies: the better one is to score higher",
    "value": "PPO, as the value model beside the policy",
}
BY = {"rloo": "RLOO", "grpo": "GRPO"}  # by policy.advantages, else PPO
NEGATIVE = """\
Half of the replies in the run's pairs were made by prompts that ask for the opposite of
the wanted attribute ({task}): for a task such as harmlessness they can be offensive or
unsafe. They lie in the run's `pairs/pairs.jsonl` and in no file here. {use}"""
USE = {
    "policy": "The preference model that scored this policy was trained on them; the "
    "policy itself was not.",
    "distill": "This model was trained on the other half alone.",
    "direct": "This model was trained on them, as the worse side of each pair.",
    "preference": "This model was trained on them, as the worse side of each pair.",
    "value": "This model began as the preference model, which was trained on them.",
}
OTHERS_VALUE = (
    "This model learned the rewards of a preference model that was trained on them."
)


LOADERS = {
    scalar.POLICY: "AutoModelForCausalLM",
    scalar.PREFERENCE: "AutoModelForSequenceClassification",
    scalar.VALUE: "AutoModelForSequenceClassification",
}
BIAS = scalar.BIAS_FIELD


@dataclasses.dataclass(frozen=True)
class About:
    """What is known of a model's origin.

    Attributes:
      base: the model it was made of, as `model=` names it.
      licence: of the base, by the hub's short name; "": its files do not say.
      stage: that made it, one of `MADE`; "": it was only brought into another form.
      step: of the stage; None: as it was.
      config: of the run, as the stage's config.json has it.
    """

    base: str
    licence: str
    stage: str
    step: int | None
    config: Mapping[str, Any]

    def said(self, *path: str) -> Any:
        """Return a field of the config, or None if it is not there."""
        found: Any = self.config
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    @property
    def generator(self) -> str:
        """The model that drew the pairs, as `model=` names it."""
        others = any(self.said("model", role) for role in ("policy", "preference"))
        shared = self.said("model", "spec") if others else None
        return self.said("model", "generator") or shared or self.base

    @property
    def has_negatives(self) -> bool:
        """Whether pairs of contrasting prompts are among what it was made of."""
        own = self.said("preference", "data") in (None, "pairs")
        mix = self.said("pairs", "mix")
        contrast = self.said("pairs", "sampling") in records.CONTRASTING
        if mix:
            contrast = any(not str(one).startswith("rlaif=") for one in mix)
        return bool(self.stage) and contrast and own


UNKNOWN = About("", "", "", None, {})


def markdown(
    about: About, role: str, one: tokenizer.Tokenizer, *, adapters: bool = False
) -> str:
    """Return the card of a Hugging Face folder.

    Args:
      about: of the model.
      role: "policy", "preference" or "value".
      one: the model's tokenizer, for the example.
      adapters: whether the folder holds these alone, for PEFT.
    """
    head = huggingface_hub.ModelCardData(
        license=about.licence or None,
        base_model=about.base.partition(":")[2] or about.base or None,
        library_name="peft" if adapters else "transformers",
        pipeline_tag="text-generation" if role == scalar.POLICY else None,
        tags=["rlcd"] if about.stage else None,
    )
    parts = [f"---\n{head.to_yaml()}\n---", f"# {_title(about, role)}", _made(about)]
    if about.stage:
        parts += ["## Data", _data(about)]
    if about.has_negatives:
        said = NEGATIVE.format(task=about.said("task"), use=_use_of_negatives(about))
        parts += ["## Texts made by negative prompts", said]
    parts += ["## Use", *_use(about, role, one, adapters)]
    parts += ["## Licence", _licence(about)]
    return "\n\n".join(part for part in parts if part) + "\n"


def gguf_fields(about: About) -> dict[str, str]:
    """Return the fields of a GGUF file that say where a model is from."""
    fields = {
        "general.type": "model",
        "general.name": _title(about, scalar.POLICY),
        "general.license": about.licence,
    }
    if about.stage:
        said = [_made(about), _data(about)]
        if about.has_negatives:
            use = _use_of_negatives(about)
            said.append(NEGATIVE.format(task=about.said("task"), use=use))
        fields["general.description"] = " ".join(" ".join(said).split())
        fields["general.url"] = PAPER
    return {name: value for name, value in fields.items() if value}


def _use_of_negatives(about: About) -> str:
    """Return what texts made by negative prompts had to do with a model."""
    own, others = (about.said("model", role) for role in ("policy", "preference"))
    if about.stage == scalar.VALUE and own != others:
        return OTHERS_VALUE
    return USE[about.stage]


def _title(about: About, role: str) -> str:
    base = about.base.rstrip("/").rpartition("/")[2].rpartition(":")[2] or "a model"
    if not about.stage:
        return base
    task = f" for {about.said('task')}" * bool(about.said("task"))
    what = "policy" if role == scalar.POLICY else f"{role} model"
    return f"{base}, {about.said('name') or 'RLCD'} {what}{task}"


def _made(about: About) -> str:
    if not about.stage:
        return (
            f"The weights of `{about.base}` in another form, written by rlcd_jax; "
            "no number was trained."
        )
    step = f", step {about.step}" * (about.step is not None)
    by = BY.get(about.said("policy", "advantages"), "PPO")
    return (
        f"Made of `{about.base}` by {MADE[about.stage].format(by=by)}{step}. Method: "
        f"RLCD and its baselines ([arXiv 2307.12950]({PAPER})), by rlcd_jax."
    )


def _data(about: About) -> str:
    """Return what the pairs are, and where prompts are from."""
    source = about.said("prompts", "source")
    shown = {"package": "those that rlcd_jax ships for the task", None: "not said"}
    lines = [f"Prompts: {shown.get(source, f'`{source}`')}."]
    lines.append(_pairs(about))
    share = about.said("preference", "human_share")
    if share:
        lines.append(f"Human pairs of hh-rlhf among them: {share:g} of all.")
    return "\n".join(lines)


def _pairs(about: About) -> str:
    data = about.said("preference", "data")
    if data not in (None, "pairs"):
        known = {"hh_rlhf": "the human pairs of hh-rlhf"}
        return f"Pairs: {known.get(data, f'those of `{data}`')}; none were drawn."
    if mix := about.said("pairs", "mix"):
        return (
            f"Pairs: a mixture by shares of the prompts, {', '.join(map(str, mix))}, "
            f"drawn from `{about.generator}`. No person labelled any."
        )
    sampling = SAMPLING.get(about.said("pairs", "sampling"), "not said")
    labels = [LABELS.get(one, str(one)) for one in about.said("pairs", "labels") or ()]
    told = f"; labels {' and '.join(labels)}" * bool(labels)
    return (
        f"Pairs: {sampling}, drawn from `{about.generator}`{told}. No person labelled "
        "any."
    )


def _use(
    about: About, role: str, one: tokenizer.Tokenizer, adapters: bool
) -> list[str]:
    """Return how the model is read with transformers, or with PEFT."""
    code = ["```python", *(_loading_adapters if adapters else _loading)(about, role)]
    text, words = _example(about, role, one)
    if text:
        code += [
            f"text = {text!a}",
            # A chat template writes the BOS itself.
            'inputs = tokenizer(text, return_tensors="pt", add_special_tokens='
            f"{not _has_bos(text, one)})",
            *_reading(role, adapters),
        ]
    told = [_base_folder(about)] if adapters else []
    return [*told, "\n".join([*code, "```"]), words]


def _loading(about: About, role: str) -> list[str]:
    return [
        f"from transformers import AutoTokenizer, {LOADERS[role]}",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
        f'model = {LOADERS[role]}.from_pretrained("THIS_FOLDER")',
    ]


def _loading_adapters(about: About, role: str) -> list[str]:
    base = about.base.removeprefix("hf:") if about.base.startswith("hf:") else "BASE"
    labels = ", num_labels=1" * (role != scalar.POLICY)
    return [
        *(["import json", ""] * (role != scalar.POLICY)),
        "from peft import PeftModel",
        f"from transformers import AutoTokenizer, {LOADERS[role]}",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{base}")',
        f'base = {LOADERS[role]}.from_pretrained("{base}"{labels})',
        'model = PeftModel.from_pretrained(base, "THIS_FOLDER")',
    ]


def _base_folder(about: About) -> str:
    """Return where the model is from on which adapters lie; "" where its name says."""
    if about.base.startswith("hf:"):
        return ""
    if about.base.startswith("random:"):
        return (
            f"The adapters lie on `{about.base}`, random numbers that no hub has; "
            "export without --adapters to have them merged."
        )
    return (
        "`BASE` is the folder that `python -m experiments.weights import --model "
        f"{about.base} --out BASE` writes."
    )


def _reading(role: str, adapters: bool) -> list[str]:
    """Return the lines that make text, a score, or values of `inputs`."""
    if role == scalar.POLICY:
        return ["model.generate(**inputs, max_new_tokens=128)"]
    if adapters:
        bias, inner = "bias", "model.get_base_model()"
        lines = [f'bias = json.load(open("THIS_FOLDER/origin.json"))["{BIAS}"]']
    else:
        bias, inner, lines = f"model.config.{BIAS}", "model", []
    lines.append(f"model(**inputs).logits[0, 0] + {bias}  # at the last token")
    if role == scalar.VALUE:
        lines += [
            f"hidden = {inner}.model(**inputs).last_hidden_state",
            f"{inner}.score(hidden)[0, :, 0] + {bias}  # at each token",
        ]
    return lines


def _has_bos(text: str, one: tokenizer.Tokenizer) -> bool:
    bos = one.bos_id
    return bos is not None and text.startswith(one.decode([bos], keep_special=True))


def _example(about: About, role: str, one: tokenizer.Tokenizer) -> tuple[str, str]:
    """Return a text as the model knows them, and what it is; "" if nothing says."""
    name = about.said("task")
    if not about.stage or not isinstance(name, str):
        return "", ""
    try:
        task = tasks.load_task(name)
        if about.said("task_format"):
            task = tasks.with_format(task, about.said("task_format"))
        prompt = records.Prompt("p", (records.Turn("human", "How are you?"),))
        text = dialogue_format.plain_prompt(prompt, task, one.chat)
        if role == scalar.POLICY:
            return text, "The text is a prompt as the policy was trained with."
        turn = None
        if task.format == "chat":
            turn = training_texts.ChatTurn(one.reply_opening, one.end_of_turn)
        text += training_texts.reply_text("Fine, thanks!", task, turn)
    except ValueError as error:
        return "", f"The form of its texts is not known here: {error}"
    what = "score" if role == scalar.PREFERENCE else "value"
    return text, (
        "The text is a prompt, the reply, and the mark that ends it, as in training; "
        f"the {what} is read at its last token. transformers' head has no bias, so the "
        "model's is added."
    )


def _licence(about: About) -> str:
    if not about.base or about.base.startswith("random:"):
        return "The weights began as random numbers: there is no base with a licence."
    if about.licence:
        return (
            f"The base, `{about.base}`, is under `{about.licence}`, as its files say; "
            "what was made of it is bound by that."
        )
    return (
        f"The files of the base, `{about.base}`, do not say its licence: ask who "
        "published it before you pass this on."
    )
