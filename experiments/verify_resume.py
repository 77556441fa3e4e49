r"""Kill a run at random moments, let it go on, and compare all that it leaves.

  python -m experiments.verify_resume --workdir verified --kills 100 --seed 0 \
      --config configs/rlcd.py:size=smoke,model=random:tiny

The run is done once undisturbed; then again and again, each time stopped by SIGKILL, or
asked to leave by SIGTERM, in every stage and in every save, and started anew until it
ends. Arrays, pairs, samples, tables, rows of metrics, summaries and marks must be the
same, but for what clocks say. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import functools
import sys

from absl import flags, logging
from ml_collections import ConfigDict

from experiments import command, run


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of the command."""
    command.define_config(values)
    command.define_workdir(values)
    flags.DEFINE_integer(
        "kills", 100, "How often it is stopped, at least.", 1, flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "Of the moments.", flag_values=values)


def main() -> None:
    """Start the command."""

    def action(config: ConfigDict) -> None:
        from rlcd_jax.resuming import verify

        values = flags.FLAGS
        logging.set_verbosity(logging.WARNING)  # the children's words are in files
        verdict = verify.verify(
            config,
            values.workdir,
            run.run_all,
            kills=values.kills,
            seed=values.seed,
            say=functools.partial(print, flush=True),
        )
        print(verify.report(verdict))
        sys.exit(1 if verdict.differences else 0)

    command.start(action, define_flags, __doc__, run.describe_fields)


if __name__ == "__main__":
    main()
