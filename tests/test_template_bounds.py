"""A foreign chat template neither hangs nor eats memory; honest ones write as before."""

import pathlib
import subprocess
import sys
import time

import bounds
import pytest
from transformers.utils import chat_template_utils

from rlcd_jax.text import chat_templates, rendering

HELLO = [{"role": "user", "content": "How are you, ü 漢 \u2028?"}]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
MANY = "{% for a in range(99999) %}"
LONG = {
    "loops in loops": MANY * 3 + "x" + "{% endfor %}" * 3,
    "silent loops": MANY * 4 + "{% endfor %}" * 4,
    "a power": "{{ 10 ** (10 ** 10) }}",
    "a macro of itself": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}"
    "{% endif %}{% endmacro %}{{ m(60) }}",
}
LARGE = {
    "times": "{{ 'x' * 10 ** 11 }}",
    "a width": "{{ 'x' | center(10 ** 10) }}",
    "a format": "{{ '%10000000000d' % 1 }}",
    "doubling": "{% set n = namespace(x='x') %}{% for a in range(60) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "blocks": "{% set n = namespace(x='x') %}{% for a in range(60) %}{% set y %}"
    "{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}{{ n.x }}",
    "lists": "{% set n = namespace(x=[1]) %}{% for a in range(60) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "much text": "{% for a in range(99999) %}" + "x" * 1000 + "{% endfor %}",
}


@pytest.mark.parametrize("name", [*LONG, *LARGE])
def test_a_template_that_takes_too_much_is_refused(name):
    template = (LONG | LARGE)[name]
    why = "has not ended after" if name in LONG else "takes more than|characters"
    with (
        bounds.bounded(megabytes=100, seconds=20.0),
        pytest.raises(
            ValueError, match=f"chat template fails on turns of user: .*{why}"
        ),
    ):
        chat_templates.render(template, HELLO, NAMES)
    begun = time.monotonic()  # and at once when it is asked again
    if name in LONG:
        with pytest.raises(ValueError, match="has not ended after"):
            chat_templates.closing_token(template, NAMES, tokens=["</s>"], ends=[])
        assert time.monotonic() - begun < 8


BARE = """
import sys
from rlcd_jax.text import rendering
real = rendering._imported
def lacking():
    if left:
        left.pop()
        raise AttributeError("module 'transformers' has no attribute 'models'")
    return real()
left = [1] * FAILS
rendering._imported = lacking
made = rendering._chat_template_utils()
(text,), _ = made.render_jinja_template([[{"role": "user", "content": "hi"}]],
    chat_template="{{ messages[0].content | upper }}")
print(text, "transformers.utils.hub" in sys.modules)
"""


@pytest.mark.parametrize(("fails", "hub"), [(0, False), (1, True)])
def test_the_renderer_imports_little_where_that_is_enough(fails, hub):
    script = BARE.replace("FAILS", str(fails))
    root = pathlib.Path(rendering.__file__).parents[2]
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True
    )
    assert made.stdout.split() == ["HI", str(hub)], made.stderr


def test_an_honest_template_writes_what_transformers_writes_of_it():
    template = (
        "{%- for message in messages %}\n  {{ bos_token + message.role | upper }}: "
        "{{ message.content | trim | tojson }}{% if loop.last %}{{ eos_token }}"
        "{% else %}{% continue %}{% endif %}\n{% endfor %}{% generation %}{{ 1 }}"
        "{% endgeneration %}{% if add_generation_prompt %}A:{% endif %}"
    )
    for ask in (False, True):
        wanted, _ = chat_template_utils.render_jinja_template(
            conversations=[HELLO * 2],
            chat_template=template,
            add_generation_prompt=ask,
            **NAMES,
        )
        assert chat_templates.render(template, HELLO * 2, NAMES, ask=ask) == wanted[0]


def test_a_process_that_was_ended_is_started_again():
    renderer = chat_templates.RENDERER
    assert renderer.render("a", messages=[], names={}, ask=False) == "a"
    renderer._process.terminate()
    renderer._process.wait()
    assert renderer.render("b", messages=[], names={}, ask=False) == "b"
