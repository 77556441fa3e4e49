"""Every loader under damaged files: read as other code reads them, or refused in words.

The modules `fuzz_*` name the loaders: a good file, how it is damaged, and an oracle that
says what a content is to give. Each input has its bounds of memory and time.
RLCD_JAX_FUZZ multiplies the inputs; pytest -rP prints how many there were.
"""

import json
import os

import bounds
import fuzz_checkpoints
import fuzz_flags
import fuzz_models
import fuzz_records
import fuzz_rows
import fuzz_runs
import fuzz_workdir
import hypothesis
import pytest
import strictly

CASES: dict = {}
for module in (
    *(fuzz_records, fuzz_models, fuzz_runs, fuzz_checkpoints, fuzz_workdir, fuzz_rows),
    fuzz_flags,
):
    CASES |= module.CASES
EXAMPLES = 45 * int(os.environ.get("RLCD_JAX_FUZZ", "1"))
LONGEST = 6000  # characters of a message
MEGABYTES, SECONDS = 150, 10.0  # for an input, of at most 0.2 MB
OURS = ("builtins", "rlcd_jax.schema", "rlcd_jax.checkpoint")  # modules of errors

settings = hypothesis.settings(
    derandomize=True,
    database=None,
    deadline=None,  # what hangs is ended by its bounds
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


def same(found, wanted):
    """Say whether two values are the same, types included."""
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_file_is_read_rightly_or_refused(name, tmp_path):
    case = CASES[name](tmp_path)
    counts = {"read": 0, "refused": 0}
    examples = max(3, round(EXAMPLES * case.share))
    if case.path.exists():
        case.read()  # what is made once only is no memory of the damage

    @hypothesis.settings(settings, max_examples=examples)
    @hypothesis.given(content=case.damaged)
    def check(content):
        case.path.write_bytes(content)
        try:
            wanted, why = case.oracle(content), None
        except strictly.Refuse as error:
            wanted, why = None, error
        try:
            with bounds.bounded(megabytes=MEGABYTES, seconds=SECONDS):
                found = case.read()
        except ValueError as error:
            said = str(error)
            assert (case.said or case.path.name) in said and len(said) < LONGEST, said
            assert type(error).__module__ in OURS, repr(error)
            assert not case.exact or why is not None, f"refused, and right: {said}"
            counts["refused"] += 1
            return
        assert why is None, f"silent: {why}"
        assert same(found, wanted), (found, wanted)
        counts["read"] += 1

    check()
    print(f"{name}: {counts['read']} read, {counts['refused']} refused")
    assert counts["refused"] > examples / 10 or not case.harms  # the damage is damage
