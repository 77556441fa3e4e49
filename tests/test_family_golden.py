"""Torch's golden files of the families, the NumPy oracle, and our tokenizer's ids."""

import family_models
import family_oracle
import family_run
import numpy as np
import numpy_llama
import pytest

from rlcd_jax.text import encoding
from rlcd_jax.text import tokenizer as tk


@pytest.fixture
def oracle(request, tmp_path):
    golden = np.load(family_run.GOLDEN / f"{request.param}.npz")
    return family_oracle.Oracle(request.param, tmp_path, golden)


@pytest.mark.parametrize("oracle", family_models.FAMILIES, indirect=True)
def test_numpy_and_transformers_repeat_torch(oracle):
    for index in range(len(family_models.DIALOGUES)):
        prompt = str(oracle.golden[f"prompt_{index}"])
        assert oracle.encode(prompt) == oracle.golden[f"prompt_ids_{index}"].tolist()
        for which, reply in enumerate(family_models.REPLIES[index]):
            ids, num = oracle.fixed(index, which)
            key = f"{index}_{which}"
            assert oracle.read_by_preference(prompt, reply) == ids
            # What is marked spells the reply and its mark, and nothing else.
            mark = family_models.HUMAN if oracle.dialogue else oracle.end
            marked = oracle.text_of(ids[-num:], special=True)
            if "<s> " in marked:  # SentencePiece puts a space behind a special token
                marked = marked.replace("<s>  ", "<s> ")
            assert marked.strip() == reply + mark
            found = numpy_llama.of_reply(oracle.table(None, ids), ids, num)
            np.testing.assert_allclose(
                found, oracle.golden[f"logprobs_{key}"], **family_oracle.NEAR
            )
            state = numpy_llama.states(oracle.weights, oracle.config, ids)[-1]
            np.testing.assert_allclose(
                state, oracle.golden[f"state_{key}"], **family_oracle.NEAR
            )


@pytest.mark.parametrize("oracle", family_models.FAMILIES, indirect=True)
def test_marked_ids_are_those_of_torchs_environment(oracle, tmp_path):
    _, _, path = family_models.write(oracle.name, tmp_path / "own").partition(":")
    one, texts, right = tk.load_tokenizer(path), [], []
    for index, replies in enumerate(family_models.REPLIES):
        prompt = str(oracle.golden[f"prompt_{index}"])
        assert one.encode(prompt) == oracle.golden[f"prompt_ids_{index}"].tolist()
        for which, reply in enumerate(replies):
            texts.append((prompt, oracle.reply_text(reply)))
            ids, num = oracle.fixed(index, which)
            right.append((list(ids), [False] * (len(ids) - num) + [True] * num))
    assert encoding.join_replies(one, texts) == right


@pytest.mark.parametrize("oracle", family_models.ENDS, indirect=True)
def test_chats_are_as_the_template_writes_them(oracle):
    for index, replies in enumerate(family_models.REPLIES):
        for which in range(len(replies)):
            ids, _ = oracle.fixed(index, which)
            whole = oracle.golden[f"template_{index}_{which}"].tolist()
            if oracle.name == "llama2":  # a blank before the end is left out
                assert (list(ids[:-1]), ids[-1]) == (whole[:-2], whole[-1])
            else:
                assert list(ids) == whole
