"""`--profile`: which steps are traced, what is left, and how it is summed up."""

import pytest
import runs

from rlcd_jax import pipeline
from rlcd_jax.job import profiled_operations, profiling

ASKED = ("simulate", "preference", "policy", "evaluate")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("policy", ("policy", 2, 3)),
        ("evaluate", ("evaluate", 40, 60)),
        ("preference:7", ("preference", 7, 7)),
        ("policy:4-9", ("policy", 4, 9)),
    ],
)
def test_steps_are_read(text, wanted):
    assert profiling.read(text, ASKED) == profiling.Wanted(*wanted)


def test_nothing_is_asked_for_by_itself():
    assert profiling.read("", ASKED) is None


@pytest.mark.parametrize(
    "text", ["distill", "policy:", "policy:0", "policy:3-2", "policy:a", "2-3", "all"]
)
def test_what_is_no_step_is_refused(text):
    with pytest.raises(ValueError, match=f"--profile={text}"):
        profiling.read(text, ASKED)


def event(operation, begun, ended, program="update"):
    return profiled_operations.Event(program, operation, begun * 1e9, ended * 1e9)


def test_operations_within_others_are_taken_from_them():
    spent = profiled_operations.add(
        [
            [event("while", 0, 10), event("dot", 1, 4), event("add", 4, 5)],
            [event("dot", 2, 4), event("sort", 5, 6, "decode")],
        ]
    )
    assert spent.seconds == {
        ("update", "while"): 6.0,
        ("update", "dot"): 5.0,
        ("update", "add"): 1.0,
        ("decode", "sort"): 1.0,
    }
    assert spent.counts["update", "dot"] == 2
    assert spent.programs() == [("update", 12.0), ("decode", 1.0)]
    assert "| dot | update | 2 | 5.0000 | 38.5 |" in spent.as_markdown()


def test_a_trace_without_operations_says_so():
    assert "no operation" in profiled_operations.add([[]]).as_markdown()


def test_a_run_leaves_traces_of_the_steps_asked_for(tmp_path, caplog):
    config = runs.tiny_config(evaluate__judges=("lexicon",))
    names = ("simulate", "preference")
    for text in ("simulate:1-2", "preference:2"):
        wanted = profiling.read(text, names)
        with runs.devices_by_mesh():
            pipeline.run_stages(
                config,
                str(tmp_path),
                names if wanted.stage == "preference" else names[:1],
                cache_dir=str(tmp_path / "cache"),
                preset=None,
                profile=wanted,
            )
        folder = tmp_path / profiling.FOLDER / wanted.stage
        assert list(folder.rglob("*.trace.json.gz"))
        text = (folder / profiling.FILE).read_text()
        assert f"| {'update' if wanted.stage == 'preference' else 'decode'}" in text
    with runs.devices_by_mesh():
        pipeline.run_stages(
            config,
            str(tmp_path),
            names,
            cache_dir=str(tmp_path / "cache"),
            preset=None,
            profile=wanted,
        )
    assert "preference came to none of the steps 2 to 2" in caplog.text
