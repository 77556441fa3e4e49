"""What the pages tell a newcomer to write works as it stands there."""

import json
import pathlib
import re
import shutil

import made_inputs
import pytest
import runs
from judged import samples

import rlcd_jax
from configs import quickstart
from experiments import __main__ as program
from rlcd_jax import report, tasks
from rlcd_jax.checks import refusals
from rlcd_jax.judging import judges
from rlcd_jax.models import presets

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "experiments" / "docs"
NOTEBOOK = ROOT / "experiments" / "notebooks" / "quickstart.ipynb"
PAGES = [ROOT / "README.md", *ROOT.glob(".github/*.md")]
PAGES += sorted((ROOT / "experiments").rglob("*.md"))


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page):
    for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text("utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page):
    text = page.read_text("utf-8")
    found = re.findall(r"`((?:rlcd_jax|configs|tests|experiments)/[\w/]+\.\w+)", text)
    missing = {one for one in found if not (ROOT / one).exists()}
    assert not missing


def test_the_judge_of_the_page_judges(monkeypatch):
    function, row = blocks("own_judge.md")
    names = vars(judges).copy()
    exec(function, names)
    made = eval(row, names)
    assert made.misfit(tasks.load_task("cheerful")) == ""
    both = samples(2, ("loud",), "Yes!!") + samples(2, ("calm",), "Yes.")
    scores, verdicts = made.judge(both, judges.Means({}, None, None, None))
    assert {one.winner for one in verdicts} == {"1"} and len(verdicts) == 2
    assert {one.score for one in scores} == {0.0, 2.0}
    monkeypatch.setitem(judges.JUDGES, made.name, made)
    chosen, _ = judges.choose((made.name,), tasks.load_task("cheerful"))
    assert chosen == [made.name]


def test_the_method_of_the_page_is_a_config(tmp_path):
    names = {}
    exec(made_inputs.write_method(tmp_path).read_text(), names)
    config = names["get_config"]("task=cheerful,model=random:tiny,size=smoke")
    refusals.check_config(config)
    assert config.is_locked and config.name == "firm"


def test_the_shape_of_the_page_is_one():
    (row,) = blocks("own_model.md")
    made = eval("{" + row + "}", vars(presets).copy())
    assert made["small"].embed_dim == 512 and made["small"].num_kv_heads == 4


# --- the notebook ---------------------------------------------------------------------


def cells() -> list[str]:
    made = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in made), "outputs are not kept"
    return ["".join(cell["source"]) for cell in made if cell["cell_type"] == "code"]


def test_the_notebook_begins_as_the_quickstart_does():
    names = {}
    exec(cells()[0], names)
    assert names["config"].to_dict() == quickstart.get_config().to_dict()


def test_the_notebook_goes_through_every_stage(
    finished_run, tmp_path, capsys, monkeypatch
):
    """On a run whose stages are done: each cell skips its own, and shows what it left."""
    monkeypatch.setattr(report, "write_report", lambda *_, **__: "not again")
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    names = {"config": runs.tiny_config(), "workdir": str(workdir)}
    for source in cells()[1:]:
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    asked = re.findall(r'run_stages\(\["(\w+)"\]\)', "".join(cells()))
    assert asked == list(quickstart.get_config().stages)
    shown = capsys.readouterr().out
    assert "pairs; the first one:" in shown and "| rlcd" in shown


# --- what is made elsewhere -----------------------------------------------------------


@pytest.mark.parametrize("extra", ["cuda", "tpu"])
def test_an_image_is_made_of_what_is_there(extra):
    name = {"cuda": "gpu", "tpu": "tpu"}[extra]
    text = (ROOT / "experiments" / "docker" / f"{name}.Dockerfile").read_text()
    copied = [
        w for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for w in line.split()
    ]
    assert all((ROOT / one).exists() for one in copied)
    assert {"setup.py", "LICENSE", "rlcd_jax", "configs", "experiments"} <= set(copied)
    assert f"pip install --no-cache-dir '.[{extra}]'" in text
    assert f'    "{extra}": [' in (ROOT / "setup.py").read_text()
    assert f'ENTRYPOINT ["{program.PROGRAM}"]' in text


def test_versions_agree():
    setup = (ROOT / "setup.py").read_text()
    cited = (DOCS / "CITATION.cff").read_text()
    changed = (DOCS / "changelog.md").read_text()
    assert f'version="{rlcd_jax.__version__}"' in setup
    assert f"\nversion: {rlcd_jax.__version__}\n" in cited
    assert f"\n## {rlcd_jax.__version__}" in changed
