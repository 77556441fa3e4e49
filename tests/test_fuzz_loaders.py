"""Every loader under damaged files: read as other code reads them, or refused in words.

`fuzz_records`, `fuzz_models` and `fuzz_runs` name the loaders: a good file, how it is damaged, and
an oracle that says what a content is to give. RLCD_JAX_FUZZ multiplies the inputs.
"""

import datetime
import json
import os

import fuzz_models
import fuzz_records
import fuzz_runs
import hypothesis
import pytest
import strictly

CASES = fuzz_records.CASES | fuzz_models.CASES | fuzz_runs.CASES
EXAMPLES = 45 * int(os.environ.get("RLCD_JAX_FUZZ", "1"))
LONGEST = 6000  # characters of a message

PAGES = 9  # times as long as reading a file takes to make a page of it

settings = hypothesis.settings(
    derandomize=True,
    database=None,
    deadline=datetime.timedelta(seconds=10),  # none hangs
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
    is_page = name.startswith("report_")
    examples = EXAMPLES // PAGES if is_page else EXAMPLES

    @hypothesis.settings(settings, max_examples=examples)
    @hypothesis.given(content=case.damaged)
    def check(content):
        case.path.write_bytes(content)
        try:
            wanted, why = case.oracle(content), None
        except strictly.Refuse as error:
            wanted, why = None, error
        try:
            found = case.read()
        except ValueError as error:
            said = str(error)
            assert (case.said or case.path.name) in said and len(said) < LONGEST, said
            assert type(error).__module__ in ("builtins", "rlcd_jax.schema"), repr(
                error
            )
            assert not case.exact or why is not None, f"refused, and right: {said}"
            counts["refused"] += 1
            return
        assert why is None, f"silent: {why}"
        assert same(found, wanted), (found, wanted)
        counts["read"] += 1

    check()
    # The damage is damage; a report shows what it cannot read, and refuses nothing.
    assert counts["refused"] > examples / 10 or is_page
