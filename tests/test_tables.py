"""tables: aligned, complete, each cell with its n."""

import json
import math

import numpy as np
import pytest

from rlcd_jax.statistics import estimates, tables


def table(num=200):
    rate = estimates.Estimate(0.71, 0.643, 0.769, 0.95, num)
    return tables.Table(
        caption="RLCD against others",
        row_header="Comparison",
        columns=(
            tables.Column("Win rate", digits=1, percent=True),
            tables.Column("Mean"),
            tables.Column("Judge"),
            tables.Column("Flips"),
        ),
        rows=(
            ("rlcd | rlaif", (rate, 1.23456, "lexicon", 3)),
            (
                "rlcd | rescore",
                (estimates.Missing("no\nreplies"), math.nan, "x", np.int64(4)),
            ),
        ),
        notes=("Seed 0.",),
    )


def test_markdown_is_aligned_and_complete():
    text = tables.markdown(table())
    assert text == (
        "**RLCD against others**\n\n"
        "| Comparison      |            Win rate |                      Mean |   Judge | Flips |\n"
        "| --------------- | ------------------: | ------------------------: | ------: | ----: |\n"
        "| rlcd \\| rlaif   |   71.0 [64.3, 76.9] |                      1.23 | lexicon |     3 |\n"
        "| rlcd \\| rescore | missing: no replies | missing: the value is nan |       x |     4 |\n\n"
        "- Brackets: 95 % intervals.\n- n = 200 in every cell.\n- Seed 0.\n"
    )


def test_markdown_gives_each_cell_its_n_when_they_differ():
    one, two = table(200), table(150)
    both = tables.Table("c", "Comparison", one.columns, one.rows + two.rows)
    text = tables.markdown(both)
    assert "[64.3, 76.9] n=200" in text and "n=150" in text and "every cell" not in text


def test_write_table_leaves_markdown_and_json(tmp_path):
    tables.write_table(table(), tmp_path / "evaluate")
    assert (tmp_path / "evaluate/table.md").read_text() == tables.markdown(table())
    data = json.loads((tmp_path / "evaluate/table.json").read_text())
    first, second = (row["cells"] for row in data["rows"])
    assert first["Win rate"] == {
        "value": 0.71, "low": 0.643, "high": 0.769, "level": 0.95, "num": 200, "p_value": None
    }  # fmt: skip
    assert second["Win rate"] == {"missing": "no\nreplies"}
    assert second["Mean"] == {"missing": "the value is nan"} and second["Flips"] == 4


def test_table_refuses_a_row_of_another_width():
    with pytest.raises(ValueError, match="'r' .* 1 cells for 2 columns"):
        tables.Table("c", "h", (tables.Column("a"), tables.Column("b")), (("r", (1,)),))
