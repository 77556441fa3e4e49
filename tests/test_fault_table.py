"""Each row of the fault table happens, and its message is the one that is shown."""

import ast
import pathlib
import re

import faults
import faults_of_runs
import pytest

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "experiments" / "docs" / "faults.md"
FEWEST = 40


def rendered() -> str:
    """Return the tables of the page, as the rows are."""
    lines, rows = [], (*faults.FAULTS, *faults_of_runs.ROWS)
    for group in dict.fromkeys(row.group for row in rows):
        lines += [f"## {group}", "", "| fault | what you see |", "|---|---|"]
        lines += [
            f"| {row.fault} | {_shown(row.sees)} |"
            for row in rows
            if row.group == group
        ]
        lines.append("")
    return "\n".join(lines)


def _shown(sees: str) -> str:
    return sees if sees.startswith("nothing: ") else f"`{sees}`"


def test_the_page_shows_the_rows_that_are_tested():
    assert len(faults.FAULTS) >= FEWEST
    rows = (*faults.FAULTS, *faults_of_runs.ROWS)
    named = [(row.group, row.fault) for row in rows]
    assert len(set(named)) == len(named)
    assert PAGE.read_text("utf-8").endswith(rendered())


@pytest.mark.parametrize("row", faults_of_runs.ROWS, ids=lambda row: row.fault[:60])
def test_a_fault_of_a_run_has_its_test(row):
    file, _, function = row.test.partition("::")
    tree = ast.parse((HERE / f"{file}.py").read_text("utf-8"))
    assert function in [one.name for one in tree.body if hasattr(one, "name")]


@pytest.mark.parametrize("row", faults.FAULTS, ids=lambda row: row.fault[:60])
def test_a_fault_is_told_as_the_table_says(row, tmp_path):
    message = row.act(tmp_path)
    if row.sees.startswith("nothing: "):
        assert message == ""
        return
    assert "Traceback" not in message and len(message) < 3000
    pattern = ".*".join(map(re.escape, row.sees.split("…")))
    assert re.fullmatch(pattern, " ".join(message.split())), message
