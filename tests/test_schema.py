"""schema: what comes from files is checked against its record."""

import dataclasses
from typing import Literal

import made_pair
import pytest

from rlcd_jax import records, schema, tasks
from rlcd_jax.judging import verdicts
from rlcd_jax.pairs import reply_cleanup


@dataclasses.dataclass(frozen=True)
class Shoe:
    size: int = schema.between(30, 50)
    colour: str = schema.filled(default="black")

    def __post_init__(self):
        schema.validate(self, exact=False)


@dataclasses.dataclass(frozen=True)
class Person:
    name: str = schema.filled()
    shoes: tuple[Shoe, ...] = schema.filled()
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    hand: Literal["left", "right"] = "right"

    def __post_init__(self):
        schema.validate(self, exact=False)


def read(**fields):
    return schema.from_dict(Person, fields, exact=False)


def test_from_dict_fills_defaults_and_nested_records():
    made = read(name="Ada", shoes=[{"size": 38}, {"size": 39, "colour": "red"}])
    assert made == Person("Ada", (Shoe(38), Shoe(39, "red")))


def test_from_dict_says_everything_that_is_wrong_with_its_path():
    with pytest.raises(schema.Problems) as caught:
        read(
            shoes=[{"size": 38}, {"size": 3, "color": "red"}, 7],
            notes={"a": 1},
            hand="both",
            nmae="Ada",
        )
    assert [name for name, _ in caught.value.found] == [
        "name",
        "nmae",
        "shoes[1].color",
        "shoes[1].size",
        "shoes[2]",
        "notes.a",
        "hand",
    ]
    text = str(caught.value)
    assert "missing field 'name'" in text
    assert "unknown field 'nmae' (did you mean 'name'?)" in text
    assert "unknown field 'shoes[1].color' (did you mean 'colour'?)" in text
    assert "field 'shoes[1].size' is 3; accepted: from 30 to 50" in text
    assert "field 'hand' is 'both'; accepted: one of 'left', 'right'" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": " "}, "field 'name' is ' '; accepted: text that is not blank"),
        ({"shoes": []}, r"field 'shoes' is \[\]; accepted: one entry or more"),
        ({"shoes": [{"size": 38, "colour": ""}]}, r"'shoes\[0\].colour' is ''"),
        ({"name": {"{x}": 1}}, r"field 'name' is {'{x}': 1}; accepted: text"),
        ({"{0}": 1}, "unknown field '{0}'"),
    ],
)
def test_from_dict_names_blank_and_odd_values(fields, message):
    with pytest.raises(ValueError, match=message):
        read(**{"name": "Ada", "shoes": [{"size": 38}], **fields})


def test_shown_cuts_what_is_long_or_deep():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert schema.shown(deep) == "a list nested too deeply"
    assert len(schema.shown("x" * 999)) == schema.LONGEST_SHOWN
    while deep:  # CPython frees nested lists one by one
        deep = deep.pop()


def test_to_dict_of_a_mapping_is_a_copy():
    row = {"a": 1}
    assert schema.to_dict(row) == row and schema.to_dict(row) is not row


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\u200b", "\ufeff", "\0\0", "\u00a0\u2028", "\u2060 \u200d"]
)
def test_a_text_of_which_nothing_is_seen_is_blank(text):
    assert schema.is_blank(text) and not schema.is_blank(f"{text}.{text}")
    for field in ("reply_1", "reply_2"):
        with pytest.raises(ValueError, match=f"field '{field}' is empty"):
            made_pair.make_pair(**{field: text})
    with pytest.raises(ValueError, match="text that is not blank"):
        records.Prompt(text, (records.Turn("human", "Hello"),))
    assert verdicts.is_empty(verdicts.JudgedReply("p", "s", "q", text))
    rules = tasks.load_task("cheerful").cleanup
    assert reply_cleanup.clean_corrected(text, "eos", rules).text is None
